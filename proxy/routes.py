"""What the outbound side does with a destination, and what tells destinations apart: networks and ports. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LAST_PORT: Final = 65535


class Mode(Enum):
    """How connections to a destination leave. The order of `strictness` decides where two sources disagree."""

    REQUIRE = "require"  # TLS of the mesh, or nothing: never plaintext
    PREFER = "prefer"  # TLS of the mesh; plaintext only where the destination has shown that it speaks no such thing
    OFF = "off"  # plain TCP, as the application sent it

    @property
    def strictness(self) -> int:
        """Larger is stricter."""
        return _STRICTNESS[self]


_STRICTNESS: Final = {Mode.OFF: 0, Mode.PREFER: 1, Mode.REQUIRE: 2}


@dataclass(frozen=True, slots=True)
class PortRange:
    """The TCP ports from `first` to `last`, both included."""

    first: int
    last: int

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    @property
    def width(self) -> int:
        """How many ports: what is narrower is more specific."""
        return self.last - self.first + 1

    def overlaps(self, other: PortRange) -> bool:
        """Whether a port is in both."""
        return self.first <= other.last and other.first <= self.last


# What an entry without ports is about. 0 is no port, but a destination that has none yet must not escape.
EVERY_PORT: Final = PortRange(0, _LAST_PORT)


def plain_address(text: str) -> Address:
    """The address that `text` spells, without its zone. Raises ValueError.

    An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`, RFC 4291 §2.5.5.2) is the IPv4 address that it carries: a connection
    must not escape the mesh by being spelled in another way.
    """
    ip = ipaddress.ip_address(text.partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip
