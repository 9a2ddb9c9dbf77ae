"""The client's handshake (RFC 8446 appendix A.1): one class per state.

start ─▶ ExpectServerHello ─▶ ExpectEncryptedExtensions ─▶ ExpectCertificateRequest ─▶ ExpectCertificate
             │ retry ▲                 │                        └─ no request ─┐             │
             └───────┘                 │ resumed                               ▼             ▼
                                       │      ExpectFinished ◀─ ExpectCertificateVerify ◀────┘
                                       ▼            ▼
                            ExpectResumedFinished ─▶ Traffic
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pqtls import extensions as ext
from pqtls.certificates import Purpose
from pqtls.client_certificate import NotAsked, OwnCertificate, read_request
from pqtls.client_hello import Offer, OfferedSession, check_server_hello, first_offer, profile_of_answer, second_offer
from pqtls.config import ClientConfig
from pqtls.connection import Connection
from pqtls.errors import Alert, DecodeError, NegotiationRefused, ProtocolViolation
from pqtls.extensions import ExtensionType
from pqtls.framing import HandshakeMessage, HandshakeType
from pqtls.handshake import (
    Negotiated,
    accept_identity,
    check_certificate_entries,
    log_application_secrets,
    log_handshake_secrets,
)
from pqtls.key_schedule import ApplicationSecrets, EarlySecret, HandshakeSecrets
from pqtls.messages import (
    Certificate,
    CertificateVerify,
    EncryptedExtensions,
    ServerHello,
    encode_finished,
)
from pqtls.record import MAX_FRAGMENT
from pqtls.sessions import Session, SessionFacts
from pqtls.states import Effects, State, expect
from pqtls.suites import CipherSuite
from pqtls.traffic import NoSessions, Sessions, Traffic
from pqtls.transcript import Transcript
from pqtls.verify import (
    ChainVerified,
    ResumedPeer,
    SignatureVerified,
    confirm_psk,
    verify_chain,
    verify_finished,
    verify_resumption,
    verify_signature,
)

# What a ServerHello may answer (RFC 8446 §4.2).
_OFFERED: Final = frozenset({ExtensionType.KEY_SHARE, ExtensionType.SUPPORTED_VERSIONS})
_OFFERED_WITH_SESSION: Final = _OFFERED | {ExtensionType.PRE_SHARED_KEY}


class ClientConnection(Connection):
    """A client as a value. Its ClientHello is in `data_to_send()` from the start."""

    def __init__(self, config: ClientConfig) -> None:
        super().__init__(is_client=True)
        offer = first_offer(config)
        self.effects.send(offer.raw)
        self.start(ExpectServerHello(config, offer))


@dataclass(frozen=True, slots=True)
class ExpectServerHello:
    """The ClientHello is out; a ServerHello or a HelloRetryRequest comes."""

    config: ClientConfig
    offer: Offer

    def handle(self, message: HandshakeMessage, effects: Effects) -> State:
        """Go on with the key exchange, or send the hello again as the server asks."""
        server_hello = ServerHello.parse(expect(message, HandshakeType.SERVER_HELLO))
        suite = check_server_hello(server_hello, self.offer, self.config)
        if not server_hello.is_retry:
            transcript = Transcript(suite.hash_name, self.offer.raw, message.raw)
            return _exchange_keys(self.config, self.offer, server_hello, suite, transcript, effects)
        second = second_offer(self.config, self.offer, server_hello, suite, message.raw)
        effects.send(second.raw)
        first_hash = Transcript.message_hash(suite.hash_name, self.offer.raw)
        transcript = Transcript(suite.hash_name, first_hash, message.raw, second.raw)
        return ExpectServerHelloAfterRetry(self.config, second, suite, transcript)


@dataclass(frozen=True, slots=True)
class ExpectServerHelloAfterRetry:
    """The second ClientHello is out; now only a ServerHello will do."""

    config: ClientConfig
    offer: Offer
    suite: CipherSuite
    transcript: Transcript

    def handle(self, message: HandshakeMessage, effects: Effects) -> State:
        """Go on with the key exchange."""
        server_hello = ServerHello.parse(expect(message, HandshakeType.SERVER_HELLO))
        if server_hello.is_retry:
            raise ProtocolViolation("a second HelloRetryRequest", Alert.UNEXPECTED_MESSAGE)
        if check_server_hello(server_hello, self.offer, self.config) is not self.suite:
            # §4.1.4: the cipher suite must be the one of the HelloRetryRequest.
            raise ProtocolViolation("the server changed its cipher suite after a retry", Alert.ILLEGAL_PARAMETER)
        transcript = self.transcript + message.raw
        return _exchange_keys(self.config, self.offer, server_hello, self.suite, transcript, effects)


def _exchange_keys(
    config: ClientConfig,
    offer: Offer,
    server_hello: ServerHello,
    suite: CipherSuite,
    transcript: Transcript,
    effects: Effects,
) -> State:
    """Finish the key exchange of a ServerHello and turn on protection in both directions."""
    offered = _OFFERED_WITH_SESSION if offer.sessions else _OFFERED
    ext.check_response(server_hello.extensions, ext.ALLOWED_IN_SERVER_HELLO, offered, "ServerHello")
    content = server_hello.extensions.get(ExtensionType.KEY_SHARE)
    if content is None:
        raise ProtocolViolation("ServerHello has no key share", Alert.MISSING_EXTENSION)
    entry = ext.read_key_share_entry(content)
    if entry.group != offer.share.group.code_point:
        raise ProtocolViolation(
            f"the server answered with group {entry.group:#06x}; our share is of {offer.share.group.name}",
            Alert.ILLEGAL_PARAMETER,
        )
    profile = profile_of_answer(offer.share.group, suite, config)
    resumed = _resumed_sessions(server_hello, offer, suite)
    early = resumed[0].early_secret if resumed else EarlySecret.without_psk(suite, config.provider)
    secrets = early.handshake(offer.share.finish(entry.key_exchange), transcript.digest())
    log_handshake_secrets(config, offer.hello.random, secrets)
    effects.write_with(secrets.client)
    effects.read_with(secrets.server)
    negotiated = Negotiated(profile, suite, offer.share.group, offer.hello.random)
    sessions = tuple(one.session for one in resumed)
    return ExpectEncryptedExtensions(config, negotiated, secrets, transcript, sessions)


def _resumed_sessions(server_hello: ServerHello, offer: Offer, suite: CipherSuite) -> tuple[OfferedSession, ...]:
    """The session that the server takes up, if it does (§4.2.11)."""
    content = server_hello.extensions.get(ExtensionType.PRE_SHARED_KEY)
    if content is None:
        return ()
    selected = ext.read_selected(content, "pre_shared_key")
    if selected >= len(offer.sessions) or offer.sessions[selected].session.facts.suite is not suite:
        raise ProtocolViolation("the server resumes a session that was not offered so", Alert.ILLEGAL_PARAMETER)
    return (offer.sessions[selected],)


@dataclass(frozen=True, slots=True)
class ExpectEncryptedExtensions:
    """Everything from here on is protected."""

    config: ClientConfig
    negotiated: Negotiated
    secrets: HandshakeSecrets
    transcript: Transcript
    sessions: tuple[Session, ...]

    def handle(self, message: HandshakeMessage, effects: Effects) -> State:
        """Take what the server says to our offers."""
        body = EncryptedExtensions.parse(expect(message, HandshakeType.ENCRYPTED_EXTENSIONS))
        large = self.config.large_record_size_limit
        limit_kind = ExtensionType.RECORD_SIZE_LIMIT if large is None else ExtensionType.LARGE_RECORD_SIZE_LIMIT
        offered = {ExtensionType.SUPPORTED_GROUPS, limit_kind}
        if self.config.alpn:
            offered.add(ExtensionType.ALPN)
        if self.config.server_name is not None:
            offered.add(ExtensionType.SERVER_NAME)
        ext.check_response(body.extensions, ext.ALLOWED_IN_ENCRYPTED_EXTENSIONS, offered, "EncryptedExtensions")
        _check_contents(body.extensions)
        if ExtensionType.RECORD_SIZE_LIMIT in body.extensions:
            limit = ext.read_record_size_limit(body.extensions[ExtensionType.RECORD_SIZE_LIMIT])
            if limit > MAX_FRAGMENT + 1:
                # RFC 8449 §4: a server knows the version, so it has no reason to state more than TLS 1.3 allows.
                raise ProtocolViolation(f"the server states a record size limit of {limit}", Alert.ILLEGAL_PARAMETER)
            effects.limit_records(limit, self.config.record_size_limit)
        if large is not None and ExtensionType.LARGE_RECORD_SIZE_LIMIT in body.extensions:
            effects.enlarge_records(
                ext.read_large_record_size_limit(body.extensions[ExtensionType.LARGE_RECORD_SIZE_LIMIT]), large
            )
        negotiated = self.negotiated.extended(self._alpn(body.extensions), self.config.server_name)
        transcript = self.transcript + message.raw
        for session in self.sessions:
            peer = verify_resumption(session.facts, negotiated.profile, self.config.trust, self.config.now())
            accept_identity(peer, self.config.accept_identity)
            return ExpectResumedFinished(self.config, negotiated, self.secrets, transcript, peer)
        return ExpectCertificateRequest(self.config, negotiated, self.secrets, transcript)

    def _alpn(self, extensions: ext.Extensions) -> bytes | None:
        content = extensions.get(ExtensionType.ALPN)
        if content is None:
            if self.config.require_alpn:
                raise NegotiationRefused("the server did not select a protocol by ALPN", Alert.NO_APPLICATION_PROTOCOL)
            return None
        protocols = ext.read_alpn(content)
        # RFC 7301 §3.1: exactly one name, and one of ours.
        if len(protocols) != 1 or protocols[0] not in self.config.alpn:
            raise ProtocolViolation("the server selected a protocol that was not offered", Alert.ILLEGAL_PARAMETER)
        return protocols[0]


def _check_contents(extensions: ext.Extensions) -> None:
    """What says nothing to us must be well-formed all the same."""
    if extensions.get(ExtensionType.SERVER_NAME):
        # RFC 6066 §3: the server's extension_data is empty.
        raise DecodeError("server_name in EncryptedExtensions is not empty")
    if ExtensionType.SUPPORTED_GROUPS in extensions:
        ext.read_code_points(extensions[ExtensionType.SUPPORTED_GROUPS], "supported_groups")


@dataclass(frozen=True, slots=True)
class ExpectCertificateRequest:
    """A mesh server asks for our certificate; a server that does not goes on with its own."""

    config: ClientConfig
    negotiated: Negotiated
    secrets: HandshakeSecrets
    transcript: Transcript

    def handle(self, message: HandshakeMessage, effects: Effects) -> State:
        """Note the request, or pass a Certificate on to the next state."""
        if message.type == HandshakeType.CERTIFICATE:
            following = ExpectCertificate(self.config, self.negotiated, self.secrets, self.transcript, NotAsked())
            return following.handle(message, effects)
        own = read_request(expect(message, HandshakeType.CERTIFICATE_REQUEST), self.config)
        return ExpectCertificate(self.config, self.negotiated, self.secrets, self.transcript + message.raw, own)


@dataclass(frozen=True, slots=True)
class ExpectCertificate:
    """The server's chain comes."""

    config: ClientConfig
    negotiated: Negotiated
    secrets: HandshakeSecrets
    transcript: Transcript
    own: OwnCertificate

    def handle(self, message: HandshakeMessage, _effects: Effects) -> State:
        """Verify the chain."""
        certificate = Certificate.parse(expect(message, HandshakeType.CERTIFICATE))
        if not certificate.entries:
            # §4.4.2.4: a server's empty chain is a decode_error.
            raise DecodeError("the server sent an empty certificate chain")
        check_certificate_entries(certificate)
        peer = verify_chain(
            certificate,
            self.config.trust,
            Purpose.SERVER,
            self.config.now(),
            self.negotiated.profile.signature_schemes,
            self.config.chain_cache,
        )
        return ExpectCertificateVerify(
            self.config, self.negotiated, self.secrets, self.transcript + message.raw, self.own, peer
        )


@dataclass(frozen=True, slots=True)
class ExpectCertificateVerify:
    """The server proves that it holds its private key."""

    config: ClientConfig
    negotiated: Negotiated
    secrets: HandshakeSecrets
    transcript: Transcript
    own: OwnCertificate
    peer: ChainVerified

    def handle(self, message: HandshakeMessage, _effects: Effects) -> State:
        """Verify the signature over the transcript, and ask the owner about the identity that it proves."""
        signature = verify_signature(
            CertificateVerify.parse(expect(message, HandshakeType.CERTIFICATE_VERIFY)),
            self.peer,
            Purpose.SERVER,
            self.transcript.digest(),
            self.negotiated.profile.signature_schemes,
            self.config.provider,
        )
        # Not before: until now this may be somebody who only shows the certificate.
        accept_identity(self.peer, self.config.accept_identity)
        transcript = self.transcript + message.raw
        return ExpectFinished(self.config, self.negotiated, self.secrets, transcript, self.own, self.peer, signature)


@dataclass(frozen=True, slots=True)
class ExpectFinished:
    """The server confirms the handshake; then it is our turn."""

    config: ClientConfig
    negotiated: Negotiated
    secrets: HandshakeSecrets
    transcript: Transcript
    own: OwnCertificate
    peer: ChainVerified
    signature: SignatureVerified

    def handle(self, message: HandshakeMessage, effects: Effects) -> State:
        """Verify Finished, send our own flight, and change to the application keys."""
        body = expect(message, HandshakeType.FINISHED)
        finished = verify_finished(body, self.secrets.server, self.transcript.digest())
        transcript = self.transcript + message.raw
        application = _application_keys(self.config, self.negotiated, self.secrets, transcript, effects)
        transcript = self.own.send(transcript, effects)
        transcript = _send_finished(self.secrets, application, transcript, effects)
        effects.emit(self.negotiated.completed(self.peer, self.signature, client_authenticated=self.own.authenticates))
        return Traffic(
            authentication=(self.peer, self.signature),
            finished=finished,
            reading=application.server,
            writing=application.client,
            exporter=application.exporter,
            sessions=self._sessions(transcript, application),
        )

    def _sessions(self, transcript: Transcript, application: ApplicationSecrets) -> Sessions | NoSessions:
        """Tickets are only of use where we were authenticated too: a mesh server would not resume otherwise."""
        if not self.own.authenticates:
            return NoSessions()
        facts = self.negotiated.facts(self.peer, self.signature, self.config.trust)
        return Sessions(facts, application.resumption(transcript.digest()), self.config.now)


@dataclass(frozen=True, slots=True)
class ExpectResumedFinished:
    """The server took up our session: no certificates come, only its Finished."""

    config: ClientConfig
    negotiated: Negotiated
    secrets: HandshakeSecrets
    transcript: Transcript
    peer: ResumedPeer

    def handle(self, message: HandshakeMessage, effects: Effects) -> State:
        """Verify Finished, which proves that the server holds the secret of the session, and answer it."""
        body = expect(message, HandshakeType.FINISHED)
        finished = verify_finished(body, self.secrets.server, self.transcript.digest())
        transcript = self.transcript + message.raw
        application = _application_keys(self.config, self.negotiated, self.secrets, transcript, effects)
        transcript = _send_finished(self.secrets, application, transcript, effects)
        effects.emit(self.negotiated.resumed(self.peer))
        facts: SessionFacts = self.peer.facts
        return Traffic(
            authentication=(self.peer, confirm_psk(finished)),
            finished=finished,
            reading=application.server,
            writing=application.client,
            exporter=application.exporter,
            sessions=Sessions(facts, application.resumption(transcript.digest()), self.config.now),
        )


def _application_keys(
    config: ClientConfig,
    negotiated: Negotiated,
    secrets: HandshakeSecrets,
    transcript: Transcript,
    effects: Effects,
) -> ApplicationSecrets:
    """The transcript ends with the server's Finished; the server's next record is under its application key."""
    application = secrets.application(transcript.digest())
    log_application_secrets(config, negotiated.client_random, application)
    effects.read_with(application.server)
    return application


def _send_finished(
    secrets: HandshakeSecrets, application: ApplicationSecrets, transcript: Transcript, effects: Effects
) -> Transcript:
    """Send our Finished and change our sending keys; return the transcript with it."""
    finished = encode_finished(secrets.client.finished(transcript.digest()))
    effects.send(finished)
    effects.write_with(application.client)
    return transcript + finished
