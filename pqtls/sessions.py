"""What a handshake leaves behind for a later one (RFC 8446 §2.2): facts, and the secret that goes with them.

No certificate is kept: the facts are what was found in it (docs/adr/0009-resumption.md).
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Final

from pqtls.errors import Alert, CertificateRefused, DecodeError
from pqtls.profiles import Profile
from pqtls.signatures import SIGNATURE_SCHEMES, SignatureScheme
from pqtls.suites import CIPHER_SUITES, CipherSuite
from pqtls.trust import TrustAnchors
from pqtls.wire import Reader, uint16, vector
from pqtls.x509_reading import PATH_ID_SIZE

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What was verified of the peer, and under which conditions."""

    profile: str
    suite: CipherSuite
    identity: str
    signature_scheme: SignatureScheme
    path_ids: tuple[bytes, ...]
    valid_until: datetime.datetime
    anchors_identifier: bytes

    def check(self, profile: Profile, trust: TrustAnchors, now: datetime.datetime) -> None:
        """Raise CertificateRefused where the peer would not be accepted today on these facts."""
        if self.profile != profile.name or self.suite not in profile.cipher_suites:
            raise CertificateRefused(
                f"the session is of profile {self.profile}, not {profile.name}", Alert.CERTIFICATE_UNKNOWN, "session"
            )
        if self.anchors_identifier != trust.anchors_identifier:
            raise CertificateRefused(
                "the session was verified against other roots than we have now", Alert.UNKNOWN_CA, "session"
            )
        if now > self.valid_until:
            raise CertificateRefused(
                f"the certificate behind the session expired at {self.valid_until:%Y-%m-%dT%H:%M:%SZ}",
                Alert.CERTIFICATE_EXPIRED,
                "expired",
            )
        trust.check_revocation(self.path_ids, self.identity, now)

    def encode(self) -> bytes:
        """The facts as bytes, for a ticket of ours."""
        return (
            vector(1, self.profile.encode("ascii"))
            + uint16(self.suite.code_point)
            + vector(2, self.identity.encode())
            + uint16(self.signature_scheme.code_point)
            + vector(1, b"".join(self.path_ids))
            + int((self.valid_until - _EPOCH).total_seconds()).to_bytes(8, "big")
            + vector(1, self.anchors_identifier)
        )

    @classmethod
    def read(cls, reader: Reader) -> SessionFacts:
        """Read what `encode` wrote. It was authenticated before, so a failure means another version of ours."""
        try:
            profile = reader.vector(1).decode("ascii")
            suite = CIPHER_SUITES.get(reader.uint(2))
            identity = reader.vector(2).decode()
            scheme = SIGNATURE_SCHEMES.get(reader.uint(2))
            ids = reader.vector(1)
            valid_until = _EPOCH + datetime.timedelta(seconds=reader.uint(8))
            anchors_identifier = reader.vector(1)
        except (UnicodeDecodeError, OverflowError) as error:
            raise DecodeError(f"a ticket of ours cannot be read: {error}") from None
        if suite is None or scheme is None:
            raise DecodeError("a ticket of ours names an algorithm that we do not know")
        path_ids = tuple(ids[start : start + PATH_ID_SIZE] for start in range(0, len(ids), PATH_ID_SIZE))
        return cls(profile, suite, identity, scheme, path_ids, valid_until, anchors_identifier)


@dataclass(frozen=True, slots=True)
class Session:
    """A client's right to resume: keep it by server, use it once, keep it secret.

    `lifetime` in seconds, as the server said it, at most seven days (RFC 8446 §4.6.1).
    """

    facts: SessionFacts
    ticket: bytes = field(repr=False)
    psk: bytes = field(repr=False)
    age_add: int
    received_at: datetime.datetime
    lifetime: int

    def is_usable(self, now: datetime.datetime) -> bool:
        """Whether it is worth offering: neither the ticket nor the server's certificate is past its time."""
        age = (now - self.received_at).total_seconds()
        return 0 <= age < self.lifetime and now <= self.facts.valid_until

    def obfuscated_age(self, now: datetime.datetime) -> int:
        """obfuscated_ticket_age (§4.2.11.1), in milliseconds modulo 2^32."""
        age = int((now - self.received_at).total_seconds() * 1000)
        return (age + self.age_add) % 2**32
