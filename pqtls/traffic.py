"""After the handshake: application data flows, keys change, tickets come (RFC 8446 §4.6).

The proofs are fields without defaults: there is no traffic with a peer that was neither verified nor, by a server that
may, admitted without a certificate.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from pqtls.errors import Alert, ProtocolViolation
from pqtls.events import PeerKeysUpdated, SessionReceived
from pqtls.framing import HandshakeMessage, HandshakeType
from pqtls.key_schedule import TrafficSecret
from pqtls.messages import NewSessionTicket, encode_key_update, parse_key_update
from pqtls.sessions import Session, SessionFacts
from pqtls.states import Effects, State
from pqtls.verify import Authentication, FinishedVerified

# Post-handshake messages cost us key derivations and the peer nothing: nobody honest sends this many without
# application data in between. OpenSSL draws the same line for KeyUpdate.
MAX_MESSAGES_WITHOUT_DATA: Final = 32
# And in all, whatever comes between them: so many, and one more for each so many bytes of data.
MESSAGES_ANYWAY: Final = 1024
DATA_PER_MESSAGE: Final = 512
# RFC 8446 §4.6.1: clients must not keep a ticket for longer than seven days.
_MAX_TICKET_LIFETIME: Final = 7 * 24 * 3600
# Ours have 210 bytes. OpenSSL puts the peer's chain into its own: some 18 KB with two ML-DSA-87 certificates.
_MAX_TICKET_SIZE: Final = 20 * 1024


@dataclass(frozen=True, slots=True)
class Sessions:
    """A client's means to make a Session of each ticket that comes."""

    facts: SessionFacts
    resumption_secret: TrafficSecret = field(repr=False)
    now: Callable[[], datetime.datetime]

    def receive(self, ticket: NewSessionTicket, effects: Effects) -> None:
        """Tell the owner of the session, unless its lifetime is nothing (§4.6.1) or it is too large to offer."""
        if ticket.lifetime and len(ticket.ticket) <= _MAX_TICKET_SIZE:
            session = Session(
                facts=self.facts,
                ticket=ticket.ticket,
                psk=self.resumption_secret.resumption_psk(ticket.nonce),
                age_add=ticket.age_add,
                received_at=self.now(),
                lifetime=min(ticket.lifetime, _MAX_TICKET_LIFETIME),
            )
            effects.emit(SessionReceived(session))


@dataclass(frozen=True, slots=True)
class NoSessions:
    """A client that has no use for tickets: they are parsed and dropped."""

    def receive(self, _ticket: NewSessionTicket, _effects: Effects) -> None:
        """Drop it."""


@dataclass(frozen=True, slots=True)
class ServerSide:
    """A server, to which nobody sends tickets."""

    def receive(self, _ticket: NewSessionTicket, _effects: Effects) -> None:
        """Refuse it."""
        raise ProtocolViolation("a client sent a session ticket", Alert.UNEXPECTED_MESSAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Both directions are up, with the proofs of a full handshake, of a resumed one, or of an anonymous client's."""

    authentication: Authentication
    finished: FinishedVerified
    reading: TrafficSecret
    writing: TrafficSecret
    exporter: TrafficSecret
    sessions: Sessions | NoSessions | ServerSide
    owes_key_update: bool = False

    def handle(self, message: HandshakeMessage, effects: Effects) -> State:
        """KeyUpdate from either side; NewSessionTicket from a server."""
        if message.type == HandshakeType.KEY_UPDATE:
            wanted = parse_key_update(message.body)
            reading = self.reading.next_generation()
            effects.read_with(reading)
            effects.emit(PeerKeysUpdated())
            return replace(self, reading=reading, owes_key_update=self.owes_key_update or wanted)
        if message.type == HandshakeType.NEW_SESSION_TICKET:
            self.sessions.receive(NewSessionTicket.parse(message.body), effects)
            return self
        raise ProtocolViolation(f"{message.name} after the handshake", Alert.UNEXPECTED_MESSAGE)

    def update_keys(self, effects: Effects, *, request_peer: bool = False) -> Traffic:
        """Send KeyUpdate and change our sending keys. One update answers any number of requests (§4.6.3)."""
        effects.send(encode_key_update(request_peer))
        writing = self.writing.next_generation()
        effects.write_with(writing)
        return replace(self, writing=writing, owes_key_update=False)
