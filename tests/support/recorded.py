"""Handshakes that come out the same each time, so that one can be recorded, changed at any place, and played again.

An engine is a pure function of its configuration and of what it receives. With a provider whose randomness repeats, a
recorded flight can be damaged in thousands of ways and played to a fresh engine for a part of a handshake's cost.
The recording also holds the traffic secrets, so that a message under encryption can be changed and sealed again: that
is what a peer with a valid certificate and bad intentions can do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pqtls
from pqtls.framing import HandshakeJoiner
from pqtls.key_schedule import HandshakeSecrets, TrafficSecret
from pqtls.messages import encode_finished
from pqtls.provider import Aead, Agreement, Answer, CryptoProvider, PrivateShare, SigningKey, default_provider
from pqtls.record import HEADER_SIZE, MAX_FRAGMENT, ContentType, RecordOpener, RecordSealer
from pqtls.signatures import SignatureScheme
from pqtls.suites import CipherSuite
from pqtls.transcript import Transcript
from tests.support.pki import client_config, server_config


class RepeatingProvider:
    """The default provider, except that the same question has the same answer. Never for anything but tests."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._inner: CryptoProvider = default_provider()
        self._shares: dict[Agreement, PrivateShare] = {}
        self._answers: dict[tuple[Agreement, bytes], Answer] = {}
        self._signatures: dict[bytes, bytes] = {}
        self.name = f"repeating {self._inner.name}"
        self.invalid_tag = self._inner.invalid_tag

    def random_bytes(self, length: int) -> bytes:
        """The same bytes each time."""
        return hashlib.shake_256(self._label.encode()).digest(length)

    def generate_share(self, algorithm: Agreement) -> PrivateShare:
        """One key for each algorithm."""
        if algorithm not in self._shares:
            self._shares[algorithm] = self._inner.generate_share(algorithm)
        return self._shares[algorithm]

    def answer_share(self, algorithm: Agreement, share: bytes) -> Answer:
        """One answer for each share; the first is kept, which is the one that was recorded."""
        known = self._answers.get((algorithm, share))
        if known is not None:
            return known
        answer = self._inner.answer_share(algorithm, share)
        if not any(kept is algorithm for kept, _ in self._answers):
            self._answers[algorithm, share] = answer
        return answer

    def sign(self, key: SigningKey, scheme: SignatureScheme, message: bytes) -> bytes:
        """One signature for each message; the first is kept."""
        if message in self._signatures:
            return self._signatures[message]
        signature = self._inner.sign(key, scheme, message)
        if not self._signatures:
            self._signatures[message] = signature
        return signature

    def verify(self, public_key: object, scheme: SignatureScheme, signature: bytes, message: bytes) -> bool:
        """As the default provider."""
        return self._inner.verify(public_key, scheme, signature, message)

    def aead(self, suite: CipherSuite, key: bytes) -> Aead:
        """As the default provider."""
        return self._inner.aead(suite, key)

    def hkdf_extract(self, hash_name: str, salt: bytes, key_material: bytes) -> bytes:
        """As the default provider."""
        return self._inner.hkdf_extract(hash_name, salt, key_material)

    def hkdf_expand(self, hash_name: str, secret: bytes, info: bytes, length: int) -> bytes:
        """As the default provider."""
        return self._inner.hkdf_expand(hash_name, secret, info, length)


@dataclass(frozen=True)
class Recording:
    """One mutual handshake without a retry: what went over the wire, what it says, and under which secrets."""

    client_config: pqtls.ClientConfig
    server_config: pqtls.ServerConfig
    hello: bytes = field(repr=False)
    server_flight: bytes = field(repr=False)
    client_flight: bytes = field(repr=False)
    server_hello: bytes = field(repr=False)  # the record at the start of server_flight
    server_messages: tuple[bytes, ...] = field(repr=False)  # EncryptedExtensions to Finished
    client_messages: tuple[bytes, ...] = field(repr=False)  # Certificate to Finished
    handshake_secrets: HandshakeSecrets = field(repr=False)

    def client(self) -> pqtls.ClientConnection:
        """A client that has sent the recorded hello."""
        connection = pqtls.ClientConnection(self.client_config)
        if connection.data_to_send() != self.hello:
            raise ValueError("the client does not repeat itself")
        return connection

    def server(self) -> pqtls.ServerConnection:
        """A server that has received nothing."""
        return pqtls.ServerConnection(self.server_config)

    def client_after_server_hello(self) -> pqtls.ClientConnection:
        """A client that waits for EncryptedExtensions."""
        connection = self.client()
        connection.receive_data(self.server_hello)
        return connection

    def server_after_hello(self) -> pqtls.ServerConnection:
        """A server that has sent its recorded flight and waits for the client's."""
        connection = self.server()
        connection.receive_data(self.hello)
        if connection.data_to_send() != self.server_flight:
            raise ValueError("the server does not repeat itself")
        return connection

    def seal_for_client(self, *messages: bytes) -> bytes:
        """Handshake messages as the server would protect them, from its first protected record on."""
        return seal_messages(RecordSealer(self.handshake_secrets.server), messages)

    def seal_for_server(self, *messages: bytes) -> bytes:
        """Handshake messages as the client would protect them, from its first protected record on."""
        return seal_messages(RecordSealer(self.handshake_secrets.client), messages)

    def finished_again(self, messages: tuple[bytes, ...], *, by_server: bool) -> tuple[bytes, ...]:
        """A flight whose Finished fits what stands before it, as its sender could make it: only signatures tell."""
        secret = self.handshake_secrets.server if by_server else self.handshake_secrets.client
        before = (self.hello[HEADER_SIZE:], self.server_hello[HEADER_SIZE:])
        if not by_server:
            before += self.server_messages
        transcript = Transcript(secret.suite.hash_name, *before, *messages[:-1])
        return (*messages[:-1], encode_finished(secret.finished(transcript.digest())))


def record_handshake(
    label: str, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None
) -> Recording:
    """Do the handshake once. Recordings of different labels have nothing random in common."""
    client_settings = client_config(provider=RepeatingProvider(f"{label} client"), **(client or {}))
    server_settings = server_config(provider=RepeatingProvider(f"{label} server"), **(server or {}))
    ours, theirs = pqtls.ClientConnection(client_settings), pqtls.ServerConnection(server_settings)
    hello = ours.data_to_send()
    theirs.receive_data(hello)
    server_flight = theirs.data_to_send()
    server_hello, *protected = split_records(server_flight)
    ours.receive_data(server_hello)
    secrets = state_of(ours).secrets
    ours.receive_data(b"".join(protected))
    client_flight = ours.data_to_send()
    theirs.receive_data(client_flight)
    if not (ours.handshake_complete and theirs.handshake_complete):
        raise ValueError("the handshake fell silent before its end")
    return Recording(
        client_config=client_settings,
        server_config=server_settings,
        hello=hello,
        server_flight=server_flight,
        client_flight=client_flight,
        server_hello=server_hello,
        server_messages=open_messages(secrets.server, b"".join(protected)),
        client_messages=open_messages(secrets.client, client_flight),
        handshake_secrets=secrets,
    )


def state_of(connection: pqtls.Connection) -> Any:
    """The state that a connection is in: its fields hold the secrets."""
    return connection._state  # the only way in, and on purpose: no owner has business with it


def split_records(stream: bytes) -> list[bytes]:
    """The records of a stream, headers included."""
    records = []
    while stream:
        end = HEADER_SIZE + int.from_bytes(stream[3:HEADER_SIZE], "big")
        records.append(stream[:end])
        stream = stream[end:]
    return records


def open_messages(secret: TrafficSecret, stream: bytes) -> tuple[bytes, ...]:
    """The handshake messages in protected records."""
    opener, joiner = RecordOpener(secret), HandshakeJoiner()
    room = bytearray(len(stream))
    messages = []
    for record in split_records(stream):
        _, _, content_type, size = opener.open_into(memoryview(record), memoryview(room))
        if content_type != ContentType.HANDSHAKE:
            raise ValueError("a record of another type among handshake records")
        joiner.feed(bytes(room[:size]))
        while (message := joiner.next_message()) is not None:
            messages.append(message.raw)
    return tuple(messages)


def seal_messages(sealer: RecordSealer, messages: Iterable[bytes]) -> bytes:
    """Handshake messages in as few records as they need."""
    joined = b"".join(messages)
    return b"".join(
        sealer.seal(ContentType.HANDSHAKE, joined[start : start + MAX_FRAGMENT])
        for start in range(0, len(joined), MAX_FRAGMENT)
    )


def plain_record(content_type: int, content: bytes) -> bytes:
    """A record without protection."""
    return bytes((content_type, 3, 3)) + len(content).to_bytes(2, "big") + content


def with_body(message: bytes, body: bytes) -> bytes:
    """The message with another body, under a header that fits it."""
    return message[:1] + len(body).to_bytes(3, "big") + body
