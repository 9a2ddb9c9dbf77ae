"""Record protection (RFC 8446 §5.2): the hot path, kept apart from the handshake.

Nothing is copied that need not be: a fragment is sealed from the caller's buffer straight into the output, and opened
from the input straight to where the plaintext is wanted. What is done per record is one nonce, one header and one AEAD
call; what can be done per connection is done in the constructor.

A record is a TLSCiphertext, or, where both ends have agreed on large records, a TLSLargeCiphertext
(draft-ietf-tls-super-jumbo-record-limit-03 §3): the same behind another header, which is nothing but the length.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NoReturn

from pqtls.errors import Alert, MisuseError, ProtocolViolation
from pqtls.key_schedule import TrafficSecret
from pqtls.suites import CipherSuite
from pqtls.varuint import read_varuint, write_varuint

HEADER_SIZE: Final = 5
TAG_SIZE: Final = 16  # every AEAD of TLS 1.3 here
MAX_FRAGMENT: Final = 2**14  # RFC 8446 §5.1
# RFC 8446 §5.2: the encrypted record's length must not exceed 2^14 + 256.
MAX_CIPHERTEXT: Final = MAX_FRAGMENT + 256
# One content-type byte and the tag: what each record adds besides its header.
_EXPANSION: Final = 1 + TAG_SIZE
RECORD_OVERHEAD: Final = HEADER_SIZE + _EXPANSION  # a large record's header has 1, 2 or 4 bytes
# The content of a large record. A quarter of what a sidecar reads at once: in records of 2^15 bytes the work around the
# AEAD costs a fifth more, larger ones gain little and have the receiver wait (and hold what came) for longer.
LARGE_FRAGMENT: Final = 2**16
# A whole record of either kind on the wire.
MAX_RECORD: Final = LARGE_FRAGMENT + RECORD_OVERHEAD
# Empty records cost the receiver work and the sender nothing; nobody honest sends more than a few in a row.
MAX_EMPTY_RECORDS: Final = 32


class ContentType(IntEnum):
    """ContentType of RFC 8446 §5.1."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


_APPLICATION_DATA: Final = int(ContentType.APPLICATION_DATA)


# A protected KeyUpdate: header, four bytes of message header, one of content, content type, tag.
_KEY_UPDATE_RECORD: Final = HEADER_SIZE + 4 + 1 + _EXPANSION


def sealed_size(length: int, fragment_size: int = MAX_FRAGMENT) -> int:
    """Room in bytes that `length` bytes of plaintext need as records, with one KeyUpdate among them."""
    return length + -(-length // fragment_size) * RECORD_OVERHEAD + _KEY_UPDATE_RECORD


def _write_header(size: int) -> bytes:
    """The header of a TLSCiphertext (RFC 8446 §5.2)."""
    return b"\x17\x03\x03" + size.to_bytes(2, "big")


def _read_header(records: memoryview, at: int) -> tuple[int, int]:
    """Sizes of the header that begins at `records[at]` and of what follows it, -1 where that is not protected.

    (0, 0) while the header is not whole.
    """
    if at + HEADER_SIZE > len(records):
        return 0, 0
    if records[at] != _APPLICATION_DATA:
        return HEADER_SIZE, -1
    return HEADER_SIZE, records[at + 3] << 8 | records[at + 4]


def _records_per_key(suite: CipherSuite, max_inner: int) -> int:
    """RFC 8446 §5.5 counts records of 2^14 bytes; of larger ones the same key protects as many fewer (draft §4)."""
    if max_inner <= MAX_FRAGMENT + 1:
        return suite.records_per_key
    return suite.records_per_key * MAX_FRAGMENT // max_inner


class RecordSealer:
    """Protects what we send in one epoch; `large` as TLSLargeCiphertext."""

    __slots__ = ("_encrypt_into", "_fragment_size", "_full_header", "_iv", "_limit", "_write_header", "records")

    def __init__(self, secret: TrafficSecret, fragment_size: int = MAX_FRAGMENT, *, large: bool = False) -> None:
        keys = secret.keys()
        self._encrypt_into = secret.provider.aead(secret.suite, keys.key).encrypt_into
        self._iv = int.from_bytes(keys.iv, "big")
        self._limit = _records_per_key(secret.suite, fragment_size + 1)
        self._write_header = write_varuint if large else _write_header
        self.limit_fragments(fragment_size)
        self.records = 0

    def limit_fragments(self, fragment_size: int) -> None:
        """Put at most `fragment_size` bytes of content into each record (RFC 8449)."""
        self._fragment_size = fragment_size
        self._full_header = self._write_header(fragment_size + _EXPANSION)

    def room(self) -> int:
        """How many more records this epoch's key may protect."""
        return self._limit - self.records

    def seal_into(self, plaintext: memoryview, length: int, records: memoryview) -> int:
        """Protect `plaintext[:length]` as application data; return the bytes written to `records`.

        `plaintext` is writable and longer than `length` by at least one byte; its content is left as it was.
        """
        position = 0
        written = 0
        sequence = self.records
        iv = self._iv
        encrypt_into = self._encrypt_into
        full = self._fragment_size
        while position < length:
            size = length - position
            if size >= full:
                size = full
                header = self._full_header
            else:
                header = self._write_header(size + _EXPANSION)
            end = position + size
            body = written + len(header)
            after = body + size + _EXPANSION
            records[written:body] = header
            kept = plaintext[end]
            plaintext[end] = _APPLICATION_DATA
            encrypt_into(
                (iv ^ sequence).to_bytes(12, "big"),
                plaintext[position : end + 1],
                header,
                records[body:after],
            )
            plaintext[end] = kept
            sequence += 1
            position = end
            written = after
        self.records = sequence
        return written

    def seal(self, content_type: ContentType, content: bytes) -> bytes:
        """Protect one handshake or alert fragment of at most 2^14 bytes."""
        if len(content) > MAX_FRAGMENT:
            raise MisuseError("a fragment of more than 2^14 bytes must be split before it is sealed")
        size = len(content) + _EXPANSION
        header = self._write_header(size)
        sealed = bytearray(size)
        nonce = (self._iv ^ self.records).to_bytes(12, "big")
        self._encrypt_into(nonce, content + bytes((content_type,)), header, sealed)
        self.records += 1
        return header + sealed


class RecordOpener:
    """Opens what the peer protected in one epoch; `large` as TLSLargeCiphertext."""

    __slots__ = (
        "_decrypt_into",
        "_empty",
        "_invalid_tag",
        "_iv",
        "_limit",
        "_max_inner",
        "_max_size",
        "_read_header",
        "asked_for_update",
        "records",
    )

    def __init__(self, secret: TrafficSecret, max_inner: int = MAX_FRAGMENT + 1, *, large: bool = False) -> None:
        keys = secret.keys()
        self._decrypt_into = secret.provider.aead(secret.suite, keys.key).decrypt_into
        self._invalid_tag = secret.provider.invalid_tag
        self._iv = int.from_bytes(keys.iv, "big")
        self._limit = _records_per_key(secret.suite, max_inner)
        self._empty = 0
        self._max_inner = max_inner
        # RFC 8446 §5.2 leaves a TLSCiphertext more room than its AEADs take; its plaintext is measured once it is open.
        self._max_size = max_inner + TAG_SIZE if large else MAX_CIPHERTEXT
        self._read_header = read_varuint if large else _read_header
        self.asked_for_update = False
        self.records = 0

    def limit_inner(self, max_inner: int) -> None:
        """Take at most `max_inner` bytes of inner plaintext in a record (RFC 8449)."""
        self._max_inner = max_inner

    def is_worn(self) -> bool:
        """Whether the peer should be asked for new keys (RFC 8446 §5.5)."""
        return self.records >= self._limit

    def open_into(self, ciphertext: memoryview, plaintext: memoryview) -> tuple[int, int, int, int]:
        """Open whole records, until one is not application data or the input has no whole record left.

        Returns (consumed, produced, content type, size of content). The type is APPLICATION_DATA when all went well;
        else the last record opened was of that type, and its content stands in `plaintext[produced:produced + size]`.
        An unprotected record, which no large one is, stops the loop before it is consumed, with its type and size -1.
        """
        available = len(ciphertext)
        consumed = 0
        produced = 0
        sequence = self.records
        iv = self._iv
        decrypt_into = self._decrypt_into
        read_header = self._read_header
        max_size = self._max_size
        try:
            while consumed < available:
                header, size = read_header(ciphertext, consumed)
                if not header:
                    break
                if size < 0:
                    return consumed, produced, ciphertext[consumed], -1
                if not _EXPANSION <= size <= max_size:
                    self._refuse(size)
                body = consumed + header
                end = body + size
                if end > available:
                    break
                inner = size - TAG_SIZE
                decrypt_into(
                    (iv ^ sequence).to_bytes(12, "big"),
                    ciphertext[body:end],
                    ciphertext[consumed:body],
                    plaintext[produced : produced + inner],
                )
                sequence += 1
                consumed = end
                content_type = plaintext[produced + inner - 1]
                length = inner - 1
                if content_type == 0:
                    content_type, length = _without_padding(plaintext[produced : produced + inner])
                if inner > self._max_inner:  # RFC 8446 §5.4, RFC 8449 §4: padding counts too
                    raise ProtocolViolation(
                        f"a record's inner plaintext has {inner} bytes, more than the {self._max_inner} that we take",
                        Alert.RECORD_OVERFLOW,
                    )
                if content_type != _APPLICATION_DATA:
                    return consumed, produced, content_type, length
                if length:
                    self._empty = 0
                    produced += length
                else:
                    self._count_empty()
        except self._invalid_tag:
            raise ProtocolViolation("a record fails authentication", Alert.BAD_RECORD_MAC) from None
        finally:
            self.records = sequence
        return consumed, produced, _APPLICATION_DATA, 0

    def _refuse(self, size: int) -> NoReturn:
        if size > self._max_size:
            raise ProtocolViolation(f"a record of {size} bytes exceeds {self._max_size}", Alert.RECORD_OVERFLOW)
        raise ProtocolViolation("a record is too short to be protected", Alert.BAD_RECORD_MAC)

    def _count_empty(self) -> None:
        self._empty += 1
        if self._empty > MAX_EMPTY_RECORDS:
            raise ProtocolViolation(f"more than {MAX_EMPTY_RECORDS} empty records in a row", Alert.UNEXPECTED_MESSAGE)


def _without_padding(inner: memoryview) -> tuple[int, int]:
    """The content type and length of a TLSInnerPlaintext whose padding is not empty (RFC 8446 §5.4)."""
    content = bytes(inner).rstrip(b"\0")
    if not content:
        raise ProtocolViolation("a record has no content type", Alert.UNEXPECTED_MESSAGE)
    return content[-1], len(content) - 1
