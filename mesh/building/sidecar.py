"""Sidecar: which hosts the sidecars of a namespace, or of some workloads, know of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mesh.building import checks
from mesh.building.metadata import NETWORKING, resource

OUTBOUND_MODES: Final = ("REGISTRY_ONLY", "ALLOW_ANY")


def sidecar(
    name: str,
    namespace: str,
    *,
    egress_hosts: Sequence[str] | None = None,
    outbound_mode: str | None = None,
    selector: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a Sidecar for the workloads that `selector` names, or else for the namespace (one such in each).

    `egress_hosts` are namespace/host: the namespace may be "." (this one) or "*", the host may begin with a wildcard,
    as in ./*, istio-system/* or */api.example.com. `outbound_mode` says what becomes of connections to anything else:
    REGISTRY_ONLY refuses them, ALLOW_ANY lets them pass.
    """
    spec: dict[str, Any] = {}
    checks.label_name("namespace", namespace)
    if selector is not None:
        spec["workloadSelector"] = {"labels": dict(sorted(checks.label_set("selector", selector, fewest=1).items()))}
    if egress_hosts is not None:
        spec["egress"] = [{"hosts": _egress("egress_hosts", egress_hosts, namespace)}]
    if outbound_mode is not None:
        spec["outboundTrafficPolicy"] = {"mode": checks.choice("outbound_mode", outbound_mode, OUTBOUND_MODES)}
    if not spec.keys() - {"workloadSelector"}:
        raise ValueError("egress_hosts, outbound_mode: neither is given, and a Sidecar that says nothing is refused")
    return resource(NETWORKING, "Sidecar", name, namespace, spec, labels=labels, annotations=annotations)


def _egress(argument: str, hosts: object, own_namespace: str) -> list[str]:
    found = checks.several(argument, hosts, _egress_host, fewest=1)
    # Istio warns where a wildcard makes another entry needless; it is a mistake more often than not.
    pairs = [entry.split("/", 1) for entry in found]
    wholes = {own_namespace if space == "." else space for space, host in pairs if host == "*"}
    for index, (space, host) in enumerate(pairs):
        name = own_namespace if space == "." else space
        if (host != "*" and name in wholes) or ("*" in wholes and (name, host) != ("*", "*")):
            raise ValueError(f"{argument}[{index}]: {found[index]!r} is covered by another entry; leave it out")
    return found


def _egress_host(argument: str, value: object) -> str:
    found = checks.text(argument, value)
    namespace, slash, host = found.partition("/")
    if not slash:
        raise checks.refused(argument, value, "namespace/host, as in ./backend.shop.svc.cluster.local or shop/*")
    if namespace not in {".", "*"}:
        checks.label_name(argument, namespace)
    checks.host(argument, host)
    return found
