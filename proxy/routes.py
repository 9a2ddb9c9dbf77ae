"""Decides by destination address whether a connection must be the mesh's TLS or passes through as it is. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Route(Enum):
    """What the outbound side does with a connection."""

    MESH = "mesh"  # TLS of the mesh, or nothing: never plaintext
    PASSTHROUGH = "passthrough"  # plain TCP, as the application sent it


@dataclass(frozen=True, slots=True)
class RouteTable:
    """The networks whose every address is in the mesh."""

    mesh: tuple[Network, ...]

    def route(self, address: str) -> Route:
        """Return the route to `address`, an IPv4 or IPv6 address as text.

        An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`, RFC 4291 §2.5.5.2) is the IPv4 address that it carries: a
        connection must not escape the mesh by being spelled in another way.
        """
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        inside = any(ip.version == network.version and ip in network for network in self.mesh)
        return Route.MESH if inside else Route.PASSTHROUGH
