"""record_size_limit (RFC 8449) between two of our ends: each keeps to what the other takes."""

from __future__ import annotations

import pytest

import pqtls
from pqtls.errors import Alert, ConfigurationError, ProtocolViolation
from pqtls.extensions import ExtensionType
from pqtls.messages import EncryptedExtensions
from pqtls.record import RECORD_OVERHEAD, ContentType
from pqtls.wire import uint16
from tests.support import pki
from tests.support.connections import data_of
from tests.support.recorded import split_records
from tests.support.scripted_peer import refused
from tests.support.toward_client import before_encrypted_extensions

_HEADER = 5
_TAG = 16


def _sizes(stream: bytes) -> list[int]:
    """The inner plaintexts of a stream's records, in bytes."""
    return [len(record) - _HEADER - _TAG for record in split_records(stream)]


@pytest.mark.parametrize("limit", [64, 100, 1024, 16384, 16385])
def test_each_end_sends_records_as_large_as_the_other_takes_and_no_larger(limit: int) -> None:
    client, server = pki.connected(
        pki.client_config(record_size_limit=limit), pki.server_config(record_size_limit=max(64, limit - 1))
    )
    data = bytes(range(256)) * 200
    server.send_data(data)
    stream = server.data_to_send()
    assert max(_sizes(stream)) == limit
    client.receive_data(stream)
    assert data_of(client) == data
    client.send_data(data)
    stream = client.data_to_send()
    assert max(_sizes(stream)) == max(64, limit - 1)
    server.receive_data(stream)
    assert data_of(server) == data


def test_the_handshake_itself_keeps_to_the_limit_but_for_the_hellos() -> None:
    client = pqtls.ClientConnection(pki.client_config(record_size_limit=64))
    server = pqtls.ServerConnection(pki.server_config(record_size_limit=128))
    server.receive_data(client.data_to_send())
    _hello, *protected = split_records(server.data_to_send())
    assert len(protected) > 100
    assert max(_sizes(b"".join(protected))) == 64
    client.receive_data(b"".join((_hello, *protected)))
    assert max(_sizes(client.data_to_send())) == 128


def test_the_fast_path_keeps_to_the_limit_and_says_how_much_room_it_needs() -> None:
    client, server = pki.connected(pki.client_config(), pki.server_config(record_size_limit=512))
    source = bytearray(range(256)) * 16 + bytearray(1)
    room = client.sealed_size(4096)
    assert room >= 4096 + 9 * RECORD_OVERHEAD
    target = bytearray(room)
    written = client.seal_into(memoryview(source), 4096, memoryview(target))
    assert max(_sizes(bytes(target[:written]))) == 512
    server.receive_data(memoryview(target)[:written])
    assert data_of(server) == bytes(range(256)) * 16


def test_the_limit_survives_a_key_update() -> None:
    client, server = pki.connected(pki.client_config(record_size_limit=64), pki.server_config())
    server.update_keys(request_peer=True)
    server.send_data(bytes(1000))
    stream = server.data_to_send()
    assert max(_sizes(stream)) == 64
    client.receive_data(stream)
    assert data_of(client) == bytes(1000)


def test_a_record_above_the_limit_is_a_record_overflow() -> None:
    client, server = pki.connected(pki.client_config(), pki.server_config(record_size_limit=64))
    client.effects.limit_records(65, 16385)  # one byte more than the server takes
    client.send_data(bytes(64))
    with pytest.raises(ProtocolViolation) as caught:
        server.receive_data(client.data_to_send())
    assert caught.value.alert is Alert.RECORD_OVERFLOW


def test_padding_counts_too() -> None:
    server = before_encrypted_extensions(record_size_limit=64)
    server.send(EncryptedExtensions({ExtensionType.RECORD_SIZE_LIMIT: uint16(16385)}).encode())
    assert server.sealer is not None
    with refused(server, ProtocolViolation, Alert.RECORD_OVERFLOW):
        server.say(ContentType.HANDSHAKE, bytes(64))


@pytest.mark.parametrize("limit", [-1, 0, 63, 16386, 2**16])
@pytest.mark.parametrize("make", [pki.client_config, pki.server_config])
def test_a_limit_that_may_not_be_stated_is_a_configuration_error(limit: int, make: object) -> None:
    assert callable(make)
    with pytest.raises(ConfigurationError, match=f"a record size limit of {limit} is not in 64..16385"):
        make(record_size_limit=limit)


@pytest.mark.parametrize("limit", [0, 63])
def test_a_server_that_states_less_than_64_is_an_illegal_parameter(limit: int) -> None:
    server = before_encrypted_extensions()
    with refused(server, ProtocolViolation, Alert.ILLEGAL_PARAMETER):
        server.send(EncryptedExtensions({ExtensionType.RECORD_SIZE_LIMIT: uint16(limit)}).encode())


def test_a_server_that_states_more_than_tls_1_3_has_is_an_illegal_parameter() -> None:
    for limit, right in ((16385, True), (16386, False), (65535, False)):
        server = before_encrypted_extensions()
        message = EncryptedExtensions({ExtensionType.RECORD_SIZE_LIMIT: uint16(limit)}).encode()
        if right:
            server.send(message)
            continue
        with refused(server, ProtocolViolation, Alert.ILLEGAL_PARAMETER):
            server.send(message)
