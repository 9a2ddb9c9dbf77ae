"""A peer that a test moves by hand: it can do a whole handshake, and at any point say anything instead.

It is made of the engine's own parts (messages, key schedule, record protection), but not of its states: what comes
when, and what stands in it, is the test's decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import pqtls
from pqtls import extensions as ext
from pqtls.certificates import Purpose
from pqtls.errors import Alert, MisuseError, PeerError
from pqtls.extensions import ExtensionType, KeyShareEntry
from pqtls.framing import HandshakeJoiner, HandshakeMessage, HandshakeType, read_plain_record
from pqtls.groups import X25519MLKEM1024, GroupPrivateShare, NamedGroup, answer, generate
from pqtls.key_schedule import ApplicationSecrets, EarlySecret, HandshakeSecrets, TrafficSecret
from pqtls.messages import (
    LEGACY_VERSION,
    RETRY_RANDOM,
    Certificate,
    CertificateEntry,
    CertificateRequest,
    ClientHello,
    EncryptedExtensions,
    ServerHello,
    encode_finished,
    encode_key_update,
)
from pqtls.provider_cryptography import PROVIDER
from pqtls.record import ContentType, RecordOpener, RecordSealer
from pqtls.signatures import MLDSA87
from pqtls.suites import TLS_AES_256_GCM_SHA384, CipherSuite
from pqtls.transcript import Transcript
from pqtls.verify import sign_transcript
from pqtls.wire import uint16


def plain_record(content_type: int, content: bytes) -> bytes:
    """A record without protection, of any length and type."""
    return bytes((content_type, 3, 3)) + len(content).to_bytes(2, "big") + content


def replaced(extensions: ext.Extensions, **changes: bytes | None) -> ext.Extensions:
    """Extensions with some content changed, by the name of the type; None takes the extension out."""
    values = dict(extensions)
    for name, content in changes.items():
        kind = ExtensionType[name.upper()]
        if content is None:
            values.pop(kind, None)
        else:
            values[kind] = content
    return values


def forged_chain(*certificates: bytes, context: bytes = b"", extensions: ext.Extensions | None = None) -> bytes:
    """A Certificate message of any DER strings, the extensions at the first."""
    entries = [CertificateEntry(der, {}) for der in certificates]
    if entries and extensions:
        entries[0] = CertificateEntry(certificates[0], extensions)
    return Certificate(context, tuple(entries)).encode()


class ScriptedPeer:
    """What both roles share: records in and out, messages and alerts that came."""

    role: Purpose

    def __init__(self, connection: pqtls.Connection, suite: CipherSuite = TLS_AES_256_GCM_SHA384) -> None:
        self.connection = connection
        self.suite = suite
        self.sealer: RecordSealer | None = None
        self.opener: RecordOpener | None = None
        self.joiner = HandshakeJoiner()
        self.messages: list[HandshakeMessage] = []
        self.alerts: list[tuple[int, int]] = []
        self.data = b""
        self.sent: list[bytes] = []  # the transcript, both directions, as far as it was meant to count
        self.secrets: HandshakeSecrets
        self.application: ApplicationSecrets

    # -- sending ------------------------------------------------------------------------------------------------

    def record(self, content_type: int, content: bytes) -> bytes:
        """One record under the present keys, of any type and any length up to the wire's limit."""
        if self.sealer is None:
            return plain_record(content_type, content)
        return self.sealer.seal(content_type, content)  # type: ignore[arg-type]  # any type is the point

    def say(self, content_type: int, content: bytes) -> None:
        """Give the connection one record."""
        self.connection.receive_data(self.record(content_type, content))

    def send(self, *messages: bytes) -> None:
        """Give the connection handshake messages, in one record, and count them to the transcript."""
        self.sent.extend(messages)
        self.say(ContentType.HANDSHAKE, b"".join(messages))

    def send_alert(self, alert: int, level: int = 2) -> None:
        """Give the connection an alert."""
        self.say(ContentType.ALERT, bytes((level, alert)))

    def digest(self) -> bytes:
        """Transcript-Hash over all that counts so far."""
        return Transcript(self.suite.hash_name, *self.sent).digest()

    def certificate_verify(self, credential: pqtls.Credential, **changes: Any) -> bytes:
        """The CertificateVerify that fits the transcript so far."""
        scheme = changes.get("scheme", credential.signature_scheme)
        return sign_transcript(credential.private_key, scheme, changes.get("role", self.role), self.digest(), PROVIDER)

    # -- receiving ----------------------------------------------------------------------------------------------

    def receive(self) -> None:
        """Take all that the connection has to send."""
        data = self.connection.data_to_send()
        while data:
            if data[0] != ContentType.APPLICATION_DATA or self.opener is None:
                record = read_plain_record(data, first=False)
                assert record is not None, "the connection sent half a record"
                data = data[record.size :]
                self._on(record.type, record.content)
                continue
            size = 5 + int.from_bytes(data[3:5], "big")
            plaintext = bytearray(size)
            _, produced, content_type, length = self.opener.open_into(memoryview(data[:size]), memoryview(plaintext))
            data = data[size:]
            if content_type == ContentType.APPLICATION_DATA:
                self.data += plaintext[:produced]
            else:
                self._on(content_type, bytes(plaintext[:length]))

    def _on(self, content_type: int, content: bytes) -> None:
        if content_type == ContentType.ALERT:
            self.alerts.append((content[0], content[1]))
            return
        assert content_type == ContentType.HANDSHAKE
        self.joiner.feed(content)
        while (message := self.joiner.next_message()) is not None:
            self.messages.append(message)
            self.on_message(message)

    def on_message(self, message: HandshakeMessage) -> None:
        """Follow the other end's changes of keys."""
        raise NotImplementedError

    def rekey_reading(self, secret: TrafficSecret) -> None:
        """Open what comes from here on with `secret`."""
        assert self.joiner.is_empty, "a message spans a change of keys"
        self.opener = RecordOpener(secret)

    def update_keys(self, secret: TrafficSecret, *, request: bool = False) -> TrafficSecret:
        """Send KeyUpdate and change our keys from `secret` to the next; return it."""
        self.say(ContentType.HANDSHAKE, encode_key_update(request))
        following = secret.next_generation()
        self.sealer = RecordSealer(following)
        return following


class ScriptedServer(ScriptedPeer):
    """Plays the server against a ClientConnection whose ClientHello it takes at once."""

    role = Purpose.SERVER

    def __init__(self, connection: pqtls.Connection, suite: CipherSuite = TLS_AES_256_GCM_SHA384) -> None:
        super().__init__(connection, suite)
        self.receive()
        self.hello = ClientHello.parse(self.messages[0].body)

    def on_message(self, message: HandshakeMessage) -> None:
        """The client's Finished is the last under its handshake keys."""
        self.sent.append(message.raw)
        if message.type == HandshakeType.FINISHED:
            self.rekey_reading(self.application.client)

    def server_hello(self, group: NamedGroup = X25519MLKEM1024, **changes: Any) -> ServerHello:
        """A right ServerHello that answers the client's share; any field can be changed."""
        shares = ext.read_client_key_shares(self.hello.extensions[ExtensionType.KEY_SHARE])
        self.answer = answer(group, shares[0].key_exchange, PROVIDER)
        values: dict[str, Any] = {
            "legacy_version": LEGACY_VERSION,
            "random": PROVIDER.random_bytes(32),
            "session_id_echo": self.hello.session_id,
            "cipher_suite": self.suite.code_point,
            "compression_method": 0,
            "extensions": {
                ExtensionType.SUPPORTED_VERSIONS: uint16(ext.TLS_1_3),
                ExtensionType.KEY_SHARE: KeyShareEntry(group.code_point, self.answer.share).encode(),
            },
        }
        return ServerHello(**(values | changes))

    def retry(self, extensions: ext.Extensions, **changes: Any) -> bytes:
        """A HelloRetryRequest with these extensions besides supported_versions."""
        hello = ServerHello(
            LEGACY_VERSION,
            RETRY_RANDOM,
            changes.get("session_id_echo", b""),
            changes.get("cipher_suite", self.suite.code_point),
            0,
            {ExtensionType.SUPPORTED_VERSIONS: uint16(ext.TLS_1_3)} | extensions,
        )
        return hello.encode()

    def send_retry(self, raw: bytes) -> None:
        """Send a HelloRetryRequest, do to the transcript what it does, and take the second ClientHello."""
        digest = self.digest()
        self.sent = [bytes((254, 0, 0, len(digest))) + digest]
        self.send(raw)
        self.receive()
        self.hello = ClientHello.parse(self.messages[-1].body)

    def send_server_hello(self, group: NamedGroup = X25519MLKEM1024) -> None:
        """Send a right ServerHello and change to the handshake keys."""
        self.send(self.server_hello(group).encode())
        self.use_handshake_keys()

    def use_handshake_keys(self) -> None:
        """Derive the handshake keys from what was sent so far."""
        early = EarlySecret.without_psk(self.suite, PROVIDER)
        self.secrets = early.handshake(self.answer.secret, self.digest())
        self.sealer = RecordSealer(self.secrets.server)
        self.rekey_reading(self.secrets.client)

    def finished(self) -> bytes:
        """The right Finished."""
        return encode_finished(self.secrets.server.finished(self.digest()))

    def use_application_keys(self) -> None:
        """Derive the application keys; our own Finished was just sent."""
        self.application = self.secrets.application(self.digest())
        self.sealer = RecordSealer(self.application.server)

    def finish_handshake(self, credential: pqtls.Credential, *, request: bool = True) -> None:
        """Everything from ServerHello to Finished, and the client's answer."""
        self.send_server_hello()
        self.send(EncryptedExtensions({}).encode())
        if request:
            self.send(certificate_request())
        self.send(forged_chain(*credential.chain))
        self.send(self.certificate_verify(credential))
        finished = self.finished()
        # The keys that the client's next records need are known before it makes them.
        self.sent.append(finished)
        application = self.secrets.application(self.digest())
        self.sent.pop()
        self.application = application
        self.send(finished)
        self.sealer = RecordSealer(application.server)
        self.receive()


def certificate_request(context: bytes = b"", extensions: ext.Extensions | None = None) -> bytes:
    """A CertificateRequest, by default one that takes ML-DSA-87."""
    right = {int(ExtensionType.SIGNATURE_ALGORITHMS): ext.write_code_points((MLDSA87.code_point,))}
    return CertificateRequest(context, right if extensions is None else extensions).encode()


class ScriptedClient(ScriptedPeer):
    """Plays the client against a ServerConnection."""

    role = Purpose.CLIENT

    def __init__(
        self,
        connection: pqtls.Connection,
        group: NamedGroup = X25519MLKEM1024,
        suite: CipherSuite = TLS_AES_256_GCM_SHA384,
    ) -> None:
        super().__init__(connection, suite)
        self.share: GroupPrivateShare = generate(group, PROVIDER)
        self.random = PROVIDER.random_bytes(32)

    def client_hello(self, **changes: Any) -> ClientHello:
        """A right ClientHello; any field can be changed."""
        group = self.share.group.code_point
        values: dict[str, Any] = {
            "legacy_version": LEGACY_VERSION,
            "random": self.random,
            "session_id": b"",
            "cipher_suites": (self.suite.code_point,),
            "compression_methods": b"\x00",
            "extensions": {
                ExtensionType.SUPPORTED_GROUPS: ext.write_code_points((group,)),
                ExtensionType.SIGNATURE_ALGORITHMS: ext.write_code_points((MLDSA87.code_point,)),
                ExtensionType.SUPPORTED_VERSIONS: ext.write_client_versions(),
                ExtensionType.KEY_SHARE: ext.write_client_key_shares((KeyShareEntry(group, self.share.public),)),
            },
        }
        return ClientHello(**(values | changes))

    def on_message(self, message: HandshakeMessage) -> None:
        """ServerHello begins the server's handshake keys, its Finished ends them."""
        if message.type == HandshakeType.KEY_UPDATE:
            return
        hello = ServerHello.parse(message.body) if message.type == HandshakeType.SERVER_HELLO else None
        if hello is not None and hello.is_retry:
            digest = self.digest()
            self.sent = [bytes((254, 0, 0, len(digest))) + digest]
        self.sent.append(message.raw)
        if hello is not None and not hello.is_retry:
            entry = ext.read_key_share_entry(hello.extensions[ExtensionType.KEY_SHARE])
            early = EarlySecret.without_psk(self.suite, PROVIDER)
            self.secrets = early.handshake(self.share.finish(entry.key_exchange), self.digest())
            self.rekey_reading(self.secrets.server)
            self.sealer = RecordSealer(self.secrets.client)
        elif message.type == HandshakeType.FINISHED:
            self.application = self.secrets.application(self.digest())
            self.rekey_reading(self.application.server)

    def start(self) -> None:
        """Send a right ClientHello and take the server's flight."""
        self.send(self.client_hello().encode())
        self.receive()

    def finished(self) -> bytes:
        """The right Finished."""
        return encode_finished(self.secrets.client.finished(self.digest()))

    def use_application_keys(self) -> None:
        """Our Finished was just sent."""
        self.sealer = RecordSealer(self.application.client)

    def finish_handshake(self, credential: pqtls.Credential) -> None:
        """All of a right client's part."""
        self.start()
        self.send(forged_chain(*credential.chain))
        self.send(self.certificate_verify(credential))
        self.send(self.finished())
        self.use_application_keys()


@contextmanager
def refused(
    peer: ScriptedPeer, error: type[PeerError], alert: Alert, reason: str | None = None
) -> Iterator[pytest.ExceptionInfo[PeerError]]:
    """The block ends in exactly this error, its alert is on the wire as the last thing, and the connection is dead."""
    with pytest.raises(PeerError) as caught:
        yield caught
    assert type(caught.value) is error
    assert caught.value.alert is alert
    assert caught.value.reason == (reason or error.default_reason)
    peer.receive()
    assert peer.alerts[-1:] == [(2, alert)]
    assert not peer.connection.handshake_complete or peer.application
    with pytest.raises(MisuseError):
        peer.connection.receive_data(b"\x16")
