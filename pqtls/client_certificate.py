"""What a client shows of itself: nothing unless it is asked, and then its certificate, or that it has none.

It is settled when the server asks (RFC 8446 §4.3.2) and done after the server's Finished (§4.4.2): nobody learns who we
are who has not proven who they are. `authenticates` says whether the server knows us afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final

from pqtls import extensions as ext
from pqtls.certificates import Credential, Purpose
from pqtls.config import ClientConfig
from pqtls.errors import Alert, NegotiationRefused, ProtocolViolation
from pqtls.extensions import ExtensionType
from pqtls.handshake import send_authentication
from pqtls.messages import Certificate, CertificateRequest
from pqtls.provider import CryptoProvider
from pqtls.states import Effects
from pqtls.transcript import Transcript

_NO_CERTIFICATE: Final = Certificate(b"", ()).encode()


@dataclass(frozen=True, slots=True)
class NotAsked:
    """The server did not ask."""

    authenticates: ClassVar[bool] = False

    def send(self, transcript: Transcript, _effects: Effects) -> Transcript:
        """Send nothing; return the transcript as it is."""
        return transcript


@dataclass(frozen=True, slots=True)
class ShowNone:
    """The server asked, and there is nothing to show."""

    authenticates: ClassVar[bool] = False

    def send(self, transcript: Transcript, effects: Effects) -> Transcript:
        """Send an empty Certificate, behind which no CertificateVerify comes; return the transcript with it."""
        effects.send(_NO_CERTIFICATE)
        return transcript + _NO_CERTIFICATE


@dataclass(frozen=True, slots=True)
class ShowCredential:
    """The server asked, and our certificate will do. `authorities` are the names that the server says it holds."""

    authenticates: ClassVar[bool] = True
    credential: Credential
    authorities: tuple[bytes, ...]
    provider: CryptoProvider

    def send(self, transcript: Transcript, effects: Effects) -> Transcript:
        """Send Certificate and CertificateVerify; return the transcript with both."""
        return send_authentication(
            self.credential, Purpose.CLIENT, self.authorities, transcript, effects, self.provider
        )


OwnCertificate = NotAsked | ShowNone | ShowCredential


def read_request(body: bytes, config: ClientConfig) -> ShowNone | ShowCredential:
    """Settle the answer to a CertificateRequest. A certificate that the server cannot take is never held back."""
    schemes, authorities = _parse_request(body)
    if config.credential is None:
        return ShowNone()
    scheme = config.credential.signature_scheme
    if scheme.code_point not in schemes:
        raise NegotiationRefused(f"the server does not take client certificates with {scheme.name}")
    return ShowCredential(config.credential, authorities, config.provider)


# A client's servers ask for much the same: the request names the roots of the mesh. One has at most 16 KiB.
@lru_cache(maxsize=8)
def _parse_request(body: bytes) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    """The signature schemes that a server takes, and the names of the authorities that it holds."""
    request = CertificateRequest.parse(body)
    if request.context:
        raise ProtocolViolation(
            "the context of a CertificateRequest in the handshake is not empty", Alert.ILLEGAL_PARAMETER
        )
    # §4.3.2: clients ignore unrecognized extensions here, so what is known but misplaced is all to be refused.
    known = {kind: content for kind, content in request.extensions.items() if kind in ext.KNOWN}
    ext.check_response(known, ext.ALLOWED_IN_CERTIFICATE_REQUEST, frozenset(known), "CertificateRequest")
    content = request.extensions.get(ExtensionType.SIGNATURE_ALGORITHMS)
    if content is None:
        raise ProtocolViolation("CertificateRequest has no signature_algorithms", Alert.MISSING_EXTENSION)
    schemes = ext.read_code_points(content, "signature_algorithms")
    names = request.extensions.get(ExtensionType.CERTIFICATE_AUTHORITIES)
    return schemes, () if names is None else ext.read_authorities(names)
