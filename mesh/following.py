"""What of a DestinationRule no sidecar of ours does: it decides about connections, and reads no requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from mesh.documents import Path, Problem
from mesh.traffic import DestinationRule, TlsMode, TrafficPolicy, service_namespace

# What is done, as a tree of fields: what is not in it is not. None: with all that is below (docs/peers.md).
_Done = Mapping[str, "_Done | None"]
_OUTLIERS: Final[_Done] = dict.fromkeys(
    (
        "baseEjectionTime",
        "consecutive5xxErrors",
        "consecutiveErrors",
        "consecutiveGatewayErrors",
        "consecutiveLocalOriginFailures",
        "interval",
        "maxEjectionPercent",
        "minHealthPercent",
        "splitExternalLocalOriginErrors",
    )
)
_POLICY: Final[_Done] = {
    "connectionPool": {
        "tcp": {"connectTimeout": None, "maxConnections": None},
        "http": {"http1MaxPendingRequests": None},
    },
    "loadBalancer": {"simple": None},
    "outlierDetection": _OUTLIERS,
    "port": None,
    "tls": {"mode": None, "subjectAltNames": None},
}
_RULE: Final[_Done] = {"host": None, "exportTo": None, "workloadSelector": None, "trafficPolicy": _POLICY}
_PORTS: Final = "portLevelSettings"
_CHOOSING: Final = ("loadBalancer", "outlierDetection")
_FOREIGN: Final = (TlsMode.SIMPLE, TlsMode.MUTUAL)


def unfollowed(rule: DestinationRule) -> Iterator[Problem]:
    """What of `rule`, as it was written, a sidecar that dials its host does not do."""
    yield from _of_tls(rule)
    document = rule.metadata.document
    spec: Mapping[str, Any] = {} if document is None else document.value.get("spec") or {}
    if fields := dict.fromkeys(_undone(spec, _RULE)):
        yield rule.metadata.problem(("spec",), f"no sidecar of ours follows {', '.join(fields)}", "note")
    said = [name for name in _CHOOSING if any(_says(policy, name) for policy in _policies(rule.traffic_policy))]
    if said and service_namespace(rule.full_host):
        message = (
            f"{' and '.join(said)}: a sidecar chooses where a document of peers gives it endpoints or a host's name"
        )
        yield rule.metadata.problem(("spec",), f"{message}; behind a Service's own address kube-proxy does", "note")


def _of_tls(rule: DestinationRule) -> Iterator[Problem]:
    path: Path = ("spec", "trafficPolicy")
    for policy in _policies(rule.traffic_policy):
        if policy.tls is not None and policy.tls.mode in _FOREIGN:
            message = f"no sidecar of ours makes TLS {policy.tls.mode.value}: it dials as if nothing were said of TLS"
            where = (*path, "tls", "mode") if policy is rule.traffic_policy else (*path, _PORTS)
            yield rule.metadata.problem(where, message, "warning")


def _undone(value: Mapping[str, Any], done: _Done, prefix: str = "") -> Iterator[str]:
    """The fields of `value` that are not in `done`, by their names."""
    for name, its in value.items():
        if name == _PORTS:
            for each in its:
                yield from _undone(each, done, prefix)
        elif name not in done:
            yield f"{prefix}{name}"
        elif (below := done[name]) is not None and isinstance(its, Mapping):
            yield from _undone(its, below, "" if name == "trafficPolicy" else f"{prefix}{name}.")


def _policies(policy: TrafficPolicy) -> tuple[TrafficPolicy, ...]:
    return (policy, *policy.ports.values())


def _says(policy: TrafficPolicy, name: str) -> bool:
    part = policy.load_balancer if name == "loadBalancer" else policy.outlier_detection
    return part is not None
