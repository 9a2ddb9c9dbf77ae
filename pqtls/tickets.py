"""A server's tickets: sealed under a rotating key, and used once (docs/adr/0009-resumption.md)."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Final

from pqtls.errors import DecodeError
from pqtls.provider import Aead, CryptoProvider
from pqtls.sessions import SessionFacts
from pqtls.suites import TLS_AES_256_GCM_SHA384
from pqtls.wire import Reader, vector

# The end of forward secrecy for what a ticket's key protects (only the pre-shared keys: the traffic keys have a key
# exchange of their own) against how often a client must pay a full handshake.
DEFAULT_LIFETIME: Final = datetime.timedelta(hours=6)
# 16 bytes of digest each, 2 MiB in all at most for the two keys that are alive.
DEFAULT_CAPACITY: Final = 65_536
_KEY_ID_SIZE: Final = 8
_NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16
# A SPIFFE ID has at most 2048 bytes, and everything else in a ticket of ours less than 300: what is longer is not ours.
_MAX_TICKET: Final = 4096


@dataclass(frozen=True, slots=True)
class TicketContent:
    """What a ticket says to the server that made it."""

    facts: SessionFacts
    issued_at: datetime.datetime
    psk: bytes = field(repr=False)


@dataclass(slots=True)
class _TicketKey:
    """A key, since when it is used, and which of its tickets were used."""

    identifier: bytes
    aead: Aead = field(repr=False)
    since: datetime.datetime
    used: set[bytes] = field(default_factory=set)


class TicketKeeper:
    """Seals and opens the tickets of one server process. Shared by its connections; not thread-safe.

    A key seals for one `lifetime` and opens for two, so every ticket lives as long as it says.
    """

    def __init__(
        self,
        provider: CryptoProvider,
        *,
        lifetime: datetime.timedelta = DEFAULT_LIFETIME,
        per_handshake: int = 2,
        single_use: bool = True,
        capacity: int = DEFAULT_CAPACITY,
    ) -> None:
        self._provider = provider
        self._lifetime = lifetime
        self._single_use = single_use
        self._capacity = capacity
        self._keys: list[_TicketKey] = []
        self.per_handshake = per_handshake

    @property
    def lifetime_seconds(self) -> int:
        """ticket_lifetime of NewSessionTicket."""
        return int(self._lifetime.total_seconds())

    def seal(self, facts: SessionFacts, psk: bytes, now: datetime.datetime) -> bytes:
        """Make a ticket: key identifier, nonce, ciphertext."""
        key = self._current_key(now)
        content = facts.encode() + int(now.timestamp() * 1000).to_bytes(8, "big") + vector(1, psk)
        nonce = self._provider.random_bytes(_NONCE_SIZE)
        sealed = bytearray(len(content) + _TAG_SIZE)
        key.aead.encrypt_into(nonce, content, key.identifier, sealed)
        return key.identifier + nonce + bytes(sealed)

    def open(self, ticket: bytes, now: datetime.datetime) -> TicketContent | None:
        """What is in the ticket, or None where it is not ours, too old, or was used before."""
        key = self._key_of(ticket, now)
        if key is None or len(ticket) > _MAX_TICKET or self._nonce(ticket) in key.used:
            return None
        sealed = ticket[_KEY_ID_SIZE + _NONCE_SIZE :]
        if len(sealed) <= _TAG_SIZE:
            return None
        content = bytearray(len(sealed) - _TAG_SIZE)
        try:
            key.aead.decrypt_into(self._nonce(ticket), sealed, key.identifier, content)
        except self._provider.invalid_tag:
            return None
        return self._read(bytes(content), now)

    def claim(self, ticket: bytes, now: datetime.datetime) -> bool:
        """Use the ticket up. False where somebody has, or where the record of used ones is full."""
        if not self._single_use:
            return True
        key = self._key_of(ticket, now)
        if key is None or self._nonce(ticket) in key.used or len(key.used) >= self._capacity:
            return False
        key.used.add(self._nonce(ticket))
        return True

    def _read(self, content: bytes, now: datetime.datetime) -> TicketContent | None:
        reader = Reader(content, "ticket")
        try:
            facts = SessionFacts.read(reader)
            issued_at = datetime.datetime.fromtimestamp(reader.uint(8) / 1000, datetime.UTC)
            psk = reader.vector(1)
            reader.finish()
        except DecodeError:
            return None
        if not datetime.timedelta(0) <= now - issued_at <= self._lifetime:
            return None
        return TicketContent(facts, issued_at, psk)

    def _current_key(self, now: datetime.datetime) -> _TicketKey:
        self._forget_old(now)
        if not self._keys or now - self._keys[0].since >= self._lifetime:
            secret = self._provider.random_bytes(TLS_AES_256_GCM_SHA384.key_length)
            aead = self._provider.aead(TLS_AES_256_GCM_SHA384, secret)
            self._keys.insert(0, _TicketKey(self._provider.random_bytes(_KEY_ID_SIZE), aead, now))
        return self._keys[0]

    def _key_of(self, ticket: bytes, now: datetime.datetime) -> _TicketKey | None:
        self._forget_old(now)
        for key in self._keys:
            if ticket[:_KEY_ID_SIZE] == key.identifier:
                return key
        return None

    def _forget_old(self, now: datetime.datetime) -> None:
        self._keys = [key for key in self._keys if now - key.since < 2 * self._lifetime]

    @staticmethod
    def _nonce(ticket: bytes) -> bytes:
        return ticket[_KEY_ID_SIZE : _KEY_ID_SIZE + _NONCE_SIZE]
