"""What would happen to a pod and why, in lines for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from injector import pods
from injector.annotations import read_annotations
from injector.inject import Injected
from injector.status import read_status


def explain(name: str, pod: Mapping[str, Any], outcome: Injected) -> list[str]:
    """Lines about one pod; `name` is that of its resource, `pod` what it was before."""
    verdict = "gets a sidecar" if outcome.decision.inject else "gets no sidecar"
    lines = [f"{name}: {verdict}: {outcome.decision.reason}"]
    if outcome.wishes is not None:
        lines += _added(outcome)
        asked, _ = read_annotations(pods.annotations_of(pod))
        lines += [f"  asked for by {one.key}: {one.value[:120]}" for one in asked.values()]
    return [*lines, *(f"  warning: {text}" for text in outcome.warnings)]


def refused(name: str, reason: str) -> list[str]:
    """Lines about a pod that would be refused."""
    return [f"{name}: is refused: {reason}"]


def _added(outcome: Injected) -> list[str]:
    status, wishes = read_status(outcome.pod), outcome.wishes
    if status is None or wishes is None:
        return []
    kind = "native sidecar" if wishes.native else "classic sidecar (first container)"
    lines = [f"  {kind} {pods.SIDECAR}, image {wishes.image}, mode {wishes.mode.value}, profile {wishes.profile}"]
    rules = f"captured: {_captured(outcome)}" if wishes.captured else "captured: nothing (interception-mode NONE)"
    lines.append(f"  {rules}")
    for what, names in (
        ("init containers", status.init_containers),
        ("containers", status.containers),
        ("volumes", status.volumes),
        ("annotations", status.annotations),
    ):
        if names:
            lines.append(f"  adds {what}: {', '.join(names)}")
    lines += [f"  the sidecar answers {path} for the application" for path in status.probes]
    lines += [f"  its own container {name} is merged over ours" for name in status.replaced]
    return lines


def _captured(outcome: Injected) -> str:
    assert outcome.wishes is not None  # noqa: S101  # the caller's
    rules = outcome.wishes.interception
    said = [f"inbound ports {rules.include_inbound_ports or 'none'}"]
    said.append(f"outbound networks {rules.include_outbound_cidrs or 'none'}")
    for field, what in (
        ("include_outbound_ports", "outbound ports anywhere"),
        ("exclude_inbound_ports", "not inbound ports"),
        ("exclude_outbound_ports", "not outbound ports"),
        ("exclude_outbound_cidrs", "not outbound networks"),
        ("exclude_interfaces", "not interfaces"),
        ("exclude_uids", "not users"),
    ):
        if value := getattr(rules, field):
            said.append(f"{what} {value}")
    return "; ".join(said)
