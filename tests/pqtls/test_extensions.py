"""Extensions: which may stand where, and their content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqtls import extensions as ext
from pqtls.errors import Alert, DecodeError, ProtocolViolation
from pqtls.extensions import ExtensionType, KeyShareEntry
from pqtls.wire import Reader, uint16, vector

_CONTENTS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "server key share": (ext.read_key_share_entry, KeyShareEntry(0xFEC4, b"share").encode()),
    "client key shares": (
        ext.read_client_key_shares,
        ext.write_client_key_shares((KeyShareEntry(0xFEC4, b"one"), KeyShareEntry(0x11EC, b"two"))),
    ),
    "code points": (lambda content: ext.read_code_points(content, "test"), ext.write_code_points((0x0906, 0x0503))),
    "client versions": (ext.read_client_versions, b"\x04\x03\x04\x03\x03"),
    "selected": (lambda content: ext.read_selected(content, "test"), b"\x03\x04"),
    "alpn": (ext.read_alpn, ext.write_alpn((b"h2", b"http/1.1"))),
    "server name": (ext.read_server_name, ext.write_server_name("example.org")),
    "cookie": (ext.read_cookie, vector(2, b"cookie")),
}


@pytest.mark.parametrize("name", _CONTENTS)
def test_content_cut_at_any_byte_is_a_decode_error(name: str) -> None:
    read, content = _CONTENTS[name]
    read(content)
    for cut in range(len(content)):
        with pytest.raises(DecodeError) as caught:
            read(content[:cut])
        assert caught.value.alert is Alert.DECODE_ERROR


@pytest.mark.parametrize("name", _CONTENTS)
def test_content_with_a_byte_too_many_is_a_decode_error(name: str) -> None:
    read, content = _CONTENTS[name]
    with pytest.raises(DecodeError, match="1 bytes too many"):
        read(content + b"\0")


@given(st.dictionaries(st.integers(0, 2**16 - 1), st.binary(max_size=30), max_size=8))
def test_an_extensions_block_comes_back_in_its_order(extensions: ext.Extensions) -> None:
    reader = Reader(ext.write_extensions(extensions), "test")
    assert list(ext.read_extensions(reader).items()) == list(extensions.items())
    reader.finish()


def test_an_extension_that_comes_twice_is_an_illegal_parameter() -> None:
    twice = vector(2, 2 * (uint16(43) + vector(2, b"\x03\x04")))
    with pytest.raises(ProtocolViolation, match="extension 43 comes twice") as caught:
        ext.read_extensions(Reader(twice, "test"))
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


def test_each_message_allows_what_the_table_of_section_4_2_allows() -> None:
    assert {int(kind) for kind in ext.ALLOWED_IN_SERVER_HELLO} == {41, 43, 51}
    assert {int(kind) for kind in ext.ALLOWED_IN_RETRY} == {43, 44, 51}
    assert {int(kind) for kind in ext.ALLOWED_IN_ENCRYPTED_EXTENSIONS} == {
        *(0, 1, 10, 14, 15, 16, 19, 20, 28, 42),
        0xFFC4,  # large_record_size_limit: CH, EE
    }
    assert {int(kind) for kind in ext.ALLOWED_IN_CERTIFICATE_REQUEST} == {5, 13, 18, 47, 48, 50}
    assert {int(kind) for kind in ext.ALLOWED_IN_CERTIFICATE} == {5, 18}


def test_a_known_extension_in_the_wrong_message_is_an_illegal_parameter_even_if_it_was_offered() -> None:
    with pytest.raises(ProtocolViolation) as caught:
        ext.check_response({51: b""}, ext.ALLOWED_IN_ENCRYPTED_EXTENSIONS, frozenset({51}), "test")
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


@pytest.mark.parametrize("kind", [ExtensionType.ALPN, 0xABCD])
def test_an_answer_without_an_offer_is_an_unsupported_extension(kind: int) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        ext.check_response({kind: b""}, ext.ALLOWED_IN_ENCRYPTED_EXTENSIONS, frozenset(), "test")
    assert caught.value.alert is Alert.UNSUPPORTED_EXTENSION


def test_an_answer_to_an_offer_in_its_message_is_taken() -> None:
    ext.check_response({16: b""}, ext.ALLOWED_IN_ENCRYPTED_EXTENSIONS, frozenset({16}), "test")


def test_key_shares_come_back_in_their_order() -> None:
    entries = (KeyShareEntry(2, b"two"), KeyShareEntry(1, b"one"))
    assert ext.read_client_key_shares(ext.write_client_key_shares(entries)) == entries


def test_a_client_may_send_no_share_at_all() -> None:
    assert ext.read_client_key_shares(b"\x00\x00") == ()


def test_two_shares_of_one_group_are_an_illegal_parameter() -> None:
    content = ext.write_client_key_shares((KeyShareEntry(0xFEC4, b"a"), KeyShareEntry(0xFEC4, b"b")))
    with pytest.raises(ProtocolViolation, match="group 0xfec4 has two key shares") as caught:
        ext.read_client_key_shares(content)
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (ext.read_key_share_entry, b"\xfe\xc4\x00\x00"),
        (lambda content: ext.read_code_points(content, "test"), b"\x00\x00"),
        (ext.read_client_versions, b"\x00"),
        (ext.read_client_versions, b"\x03\x03\x04\x03"),
        (ext.read_alpn, b"\x00\x00"),
        (ext.read_alpn, b"\x00\x01\x00"),
        (ext.read_alpn, b"\x00\x04\x02h2\x00"),
        (ext.read_server_name, b"\x00\x00"),
        (ext.read_server_name, vector(2, b"\x00" + vector(2, b""))),
        (ext.read_server_name, vector(2, 2 * (b"\x00" + vector(2, b"a")))),
        (ext.read_server_name, vector(2, b"\x01" + vector(2, b"a"))),
        (ext.read_server_name, vector(2, b"\x00" + vector(2, b"\xff"))),
        (ext.read_cookie, b"\x00\x00"),
    ],
    ids=[
        "empty key exchange",
        "no code points",
        "no versions",
        "odd versions",
        "no protocols",
        "protocols of one byte",
        "an empty protocol",
        "no server names",
        "an empty server name",
        "two server names",
        "a server name of another type",
        "a server name beyond ASCII",
        "an empty cookie",
    ],
)
def test_content_out_of_its_range_is_a_decode_error(read: Callable[[bytes], Any], content: bytes) -> None:
    with pytest.raises(DecodeError):
        read(content)


def test_we_offer_tls_1_3_and_nothing_else() -> None:
    assert ext.read_client_versions(ext.write_client_versions()) == (0x0304,)


def test_names_and_cookies_come_back() -> None:
    assert ext.read_server_name(ext.write_server_name("web.shop.svc")) == "web.shop.svc"
    assert ext.read_alpn(ext.write_alpn((b"h2", b"x"))) == (b"h2", b"x")
    assert ext.read_cookie(vector(2, b"c")) == b"c"
