"""Extensions (RFC 8446 §4.2): which may stand where, and the content of those that we use."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from pqtls.errors import Alert, DecodeError, ProtocolViolation
from pqtls.wire import Reader, read_uint16_list, tagged_vector, uint16, uint16_list, vector

TLS_1_3: Final = 0x0304
_MAX_EXTENSIONS: Final = 2**16 - 1


class ExtensionType(IntEnum):
    """ExtensionType of RFC 8446 §4.2, as far as it names them, and those of the sizes of records.

    large_record_size_limit (draft-ietf-tls-super-jumbo-record-limit-03) has no code point yet. 0xFFC4 is of those that
    RFC 8446 §11 reserves for private use, whose first byte is 255: only QBITEL means this by it.
    """

    SERVER_NAME = 0
    MAX_FRAGMENT_LENGTH = 1
    STATUS_REQUEST = 5
    SUPPORTED_GROUPS = 10
    SIGNATURE_ALGORITHMS = 13
    USE_SRTP = 14
    HEARTBEAT = 15
    ALPN = 16
    SIGNED_CERTIFICATE_TIMESTAMP = 18
    CLIENT_CERTIFICATE_TYPE = 19
    SERVER_CERTIFICATE_TYPE = 20
    PADDING = 21
    RECORD_SIZE_LIMIT = 28
    PRE_SHARED_KEY = 41
    EARLY_DATA = 42
    SUPPORTED_VERSIONS = 43
    COOKIE = 44
    PSK_KEY_EXCHANGE_MODES = 45
    CERTIFICATE_AUTHORITIES = 47
    OID_FILTERS = 48
    POST_HANDSHAKE_AUTH = 49
    SIGNATURE_ALGORITHMS_CERT = 50
    KEY_SHARE = 51
    LARGE_RECORD_SIZE_LIMIT = 0xFFC4


_E = ExtensionType

# The table of RFC 8446 §4.2, the columns SH, HRR, EE, CR, CT: what a message other than ClientHello may carry.
ALLOWED_IN_SERVER_HELLO: Final = frozenset({_E.KEY_SHARE, _E.PRE_SHARED_KEY, _E.SUPPORTED_VERSIONS})
ALLOWED_IN_RETRY: Final = frozenset({_E.KEY_SHARE, _E.COOKIE, _E.SUPPORTED_VERSIONS})
ALLOWED_IN_ENCRYPTED_EXTENSIONS: Final = frozenset(
    {
        _E.SERVER_NAME,
        _E.MAX_FRAGMENT_LENGTH,
        _E.SUPPORTED_GROUPS,
        _E.USE_SRTP,
        _E.HEARTBEAT,
        _E.ALPN,
        _E.CLIENT_CERTIFICATE_TYPE,
        _E.SERVER_CERTIFICATE_TYPE,
        _E.RECORD_SIZE_LIMIT,
        _E.EARLY_DATA,
        _E.LARGE_RECORD_SIZE_LIMIT,
    }
)
ALLOWED_IN_CERTIFICATE_REQUEST: Final = frozenset(
    {
        _E.STATUS_REQUEST,
        _E.SIGNATURE_ALGORITHMS,
        _E.SIGNED_CERTIFICATE_TIMESTAMP,
        _E.CERTIFICATE_AUTHORITIES,
        _E.OID_FILTERS,
        _E.SIGNATURE_ALGORITHMS_CERT,
    }
)
ALLOWED_IN_CERTIFICATE: Final = frozenset({_E.STATUS_REQUEST, _E.SIGNED_CERTIFICATE_TIMESTAMP})
KNOWN: Final = frozenset(ExtensionType)

Extensions = dict[int, bytes]


def read_extensions(reader: Reader) -> Extensions:
    """Read `Extension extensions<..>` in order. A type that comes twice is an illegal_parameter (§4.2)."""
    extensions: Extensions = {}
    for extension_type, content in reader.nested(2).tagged_vectors():
        if extension_type in extensions:
            raise ProtocolViolation(f"extension {extension_type} comes twice", Alert.ILLEGAL_PARAMETER)
        extensions[extension_type] = content
    return extensions


def write_extensions(extensions: Extensions) -> bytes:
    """Write an extensions block in the order of the mapping."""
    return vector(2, b"".join([tagged_vector(kind, content) for kind, content in extensions.items()]))


def check_response(extensions: Extensions, allowed: Set[ExtensionType], offered: Set[int], what: str) -> None:
    """Refuse what may not stand in this message, and what answers no offer of ours (§4.2)."""
    for kind in extensions:
        if kind in KNOWN and kind not in allowed:
            raise ProtocolViolation(f"extension {kind} must not be in {what}", Alert.ILLEGAL_PARAMETER)
        if kind not in offered:
            raise ProtocolViolation(f"extension {kind} in {what} was not offered", Alert.UNSUPPORTED_EXTENSION)


@dataclass(frozen=True, slots=True)
class KeyShareEntry:
    """A group's code point and its key_exchange field (§4.2.8)."""

    group: int
    key_exchange: bytes

    def encode(self) -> bytes:
        """The entry on the wire."""
        return tagged_vector(self.group, self.key_exchange)


def read_key_share_entry(content: bytes) -> KeyShareEntry:
    """KeyShareServerHello: exactly one entry."""
    reader = Reader(content, "key_share")
    entry = _key_share_entry(reader)
    reader.finish()
    return entry


def read_client_key_shares(content: bytes) -> tuple[KeyShareEntry, ...]:
    """KeyShareClientHello: any number of entries, no group twice."""
    reader = Reader(content, "key_share")
    shares = reader.nested(2)
    reader.finish()
    entries: dict[int, KeyShareEntry] = {}
    while shares.remaining:
        entry = _key_share_entry(shares)
        if entry.group in entries:
            raise ProtocolViolation(f"group {entry.group:#06x} has two key shares", Alert.ILLEGAL_PARAMETER)
        entries[entry.group] = entry
    return tuple(entries.values())


def write_client_key_shares(entries: tuple[KeyShareEntry, ...]) -> bytes:
    """KeyShareClientHello on the wire."""
    return vector(2, b"".join(entry.encode() for entry in entries))


def _key_share_entry(reader: Reader) -> KeyShareEntry:
    return KeyShareEntry(reader.uint(2), reader.vector(2, minimum=1))


def read_code_points(content: bytes, what: str) -> tuple[int, ...]:
    """supported_groups, signature_algorithms and signature_algorithms_cert: a list of at least one code point."""
    reader = Reader(content, what)
    values = read_uint16_list(reader)
    reader.finish()
    return values


def read_client_versions(content: bytes) -> tuple[int, ...]:
    """supported_versions in a ClientHello (§4.2.1)."""
    reader = Reader(content, "supported_versions")
    values = read_uint16_list(reader, length_size=1)
    reader.finish()
    return values


def write_client_versions() -> bytes:
    """supported_versions of our ClientHello: TLS 1.3 and nothing else."""
    return vector(1, uint16(TLS_1_3))


def read_selected(content: bytes, what: str) -> int:
    """A lone uint16: the selected version, or the selected group of a HelloRetryRequest."""
    reader = Reader(content, what)
    value = reader.uint(2)
    reader.finish()
    return value


def read_alpn(content: bytes) -> tuple[bytes, ...]:
    """ProtocolNameList (RFC 7301 §3.1): at least one name, none of them empty."""
    reader = Reader(content, "application_layer_protocol_negotiation")
    names = reader.nested(2, minimum=2)
    reader.finish()
    protocols: list[bytes] = []
    while names.remaining:
        protocols.append(names.vector(1, minimum=1))
    return tuple(protocols)


def write_alpn(protocols: tuple[bytes, ...]) -> bytes:
    """ProtocolNameList on the wire."""
    return vector(2, b"".join(vector(1, name) for name in protocols))


def read_server_name(content: bytes) -> str:
    """ServerNameList (RFC 6066 §3): one host_name, in ASCII."""
    reader = Reader(content, "server_name")
    names = reader.nested(2, minimum=1)
    reader.finish()
    name_type = names.uint(1)
    host_name = names.vector(2, minimum=1)
    names.finish()
    if name_type != 0:
        raise DecodeError(f"server_name has a name of type {name_type}; only host_name (0) exists")
    try:
        return host_name.decode("ascii")
    except UnicodeDecodeError:
        raise DecodeError("server_name is not ASCII") from None


def write_server_name(host_name: str) -> bytes:
    """ServerNameList with one host_name."""
    return vector(2, b"\x00" + vector(2, host_name.encode("ascii")))


def read_cookie(content: bytes) -> bytes:
    """Cookie (§4.2.2)."""
    reader = Reader(content, "cookie")
    cookie = reader.vector(2, minimum=1)
    reader.finish()
    return cookie


def write_code_points(values: tuple[int, ...]) -> bytes:
    """supported_groups and signature_algorithms on the wire."""
    return uint16_list(values)


# RFC 8446 §4.2.9. psk_ke, which has no forward secrecy, does not exist for us.
PSK_DHE_KE: Final = 1


@dataclass(frozen=True, slots=True)
class OfferedPsks:
    """pre_shared_key of a ClientHello (§4.2.11): identities with obfuscated ages, and one binder for each."""

    identities: tuple[tuple[bytes, int], ...]
    binders: tuple[bytes, ...]
    binders_size: int  # bytes of the list of binders on the wire, which the binders do not cover


def read_offered_psks(content: bytes) -> OfferedPsks:
    """Read pre_shared_key of a ClientHello."""
    reader = Reader(content, "pre_shared_key")
    identities_reader = reader.nested(2, minimum=7)
    binders_size = reader.remaining
    binders_reader = reader.nested(2, minimum=33)
    reader.finish()
    identities: list[tuple[bytes, int]] = []
    while identities_reader.remaining:
        identities.append((identities_reader.vector(2, minimum=1), identities_reader.uint(4)))
    binders: list[bytes] = []
    while binders_reader.remaining:
        binders.append(binders_reader.vector(1, minimum=32))
    if len(binders) != len(identities):
        raise ProtocolViolation("pre_shared_key has not one binder for each identity", Alert.ILLEGAL_PARAMETER)
    return OfferedPsks(tuple(identities), tuple(binders), binders_size)


def write_offered_psk(identity: bytes, obfuscated_age: int, binder: bytes) -> bytes:
    """pre_shared_key with one identity."""
    identities = vector(2, vector(2, identity) + obfuscated_age.to_bytes(4, "big"))
    return identities + write_binder_list(binder)


def write_binder_list(binder: bytes) -> bytes:
    """The list of one binder, which ends a ClientHello."""
    return vector(2, vector(1, binder))


def read_psk_modes(content: bytes) -> bytes:
    """psk_key_exchange_modes (§4.2.9): one byte a mode."""
    reader = Reader(content, "psk_key_exchange_modes")
    modes = reader.vector(1, minimum=1)
    reader.finish()
    return modes


def read_authorities(content: bytes) -> tuple[bytes, ...]:
    """certificate_authorities (§4.2.4): DER names, at least one."""
    reader = Reader(content, "certificate_authorities")
    names = reader.nested(2, minimum=3)
    reader.finish()
    found: list[bytes] = []
    while names.remaining:
        found.append(names.vector(2, minimum=1))
    return tuple(found)


def write_authorities(names: tuple[bytes, ...]) -> bytes:
    """certificate_authorities on the wire."""
    return vector(2, b"".join(vector(2, name) for name in names))


_MIN_LIMIT: Final = 64  # RFC 8449 §4, and of the large limit, too


def read_record_size_limit(content: bytes) -> int:
    """record_size_limit (RFC 8449 §4), in bytes of inner plaintext."""
    limit = read_selected(content, "record_size_limit")
    if limit < _MIN_LIMIT:
        raise ProtocolViolation(f"a record size limit of {limit} is below {_MIN_LIMIT}", Alert.ILLEGAL_PARAMETER)
    return limit


_MAX_LARGE_LIMIT: Final = 2**30 - 256


def read_large_record_size_limit(content: bytes) -> int:
    """large_record_size_limit (draft-ietf-tls-super-jumbo-record-limit-03 §3), in bytes of inner plaintext."""
    reader = Reader(content, "large_record_size_limit")
    limit = reader.uint(4)
    reader.finish()
    if not _MIN_LIMIT <= limit <= _MAX_LARGE_LIMIT:
        raise ProtocolViolation(
            f"a large record size limit of {limit} is not in {_MIN_LIMIT}..{_MAX_LARGE_LIMIT}", Alert.ILLEGAL_PARAMETER
        )
    return limit


def write_large_record_size_limit(limit: int) -> bytes:
    """large_record_size_limit on the wire."""
    return limit.to_bytes(4, "big")
