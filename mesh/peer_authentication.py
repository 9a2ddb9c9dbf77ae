"""PeerAuthentication: which mutual-TLS mode holds for one port of one workload, and who says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from mesh.documents import Path
from mesh.metadata import Metadata
from mesh.modes import MTLSMode
from mesh.reading import Report, fields, map_of, reader_of, text
from mesh.selectors import SELECTOR, Selector, Workload, read_selector

if TYPE_CHECKING:
    from mesh.resources import ResourceSet

# What holds where nobody says anything: Istio's default.
DEFAULT_MODE: Final = MTLSMode.PERMISSIVE
UNSET: Final = "UNSET"

Level = Literal["port", "workload", "namespace", "mesh", "default"]


@dataclass(frozen=True, slots=True)
class PeerAuthentication:
    """One resource. A mode that is None is UNSET: what is around it decides."""

    metadata: Metadata
    mode: MTLSMode | None
    port_modes: Mapping[int, MTLSMode | None]  # by the port of the workload, not of its Service
    selector: Selector

    def level(self, root_namespace: str) -> Level | None:
        """What it is about; None: nothing, for Istio ignores a selector in the root namespace."""
        in_root = self.metadata.namespace == root_namespace
        if self.selector.everything:
            return "mesh" if in_root else "namespace"
        return None if in_root else "workload"


@dataclass(frozen=True, slots=True)
class EffectiveMode:
    """What holds for a port, and why."""

    mode: MTLSMode
    decided_by: str  # for a person: "PeerAuthentication shop/web, port 8080"
    level: Level
    policy: PeerAuthentication | None  # None: the default holds
    ignored: tuple[PeerAuthentication, ...] = ()  # of a level where another is older: they say nothing


def effective_mode(
    resources: ResourceSet, workload: Workload, port: int, *, default: MTLSMode = DEFAULT_MODE
) -> EffectiveMode:
    """The mode that `workload` has for connections to its `port`.

    The narrower decides: port, workload, namespace, mesh, then `default`; UNSET leaves it to the wider. Where two of
    one level fit, the oldest is the only one that counts.
    """
    oldest, ignored = _oldest_by_level(resources, workload)
    narrow = oldest.get("workload")
    if narrow is not None and (mode := narrow.port_modes.get(port)) is not None:
        return EffectiveMode(mode, f"{narrow.metadata}, port {port}", "port", narrow, ignored)
    levels: tuple[Level, ...] = ("workload", "namespace", "mesh")
    for level in levels:
        policy = oldest.get(level)
        if policy is not None and policy.mode is not None:
            return EffectiveMode(policy.mode, str(policy.metadata), level, policy, ignored)
    return EffectiveMode(default, "the default: no PeerAuthentication sets a mode", "default", None, ignored)


def _oldest_by_level(
    resources: ResourceSet, workload: Workload
) -> tuple[dict[Level, PeerAuthentication], tuple[PeerAuthentication, ...]]:
    oldest: dict[Level, PeerAuthentication] = {}
    ignored: list[PeerAuthentication] = []
    for policy in sorted(resources.peer_authentications, key=lambda policy: policy.metadata.age):
        level = policy.level(resources.root_namespace)
        if level is None or not policy.selector.selects(workload, policy.metadata.namespace, resources.root_namespace):
            continue
        if level in oldest:
            ignored.append(policy)
        else:
            oldest[level] = policy
    return oldest, tuple(ignored)


def rivals(
    policies: Iterable[PeerAuthentication], root_namespace: str
) -> Iterable[tuple[PeerAuthentication, PeerAuthentication]]:
    """Pairs of policies about the same workloads: one that counts, and one that is younger and therefore does not."""
    seen: dict[tuple[str, tuple[tuple[str, str], ...]], PeerAuthentication] = {}
    for policy in sorted(policies, key=lambda policy: policy.metadata.age):
        if policy.level(root_namespace) is None:
            continue
        scope = (policy.metadata.namespace, tuple(sorted(policy.selector.match_labels.items())))
        first = seen.setdefault(scope, policy)
        if first is not policy:
            yield first, policy


# Reading

_MTLS: Final = fields({"mode": text(choices=(UNSET, *(mode.value for mode in MTLSMode)))})


def _port(value: str, path: Path, report: Report) -> None:
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and 1 <= int(value) <= 65535):
        report.error(path, f"{value!r:.40} is no port: 1 to 65535")


SPEC: Final = fields({"selector": SELECTOR, "mtls": _MTLS, "portLevelMtls": map_of(_MTLS, key=_port)})


@reader_of(SPEC)
def read_peer_authentication(metadata: Metadata, spec: Mapping[str, Any], report: Report) -> PeerAuthentication:
    """The resource that `spec` writes."""
    selector = read_selector(spec, report)
    ports = spec.get("portLevelMtls")
    if ports is not None and selector.everything:
        report.error(("spec", "portLevelMtls"), "needs a selector: ports are those of one workload")
    elif ports is not None and not ports:
        report.error(("spec", "portLevelMtls"), "must not be empty")
    modes = {int(port): _mode(mtls) for port, mtls in (ports or {}).items()}
    if len(modes) < len(ports or {}):
        report.error(("spec", "portLevelMtls"), "names a port twice")
    return PeerAuthentication(metadata, _mode(spec.get("mtls", {})), modes, selector)


def _mode(mtls: Mapping[str, Any]) -> MTLSMode | None:
    mode = mtls.get("mode", UNSET)
    return None if mode == UNSET else MTLSMode(mode)
