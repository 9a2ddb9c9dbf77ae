"""Routes of a VirtualService for connections: by port and address, or by the name that TLS asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mesh.building import checks
from mesh.building.parts import Part, parts
from mesh.building.route_destination import Destination, shares


@dataclass(frozen=True, slots=True)
class TcpRoute(Part):
    """Connections to `port` and into one of the blocks `destination_subnets` (all of them, where neither is given).

    Of several destinations, one at least needs a weight. Raises ValueError, which names the argument.
    """

    destinations: Sequence[Destination]
    port: int | None = None
    destination_subnets: Sequence[str] | None = None

    def _build(self) -> dict[str, Any]:
        wanted = _where(self.port, self.destination_subnets)
        return {**({"match": [wanted]} if wanted else {}), "route": _route(self.destinations)}


@dataclass(frozen=True, slots=True)
class TlsRoute(Part):
    """TLS connections that ask for one of the names `sni_hosts`, which may begin with a wildcard; they are passed on.

    `port` and `destination_subnets` as for TcpRoute; each name must be one of the VirtualService's hosts, or be covered
    by one of those. Raises ValueError, which names the argument.
    """

    destinations: Sequence[Destination]
    sni_hosts: Sequence[str]
    port: int | None = None
    destination_subnets: Sequence[str] | None = None

    def _build(self) -> dict[str, Any]:
        wanted = {
            "sniHosts": checks.several("sni_hosts", self.sni_hosts, checks.host, fewest=1),
            **_where(self.port, self.destination_subnets),
        }
        return {"match": [wanted], "route": _route(self.destinations)}


def _where(port: int | None, subnets: Sequence[str] | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if port is not None:
        found["port"] = checks.port("port", port)
    if subnets is not None:
        found["destinationSubnets"] = checks.several("destination_subnets", subnets, checks.address, fewest=1)
    return found


def _route(destinations: Sequence[Destination]) -> list[dict[str, Any]]:
    return shares(parts("destinations", destinations, Destination))
