"""The server's handshake (RFC 8446 appendix A.2): one class per state.

    start ─▶ ExpectClientHello ─▶ ExpectCertificate ─▶ ExpectCertificateVerify ─▶ ExpectFinished ─▶ Traffic
                  │ retry ▲  │                │ none, and none is required                            ▲
                  ▼       │  │                └─────▶ ExpectAnonymousFinished ────────────────────────┤
             ExpectSecondClientHello                                                                  │
                             └─ resumed ─▶ ExpectResumedFinished ─────────────────────────────────────┘

The server always asks for a client certificate, or takes a ticket of its own that stands for one. Only where its owner
says so is a client served that has neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pqtls import extensions as ext
from pqtls.certificates import Purpose
from pqtls.client_offer import ClientOffer, check_second_hello, read_offer
from pqtls.config import ServerConfig
from pqtls.connection import Connection
from pqtls.errors import Alert, ProtocolViolation
from pqtls.extensions import ExtensionType
from pqtls.framing import HandshakeMessage, HandshakeType
from pqtls.groups import answer
from pqtls.handshake import (
    Negotiated,
    accept_identity,
    check_certificate_entries,
    log_application_secrets,
    log_handshake_secrets,
    send_authentication,
)
from pqtls.key_schedule import ApplicationSecrets, EarlySecret, HandshakeSecrets
from pqtls.messages import (
    LEGACY_VERSION,
    RETRY_RANDOM,
    Certificate,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    ServerHello,
    encode_finished,
)
from pqtls.resumption import Resumed, issue_tickets, try_to_resume
from pqtls.sessions import SessionFacts
from pqtls.signatures import SignatureScheme
from pqtls.states import Effects, State, expect
from pqtls.traffic import ServerSide, Traffic
from pqtls.transcript import Transcript
from pqtls.verify import (
    AnonymousPeer,
    Authentication,
    ChainVerified,
    PskVerified,
    ResumedPeer,
    SignatureVerified,
    admit_without_certificate,
    verify_chain,
    verify_finished,
    verify_signature,
)
from pqtls.wire import uint16


class ServerConnection(Connection):
    """A server as a value. It waits for a ClientHello."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(is_client=False)
        self.start(ExpectClientHello(config))


@dataclass(frozen=True, slots=True)
class ExpectClientHello:
    """Nothing has come yet."""

    config: ServerConfig

    def handle(self, message: HandshakeMessage, effects: Effects) -> State:
        """Answer the hello, or ask for another one with a share that we can use."""
        hello = ClientHello.parse(expect(message, HandshakeType.CLIENT_HELLO))
        offer = read_offer(hello, self.config)
        if offer.group.code_point in offer.shares:
            return _answer(self.config, offer, (), message.raw, effects)
        retry = ServerHello(
            legacy_version=LEGACY_VERSION,
            random=RETRY_RANDOM,
            session_id_echo=hello.session_id,
            cipher_suite=offer.suite.code_point,
            compression_method=0,
            extensions={
                ExtensionType.SUPPORTED_VERSIONS: uint16(ext.TLS_1_3),
                ExtensionType.KEY_SHARE: uint16(offer.group.code_point),
            },
        ).encode()
        effects.send(retry)
        _please_middleboxes(hello, effects)
        first_hash = Transcript.message_hash(offer.suite.hash_name, message.raw)
        return ExpectSecondClientHello(self.config, offer, (first_hash, retry))


@dataclass(frozen=True, slots=True)
class ExpectSecondClientHello:
    """A HelloRetryRequest is out; `before` is the transcript so far."""

    config: ServerConfig
    first: ClientOffer
    before: tuple[bytes, ...]

    def handle(self, message: HandshakeMessage, effects: Effects) -> State:
        """Demand the same hello with the one share that was asked for (§4.1.2, §4.2.8)."""
        hello = ClientHello.parse(expect(message, HandshakeType.CLIENT_HELLO))
        check_second_hello(self.first.hello, hello)
        offer = read_offer(hello, self.config)
        if tuple(offer.shares) != (self.first.group.code_point,):
            raise ProtocolViolation(
                f"the second ClientHello does not carry exactly one share of {self.first.group.name}",
                Alert.ILLEGAL_PARAMETER,
            )
        return _answer(self.config, offer, self.before, message.raw, effects)


def _answer(
    config: ServerConfig, offer: ClientOffer, before: tuple[bytes, ...], raw_hello: bytes, effects: Effects
) -> State:
    """The server's whole flight, from ServerHello to Finished; `before` is the transcript up to this hello."""
    attempts = try_to_resume(config, offer, before, raw_hello)
    response = answer(offer.group, offer.shares[offer.group.code_point], config.provider)
    hello = _server_hello(config, offer, response.share, attempts)
    effects.send(hello)
    if not before:
        _please_middleboxes(offer.hello, effects)
    transcript = Transcript(offer.suite.hash_name, *before, raw_hello, hello)
    early = EarlySecret.without_psk(offer.suite, config.provider)
    for resumed in attempts:
        early = resumed.early_secret
    secrets = early.handshake(response.secret, transcript.digest())
    log_handshake_secrets(config, offer.hello.random, secrets)
    if offer.large_record_size_limits is None and offer.states_record_size_limit:
        effects.limit_records(offer.record_size_limit, config.record_size_limit)
    effects.write_with(secrets.server)
    effects.read_with(secrets.client)
    if offer.large_record_size_limits is not None:
        effects.enlarge_records(*offer.large_record_size_limits)

    extensions = _encrypted_extensions(config, offer)
    effects.send(extensions)
    transcript += extensions
    if not attempts:
        request = _certificate_request(offer.profile.signature_schemes, config.trust.names)
        effects.send(request)
        transcript = send_authentication(
            config.credential, Purpose.SERVER, offer.authorities, transcript + request, effects, config.provider
        )
    finished = encode_finished(secrets.server.finished(transcript.digest()))
    effects.send(finished)
    transcript += finished
    application = secrets.application(transcript.digest())
    log_application_secrets(config, offer.hello.random, application)
    effects.write_with(application.server)
    context = _Context(config, offer, _negotiated(offer), secrets, application)
    for resumed in attempts:
        return ExpectResumedFinished(context, transcript, resumed.peer, resumed.proof)
    return ExpectCertificate(context, transcript)


def _please_middleboxes(hello: ClientHello, effects: Effects) -> None:
    """Appendix D.4: a client that sends a session id gets a change_cipher_spec behind our first message."""
    if hello.session_id:
        effects.send_change_cipher_spec()


@dataclass(frozen=True, slots=True)
class _Context:
    """What does not change any more after the server's flight."""

    config: ServerConfig
    offer: ClientOffer
    negotiated: Negotiated
    secrets: HandshakeSecrets
    application: ApplicationSecrets

    def finish(
        self,
        message: HandshakeMessage,
        transcript: Transcript,
        authentication: Authentication,
        effects: Effects,
    ) -> Traffic:
        """Verify the client's Finished and change to its application keys; `transcript` ends before it."""
        finished = verify_finished(expect(message, HandshakeType.FINISHED), self.secrets.client, transcript.digest())
        effects.read_with(self.application.client)
        return Traffic(
            authentication=authentication,
            finished=finished,
            reading=self.application.client,
            writing=self.application.server,
            exporter=self.application.exporter,
            sessions=ServerSide(),
        )

    def send_tickets(self, transcript: Transcript, facts: SessionFacts, effects: Effects) -> None:
        """Send tickets to a client that has use for them; `transcript` ends with its Finished."""
        if self.offer.wants_tickets:
            issue_tickets(self.config, facts, self.application.resumption(transcript.digest()), effects)


def _negotiated(offer: ClientOffer) -> Negotiated:
    return Negotiated(
        profile=offer.profile,
        suite=offer.suite,
        group=offer.group,
        client_random=offer.hello.random,
        alpn=offer.alpn,
        server_name=offer.server_name,
    )


def _server_hello(config: ServerConfig, offer: ClientOffer, share: bytes, attempts: tuple[Resumed, ...]) -> bytes:
    extensions: ext.Extensions = {
        ExtensionType.SUPPORTED_VERSIONS: uint16(ext.TLS_1_3),
        ExtensionType.KEY_SHARE: ext.KeyShareEntry(offer.group.code_point, share).encode(),
    }
    for resumed in attempts:
        extensions[ExtensionType.PRE_SHARED_KEY] = uint16(resumed.selected)
    return ServerHello(
        legacy_version=LEGACY_VERSION,
        random=config.provider.random_bytes(32),
        session_id_echo=offer.hello.session_id,
        cipher_suite=offer.suite.code_point,
        compression_method=0,
        extensions=extensions,
    ).encode()


def _encrypted_extensions(config: ServerConfig, offer: ClientOffer) -> bytes:
    extensions: ext.Extensions = {}
    if offer.alpn is not None:
        extensions[ExtensionType.ALPN] = ext.write_alpn((offer.alpn,))
    # A server answers at most one of the two (draft-ietf-tls-super-jumbo-record-limit-03 §3).
    if offer.large_record_size_limits is not None:
        _theirs, ours = offer.large_record_size_limits
        extensions[ExtensionType.LARGE_RECORD_SIZE_LIMIT] = ext.write_large_record_size_limit(ours)
    elif offer.states_record_size_limit:
        extensions[ExtensionType.RECORD_SIZE_LIMIT] = uint16(config.record_size_limit)
    return EncryptedExtensions(extensions).encode()


# The profiles of one trust, and of the one that replaces it.
@lru_cache(maxsize=8)
def _certificate_request(schemes: tuple[SignatureScheme, ...], authorities: tuple[bytes, ...]) -> bytes:
    extensions: ext.Extensions = {
        ExtensionType.SIGNATURE_ALGORITHMS: ext.write_code_points(tuple(scheme.code_point for scheme in schemes)),
        ExtensionType.CERTIFICATE_AUTHORITIES: ext.write_authorities(authorities),
    }
    return CertificateRequest(b"", extensions).encode()


@dataclass(frozen=True, slots=True)
class ExpectCertificate:
    """The client's chain comes."""

    context: _Context
    transcript: Transcript

    def handle(self, message: HandshakeMessage, _effects: Effects) -> State:
        """Verify the chain; whether a client may go on without one is its owner's to say (§4.4.2.4)."""
        certificate = Certificate.parse(expect(message, HandshakeType.CERTIFICATE))
        check_certificate_entries(certificate)
        config = self.context.config
        transcript = self.transcript + message.raw
        if not certificate.entries:
            nobody = admit_without_certificate(certificate, config.client_authentication)
            return ExpectAnonymousFinished(self.context, transcript, nobody)
        peer = verify_chain(
            certificate,
            config.trust,
            Purpose.CLIENT,
            config.now(),
            self.context.negotiated.profile.signature_schemes,
            config.chain_cache,
        )
        return ExpectCertificateVerify(self.context, transcript, peer)


@dataclass(frozen=True, slots=True)
class ExpectCertificateVerify:
    """The client proves that it holds its private key."""

    context: _Context
    transcript: Transcript
    peer: ChainVerified

    def handle(self, message: HandshakeMessage, _effects: Effects) -> State:
        """Verify the signature over the transcript, and ask the owner about the identity that it proves."""
        signature = verify_signature(
            CertificateVerify.parse(expect(message, HandshakeType.CERTIFICATE_VERIFY)),
            self.peer,
            Purpose.CLIENT,
            self.transcript.digest(),
            self.context.negotiated.profile.signature_schemes,
            self.context.config.provider,
        )
        # Not before: until now this may be somebody who only shows the certificate.
        accept_identity(self.peer, self.context.config.accept_identity)
        return ExpectFinished(self.context, self.transcript + message.raw, self.peer, signature)


@dataclass(frozen=True, slots=True)
class ExpectFinished:
    """The client confirms the handshake."""

    context: _Context
    transcript: Transcript
    peer: ChainVerified
    signature: SignatureVerified

    def handle(self, message: HandshakeMessage, effects: Effects) -> State:
        """Verify Finished; the connection is up."""
        state = self.context.finish(message, self.transcript, (self.peer, self.signature), effects)
        facts = self.context.negotiated.facts(self.peer, self.signature, self.context.config.trust)
        self.context.send_tickets(self.transcript + message.raw, facts, effects)
        effects.emit(self.context.negotiated.completed(self.peer, self.signature, client_authenticated=True))
        return state


@dataclass(frozen=True, slots=True)
class ExpectAnonymousFinished:
    """The client showed no certificate, so no signature follows; it confirms the handshake."""

    context: _Context
    transcript: Transcript
    peer: AnonymousPeer

    def handle(self, message: HandshakeMessage, effects: Effects) -> State:
        """Verify Finished; the connection is up. No tickets: a session stands for a verified identity."""
        state = self.context.finish(message, self.transcript, self.peer, effects)
        effects.emit(self.context.negotiated.anonymous())
        return state


@dataclass(frozen=True, slots=True)
class ExpectResumedFinished:
    """The client's ticket was taken; it confirms without certificates."""

    context: _Context
    transcript: Transcript
    peer: ResumedPeer
    proof: PskVerified

    def handle(self, message: HandshakeMessage, effects: Effects) -> State:
        """Verify Finished; the connection is up."""
        state = self.context.finish(message, self.transcript, (self.peer, self.proof), effects)
        self.context.send_tickets(self.transcript + message.raw, self.peer.facts, effects)
        effects.emit(self.context.negotiated.resumed(self.peer))
        return state
