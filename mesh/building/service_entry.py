"""ServiceEntry: a host that the cluster does not know by itself, made known to the mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mesh.building import checks
from mesh.building.destination_rule import visibility
from mesh.building.metadata import NETWORKING, resource

LOCATIONS: Final = ("MESH_EXTERNAL", "MESH_INTERNAL")
RESOLUTIONS: Final = ("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN")
PROTOCOLS: Final = ("HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "MONGO", "MYSQL", "REDIS", "TCP", "TLS")


def service_entry(
    name: str,
    namespace: str,
    hosts: Sequence[str],
    ports: Mapping[int, str],
    *,
    location: str = "MESH_EXTERNAL",
    resolution: str = "DNS",
    endpoints: Sequence[str] | None = None,
    addresses: Sequence[str] | None = None,
    export_to: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a ServiceEntry for `hosts`; `ports` maps numbers to protocols (HTTP, HTTPS, GRPC, TCP, TLS …).

    Each port is named for its protocol and number, as in "https-443". `endpoints` are the addresses behind the hosts:
    needed for STATIC, names or addresses for DNS (at most one for DNS_ROUND_ROBIN), none for NONE. `addresses` are the
    virtual addresses of the hosts; blocks of them are for NONE and STATIC alone.
    """
    checks.choice("location", location, LOCATIONS)
    checks.choice("resolution", resolution, RESOLUTIONS)
    spec: dict[str, Any] = {"hosts": checks.several("hosts", hosts, _host, fewest=1)}
    if addresses is not None:
        spec["addresses"] = _addresses("addresses", addresses, resolution)
    spec["ports"] = _ports("ports", ports)
    spec["location"] = location
    spec["resolution"] = resolution
    found = _endpoints("endpoints", endpoints, resolution)
    if found:
        spec["endpoints"] = found
    elif resolution.startswith("DNS") and any("*" in host for host in spec["hosts"]):
        raise ValueError(f"hosts: a wildcard is no name that {resolution} could ask for; give endpoints too")
    if export_to is not None:
        spec["exportTo"] = visibility("export_to", export_to, namespace, nobody=True)
    return resource(NETWORKING, "ServiceEntry", name, namespace, spec, labels=labels, annotations=annotations)


def _host(argument: str, value: object) -> str:
    found = checks.host(argument, value)
    if "*" in found and not found.startswith("*."):
        raise checks.refused(argument, value, "a name, or one whose first part is *, as in *.example.com")
    return found


def _addresses(argument: str, addresses: object, resolution: str) -> list[str]:
    found = checks.several(argument, addresses, checks.address, fewest=1)
    for index, address in enumerate(found):
        if "/" in address and resolution not in {"NONE", "STATIC"}:
            raise ValueError(f"{argument}[{index}]: a block of addresses is for NONE or STATIC, not {resolution}")
    return found


def _ports(argument: str, ports: object) -> list[dict[str, Any]]:
    if not isinstance(ports, Mapping) or not ports:
        raise checks.refused(argument, ports, "a dict from ports to protocols, as in {443: 'HTTPS'}")
    found = []
    for port, protocol in sorted((checks.port(argument, port), protocol) for port, protocol in ports.items()):
        checks.choice(f"{argument}[{port}]", protocol, PROTOCOLS)
        found.append({"number": port, "name": f"{protocol.lower()}-{port}", "protocol": protocol})
    return found


def _endpoints(argument: str, endpoints: object, resolution: str) -> list[dict[str, str]]:
    check = checks.single_address if resolution == "STATIC" else _name_or_address
    found = [{"address": one} for one in checks.several(argument, () if endpoints is None else endpoints, check)]
    if resolution == "NONE" and found:
        raise ValueError(f"{argument}: with NONE the address that was dialled is kept; leave them out")
    if resolution == "STATIC" and not found:
        raise ValueError(f"{argument}: STATIC has no other way to know them; give their addresses")
    if resolution == "DNS_ROUND_ROBIN" and len(found) > 1:
        raise ValueError(f"{argument}: DNS_ROUND_ROBIN takes one at most")
    return found


def _name_or_address(argument: str, value: object) -> str:
    try:
        return checks.single_address(argument, value)
    except ValueError:
        return checks.host(argument, value, wildcard=False)
