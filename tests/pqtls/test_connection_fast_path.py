"""open_into, seal_into and take_buffered do what receive_data and send_data do."""

from __future__ import annotations

import pytest

import pqtls
from pqtls.errors import Alert, MisuseError, ProtocolViolation
from pqtls.events import PeerKeysUpdated
from pqtls.record import MAX_FRAGMENT, ContentType
from tests.support import pki
from tests.support.connections import data_of, fresh, opened, scripted_client
from tests.support.scripted_peer import plain_record, refused

# -- the fast path ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 1000, MAX_FRAGMENT, MAX_FRAGMENT + 1, 100_000])
def test_the_fast_path_writes_and_reads_what_the_slow_path_does(length: int) -> None:
    data = bytes(index % 253 for index in range(length))
    for fast_writer in (False, True):
        for fast_reader in (False, True):
            client, server = pki.connected()
            if fast_writer:
                source, target = bytearray(data + b"\xaa"), bytearray(pqtls.sealed_size(length))
                written = client.seal_into(memoryview(source), length, memoryview(target))
                wire = bytes(target[:written])
                assert source == data + b"\xaa"
            else:
                client.send_data(data)
                wire = client.data_to_send()
            if fast_reader:
                assert opened(server, wire) == (len(wire), data)
                assert server.events() == []
            else:
                server.receive_data(wire)
                assert data_of(server) == data


def test_the_fast_path_leaves_a_record_that_is_not_whole() -> None:
    client, server = pki.connected()
    client.send_data(b"one")
    client.send_data(b"two")
    wire = client.data_to_send()
    consumed, data = opened(server, wire[:-1])
    assert data == b"one"
    assert opened(server, wire[consumed:]) == (len(wire) - consumed, b"two")


def test_what_came_with_the_last_handshake_bytes_is_handed_over() -> None:
    client, server = fresh()
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    final = client.data_to_send()
    client.send_data(b"early bird")
    record = client.data_to_send()
    server.receive_data(final + record[:10])
    with pytest.raises(MisuseError, match="take_buffered"):
        opened(server, record[10:])
    assert server.take_buffered() == record[:10]
    assert server.take_buffered() == b""
    assert opened(server, record) == (len(record), b"early bird")


def test_the_fast_path_follows_key_updates_on_the_way() -> None:
    client, server = pki.connected()
    client.send_data(b"old ")
    client.update_keys(request_peer=True)
    client.send_data(b"new")
    wire = client.data_to_send()
    assert opened(server, wire) == (len(wire), b"old new")
    assert server.events() == [PeerKeysUpdated()]
    source, target = bytearray(b"answer\0"), bytearray(pqtls.sealed_size(6))
    assert server.seal_into(memoryview(source), 6, memoryview(target)) == len(target), "with the KeyUpdate that is due"
    assert opened(client, bytes(target)) == (len(target), b"answer")


def test_what_waits_to_be_sent_goes_in_front_of_what_is_sealed() -> None:
    client, server = pki.connected()
    client.update_keys()
    waiting = len(client.effects.output)
    source, target = bytearray(b"data\0"), bytearray(pqtls.sealed_size(4) + waiting)
    written = client.seal_into(memoryview(source), 4, memoryview(target))
    assert not client.has_data_to_send
    assert opened(server, bytes(target[:written])) == (written, b"data")


def test_the_fast_path_sees_close_notify_and_takes_all_that_follows() -> None:
    client, server = pki.connected()
    client.send_data(b"bye")
    client.send_close_notify()
    wire = client.data_to_send() + b"junk"
    assert opened(server, wire) == (len(wire), b"bye")
    assert server.peer_closed
    assert opened(server, b"more junk") == (9, b"")


def test_a_fault_on_the_fast_path_sends_its_alert() -> None:
    client = scripted_client(complete=True)
    record = bytearray(client.record(ContentType.APPLICATION_DATA, b"hello"))
    record[7] ^= 1
    with refused(client, ProtocolViolation, Alert.BAD_RECORD_MAC):
        opened(client.connection, bytes(record))
    client = scripted_client(complete=True)
    with refused(client, ProtocolViolation, Alert.UNEXPECTED_MESSAGE):
        opened(client.connection, plain_record(ContentType.ALERT, b"\1\0"))
