"""Sidecar and ServiceEntry: what a workload's sidecar reaches and takes, and hosts that no Service names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.documents import Path
from mesh.metadata import Metadata
from mesh.reading import PORT, TEXT, WORDS, Report, anything, both, fields, list_of, map_of, reader_of, shown, text
from mesh.selectors import LABELS, WORKLOAD_SELECTOR, Selector, read_selector
from mesh.shapes import ADDRESS, EXPORT_TO, HOST
from mesh.traffic import ConnectionPool
from mesh.traffic_reading import CONNECTION_POOL, connection_pool


@dataclass(frozen=True, slots=True)
class Port:
    """A port that is served; `target` is the endpoint's own where it differs."""

    number: int
    name: str = ""
    protocol: str = ""
    target: int | None = None


@dataclass(frozen=True, slots=True)
class Egress:
    """Hosts that may be reached, as `namespace/host`; of one port, or (None) of all that no other entry names."""

    hosts: tuple[str, ...]
    port: Port | None = None
    bind: str = ""


@dataclass(frozen=True, slots=True)
class Ingress:
    """A port that is taken in, and where it goes: `127.0.0.1:8080` or a socket of the pod."""

    port: Port
    default_endpoint: str = ""
    bind: str = ""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One resource. Without `egress` everything of the mesh is reached; without `ingress` every port is taken in."""

    metadata: Metadata
    selector: Selector
    egress: tuple[Egress, ...] = ()
    ingress: tuple[Ingress, ...] = ()
    outbound_mode: str | None = None  # REGISTRY_ONLY, ALLOW_ANY; None: the mesh's setting
    inbound_connection_pool: ConnectionPool | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a host is."""

    address: str = ""
    ports: tuple[tuple[str, int], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    service_account: str = ""
    weight: int | None = None


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One resource: hosts beside those of the cluster."""

    metadata: Metadata
    hosts: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    location: str = "MESH_EXTERNAL"
    resolution: str = "NONE"
    endpoints: tuple[Endpoint, ...] = ()
    selector: Selector | None = None
    subject_alt_names: tuple[str, ...] = ()
    export_to: tuple[str, ...] = ()


# Sidecar

_PORT: Final = fields({"number": PORT, "name": TEXT, "protocol": TEXT, "targetPort": PORT})
_CAPTURE: Final = text(choices=("DEFAULT", "IPTABLES", "NONE"))


def _egress_host(value: str, path: Path, report: Report) -> None:
    namespace, slash, host = value.partition("/")
    if not slash or not namespace:
        report.error(
            path, f"{shown(value)} is not written as namespace/host, as in ./* or shop/web.shop.svc.cluster.local"
        )
    else:
        HOST(host, path, report)


SIDECAR_SPEC: Final = fields(
    {
        "workloadSelector": WORKLOAD_SELECTOR,
        "egress": list_of(
            fields(
                {
                    "hosts": list_of(both(text(least=1), _egress_host), least=1),
                    "port": _PORT,
                    "bind": TEXT,
                    "captureMode": _CAPTURE,
                },
                required=("hosts",),
            )
        ),
        "ingress": list_of(
            fields(
                {
                    "port": _PORT,
                    "bind": TEXT,
                    "captureMode": _CAPTURE,
                    "defaultEndpoint": TEXT,
                    "connectionPool": CONNECTION_POOL,
                    "tls": anything,
                },
                required=("port",),
            )
        ),
        "outboundTrafficPolicy": fields(
            {
                "mode": text(choices=("REGISTRY_ONLY", "ALLOW_ANY")),
                "egressProxy": fields(
                    {"host": HOST, "subset": TEXT, "port": fields({"number": PORT})}, required=("host",)
                ),
            }
        ),
        "inboundConnectionPool": CONNECTION_POOL,
    }
)


@reader_of(SIDECAR_SPEC)
def read_sidecar(metadata: Metadata, spec: Mapping[str, Any], report: Report) -> Sidecar | None:
    """The resource that `spec` writes, or None where a port has no number, which `report` says."""
    for kind in ("ingress", "egress"):
        for index, each in enumerate(spec.get(kind, ())):
            if "port" in each and "number" not in each["port"]:
                report.error(("spec", kind, index, "port", "number"), "is missing")
            for name in {"tls", "captureMode", "connectionPool"}.intersection(each):
                report.warning(("spec", kind, index, name), "is not done by a sidecar of ours")
    if "egressProxy" in spec.get("outboundTrafficPolicy", {}):
        report.warning(("spec", "outboundTrafficPolicy", "egressProxy"), "is not done by a sidecar of ours")
    if report.refused():
        return None
    return Sidecar(
        metadata,
        _labels(spec, report) or Selector({}),
        tuple(
            Egress(tuple(each["hosts"]), _port(each["port"]) if "port" in each else None, each.get("bind", ""))
            for each in spec.get("egress", ())
        ),
        tuple(
            Ingress(_port(each["port"]), each.get("defaultEndpoint", ""), each.get("bind", ""))
            for each in spec.get("ingress", ())
        ),
        spec.get("outboundTrafficPolicy", {}).get("mode"),
        connection_pool(spec["inboundConnectionPool"]) if "inboundConnectionPool" in spec else None,
    )


def _port(value: Mapping[str, Any]) -> Port:
    return Port(value["number"], value.get("name", ""), value.get("protocol", ""), value.get("targetPort"))


def _labels(spec: Mapping[str, Any], report: Report) -> Selector | None:
    """The networking resources write `labels` where the security resources write `matchLabels`."""
    if "workloadSelector" not in spec:
        return None
    return read_selector({"selector": {"matchLabels": spec["workloadSelector"].get("labels", {})}}, report)


# ServiceEntry


def _named(value: str, path: Path, report: Report) -> None:
    if value == "*":
        report.error(path, "a ServiceEntry names hosts; '*' is none")
    else:
        HOST(value, path, report)


SERVICE_ENTRY_SPEC: Final = fields(
    {
        "hosts": list_of(both(text(least=1), _named), least=1, most=256),
        "addresses": list_of(ADDRESS, most=256),
        "ports": list_of(
            fields({"number": PORT, "name": WORDS, "protocol": TEXT, "targetPort": PORT}, required=("number", "name")),
            most=256,
        ),
        "location": text(choices=("MESH_EXTERNAL", "MESH_INTERNAL")),
        "resolution": text(choices=("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS")),
        "endpoints": list_of(
            fields(
                {
                    "address": text(most=256),
                    "ports": map_of(PORT),
                    "labels": map_of(TEXT),
                    "network": text(most=2048),
                    "locality": text(most=2048),
                    "serviceAccount": text(most=253),
                    "weight": PORT,
                }
            ),
            most=4096,
        ),
        "workloadSelector": fields({"labels": LABELS}),
        "subjectAltNames": list_of(TEXT),
        "exportTo": EXPORT_TO,
    },
    required=("hosts",),
    at_most_one=(("workloadSelector", "endpoints"),),
)


@reader_of(SERVICE_ENTRY_SPEC)
def read_service_entry(metadata: Metadata, spec: Mapping[str, Any], report: Report) -> ServiceEntry:
    """The resource that `spec` writes."""
    entry = ServiceEntry(
        metadata,
        tuple(spec["hosts"]),
        tuple(spec.get("addresses", ())),
        tuple(_port(each) for each in spec.get("ports", ())),
        spec.get("location", "MESH_EXTERNAL"),
        spec.get("resolution", "NONE"),
        tuple(_endpoint(each) for each in spec.get("endpoints", ())),
        _labels(spec, report),
        tuple(spec.get("subjectAltNames", ())),
        tuple(spec.get("exportTo", ())),
    )
    _check_entry(entry, report)
    return entry


def _endpoint(value: Mapping[str, Any]) -> Endpoint:
    return Endpoint(
        value.get("address", ""),
        tuple(value.get("ports", {}).items()),
        tuple(value.get("labels", {}).items()),
        value.get("serviceAccount", ""),
        value.get("weight"),
    )


def _check_entry(entry: ServiceEntry, report: Report) -> None:
    numbers = [port.number for port in entry.ports]
    for index, number in enumerate(numbers):
        if number in numbers[:index]:
            report.error(("spec", "ports", index, "number"), f"{number} is given twice")
    if any("/" in address for address in entry.addresses) and entry.resolution not in ("NONE", "STATIC"):
        report.error(("spec", "addresses"), "blocks of addresses go with the resolutions NONE and STATIC alone")
    if entry.resolution == "NONE" and entry.endpoints:
        report.error(("spec", "endpoints"), "are not given with the resolution NONE")
    if entry.resolution.startswith("DNS") and not entry.endpoints and any("*" in host for host in entry.hosts):
        report.error(("spec", "hosts"), "with a wildcard cannot be looked up: give endpoints, or the resolution NONE")


__all__ = [
    "Egress",
    "Endpoint",
    "Ingress",
    "Port",
    "ServiceEntry",
    "Sidecar",
    "read_service_entry",
    "read_sidecar",
]
