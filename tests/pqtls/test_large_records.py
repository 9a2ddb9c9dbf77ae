"""Records beyond 2^14 bytes (draft-ietf-tls-super-jumbo-record-limit-03) between two of our ends, and with others."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pqtls
from pqtls import extensions as ext
from pqtls.config import LARGE_RECORDS
from pqtls.errors import Alert, ConfigurationError, DecodeError, MisuseError, ProtocolViolation
from pqtls.events import ApplicationData, PeerClosed, PeerKeysUpdated
from pqtls.extensions import ExtensionType
from pqtls.messages import ClientHello, EncryptedExtensions
from pqtls.profiles import CNSA2, HYBRID_L5, QBITEL
from pqtls.record import LARGE_FRAGMENT, MAX_FRAGMENT, MAX_RECORD, TAG_SIZE, ContentType, RecordOpener, RecordSealer
from pqtls.suites import TLS_AES_256_GCM_SHA384
from pqtls.varuint import read_varuint, write_varuint
from pqtls.wire import uint16
from tests.support import pki
from tests.support.connections import data_of, opened
from tests.support.recorded import split_records, state_of
from tests.support.resumption import Mesh, meet
from tests.support.scripted_peer import ScriptedClient, refused
from tests.support.toward_client import before_encrypted_extensions

_LARGE: dict[str, Any] = {"large_record_size_limit": LARGE_RECORDS}
_DATA = bytes(range(256)) * 1024  # four full records


def _connected(client: int = LARGE_RECORDS, server: int = LARGE_RECORDS, **changes: Any) -> Any:
    return pki.connected(
        pki.client_config(large_record_size_limit=client, **changes),
        pki.server_config(large_record_size_limit=server, **changes),
    )


def _sizes(stream: bytes) -> list[int]:
    """The inner plaintexts of a stream of large records, in bytes."""
    sizes = []
    view = memoryview(stream)
    while view:
        header, size = read_varuint(view, 0)
        assert header
        assert header + size <= len(view)
        sizes.append(size - TAG_SIZE)
        view = view[header + size :]
    return sizes


def _sent(connection: pqtls.Connection, data: bytes) -> bytes:
    connection.send_data(data)
    return connection.data_to_send()


# -- what is agreed on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(64, 65_537), (65_537, 64), (1000, 16_385), (16_386, 40_000), (65_537, 65_537)])
def test_each_direction_has_the_limit_of_its_receiver(lengths: tuple[int, int]) -> None:
    client, server = _connected(*lengths)
    for sender, receiver, limit in ((server, client, lengths[0]), (client, server, lengths[1])):
        stream = _sent(sender, _DATA)
        assert max(_sizes(stream)) == limit
        assert sum(_sizes(stream)) == len(_DATA) + len(_sizes(stream))
        receiver.receive_data(stream)
        assert data_of(receiver) == _DATA


@pytest.mark.parametrize("length", [1, 46, 47, 48, 63, 64, 16_366, 16_367, 16_368, 2**14, 2**16 - 1, 2**16, 2**16 + 1])
def test_a_message_of_any_size_arrives_behind_the_shortest_header(length: int) -> None:
    client, server = _connected()
    data = (_DATA * 2)[:length]
    stream = _sent(client, data)
    first = min(length, LARGE_FRAGMENT)
    assert stream.startswith(write_varuint(first + 1 + TAG_SIZE))
    assert _sizes(stream) == [size + 1 for size in (first, length - first) if size]
    server.receive_data(stream)
    assert data_of(server) == data


@pytest.mark.parametrize("profile", [QBITEL, HYBRID_L5, CNSA2], ids=lambda profile: str(profile.name))
def test_any_profile_may_have_them(profile: pqtls.Profile) -> None:
    client, server = _connected(profiles=(profile,))
    stream = _sent(client, _DATA)
    assert _sizes(stream) == [LARGE_RECORDS] * 4
    server.receive_data(stream)
    assert data_of(server) == _DATA


@pytest.mark.parametrize("large", ["client", "server"])
def test_where_one_end_does_not_want_them_records_are_those_of_rfc_8446(large: str) -> None:
    ends = {"client": pki.client_config, "server": pki.server_config}
    configs = [make(**(_LARGE if name == large else {})) for name, make in ends.items()]
    client, server = pki.connected(configs[0], configs[1])  # type: ignore[arg-type]  # in that order
    for sender, receiver in ((client, server), (server, client)):
        stream = _sent(sender, _DATA)
        records = split_records(stream)
        assert all(record[:3] == b"\x17\x03\x03" for record in records)
        assert max(map(len, records)) == 5 + MAX_FRAGMENT + 1 + TAG_SIZE
        receiver.receive_data(stream)
        assert data_of(receiver) == _DATA


def test_a_client_states_one_of_the_two_limits() -> None:
    for changes, there, absent in ((_LARGE, 0xFFC4, 28), ({}, 28, 0xFFC4)):
        hello = pqtls.ClientConnection(pki.client_config(**changes)).data_to_send()
        extensions = ClientHello.parse(hello[9:]).extensions
        assert there in extensions
        assert absent not in extensions
    assert ext.read_large_record_size_limit(extensions.get(0xFFC4, b"\x00\x01\x00\x01")) == LARGE_RECORDS


def test_a_server_answers_one_of_the_two_even_where_the_client_states_both() -> None:
    server = pqtls.ServerConnection(pki.server_config(**_LARGE))
    client = ScriptedClient(server)
    hello = client.client_hello()
    both = {
        int(ExtensionType.RECORD_SIZE_LIMIT): uint16(512),
        int(ExtensionType.LARGE_RECORD_SIZE_LIMIT): ext.write_large_record_size_limit(2**20),
    }
    client.send(dataclasses.replace(hello, extensions=hello.extensions | both).encode())
    client.receive()
    answer = EncryptedExtensions.parse(client.messages[1].body).extensions
    assert answer == {ExtensionType.LARGE_RECORD_SIZE_LIMIT: ext.write_large_record_size_limit(LARGE_RECORDS)}


def test_the_handshake_itself_is_in_records_of_rfc_8446() -> None:
    client = pqtls.ClientConnection(pki.client_config(large_record_size_limit=64))
    server = pqtls.ServerConnection(pki.server_config(large_record_size_limit=64))
    server.receive_data(client.data_to_send())
    flight = split_records(server.data_to_send())
    assert [record[:3] for record in flight] == [b"\x16\x03\x03"] + [b"\x17\x03\x03"] * (len(flight) - 1)
    assert max(map(len, flight)) > 5000, "a limit for application data does not bind the handshake"
    client.receive_data(b"".join(flight))
    flight = split_records(client.data_to_send())
    assert {record[:3] for record in flight} == {b"\x17\x03\x03"}
    server.receive_data(b"".join(flight))
    assert server.handshake_complete


def test_a_resumed_handshake_agrees_anew() -> None:
    mesh = Mesh()
    for before, after in ((_LARGE, {}), ({}, _LARGE), (_LARGE, _LARGE)):
        first = meet(mesh.client(**before), mesh.server(**before))
        met = meet(mesh.client(first.sessions[0], **after), mesh.server(**after))
        assert met.resumed
        stream = _sent(met.client, _DATA)
        expected = 4 * (LARGE_RECORDS + TAG_SIZE + 4) if after else 16 * (MAX_FRAGMENT + 22)
        assert len(stream) == expected
        met.server.receive_data(stream)
        assert data_of(met.server) == _DATA


def test_a_retry_changes_nothing_about_it() -> None:
    client = pki.client_config(profiles=(QBITEL, CNSA2), **_LARGE)
    ends = pki.connected(client, pki.server_config(profiles=(CNSA2,), **_LARGE))
    stream = _sent(ends[0], _DATA)
    assert _sizes(stream) == [LARGE_RECORDS] * 4
    ends[1].receive_data(stream)
    assert data_of(ends[1]) == _DATA


# -- what may be stated -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [-1, 0, 63, 65_538, 2**30])
@pytest.mark.parametrize("make", [pki.client_config, pki.server_config])
def test_a_limit_that_no_buffer_is_made_for_is_a_configuration_error(limit: int, make: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"a large record size limit of {limit} is not in 64..65537"):
        make(large_record_size_limit=limit)


def test_both_limits_at_once_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="state one of them"):
        pki.client_config(record_size_limit=512, **_LARGE)


@pytest.mark.parametrize("content", ["0000003f", "00000000", "3fffff01", "ffffffff"])
def test_a_limit_out_of_the_drafts_range_is_an_illegal_parameter(content: str) -> None:
    for peer, say in _both_ways(bytes.fromhex(content)):
        with refused(peer, ProtocolViolation, Alert.ILLEGAL_PARAMETER):
            say()


@pytest.mark.parametrize("content", ["", "00", "000100", "0001000100"])
def test_a_limit_that_is_not_four_bytes_is_a_decode_error(content: str) -> None:
    for peer, say in _both_ways(bytes.fromhex(content)):
        with refused(peer, DecodeError, Alert.DECODE_ERROR):
            say()


@pytest.mark.parametrize("limit", [64, 2**14 + 1, 2**16 + 1, 2**30 - 256])
def test_a_limit_within_the_drafts_range_is_taken(limit: int) -> None:
    for _peer, say in _both_ways(limit.to_bytes(4, "big")):
        say()


def _both_ways(content: bytes) -> Any:
    """A server that answers with this extension, and a client that offers it."""
    extension = {int(ExtensionType.LARGE_RECORD_SIZE_LIMIT): content}
    server = before_encrypted_extensions(**_LARGE)
    yield server, lambda: server.send(EncryptedExtensions(extension).encode())
    client = ScriptedClient(pqtls.ServerConnection(pki.server_config(**_LARGE)))
    hello = client.client_hello()
    yield client, lambda: client.send(dataclasses.replace(hello, extensions=hello.extensions | extension).encode())


def test_an_answer_to_what_was_not_asked_is_an_unsupported_extension() -> None:
    large = {int(ExtensionType.LARGE_RECORD_SIZE_LIMIT): ext.write_large_record_size_limit(LARGE_RECORDS)}
    standard = {int(ExtensionType.RECORD_SIZE_LIMIT): uint16(16_385)}
    for changes, answer in (({}, large), (_LARGE, standard), (_LARGE, large | standard)):
        server = before_encrypted_extensions(**changes)
        with refused(server, ProtocolViolation, Alert.UNSUPPORTED_EXTENSION):
            server.send(EncryptedExtensions(answer).encode())


def test_a_server_that_does_not_want_them_does_not_look_at_the_offer() -> None:
    client = ScriptedClient(pqtls.ServerConnection(pki.server_config()))
    hello = client.client_hello()
    nonsense = {int(ExtensionType.LARGE_RECORD_SIZE_LIMIT): b"?"}
    client.send(dataclasses.replace(hello, extensions=hello.extensions | nonsense).encode())


# -- what a peer may do with them -------------------------------------------------------------------------------------


def _sealer(connection: pqtls.Connection, fragment_size: int) -> RecordSealer:
    """What seals in the connection's name, by rules of its own."""
    return RecordSealer(state_of(connection).writing, fragment_size, large=True)


def test_one_byte_more_than_the_limit_is_a_record_overflow_before_it_has_come() -> None:
    for limit in (64, 1000, LARGE_RECORDS):
        client, server = _connected(server=limit)
        header = write_varuint(limit + TAG_SIZE)
        assert opened(server, header) == (0, b""), "as many as it takes"
        with pytest.raises(ProtocolViolation) as caught:
            server.receive_data(write_varuint(limit + 1 + TAG_SIZE))
        assert caught.value.alert is Alert.RECORD_OVERFLOW
        with pytest.raises(pqtls.AlertReceived, match="record_overflow"):
            client.receive_data(server.data_to_send())


def test_a_record_above_the_limit_that_is_properly_sealed_is_a_record_overflow_too() -> None:
    client, server = _connected(server=1000)
    source, target = bytearray(1001), bytearray(2000)
    written = _sealer(client, 1000).seal_into(memoryview(source), 1000, memoryview(target))
    with pytest.raises(ProtocolViolation) as caught:
        server.receive_data(memoryview(target)[:written])
    assert caught.value.alert is Alert.RECORD_OVERFLOW
    assert data_of(server) == b""


@pytest.mark.parametrize("header", ["c0", "ff000000", "4011", "80000100", "80003fff"])
def test_a_length_in_a_form_that_nobody_may_use_is_a_record_overflow(header: str) -> None:
    _client, server = _connected()
    with pytest.raises(ProtocolViolation) as caught:
        server.receive_data(bytes.fromhex(header) + bytes(100))
    assert caught.value.alert is Alert.RECORD_OVERFLOW


def test_a_record_that_is_too_short_to_be_protected_is_a_bad_record() -> None:
    for size in range(1 + TAG_SIZE):
        _client, server = _connected()
        with pytest.raises(ProtocolViolation) as caught:
            server.receive_data(write_varuint(size) + bytes(size))
        assert caught.value.alert is Alert.BAD_RECORD_MAC


def test_a_record_of_rfc_8446_is_none_any_more() -> None:
    client, server = _connected()
    standard = RecordSealer(state_of(client).writing).seal(ContentType.APPLICATION_DATA, b"hello, this is TLS 1.3")
    with pytest.raises(ProtocolViolation) as caught:
        server.receive_data(standard)  # 0x17: a record of 23 bytes
    assert caught.value.alert is Alert.BAD_RECORD_MAC


def test_padding_counts_and_is_taken_off() -> None:
    client, server = _connected(server=1000)
    secret = state_of(client).writing
    inner = b"hello\x17" + bytes(994)
    header, body = write_varuint(1000 + TAG_SIZE), bytearray(1000 + TAG_SIZE)
    secret.provider.aead(secret.suite, secret.keys().key).encrypt_into(secret.keys().iv, inner, header, body)
    server.receive_data(header + body)
    assert data_of(server) == b"hello"


def test_a_change_of_keys_keeps_the_size_and_the_form() -> None:
    client, server = _connected(client=1000)
    for sender, receiver, limit in ((client, server, LARGE_RECORDS), (server, client, 1000)):
        sender.update_keys(request_peer=True)
        stream = _sent(sender, _DATA)
        assert _sizes(stream)[0] == 6, "the KeyUpdate itself: five bytes and its type"
        assert max(_sizes(stream)) == limit
        receiver.receive_data(stream)
        events = receiver.events()
        assert events[0] == PeerKeysUpdated()
        assert b"".join(event.data for event in events if isinstance(event, ApplicationData)) == _DATA
        pki.pump(client, server)
        sender.events()


def test_a_key_protects_as_many_fewer_records_as_they_are_larger() -> None:
    secret = state_of(_connected()[0]).writing
    for fragment, expected in (
        (63, 2**24),
        (MAX_FRAGMENT, 2**24),
        (MAX_FRAGMENT + 1, 2**24 * MAX_FRAGMENT // (MAX_FRAGMENT + 2)),
        (LARGE_FRAGMENT, 2**24 * MAX_FRAGMENT // LARGE_RECORDS),
    ):
        assert RecordSealer(secret, fragment, large=True).room() == expected
    # RFC 8446 §5.5 in bytes, by blocks of 16: never more than with records of 2^14.
    blocks = -(-LARGE_RECORDS // 16) * RecordSealer(secret, LARGE_FRAGMENT, large=True).room()
    assert blocks < 2**24.5 * -(-(MAX_FRAGMENT + 1) // 16)


def test_a_worn_key_is_changed_in_the_middle_of_a_long_write() -> None:
    suite = dataclasses.replace(TLS_AES_256_GCM_SHA384, records_per_key=9)  # two large ones
    profile = dataclasses.replace(QBITEL, cipher_suites=(suite,))
    client, server = _connected(profiles=(profile,))
    source = bytearray(_DATA + b"\0")
    target = bytearray(client.sealed_size(len(_DATA)) + 100)
    written = client.seal_into(memoryview(source), len(_DATA), memoryview(target))
    assert _sizes(bytes(target[:written])) == [LARGE_RECORDS] * 2 + [6] + [LARGE_RECORDS] * 2
    consumed, data = opened(server, bytes(target[:written]))
    assert (consumed, data) == (written, _DATA)
    updates = server.events()
    assert updates == [PeerKeysUpdated()]
    assert server.has_data_to_send, "and we ask once ourselves, when two have come"


def test_the_end_of_a_direction_is_a_large_record_like_any_other() -> None:
    client, server = _connected()
    client.send_data(b"the last")
    client.send_close_notify()
    server.receive_data(client.data_to_send())
    assert server.events() == [ApplicationData(b"the last"), PeerClosed()]
    with pytest.raises(MisuseError):
        client.send_data(b"more")
    server.send_data(_DATA)
    client.receive_data(server.data_to_send())
    assert data_of(client) == _DATA


# -- byte by byte -----------------------------------------------------------------------------------------------------


def _stream() -> tuple[pqtls.Connection, bytes, bytes]:
    """A receiver, records of all three sizes of header for it with a KeyUpdate among them, and what is in them."""
    client, server = _connected()
    client.send_data(b"short")
    client.send_data(bytes(100))
    client.update_keys()
    client.send_data(_DATA[: 2**14 + 1])
    return server, client.data_to_send(), b"short" + bytes(100) + _DATA[: 2**14 + 1]


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(st.lists(st.integers(0, 16_700), max_size=6))
def test_a_stream_may_be_cut_anywhere(cuts: list[int]) -> None:
    server, stream, data = _stream()
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    got = b""
    for start, end in itertools.pairwise(places):
        server.receive_data(stream[start:end])
        got += data_of(server)
    assert got == data


def test_byte_by_byte_around_each_header_nothing_is_lost() -> None:
    server, stream, data = _stream()
    carry, got = b"", b""
    for place in range(len(stream)):
        carry += stream[place : place + 1]
        if 250 < place < len(stream) - 10 and place % 4093:
            continue  # in the middle of a record one place is as another
        consumed, found = opened(server, carry)
        carry, got = carry[consumed:], got + found
    consumed, found = opened(server, carry)
    assert (carry[consumed:], got + found) == (b"", data)


@pytest.mark.parametrize("bit", [0x01, 0x40, 0x80])
def test_a_flipped_bit_lets_nothing_wrong_through(bit: int) -> None:
    client, server = _connected()
    secret = state_of(client).writing
    for piece in (b"short", bytes(100), _DATA[: 2**14 + 1]):
        client.send_data(piece)
    stream = client.data_to_send()
    right = b"short" + bytes(100) + _DATA[: 2**14 + 1]
    for place in (*range(160), 16_000, len(stream) - 17, len(stream) - 1):
        damaged = bytearray(stream)
        damaged[place] ^= bit
        opener = RecordOpener(secret, LARGE_RECORDS, large=True)
        room = memoryview(bytearray(len(stream)))
        try:
            consumed, produced, content_type, _ = opener.open_into(memoryview(damaged), room)
        except ProtocolViolation as refusal:
            assert refusal.alert in {Alert.BAD_RECORD_MAC, Alert.RECORD_OVERFLOW}
            continue
        assert content_type == ContentType.APPLICATION_DATA
        assert consumed < len(stream), "it waits for the rest of a record that is longer than it was"
        assert bytes(room[:produced]) == right[:produced]
    assert server.events() == []


def test_a_whole_record_is_no_longer_than_owners_make_room_for() -> None:
    client, _server = _connected()
    assert len(_sent(client, bytes(LARGE_FRAGMENT))) == MAX_RECORD - 1  # a header of 4 bytes where RFC 8446 has 5
    assert client.sealed_size(LARGE_FRAGMENT) >= MAX_RECORD - 1
