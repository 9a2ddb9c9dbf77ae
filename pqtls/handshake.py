"""What client and server do alike in a handshake."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from pqtls import extensions as ext
from pqtls.certificates import Credential, Purpose
from pqtls.config import EndpointConfig, ignore_secret
from pqtls.errors import Alert, CertificateRefused, IdentityRefused, ProtocolViolation
from pqtls.events import HandshakeCompleted
from pqtls.groups import NamedGroup
from pqtls.key_schedule import ApplicationSecrets, HandshakeSecrets, TrafficSecret
from pqtls.messages import Certificate, CertificateEntry
from pqtls.profiles import Profile
from pqtls.provider import CryptoProvider
from pqtls.sessions import SessionFacts
from pqtls.states import Effects
from pqtls.suites import CipherSuite
from pqtls.transcript import Transcript
from pqtls.trust import TrustAnchors
from pqtls.verify import ChainVerified, ResumedPeer, SignatureVerified, sign_transcript


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What the two hellos and EncryptedExtensions settled."""

    profile: Profile
    suite: CipherSuite
    group: NamedGroup
    client_random: bytes
    alpn: bytes | None = None
    server_name: str | None = None

    def extended(self, alpn: bytes | None, server_name: str | None) -> Negotiated:
        """This with what EncryptedExtensions adds to it."""
        return Negotiated(self.profile, self.suite, self.group, self.client_random, alpn, server_name)

    def completed(
        self, peer: ChainVerified, signature: SignatureVerified, *, client_authenticated: bool
    ) -> HandshakeCompleted:
        """The event of a full handshake."""
        return self._event(
            peer.identity,
            signature.scheme.name,
            peer.chain,
            path_ids=peer.found.path_ids,
            valid_until=peer.found.valid_until,
            resumed=False,
            client_authenticated=client_authenticated,
        )

    def resumed(self, peer: ResumedPeer) -> HandshakeCompleted:
        """The event of a resumed handshake."""
        facts = peer.facts
        return self._event(
            facts.identity,
            facts.signature_scheme.name,
            (),
            path_ids=facts.path_ids,
            valid_until=facts.valid_until,
            resumed=True,
            client_authenticated=True,
        )

    def anonymous(self) -> HandshakeCompleted:
        """The event of a server whose client showed no certificate."""
        return self._event("", "", (), path_ids=(), valid_until=None, resumed=False, client_authenticated=False)

    def _event(
        self,
        identity: str,
        scheme: str,
        chain: tuple[bytes, ...],
        *,
        path_ids: tuple[bytes, ...],
        valid_until: datetime.datetime | None,
        resumed: bool,
        client_authenticated: bool,
    ) -> HandshakeCompleted:
        return HandshakeCompleted(
            profile=self.profile.name,
            group=self.group.name,
            signature_scheme=scheme,
            cipher_suite=self.suite.name,
            peer_identity=identity,
            peer_chain=chain,
            alpn=self.alpn,
            server_name=self.server_name,
            resumed=resumed,
            client_authenticated=client_authenticated,
            peer_path_ids=path_ids,
            peer_valid_until=valid_until,
        )

    def facts(self, peer: ChainVerified, signature: SignatureVerified, trust: TrustAnchors) -> SessionFacts:
        """What a session of this connection may rest on."""
        return SessionFacts(
            profile=self.profile.name,
            suite=self.suite,
            identity=peer.identity,
            signature_scheme=signature.scheme,
            path_ids=peer.found.path_ids,
            valid_until=peer.found.valid_until,
            anchors_identifier=trust.anchors_identifier,
        )


def log_handshake_secrets(config: EndpointConfig, client_random: bytes, secrets: HandshakeSecrets) -> None:
    """Tell a developer's key log, where one is set (draft-ietf-tls-keylogfile)."""
    if config.key_log is ignore_secret:
        return
    _log(config, "CLIENT_HANDSHAKE_TRAFFIC_SECRET", client_random, secrets.client)
    _log(config, "SERVER_HANDSHAKE_TRAFFIC_SECRET", client_random, secrets.server)


def log_application_secrets(config: EndpointConfig, client_random: bytes, secrets: ApplicationSecrets) -> None:
    """Tell a developer's key log, where one is set (draft-ietf-tls-keylogfile)."""
    if config.key_log is ignore_secret:
        return
    _log(config, "CLIENT_TRAFFIC_SECRET_0", client_random, secrets.client)
    _log(config, "SERVER_TRAFFIC_SECRET_0", client_random, secrets.server)
    _log(config, "EXPORTER_SECRET", client_random, secrets.exporter)


def _log(config: EndpointConfig, label: str, client_random: bytes, secret: TrafficSecret) -> None:
    config.key_log(f"{label} {client_random.hex()} {secret.secret.hex()}")


def accept_identity(peer: ChainVerified | ResumedPeer, decide: Callable[[str], None]) -> None:
    """Ask the owner whether it takes the verified identity; its refusal becomes an alert."""
    try:
        decide(peer.identity)
    except IdentityRefused as refusal:
        raise CertificateRefused(str(refusal), refusal.alert, refusal.reason) from None


def check_certificate_entries(certificate: Certificate) -> None:
    """In the handshake the context is empty, and we ask for no extension of an entry (RFC 8446 §4.4.2)."""
    if certificate.context:
        raise ProtocolViolation("the context of a Certificate in the handshake is not empty", Alert.ILLEGAL_PARAMETER)
    for entry in certificate.entries:
        ext.check_response(entry.extensions, ext.ALLOWED_IN_CERTIFICATE, frozenset(), "Certificate")


def send_authentication(
    credential: Credential,
    own: Purpose,
    authorities: tuple[bytes, ...],
    transcript: Transcript,
    effects: Effects,
    provider: CryptoProvider,
) -> Transcript:
    """Send Certificate and CertificateVerify (§4.4.2, §4.4.3); return the transcript with both.

    `authorities` are the names that the peer says it holds: what it holds itself is not sent.
    """
    chain = credential.chain_for(authorities)
    certificate = _certificate_message(chain)
    transcript += certificate
    verify = sign_transcript(credential.private_key, credential.signature_scheme, own, transcript.digest(), provider)
    effects.send(certificate)
    effects.send(verify)
    return transcript + verify


# A process has one or two credentials at a time, and shows of each the leaf or all of the chain.
@lru_cache(maxsize=4)
def _certificate_message(chain: tuple[bytes, ...]) -> bytes:
    """Our Certificate message, which is the same in every handshake."""
    return Certificate(b"", tuple(CertificateEntry(der, {}) for der in chain)).encode()
