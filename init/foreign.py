"""Interception of other meshes: how it is told, and why it cannot stand beside ours. Pure.

Two meshes in one pod would both rewrite the destination of a connection: the first one wins, and its sidecar would
then dial what the other one captures. So `qbitel init` refuses such a pod, and removes theirs when told to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from init.rules import OURS
from init.state import State

# What the names of their chains start with: istio-iptables (and its ambient mode), linkerd's proxy-init, kumactl.
FOREIGN_MESHES: Final = {"ISTIO_": "Istio", "PROXY_INIT_": "Linkerd", "KUMA_MESH_": "Kuma"}
EVERY_MESH: Final = (*OURS, *FOREIGN_MESHES)
# What the names of tables start with that nft itself made: with a sidecar in the pod, and in Istio's ambient mode.
FOREIGN_TABLES: Final = {"istio-proxy-": "Istio", "istio-ambient-": "Istio"}


@dataclass(frozen=True, slots=True)
class NativeTable:
    """A table of nft's, by its family (`inet`) and name; as text it is what nft calls it."""

    family: str
    name: str

    def __str__(self) -> str:
        return f"table {self.family} {self.name}"


def mesh_of_table(name: str) -> str:
    """Return whose table nft lists by this name; "" for nobody's that matters."""
    return next((mesh for prefix, mesh in FOREIGN_TABLES.items() if name.startswith(prefix)), "")


def foreign_meshes(states: Iterable[State], tables: Iterable[NativeTable] = ()) -> tuple[str, ...]:
    """Return the names of the other meshes that have chains, or rules that lead to some, in any of `states`.

    Those that have one of nft's `tables` are among them.
    """
    found = tuple(states)
    by_rules = (mesh for prefix, mesh in FOREIGN_MESHES.items() if any(state.holds_of((prefix,)) for state in found))
    return tuple(dict.fromkeys([*by_rules, *filter(None, (mesh_of_table(table.name) for table in tables))]))
