"""What a server reads out of a hello and selects from it, apart from the connection around it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pqtls import extensions as ext
from pqtls.client_hello import first_offer
from pqtls.client_offer import ClientOffer, check_second_hello, read_offer
from pqtls.errors import Alert, NegotiationRefused, PeerError, ProtocolViolation
from pqtls.extensions import ExtensionType
from pqtls.messages import ClientHello
from pqtls.profiles import CNSA2, COMPAT, HYBRID_L5, QBITEL
from pqtls.suites import TLS_AES_256_GCM_SHA384
from pqtls.wire import uint16, uint16_list, vector
from tests.support import pki
from tests.support.resumption import Mesh
from tests.support.scripted_peer import replaced


def _hello(**changes: Any) -> ClientHello:
    return first_offer(pki.client_config(**changes)).hello


def _with(hello: ClientHello, **extensions: bytes | None) -> ClientHello:
    return replace(hello, extensions=replaced(hello.extensions, **extensions))


def _read(hello: ClientHello, **changes: Any) -> ClientOffer:
    return read_offer(ClientHello.parse(hello.encode()[4:]), pki.server_config(**changes))


def _refused(hello: ClientHello, error: type[PeerError], alert: Alert, **changes: Any) -> str:
    with pytest.raises(PeerError) as caught:
        _read(hello, **changes)
    assert (type(caught.value), caught.value.alert) == (error, alert)
    return str(caught.value)


def test_an_ordinary_hello_is_read_whole() -> None:
    offer = _read(_hello(alpn=(b"one", b"two"), server_name="a.example"), alpn=(b"two",))
    assert (offer.profile, offer.group.name, offer.suite) == (QBITEL, "X25519MLKEM1024", TLS_AES_256_GCM_SHA384)
    assert (offer.alpn, offer.server_name) == (b"two", "a.example")
    assert offer.authorities == (pki.root().certificate.subject.public_bytes(),)
    assert (offer.record_size_limit, offer.states_record_size_limit) == (2**14 + 1, True)
    assert offer.wants_tickets
    assert offer.psks.identities == ()


def test_the_first_of_our_profiles_that_the_client_knows_is_selected_share_or_not() -> None:
    hello = _hello(profiles=(CNSA2, QBITEL))
    assert _read(hello, profiles=(HYBRID_L5, QBITEL, CNSA2)).profile is QBITEL
    assert _read(hello, profiles=(CNSA2, QBITEL)).profile is CNSA2


def test_a_client_with_the_group_of_a_profile_but_no_suite_of_it_is_refused() -> None:
    hello = replace(_hello(profiles=(QBITEL, COMPAT)), cipher_suites=(0x1301,))
    text = _refused(hello, NegotiationRefused, Alert.HANDSHAKE_FAILURE, profiles=(QBITEL,))
    assert text == "the client offers no cipher suite of profile qbitel (TLS_AES_256_GCM_SHA384)"


def test_a_profile_whose_suite_the_client_lacks_leaves_the_next_one_its_turn() -> None:
    hello = replace(_hello(profiles=(QBITEL, COMPAT)), cipher_suites=(0x1301,))
    offer = _read(hello, profiles=(QBITEL, COMPAT))
    assert (offer.profile, offer.suite.code_point) == (COMPAT, 0x1301)


@pytest.mark.parametrize(("version", "served"), [(0x0000, False), (0x0300, False), (0x0301, True), (0x0304, True)])
def test_a_hello_of_ssl_3_is_refused_whatever_else_it_offers(version: int, served: bool) -> None:
    """RFC 8446 appendix D.5."""
    hello = replace(_hello(), legacy_version=version)
    if served:
        assert _read(hello).profile is QBITEL
    else:
        _refused(hello, NegotiationRefused, Alert.PROTOCOL_VERSION)


def test_a_second_hello_in_another_order_is_not_the_same_hello() -> None:
    first = _hello()
    reordered = replace(first, extensions=dict(reversed(first.extensions.items())))
    check_second_hello(first, first)
    with pytest.raises(ProtocolViolation) as caught:
        check_second_hello(first, reordered)
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


def test_a_client_without_a_group_in_common_hears_every_profile_that_we_take() -> None:
    text = _refused(_hello(), NegotiationRefused, Alert.HANDSHAKE_FAILURE, profiles=(HYBRID_L5, CNSA2))
    assert text == (
        "the client offers the groups 0xfec4; we take only profile hybrid-l5 (SecP384r1MLKEM1024), cnsa2 (MLKEM1024)"
    )


# -- record_size_limit (RFC 8449) -----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [64, 65, 16384, 16385, 16386, 65535])
def test_a_record_size_limit_is_read_and_one_above_that_of_tls_1_3_is_tolerated(limit: int) -> None:
    assert _read(_with(_hello(), record_size_limit=uint16(limit))).record_size_limit == limit


@pytest.mark.parametrize("limit", [0, 1, 63])
def test_a_record_size_limit_below_64_is_an_illegal_parameter(limit: int) -> None:
    hello = _with(_hello(), record_size_limit=uint16(limit))
    assert "below 64" in _refused(hello, ProtocolViolation, Alert.ILLEGAL_PARAMETER)


def test_a_client_that_states_no_limit_takes_full_records() -> None:
    offer = _read(_with(_hello(), record_size_limit=None))
    assert (offer.record_size_limit, offer.states_record_size_limit) == (2**14 + 1, False)


# -- pre_shared_key -------------------------------------------------------------------------------------------------


def _offering() -> ClientHello:
    mesh = Mesh()
    return first_offer(mesh.client(mesh.session())).hello


def test_the_offered_ticket_is_read_with_the_size_of_its_binders() -> None:
    offer = _read(_offering())
    assert len(offer.psks.identities) == len(offer.psks.binders) == 1
    assert offer.psks.binders_size == 2 + 1 + 48


def test_modes_say_whether_tickets_are_of_use() -> None:
    for modes, wants in ((b"\1\1", True), (b"\1\0", False), (b"\2\0\1", True), (b"\1\x7f", False), (None, False)):
        assert _read(_with(_hello(), psk_key_exchange_modes=modes)).wants_tickets is wants


def test_a_ticket_without_the_mode_that_we_speak_is_overlooked() -> None:
    offer = _read(_with(_offering(), psk_key_exchange_modes=b"\1\0"))
    assert offer.psks.identities == ()
    assert not offer.wants_tickets


def test_a_ticket_that_is_not_last_is_an_illegal_parameter_and_one_without_modes_lacks_an_extension() -> None:
    hello = _offering()
    psk = hello.extensions[ExtensionType.PRE_SHARED_KEY]
    first = replace(hello, extensions={ExtensionType.PRE_SHARED_KEY: psk} | hello.extensions)
    _refused(first, ProtocolViolation, Alert.ILLEGAL_PARAMETER)
    _refused(_with(hello, psk_key_exchange_modes=None), ProtocolViolation, Alert.MISSING_EXTENSION)


@pytest.mark.parametrize("content", [b"", b"\0", b"\2\1", b"\1\1\1"])
def test_modes_that_cannot_be_parsed_are_a_decode_error(content: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        _read(_with(_hello(), psk_key_exchange_modes=content))
    assert caught.value.alert is Alert.DECODE_ERROR


@pytest.mark.parametrize(
    "content", [b"", b"\0\0", vector(2, b"\0\0"), vector(2, b"\0\2\1"), vector(2, b"\0\1x") + b"y"]
)
def test_authorities_that_cannot_be_parsed_are_a_decode_error(content: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        _read(_with(_hello(), certificate_authorities=content))
    assert caught.value.alert is Alert.DECODE_ERROR


# -- the second hello -----------------------------------------------------------------------------------------------


def test_a_second_hello_may_change_its_share_its_ticket_and_its_padding() -> None:
    hello = _offering()
    changed = _with(hello, key_share=b"\0\0", pre_shared_key=None)
    check_second_hello(hello, changed)
    check_second_hello(hello, _with(hello, padding=bytes(9)))
    check_second_hello(changed, hello)


@pytest.mark.parametrize(
    "changes",
    [
        {"supported_groups": uint16_list((0xFEC4, 0x0202))},
        {"signature_algorithms": uint16_list((0x0906, 0x0503))},
        {"record_size_limit": uint16(64)},
        {"psk_key_exchange_modes": b"\1\0"},
        {"certificate_authorities": None},
        {"server_name": ext.write_server_name("b.example")},
        {"early_data": b""},
        {"cookie": vector(2, b"x")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_second_hello_that_changes_another_extension_is_an_illegal_parameter(changes: dict[str, Any]) -> None:
    hello = _hello()
    with pytest.raises(ProtocolViolation) as caught:
        check_second_hello(hello, _with(hello, **changes))
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


@pytest.mark.parametrize(
    "changes",
    [
        {"random": bytes(32)},
        {"session_id": b"s"},
        {"cipher_suites": (0x1302, 0x1301)},
        {"legacy_version": 0x0301},
        {"compression_methods": b"\0\1"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_second_hello_with_another_field_is_an_illegal_parameter(changes: dict[str, Any]) -> None:
    hello = _hello()
    with pytest.raises(ProtocolViolation) as caught:
        check_second_hello(hello, replace(hello, **changes))
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER
