"""The tunnel port: a tunnel that was dialled to this pod itself, whose streams each say to which of its ports they go.

What a peer writes into an OPEN must not lead anywhere that it could not have dialled itself: only to the address that
the tunnel was dialled at, never to what listens for this pod alone, and never back into the sidecar. Who may connect to
a port is the gate's business, as for every other connection. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Final

from mesh import names
from proxy.config import Endpoint
from proxy.original_destination import NoOriginalDestination
from proxy.reasons import Flag, Refused
from proxy.routes import plain_address
from proxy.tunnels.frames import Opening

# The sidecar's own, whichever of them it happens to listen on.
_OUR_PORTS: Final = frozenset(
    {
        *(names.ADMIN_PORT, names.OUTBOUND_PORT, names.SELF_TEST_PORT, names.INBOUND_PORT, names.TUNNEL_PORT),
        *(names.HEALTH_PORT, names.DNS_PORT, names.METRICS_PORT),
    }
)


class ByStream:
    """Tells where the streams of one tunnel go."""

    __slots__ = ("_address", "_own_ports")

    def __init__(self, dialled: Endpoint, own_ports: Collection[int]) -> None:
        """`dialled` is this end of the tunnel; `own_ports` are those that the sidecar listens on."""
        self._address = plain_address(dialled.host)
        self._own_ports = _OUR_PORTS.union(own_ports)

    def application(self, opening: Opening) -> Endpoint:
        """The application that `opening` asks for. Raises Refused where that is none of this pod's."""
        wanted = opening.destination
        address = plain_address(wanted.host)
        if address != self._address or not _is_reachable_from_outside(address):
            raise _refused(f"{wanted} is not at this pod's address {self._address}")
        if not wanted.port or wanted.port in self._own_ports:
            raise _refused(f"{wanted} is a port of the sidecar's own")
        return Endpoint(str(address), wanted.port)


def refuse_single() -> NoOriginalDestination:
    """What is raised where a connection of one application came to the tunnel port."""
    return NoOriginalDestination(
        "it came to the tunnel port, where only tunnels are taken, whose streams say where they go "
        "(run the same version on both sides)"
    )


def _is_reachable_from_outside(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


def _refused(why: str) -> Refused:
    return Refused(Flag.DENY, "no_original_destination", f"a stream of a tunnel was to go where it may not: {why}")
