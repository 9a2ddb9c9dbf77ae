"""Each message: what is written can be read, and what is damaged cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqtls.errors import Alert, DecodeError, ProtocolViolation
from pqtls.messages import (
    DOWNGRADE_SENTINELS,
    RETRY_RANDOM,
    Certificate,
    CertificateEntry,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    NewSessionTicket,
    ServerHello,
    encode_finished,
    encode_key_update,
    parse_alert,
    parse_key_update,
)
from pqtls.wire import uint16, vector

_CODE = st.integers(0, 2**16 - 1)
_RANDOM = st.binary(min_size=32, max_size=32)
_EXTENSIONS = st.dictionaries(_CODE, st.binary(max_size=40), max_size=6)
_CLIENT_HELLOS = st.builds(
    ClientHello,
    legacy_version=_CODE,
    random=_RANDOM,
    session_id=st.binary(max_size=32),
    cipher_suites=st.lists(_CODE, min_size=1, max_size=8).map(tuple),
    compression_methods=st.binary(min_size=1, max_size=4),
    extensions=_EXTENSIONS,
)
_SERVER_HELLOS = st.builds(
    ServerHello,
    legacy_version=_CODE,
    random=_RANDOM,
    session_id_echo=st.binary(max_size=32),
    cipher_suite=_CODE,
    compression_method=st.integers(0, 255),
    extensions=_EXTENSIONS,
)
_ENTRIES = st.builds(CertificateEntry, st.binary(min_size=1, max_size=50), _EXTENSIONS)
_MESSAGES = st.one_of(
    _CLIENT_HELLOS,
    _SERVER_HELLOS,
    st.builds(EncryptedExtensions, _EXTENSIONS),
    st.builds(CertificateRequest, st.binary(max_size=20), _EXTENSIONS),
    st.builds(Certificate, st.binary(max_size=20), st.lists(_ENTRIES, max_size=3).map(tuple)),
    st.builds(CertificateVerify, _CODE, st.binary(max_size=80)),
)
_TICKET = uint16(0) + b"\x00\x1e" + bytes(4) + vector(1, b"n") + vector(2, b"ticket") + vector(2, b"")

# One of each, with every part filled, to be cut at each byte.
_HELLO = ClientHello(
    0x0303, bytes(32), b"session", (0x1302, 0x1301), b"\x00", {43: b"\x02\x03\x04", 10: b"\x00\x02\xfe\xc4"}
)
_SAMPLES: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "ClientHello": (ClientHello.parse, _HELLO.encode()[4:]),
    "ServerHello": (
        ServerHello.parse,
        ServerHello(0x0303, bytes(32), b"id", 0x1302, 0, {43: b"\x03\x04"}).encode()[4:],
    ),
    "EncryptedExtensions": (EncryptedExtensions.parse, EncryptedExtensions({16: b"abc", 0: b""}).encode()[4:]),
    "CertificateRequest": (
        CertificateRequest.parse,
        CertificateRequest(b"ctx", {13: b"\x00\x02\x09\x06"}).encode()[4:],
    ),
    "Certificate": (
        Certificate.parse,
        Certificate(b"ctx", (CertificateEntry(b"leaf", {5: b"x"}), CertificateEntry(b"root", {}))).encode()[4:],
    ),
    "CertificateVerify": (CertificateVerify.parse, CertificateVerify(0x0906, b"signature").encode()[4:]),
    "NewSessionTicket": (NewSessionTicket.parse, _TICKET),
    "KeyUpdate": (parse_key_update, b"\x01"),
}
# Where a hello of an older TLS ends, without an extensions block, and is read as such.
_COMPLETE_PREFIXES = {"ClientHello": {2 + 32 + 8 + 6 + 2}, "ServerHello": {2 + 32 + 3 + 2 + 1}}


@given(_MESSAGES)
def test_a_message_comes_back_as_it_was_written(message: Any) -> None:
    raw = message.encode()
    assert int.from_bytes(raw[1:4], "big") == len(raw) - 4
    back = type(message).parse(raw[4:])
    assert back == message
    assert back.encode() == raw


@given(_CLIENT_HELLOS)
def test_the_order_of_extensions_is_kept(hello: ClientHello) -> None:
    assert list(ClientHello.parse(hello.encode()[4:]).extensions) == list(hello.extensions)


@pytest.mark.parametrize("name", _SAMPLES)
def test_a_message_cut_at_any_byte_is_a_decode_error(name: str) -> None:
    parse, body = _SAMPLES[name]
    parse(body)
    for cut in range(len(body)):
        if cut in _COMPLETE_PREFIXES.get(name, ()):
            assert parse(body[:cut]).extensions == {}
            continue
        with pytest.raises(DecodeError) as caught:
            parse(body[:cut])
        assert caught.value.alert is Alert.DECODE_ERROR


@pytest.mark.parametrize("name", _SAMPLES)
def test_a_byte_too_many_is_a_decode_error(name: str) -> None:
    parse, body = _SAMPLES[name]
    with pytest.raises(DecodeError, match="1 bytes too many"):
        parse(body + b"\0")


@given(st.sampled_from(sorted(_SAMPLES)), st.binary(max_size=200))
def test_any_bytes_at_all_are_read_or_refused(name: str, body: bytes) -> None:
    parse, _ = _SAMPLES[name]
    try:
        parse(body)
    except ProtocolViolation as error:
        assert error.alert in (Alert.DECODE_ERROR, Alert.ILLEGAL_PARAMETER)


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (ClientHello.parse, uint16(0x0303) + bytes(32) + vector(1, bytes(33)) + b"\x00\x02\x13\x02\x01\x00\x00\x00"),
        (ClientHello.parse, uint16(0x0303) + bytes(32) + b"\x00" + b"\x00\x00" + b"\x01\x00\x00\x00"),
        (ClientHello.parse, uint16(0x0303) + bytes(32) + b"\x00" + b"\x00\x03\x13\x02\x13" + b"\x01\x00\x00\x00"),
        (ClientHello.parse, uint16(0x0303) + bytes(32) + b"\x00" + b"\x00\x02\x13\x02" + b"\x00\x00\x00"),
        (ServerHello.parse, uint16(0x0303) + bytes(32) + vector(1, bytes(33)) + b"\x13\x02\x00\x00\x00"),
        (Certificate.parse, b"\x00" + vector(3, vector(3, b"") + b"\x00\x00")),
        (NewSessionTicket.parse, bytes(8) + b"\x00" + b"\x00\x00" + b"\x00\x00"),
    ],
    ids=[
        "session id of 33 bytes",
        "no cipher suite",
        "odd cipher suites",
        "no compression method",
        "session id echo of 33 bytes",
        "empty certificate",
        "empty ticket",
    ],
)
def test_a_vector_out_of_its_range_is_a_decode_error(parse: Callable[[bytes], Any], body: bytes) -> None:
    with pytest.raises(DecodeError, match=r"out of its range|odd number"):
        parse(body)


def test_only_the_random_of_section_4_1_3_makes_a_retry() -> None:
    hello = ServerHello(0x0303, RETRY_RANDOM, b"", 0x1302, 0, {})
    assert RETRY_RANDOM.hex().startswith("cf21ad74e59a6111be1d8c021e65b891")  # as the RFC prints it
    assert hello.is_retry
    assert not ServerHello(0x0303, RETRY_RANDOM[:-1] + b"\0", b"", 0x1302, 0, {}).is_retry


def test_the_downgrade_sentinels_are_those_of_section_4_1_3() -> None:
    assert {value.hex() for value in DOWNGRADE_SENTINELS} == {"444f574e47524401", "444f574e47524400"}


def test_a_ticket_is_read_in_full() -> None:
    assert NewSessionTicket.parse(_TICKET) == NewSessionTicket(0x1E, 0, b"n", b"ticket", {})


def test_finished_is_its_mac_alone() -> None:
    assert encode_finished(b"mac") == b"\x14\x00\x00\x03mac"


@pytest.mark.parametrize("request_peer", [False, True])
def test_key_update_says_whether_one_is_wanted_back(request_peer: bool) -> None:
    raw = encode_key_update(request_peer)
    assert raw[:4] == b"\x18\x00\x00\x01"
    assert parse_key_update(raw[4:]) is request_peer


@pytest.mark.parametrize("value", [2, 255])
def test_a_key_update_of_another_value_is_an_illegal_parameter(value: int) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        parse_key_update(bytes((value,)))
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


def test_an_alert_is_read_whatever_its_level() -> None:
    assert parse_alert(b"\x01\x28") == parse_alert(b"\x02\x28") == Alert.HANDSHAKE_FAILURE


@pytest.mark.parametrize("content", [b"\x02", b"\x02\x28\x02"])
def test_an_alert_of_another_length_is_a_decode_error(content: bytes) -> None:
    with pytest.raises(DecodeError, match="an alert has two bytes"):
        parse_alert(content)


def test_an_empty_alert_is_an_unexpected_message() -> None:
    with pytest.raises(ProtocolViolation) as caught:
        parse_alert(b"")
    assert caught.value.alert is Alert.UNEXPECTED_MESSAGE
