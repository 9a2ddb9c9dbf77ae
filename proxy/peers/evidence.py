"""Mode prefer: what shows that a destination speaks no TLS of the mesh, and how long it is remembered. Pure.

Nothing that shows it is authenticated: whoever sits on the path can forge it. So it is asked for something that an
honest destination without a sidecar does say (never for silence, a reset or a cut connection, which are cheap to
bring about and happen by accident), and not at all where the destination has spoken the mesh's TLS lately (ADR 20).
"""

from __future__ import annotations

import collections
from typing import Final

from pqtls.errors import Alert, AlertReceived, NegotiationRefused, NotTls, ProtocolViolation
from proxy.config import Endpoint
from proxy.sockets import ConnectFailed

# A destination without a sidecar is not asked again for so long, seconds: what connections lose by it is a round trip,
# and what a new sidecar there loses is a minute of encryption.
PLAINTEXT_SECONDS: Final = 60.0
# For so long after it has spoken the mesh's TLS nothing counts as evidence. Longer than a tunnel lives (600 s), so that
# a destination in use is never without it; short enough for a pod's address to be given to another pod meanwhile.
MESH_SECONDS: Final = 900.0
# Destinations of each kind that are remembered at one time: 1 MB.
_CAPACITY: Final = 4096

# What TLS servers that are no sidecars say to our ClientHello, before they have shown who they are.
_FOREIGN: Final = frozenset({Alert.HANDSHAKE_FAILURE, Alert.PROTOCOL_VERSION, Alert.NO_APPLICATION_PROTOCOL})

REASONS: Final = ("plain_answer", "foreign_tls", "tunnel_port_refused")


def evidence_in(error: Exception, *, at_tunnel_port: bool) -> str | None:
    """Which of REASONS `error` is, or None where it shows nothing. `at_tunnel_port`: only sidecars listen there."""
    match error:
        case ConnectFailed(refused=True) if at_tunnel_port:
            return "tunnel_port_refused"
        case NotTls():
            return "plain_answer"
        case AlertReceived(alert=alert) if alert in _FOREIGN:
            return "foreign_tls"
        case NegotiationRefused() | ProtocolViolation(alert=Alert.PROTOCOL_VERSION):
            return "foreign_tls"
    return None


class Memory:
    """What destinations have shown, each for a time; where there are too many, the longest ago is forgotten."""

    def __init__(self) -> None:
        self._plain: collections.OrderedDict[Endpoint, tuple[float, str]] = collections.OrderedDict()
        self._mesh: collections.OrderedDict[Endpoint, float] = collections.OrderedDict()

    def spoke_mesh(self, address: Endpoint, now: float) -> None:
        """A handshake of the mesh was completed there. `now`: seconds of a monotonic clock."""
        self._plain.pop(address, None)
        self._mesh[address] = now
        self._mesh.move_to_end(address)
        if len(self._mesh) > _CAPACITY:
            self._mesh.popitem(last=False)

    def spoke_plaintext(self, address: Endpoint, reason: str, now: float) -> None:
        """There was evidence, `reason`, and nothing against it."""
        self._plain[address] = (now, reason)
        self._plain.move_to_end(address)
        if len(self._plain) > _CAPACITY:
            self._plain.popitem(last=False)

    def why_plaintext(self, address: Endpoint, now: float) -> str | None:
        """The evidence that it gave, where it need not be asked again; else None."""
        since, reason = self._plain.get(address, (float("-inf"), None))
        return reason if now - since < PLAINTEXT_SECONDS else None

    def describe(self, now: float, most: int) -> list[dict[str, object]]:
        """The destinations that are spoken to in plaintext now, at most so many: JSON's types."""
        shown = [
            {"address": str(address), "reason": reason, "age_s": round(now - since, 1)}
            for address, (since, reason) in self._plain.items()
            if now - since < PLAINTEXT_SECONDS
        ]
        return shown[-most:]

    def since_mesh(self, address: Endpoint, now: float) -> float | None:
        """Seconds since it spoke the mesh's TLS, where that is not too long ago; else None."""
        past = now - self._mesh.get(address, float("-inf"))
        return past if past < MESH_SECONDS else None
