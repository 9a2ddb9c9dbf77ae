"""What a client says, first and again, and what it makes of a server's choice."""

from __future__ import annotations

from dataclasses import replace

import pytest

import pqtls
from pqtls import extensions as ext
from pqtls.client_hello import first_offer, profile_of_answer, second_offer
from pqtls.errors import Alert, ConfigurationError, ProtocolViolation
from pqtls.extensions import ExtensionType, KeyShareEntry
from pqtls.groups import MLKEM1024, SECP384R1MLKEM1024, X25519MLKEM768, X25519MLKEM1024
from pqtls.messages import LEGACY_VERSION, RETRY_RANDOM, ClientHello, ServerHello
from pqtls.profiles import CNSA2, COMPAT, HYBRID_L5, QBITEL
from pqtls.suites import TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384
from pqtls.wire import uint16, vector
from tests.support import pki
from tests.support.resumption import Mesh, meet
from tests.support.scripted_peer import ScriptedServer, refused


def _groups(hello: ClientHello) -> tuple[int, ...]:
    return ext.read_code_points(hello.extensions[ExtensionType.SUPPORTED_GROUPS], "groups")


def _shares(hello: ClientHello) -> list[int]:
    shares = ext.read_client_key_shares(hello.extensions[ExtensionType.KEY_SHARE])
    return [share.group for share in shares]


def _retry(extensions: ext.Extensions, suite: int = 0x1302) -> ServerHello:
    return ServerHello(LEGACY_VERSION, RETRY_RANDOM, b"", suite, 0, {43: b"\3\4"} | extensions)


def _second(config: pqtls.ClientConfig, retry: ServerHello) -> tuple[ClientHello, ClientHello]:
    first = first_offer(config)
    second = second_offer(config, first, retry, TLS_AES_256_GCM_SHA384, retry.encode())
    assert second.raw == second.hello.encode()
    return first.hello, second.hello


# -- profiles in order of preference --------------------------------------------------------------------------------


def test_a_hello_lists_what_all_profiles_list_once_and_has_a_share_of_the_first() -> None:
    hello = first_offer(pki.client_config(profiles=(CNSA2, QBITEL, COMPAT))).hello
    assert _groups(hello) == (0x0202, 0xFEC4, 0x11EC)
    assert _shares(hello) == [0x0202]
    assert hello.cipher_suites == (0x1302, 0x1301, 0x1303)
    schemes = ext.read_code_points(hello.extensions[ExtensionType.SIGNATURE_ALGORITHMS], "schemes")
    assert schemes == (0x0906, 0x0503, 0x0403)


def test_the_servers_order_of_profiles_decides_and_a_retry_reaches_the_one_that_it_prefers() -> None:
    client = pki.client_config(profiles=(QBITEL, HYBRID_L5, CNSA2))
    for order in ((QBITEL, CNSA2), (CNSA2, QBITEL), (HYBRID_L5, QBITEL), (COMPAT, HYBRID_L5)):
        expected = next(profile for profile in order if profile in client.profiles)
        met = meet(client, pki.server_config(profiles=order))
        assert met.at_client.profile == met.at_server.profile == expected.name
        assert met.at_client.group == expected.groups[0].name


def test_the_preferred_profile_costs_one_more_round_trip_only_where_its_share_is_missing() -> None:
    for order, first_record in (((QBITEL, CNSA2), "hello"), ((CNSA2, QBITEL), "retry")):
        client = pqtls.ClientConnection(pki.client_config(profiles=(QBITEL, CNSA2)))
        server = pqtls.ServerConnection(pki.server_config(profiles=order))
        server.receive_data(client.data_to_send())
        data = server.data_to_send()
        answer = ServerHello.parse(data[9 : 5 + int.from_bytes(data[3:5], "big")])
        assert answer.is_retry is (first_record == "retry")


def test_a_suite_of_one_profile_with_the_group_of_another_is_refused() -> None:
    config = pki.client_config(profiles=(QBITEL, COMPAT))
    server = ScriptedServer(pqtls.ClientConnection(config), TLS_AES_128_GCM_SHA256)
    with refused(server, ProtocolViolation, Alert.ILLEGAL_PARAMETER) as caught:
        server.send(server.server_hello(X25519MLKEM1024).encode())
    text = "the server combines X25519MLKEM1024 with TLS_AES_128_GCM_SHA256, which no profile of ours does"
    assert str(caught.value) == text


def test_the_profile_of_an_answer_is_that_of_its_group() -> None:
    config = pki.client_config(profiles=(QBITEL, COMPAT))
    assert profile_of_answer(X25519MLKEM1024, TLS_AES_256_GCM_SHA384, config) is QBITEL
    assert profile_of_answer(X25519MLKEM768, TLS_AES_128_GCM_SHA256, config) is COMPAT
    with pytest.raises(ProtocolViolation):
        profile_of_answer(MLKEM1024, TLS_AES_256_GCM_SHA384, config)


@pytest.mark.parametrize("make", [pki.client_config, pki.server_config])
def test_a_group_in_two_profiles_is_a_configuration_error(make: object) -> None:
    assert callable(make)
    with pytest.raises(ConfigurationError, match="a key-exchange group is in two of the profiles"):
        make(profiles=(QBITEL, COMPAT, QBITEL))
    with pytest.raises(ConfigurationError, match="at least one profile"):
        make(profiles=())


def test_a_client_offers_at_most_one_session() -> None:
    mesh = Mesh()
    sessions = meet(mesh.client(), mesh.server()).sessions
    with pytest.raises(ConfigurationError, match="at most one session"):
        mesh.client(*sessions[:2])


# -- the second hello -----------------------------------------------------------------------------------------------


def test_a_retry_changes_the_share_and_nothing_else() -> None:
    config = pki.client_config(profiles=(QBITEL, HYBRID_L5))
    first, second = _second(config, _retry({51: uint16(SECP384R1MLKEM1024.code_point)}))
    assert _shares(second) == [SECP384R1MLKEM1024.code_point]
    extensions = first.extensions | {ExtensionType.KEY_SHARE: second.extensions[ExtensionType.KEY_SHARE]}
    assert second == replace(first, extensions=extensions)
    assert list(second.extensions) == list(first.extensions)


def test_a_cookie_comes_back_as_it_came() -> None:
    cookie = vector(2, b"crumbs")
    first, second = _second(pki.client_config(), _retry({44: cookie}))
    assert second.extensions == first.extensions | {44: cookie}


@pytest.mark.parametrize(
    ("extensions", "alert"),
    [
        ({}, Alert.ILLEGAL_PARAMETER),
        ({51: uint16(0xFEC4)}, Alert.ILLEGAL_PARAMETER),
        ({51: uint16(0x11EC)}, Alert.ILLEGAL_PARAMETER),
        ({51: b"\xfe"}, Alert.DECODE_ERROR),
        ({44: b"\x00\x00"}, Alert.DECODE_ERROR),
        ({41: uint16(0)}, Alert.ILLEGAL_PARAMETER),
        ({0xABCD: b""}, Alert.UNSUPPORTED_EXTENSION),
    ],
    ids=["nothing", "the same group", "not offered", "half a group", "empty cookie", "a ticket", "unknown"],
)
def test_a_retry_that_makes_no_sense_is_refused(extensions: ext.Extensions, alert: Alert) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        _second(pki.client_config(), _retry(extensions))
    assert caught.value.alert is alert


def test_a_retry_with_a_suite_that_rules_the_session_out_drops_it() -> None:
    mesh = Mesh()
    config = mesh.client(mesh.session(profiles=(COMPAT,)), profiles=(COMPAT,))
    first = first_offer(config)
    assert len(first.sessions) == 1
    retry = _retry({44: vector(2, b"c")}, 0x1301)
    second = second_offer(config, first, retry, TLS_AES_128_GCM_SHA256, retry.encode())
    assert second.sessions == ()
    assert ExtensionType.PRE_SHARED_KEY not in second.hello.extensions
    kept = second_offer(config, first, retry, TLS_AES_256_GCM_SHA384, retry.encode())
    assert list(kept.hello.extensions)[-1] == ExtensionType.PRE_SHARED_KEY


def test_the_session_stands_last_and_its_binder_is_over_all_before_it() -> None:
    mesh = Mesh()
    hello = first_offer(mesh.client(mesh.session(), alpn=(b"h2",), server_name="a.example")).hello
    assert list(hello.extensions)[-1] == ExtensionType.PRE_SHARED_KEY
    offered = ext.read_offered_psks(hello.extensions[ExtensionType.PRE_SHARED_KEY])
    assert len(offered.identities) == len(offered.binders) == 1
    assert len(offered.binders[0]) == 48


def test_each_hello_has_fresh_randomness() -> None:
    config = pki.client_config()
    one, other = first_offer(config), first_offer(config)
    assert one.hello.random != other.hello.random
    assert one.share.public != other.share.public
    entry = ext.read_client_key_shares(one.hello.extensions[ExtensionType.KEY_SHARE])[0]
    assert entry == KeyShareEntry(0xFEC4, one.share.public)
