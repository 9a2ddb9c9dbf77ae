"""The server's side of resumption: taking a ticket up, and handing new ones out (RFC 8446 §4.2.11, §4.6.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pqtls.client_offer import ClientOffer
from pqtls.config import ServerConfig
from pqtls.errors import CertificateRefused, IdentityRefused
from pqtls.key_schedule import EarlySecret, TrafficSecret
from pqtls.messages import NewSessionTicket
from pqtls.sessions import SessionFacts
from pqtls.states import Effects
from pqtls.tickets import TicketContent
from pqtls.transcript import Transcript
from pqtls.verify import PskVerified, ResumedPeer, verify_binder, verify_resumption

# Each identity costs an AEAD call to look into; our clients send one, OpenSSL's too.
_MAX_IDENTITIES: Final = 4
_NONCE_SIZE: Final = 8
_AGE_ADD_SIZE: Final = 4  # RFC 8446 §4.6.1


@dataclass(frozen=True, slots=True)
class Resumed:
    """A ticket that was taken up: which of those offered, whom it stands for, and what it gives the key schedule."""

    selected: int
    peer: ResumedPeer
    proof: PskVerified
    early_secret: EarlySecret


def try_to_resume(
    config: ServerConfig, offer: ClientOffer, before: tuple[bytes, ...], raw_hello: bytes
) -> tuple[Resumed, ...]:
    """Take up the first ticket that will do, or none: then a full handshake follows.

    A ticket of ours whose binder does not hold ends the connection (decrypt_error), as §4.2.11 demands.
    """
    keeper = config.tickets
    if keeper is None:
        return ()
    now = config.now()
    for selected, (ticket, _) in enumerate(offer.psks.identities[:_MAX_IDENTITIES]):
        content = keeper.open(ticket, now)
        if content is None:
            continue
        peer = _acceptable(config, offer, content)
        if peer is None:
            continue
        early_secret = EarlySecret.with_psk(offer.suite, config.provider, content.psk)
        truncated = raw_hello[: len(raw_hello) - offer.psks.binders_size]
        digest = Transcript(offer.suite.hash_name, *before, truncated).digest()
        proof = verify_binder(offer.psks.binders[selected], early_secret, digest)
        # Only now: who cannot make the binder must not be able to use up a ticket that is somebody else's.
        if keeper.claim(ticket, now):
            return (Resumed(selected, peer, proof, early_secret),)
    return ()


def _acceptable(config: ServerConfig, offer: ClientOffer, content: TicketContent) -> ResumedPeer | None:
    """Whether the client behind the ticket would be accepted today, with what this hello negotiates."""
    if content.facts.suite is not offer.suite:
        return None
    try:
        peer = verify_resumption(content.facts, offer.profile, config.trust, config.now())
        config.accept_identity(peer.identity)
    except (CertificateRefused, IdentityRefused):
        # A full handshake will find the same, and say it with the right alert.
        return None
    return peer


def issue_tickets(config: ServerConfig, facts: SessionFacts, secret: TrafficSecret, effects: Effects) -> None:
    """Send NewSessionTicket messages; `secret` is the resumption_master_secret."""
    keeper = config.tickets
    if keeper is None:
        return
    now = config.now()
    # Not longer than the certificates behind it are valid.
    lifetime = min(keeper.lifetime_seconds, int((facts.valid_until - now).total_seconds()))
    if lifetime <= 0:
        return
    for _ in range(keeper.per_handshake):
        # Once for both: asking the operating system is dear.
        random = config.provider.random_bytes(_NONCE_SIZE + _AGE_ADD_SIZE)
        nonce = random[:_NONCE_SIZE]
        ticket = NewSessionTicket(
            lifetime=lifetime,
            age_add=int.from_bytes(random[_NONCE_SIZE:], "big"),
            nonce=nonce,
            ticket=keeper.seal(facts, secret.resumption_psk(nonce), now),
            extensions={},
        )
        effects.send(ticket.encode())
