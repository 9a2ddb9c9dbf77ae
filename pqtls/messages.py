"""Handshake messages (RFC 8446 §4) as frozen dataclasses, parsed and written.

`parse` takes a message's body; `encode` gives the whole message, its four-byte header included.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from pqtls.errors import Alert, DecodeError, ProtocolViolation
from pqtls.extensions import Extensions, read_extensions, write_extensions
from pqtls.framing import HandshakeType, write_message
from pqtls.wire import Reader, read_uint16_list, uint16, uint16_list, vector

LEGACY_VERSION: Final = 0x0303
# RFC 8446 §4.1.3: a ServerHello with this random is a HelloRetryRequest.
RETRY_RANDOM: Final = hashlib.sha256(b"HelloRetryRequest").digest()
# RFC 8446 §4.1.3: the last eight bytes of the random of a server that was made to negotiate TLS 1.2, or less.
DOWNGRADE_SENTINELS: Final = (b"DOWNGRD\x01", b"DOWNGRD\x00")


@dataclass(frozen=True, slots=True)
class ClientHello:
    """ClientHello (§4.1.2)."""

    legacy_version: int
    random: bytes
    session_id: bytes
    cipher_suites: tuple[int, ...]
    compression_methods: bytes
    extensions: Extensions

    @classmethod
    def parse(cls, body: bytes) -> ClientHello:
        """Read the body. A hello without an extensions block is one of an older version, and read as such."""
        reader = Reader(body, "ClientHello")
        hello = cls(
            legacy_version=reader.uint(2),
            random=reader.take(32),
            session_id=reader.vector(1, maximum=32),
            cipher_suites=read_uint16_list(reader),
            compression_methods=reader.vector(1, minimum=1),
            extensions=read_extensions(reader) if reader.remaining else {},
        )
        reader.finish()
        return hello

    def encode(self) -> bytes:
        """The whole message."""
        body = (
            uint16(self.legacy_version)
            + self.random
            + vector(1, self.session_id)
            + uint16_list(self.cipher_suites)
            + vector(1, self.compression_methods)
            + write_extensions(self.extensions)
        )
        return write_message(HandshakeType.CLIENT_HELLO, body)


@dataclass(frozen=True, slots=True)
class ServerHello:
    """ServerHello (§4.1.3) and HelloRetryRequest (§4.1.4), which share their form."""

    legacy_version: int
    random: bytes
    session_id_echo: bytes
    cipher_suite: int
    compression_method: int
    extensions: Extensions

    @property
    def is_retry(self) -> bool:
        """Whether this is a HelloRetryRequest."""
        return self.random == RETRY_RANDOM

    @classmethod
    def parse(cls, body: bytes) -> ServerHello:
        """Read the body."""
        reader = Reader(body, "ServerHello")
        hello = cls(
            legacy_version=reader.uint(2),
            random=reader.take(32),
            session_id_echo=reader.vector(1, maximum=32),
            cipher_suite=reader.uint(2),
            compression_method=reader.uint(1),
            extensions=read_extensions(reader) if reader.remaining else {},
        )
        reader.finish()
        return hello

    def encode(self) -> bytes:
        """The whole message."""
        body = (
            uint16(self.legacy_version)
            + self.random
            + vector(1, self.session_id_echo)
            + uint16(self.cipher_suite)
            + bytes((self.compression_method,))
            + write_extensions(self.extensions)
        )
        return write_message(HandshakeType.SERVER_HELLO, body)


@dataclass(frozen=True, slots=True)
class EncryptedExtensions:
    """EncryptedExtensions (§4.3.1)."""

    extensions: Extensions

    @classmethod
    def parse(cls, body: bytes) -> EncryptedExtensions:
        """Read the body."""
        reader = Reader(body, "EncryptedExtensions")
        message = cls(read_extensions(reader))
        reader.finish()
        return message

    def encode(self) -> bytes:
        """The whole message."""
        return write_message(HandshakeType.ENCRYPTED_EXTENSIONS, write_extensions(self.extensions))


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """CertificateRequest (§4.3.2)."""

    context: bytes
    extensions: Extensions

    @classmethod
    def parse(cls, body: bytes) -> CertificateRequest:
        """Read the body."""
        reader = Reader(body, "CertificateRequest")
        message = cls(reader.vector(1), read_extensions(reader))
        reader.finish()
        return message

    def encode(self) -> bytes:
        """The whole message."""
        body = vector(1, self.context) + write_extensions(self.extensions)
        return write_message(HandshakeType.CERTIFICATE_REQUEST, body)


@dataclass(frozen=True, slots=True)
class CertificateEntry:
    """One X.509 certificate in DER, and its extensions (§4.4.2)."""

    certificate: bytes
    extensions: Extensions


@dataclass(frozen=True, slots=True)
class Certificate:
    """Certificate (§4.4.2): a chain, leaf first. An empty one says that a client has none."""

    context: bytes
    entries: tuple[CertificateEntry, ...]

    @classmethod
    def parse(cls, body: bytes) -> Certificate:
        """Read the body."""
        reader = Reader(body, "Certificate")
        context = reader.vector(1)
        chain = reader.nested(3)
        reader.finish()
        entries: list[CertificateEntry] = []
        while chain.remaining:
            entries.append(CertificateEntry(chain.vector(3, minimum=1), read_extensions(chain)))
        return cls(context, tuple(entries))

    def encode(self) -> bytes:
        """The whole message."""
        chain = b"".join(vector(3, entry.certificate) + write_extensions(entry.extensions) for entry in self.entries)
        return write_message(HandshakeType.CERTIFICATE, vector(1, self.context) + vector(3, chain))


@dataclass(frozen=True, slots=True)
class CertificateVerify:
    """CertificateVerify (§4.4.3)."""

    scheme: int
    signature: bytes

    @classmethod
    def parse(cls, body: bytes) -> CertificateVerify:
        """Read the body."""
        reader = Reader(body, "CertificateVerify")
        message = cls(reader.uint(2), reader.vector(2))
        reader.finish()
        return message

    def encode(self) -> bytes:
        """The whole message."""
        return write_message(HandshakeType.CERTIFICATE_VERIFY, uint16(self.scheme) + vector(2, self.signature))


def encode_finished(verify_data: bytes) -> bytes:
    """Finished (§4.4.4): the whole message is its MAC."""
    return write_message(HandshakeType.FINISHED, verify_data)


def parse_key_update(body: bytes) -> bool:
    """KeyUpdate (§4.6.3): return whether the peer asks for an update of ours."""
    reader = Reader(body, "KeyUpdate")
    value = reader.uint(1)
    reader.finish()
    if value > 1:
        raise ProtocolViolation(f"KeyUpdate says {value}; only 0 and 1 exist", Alert.ILLEGAL_PARAMETER)
    return value == 1


def encode_key_update(request: bool) -> bytes:
    """KeyUpdate: the whole message; `request` asks the peer for one in return."""
    return write_message(HandshakeType.KEY_UPDATE, bytes((request,)))


@dataclass(frozen=True, slots=True)
class NewSessionTicket:
    """NewSessionTicket (§4.6.1); `lifetime` in seconds."""

    lifetime: int
    age_add: int
    nonce: bytes
    ticket: bytes = field(repr=False)
    extensions: Extensions

    @classmethod
    def parse(cls, body: bytes) -> NewSessionTicket:
        """Read the body."""
        reader = Reader(body, "NewSessionTicket")
        message = cls(
            reader.uint(4),
            reader.uint(4),
            reader.vector(1),
            reader.vector(2, minimum=1),
            read_extensions(reader),
        )
        reader.finish()
        return message

    def encode(self) -> bytes:
        """The whole message."""
        body = (
            self.lifetime.to_bytes(4, "big")
            + self.age_add.to_bytes(4, "big")
            + vector(1, self.nonce)
            + vector(2, self.ticket)
            + write_extensions(self.extensions)
        )
        return write_message(HandshakeType.NEW_SESSION_TICKET, body)


def parse_alert(content: bytes) -> int:
    """Alert (§6): return the description; the level says nothing in TLS 1.3."""
    if not content:  # §5.4
        raise ProtocolViolation("an empty alert record", Alert.UNEXPECTED_MESSAGE)
    if len(content) != 2:
        raise DecodeError(f"an alert has two bytes, not {len(content)}")
    return content[1]
