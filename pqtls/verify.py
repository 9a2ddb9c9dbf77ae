"""The only maker of proof values.

The traffic state cannot be constructed without a ChainVerified, a SignatureVerified and a FinishedVerified, and only
the functions of this file make them: so "we forgot to check" is no state that the program can be in.
"""

from __future__ import annotations

import datetime
import hmac
from dataclasses import dataclass, field
from typing import Final

from pqtls.certificates import Purpose, ValidatedChain, validate_chain
from pqtls.chain_cache import ChainCache
from pqtls.config import ClientAuthentication
from pqtls.errors import Alert, CertificateRefused, DecodeError, MisuseError, ProtocolViolation
from pqtls.key_schedule import EarlySecret, TrafficSecret
from pqtls.messages import Certificate, CertificateVerify
from pqtls.profiles import Profile
from pqtls.provider import CryptoProvider, SigningKey
from pqtls.sessions import SessionFacts
from pqtls.signatures import SIGNATURE_SCHEMES, SignatureScheme
from pqtls.trust import TrustAnchors

# RFC 8446 §4.4.3: what stands in front of the transcript's hash in the content that a server, or a client, signs.
_SERVER_PREFIX: Final = b"\x20" * 64 + b"TLS 1.3, server CertificateVerify\x00"
_CLIENT_PREFIX: Final = b"\x20" * 64 + b"TLS 1.3, client CertificateVerify\x00"

_MADE_HERE: Final = object()


@dataclass(frozen=True, slots=True)
class _Proof:
    """A value that only this file can make."""

    _seal: object = field(repr=False)

    def __post_init__(self) -> None:
        if self._seal is not _MADE_HERE:
            raise MisuseError(f"{type(self).__name__} is a proof: only pqtls.verify makes it")


@dataclass(frozen=True, slots=True)
class ChainVerified(_Proof):
    """The peer's chain leads to a root of ours, now, and names an identity."""

    found: ValidatedChain
    chain: tuple[bytes, ...] = field(repr=False)

    @property
    def identity(self) -> str:
        """The peer's SPIFFE URI."""
        return self.found.identity


@dataclass(frozen=True, slots=True)
class ResumedPeer(_Proof):
    """The peer's chain was verified in an earlier handshake, and nothing that it rested on has changed."""

    facts: SessionFacts

    @property
    def identity(self) -> str:
        """The peer's SPIFFE URI."""
        return self.facts.identity


@dataclass(frozen=True, slots=True)
class AnonymousPeer(_Proof):
    """The client was asked for a certificate and said that it has none, and the server serves such clients.

    It has no identity, so that it fits nowhere where one is needed: it is a kind of peer of its own.
    """


@dataclass(frozen=True, slots=True)
class PskVerified(_Proof):
    """The peer holds the resumption secret of that earlier handshake."""


@dataclass(frozen=True, slots=True)
class SignatureVerified(_Proof):
    """The peer holds the private key of its certificate, and signed this very transcript."""

    scheme: SignatureScheme


@dataclass(frozen=True, slots=True)
class FinishedVerified(_Proof):
    """The peer saw the same transcript and has the same secrets."""


# What a peer has shown of itself, complete: a chain counts only with the signature of who holds its key.
Authentication = tuple[ChainVerified, SignatureVerified] | tuple[ResumedPeer, PskVerified] | AnonymousPeer


def verify_chain(
    message: Certificate,
    trust: TrustAnchors,
    purpose: Purpose,
    now: datetime.datetime,
    schemes: tuple[SignatureScheme, ...],
    cache: ChainCache,
) -> ChainVerified:
    """Verify a Certificate message that has at least one entry; raise CertificateRefused otherwise."""
    chain = tuple(entry.certificate for entry in message.entries)
    key = cache.key(chain, trust, purpose, now, schemes)
    found = cache.get(key, now)
    if found is None:
        found = validate_chain(chain, trust, purpose, now, schemes)
        cache.put(key, found)
    else:
        # The lists are the same (they are in the key), but they may have grown too old within the hour.
        trust.check_revocation(found.path_ids, found.identity, now)
    return ChainVerified(_MADE_HERE, found, chain)


def admit_without_certificate(message: Certificate, authentication: ClientAuthentication) -> AnonymousPeer:
    """Take a client's Certificate message that has no entries (RFC 8446 §4.4.2.4), where the server may."""
    if message.entries:
        raise MisuseError("a client that shows a certificate is verified, or refused")
    if authentication is not ClientAuthentication.OPTIONAL:
        raise CertificateRefused(
            "the client has no certificate; the mesh demands one", Alert.CERTIFICATE_REQUIRED, "no_certificate"
        )
    return AnonymousPeer(_MADE_HERE)


def verify_resumption(
    facts: SessionFacts, profile: Profile, trust: TrustAnchors, now: datetime.datetime
) -> ResumedPeer:
    """Check that a session's verified peer would be accepted today; raise CertificateRefused otherwise."""
    facts.check(profile, trust, now)
    return ResumedPeer(_MADE_HERE, facts)


def verify_binder(binder: bytes, secret: EarlySecret, truncated_hello_hash: bytes) -> PskVerified:
    """Verify a PskBinderEntry (RFC 8446 §4.2.11.2), in constant time."""
    if not hmac.compare_digest(binder, secret.binder(truncated_hello_hash)):
        raise ProtocolViolation("the binder of the client's ticket does not hold", Alert.DECRYPT_ERROR)
    return PskVerified(_MADE_HERE)


def confirm_psk(_finished: FinishedVerified) -> PskVerified:
    """For a client: the server's Finished holds under keys that the resumption secret went into."""
    return PskVerified(_MADE_HERE)


def verify_signature(
    message: CertificateVerify,
    peer: ChainVerified,
    purpose: Purpose,
    transcript_hash: bytes,
    schemes: tuple[SignatureScheme, ...],
    provider: CryptoProvider,
) -> SignatureVerified:
    """Verify CertificateVerify (RFC 8446 §4.4.3); the hash covers everything up to the Certificate."""
    scheme = SIGNATURE_SCHEMES.get(message.scheme)
    if scheme is None or scheme not in schemes:
        raise ProtocolViolation(
            f"the peer signed with scheme {message.scheme:#06x}, which was not offered",
            Alert.ILLEGAL_PARAMETER,
        )
    if scheme.key_type != peer.found.key_type:
        raise ProtocolViolation(
            f"the peer's certificate has a key of type {peer.found.key_type}, but it signed with {scheme.name}",
            Alert.ILLEGAL_PARAMETER,
        )
    content = (_SERVER_PREFIX if purpose is Purpose.SERVER else _CLIENT_PREFIX) + transcript_hash
    if not provider.verify(peer.found.public_key, scheme, message.signature, content):
        raise ProtocolViolation("the peer's CertificateVerify signature does not hold", Alert.DECRYPT_ERROR)
    return SignatureVerified(_MADE_HERE, scheme)


def verify_finished(verify_data: bytes, secret: TrafficSecret, transcript_hash: bytes) -> FinishedVerified:
    """Verify the peer's Finished (RFC 8446 §4.4.4), in constant time."""
    expected = secret.finished(transcript_hash)
    if len(verify_data) != len(expected):
        raise DecodeError(f"the peer's Finished has {len(verify_data)} bytes, not {len(expected)}")
    if not hmac.compare_digest(verify_data, expected):
        raise ProtocolViolation("the peer's Finished does not hold", Alert.DECRYPT_ERROR)
    return FinishedVerified(_MADE_HERE)


def sign_transcript(
    key: SigningKey, scheme: SignatureScheme, own: Purpose, transcript_hash: bytes, provider: CryptoProvider
) -> bytes:
    """Make our own CertificateVerify message; `own` is our role. It stands beside its check so that both agree."""
    content = (_SERVER_PREFIX if own is Purpose.SERVER else _CLIENT_PREFIX) + transcript_hash
    return CertificateVerify(scheme.code_point, provider.sign(key, scheme, content)).encode()
