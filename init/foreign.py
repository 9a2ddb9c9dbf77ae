"""Interception of other meshes: how it is told, and why it cannot stand beside ours. Pure.

Two meshes in one pod would both rewrite the destination of a connection: the first one wins, and its sidecar would
then dial what the other one captures. So `qbitel init` refuses such a pod, and removes theirs when told to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from init.rules import OURS
from init.state import State

# What the names of their chains start with: istio-iptables (and its ambient mode), linkerd's proxy-init, kumactl.
FOREIGN_MESHES: Final = {"ISTIO_": "Istio", "PROXY_INIT_": "Linkerd", "KUMA_MESH_": "Kuma"}
EVERY_MESH: Final = (*OURS, *FOREIGN_MESHES)


def foreign_meshes(states: Iterable[State]) -> tuple[str, ...]:
    """Return the names of the other meshes that have chains, or rules that lead to some, in any of `states`."""
    found = tuple(states)
    return tuple(mesh for prefix, mesh in FOREIGN_MESHES.items() if any(state.holds_of((prefix,)) for state in found))
