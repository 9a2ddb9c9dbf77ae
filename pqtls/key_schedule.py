"""The key schedule of RFC 8446 §7.1 as a chain of types.

Each stage can only be made from the one before it, and only with the inputs that the RFC wants there:

    EarlySecret, without or with a pre-shared key
    EarlySecret ──(EC)DHE/KEM secret, transcript up to ServerHello──▶ HandshakeSecrets
    HandshakeSecrets ──transcript up to server Finished──▶ ApplicationSecrets

so that no secret can be asked for too early, in the wrong order, or for the wrong transcript by a slip of argument.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from pqtls.provider import CryptoProvider
from pqtls.suites import CipherSuite
from pqtls.wire import uint16, vector

_IV_LENGTH: Final = 12  # RFC 8446 §5.3: max(8, N_MIN) of every AEAD here


def hkdf_expand_label(
    provider: CryptoProvider, hash_name: str, secret: bytes, label: str, context: bytes, length: int
) -> bytes:
    """HKDF-Expand-Label (RFC 8446 §7.1)."""
    return provider.hkdf_expand(hash_name, secret, _info(label, length, len(context)) + context, length)


# A handshake derives under a dozen labels; an exporter's owner may add some of its own.
@lru_cache(maxsize=64)
def _info(label: str, length: int, context_length: int) -> bytes:
    """HkdfLabel (RFC 8446 §7.1) up to the bytes of its context: the same for every connection, and no secret."""
    return uint16(length) + vector(1, b"tls13 " + label.encode("ascii")) + context_length.to_bytes(1, "big")


@lru_cache(maxsize=4)  # as many as suites have hashes, and some
def _hash_of_nothing(hash_name: str) -> bytes:
    """Transcript-Hash(""), the context of "derived" (RFC 8446 §7.1)."""
    return hashlib.new(hash_name, b"").digest()


@dataclass(frozen=True, slots=True)
class TrafficKeys:
    """What protects records in one direction (RFC 8446 §7.3)."""

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TrafficSecret:
    """A secret of one direction and one epoch."""

    suite: CipherSuite
    provider: CryptoProvider
    secret: bytes = field(repr=False)

    def keys(self) -> TrafficKeys:
        """Key and IV of the record protection (§7.3)."""
        return TrafficKeys(self._expand("key", self.suite.key_length), self._expand("iv", _IV_LENGTH))

    def next_generation(self) -> TrafficSecret:
        """application_traffic_secret_N+1 (§7.2), for a KeyUpdate."""
        return TrafficSecret(self.suite, self.provider, self._expand("traffic upd", self.suite.hash_length))

    def resumption_psk(self, ticket_nonce: bytes) -> bytes:
        """The pre-shared key of one ticket (§4.6.1), where this is the resumption_master_secret."""
        return hkdf_expand_label(
            self.provider, self.suite.hash_name, self.secret, "resumption", ticket_nonce, self.suite.hash_length
        )

    def export(self, label: str, context: bytes, length: int) -> bytes:
        """Keying material for the application (§7.5), where this is the exporter_master_secret."""
        name = self.suite.hash_name
        secret = hkdf_expand_label(
            self.provider, name, self.secret, label, _hash_of_nothing(name), self.suite.hash_length
        )
        digest = hashlib.new(name, context).digest()
        return hkdf_expand_label(self.provider, name, secret, "exporter", digest, length)

    def finished(self, transcript_hash: bytes) -> bytes:
        """verify_data of the Finished message that its owner sends (§4.4.4)."""
        key = self._expand("finished", self.suite.hash_length)
        # HKDF-Extract(salt, IKM) is HMAC-Hash(salt, IKM) and nothing more (RFC 5869 §2.2).
        return self.provider.hkdf_extract(self.suite.hash_name, key, transcript_hash)

    def _expand(self, label: str, length: int) -> bytes:
        return self.provider.hkdf_expand(self.suite.hash_name, self.secret, _info(label, length, 0), length)


@dataclass(frozen=True, slots=True)
class _Stage:
    """One salt of the schedule: "Early Secret", "Handshake Secret" or "Master Secret"."""

    suite: CipherSuite
    provider: CryptoProvider
    secret: bytes = field(repr=False)

    def derive(self, label: str, transcript_hash: bytes) -> TrafficSecret:
        """Derive-Secret (§7.1) with the hash of the messages already taken."""
        return TrafficSecret(self.suite, self.provider, self._derive(label, transcript_hash))

    def next_salt(self) -> bytes:
        """Derive-Secret(., "derived", "")."""
        return self._derive("derived", _hash_of_nothing(self.suite.hash_name))

    def _derive(self, label: str, transcript_hash: bytes) -> bytes:
        suite = self.suite
        return hkdf_expand_label(self.provider, suite.hash_name, self.secret, label, transcript_hash, suite.hash_length)

    def extract(self, key_material: bytes) -> _Stage:
        """HKDF-Extract with this stage's "derived" secret as the salt."""
        return self.follow(self.next_salt(), key_material)

    def follow(self, salt: bytes, key_material: bytes) -> _Stage:
        """The stage after this one, whose `next_salt` the caller has already."""
        return _Stage(self.suite, self.provider, self.provider.hkdf_extract(self.suite.hash_name, salt, key_material))


@dataclass(frozen=True, slots=True)
class EarlySecret:
    """The start of the schedule: its stage, and the stage's "derived" secret."""

    _stage: _Stage
    _salt: bytes = field(repr=False)

    @classmethod
    def without_psk(cls, suite: CipherSuite, provider: CryptoProvider) -> EarlySecret:
        """HKDF-Extract(0, 0): there is no pre-shared key."""
        return _without_psk(suite, provider)

    @classmethod
    def with_psk(cls, suite: CipherSuite, provider: CryptoProvider, psk: bytes) -> EarlySecret:
        """HKDF-Extract(0, PSK), for resumption."""
        stage = _Stage(suite, provider, provider.hkdf_extract(suite.hash_name, bytes(suite.hash_length), psk))
        return cls(stage, stage.next_salt())

    def binder(self, truncated_hello_hash: bytes) -> bytes:
        """The PskBinderEntry of a resumption secret (§4.2.11.2); the hash ends before the list of binders."""
        empty = _hash_of_nothing(self._stage.suite.hash_name)
        return self._stage.derive("res binder", empty).finished(truncated_hello_hash)

    def handshake(self, shared_secret: bytes, hello_hash: bytes) -> HandshakeSecrets:
        """Mix in the key exchange; `hello_hash` covers ClientHello...ServerHello."""
        stage = self._stage.follow(self._salt, shared_secret)
        return HandshakeSecrets(
            stage,
            client=stage.derive("c hs traffic", hello_hash),
            server=stage.derive("s hs traffic", hello_hash),
        )


# Without a pre-shared key it is HKDF-Extract(0, 0): a constant of the hash that anybody can compute, and no secret.
@lru_cache(maxsize=8)  # the suites, times the providers of a process
def _without_psk(suite: CipherSuite, provider: CryptoProvider) -> EarlySecret:
    return EarlySecret.with_psk(suite, provider, bytes(suite.hash_length))


@dataclass(frozen=True, slots=True)
class HandshakeSecrets:
    """Both directions' handshake traffic secrets."""

    _stage: _Stage
    client: TrafficSecret
    server: TrafficSecret

    def application(self, server_finished_hash: bytes) -> ApplicationSecrets:
        """Go on to the master secret; the hash covers ClientHello...server Finished."""
        stage = self._stage.extract(bytes(self._stage.suite.hash_length))
        return ApplicationSecrets(
            stage,
            client=stage.derive("c ap traffic", server_finished_hash),
            server=stage.derive("s ap traffic", server_finished_hash),
            exporter=stage.derive("exp master", server_finished_hash),
        )


@dataclass(frozen=True, slots=True)
class ApplicationSecrets:
    """Both directions' first application traffic secrets, and the exporter master secret."""

    _stage: _Stage
    client: TrafficSecret
    server: TrafficSecret
    exporter: TrafficSecret

    def resumption(self, client_finished_hash: bytes) -> TrafficSecret:
        """resumption_master_secret; the hash covers ClientHello...client Finished."""
        return self._stage.derive("res master", client_finished_hash)
