"""What states cause, in the order in which they cause it."""

from __future__ import annotations

import pytest

from pqtls.effects import ConnectionEffects
from pqtls.errors import Alert, ProtocolViolation
from pqtls.events import PeerClosed
from pqtls.key_schedule import TrafficSecret
from pqtls.provider_cryptography import PROVIDER
from pqtls.record import LARGE_FRAGMENT, MAX_FRAGMENT, ContentType, RecordOpener
from pqtls.suites import TLS_AES_256_GCM_SHA384
from tests.support.recorded import split_records

_SECRET = TrafficSecret(TLS_AES_256_GCM_SHA384, PROVIDER, b"s" * 48)


def _effects() -> ConnectionEffects:
    return ConnectionEffects()


def _opened(opener: RecordOpener, record: bytes) -> tuple[int, bytes]:
    room = bytearray(len(record))
    _, _, content_type, size = opener.open_into(memoryview(record), memoryview(room))
    return content_type, bytes(room[:size])


def test_messages_of_one_epoch_share_a_record() -> None:
    effects = _effects()
    effects.send(b"one")
    effects.send(b"two")
    assert not effects.output
    effects.flush()
    assert effects.output == b"\x16\x03\x03\x00\x06onetwo"


def test_flushing_nothing_makes_no_record() -> None:
    effects = _effects()
    effects.flush()
    assert not effects.output


def test_a_message_longer_than_a_record_is_cut() -> None:
    effects = _effects()
    effects.send(bytes(MAX_FRAGMENT + 1))
    effects.flush()
    assert [len(record) - 5 for record in split_records(bytes(effects.output))] == [MAX_FRAGMENT, 1]


def test_new_sending_keys_take_effect_behind_what_was_said_before() -> None:
    effects = _effects()
    effects.send(b"plain")
    effects.write_with(_SECRET)
    effects.send(b"protected")
    effects.flush()
    first, second = split_records(bytes(effects.output))
    assert first == b"\x16\x03\x03\x00\x05plain"
    assert _opened(RecordOpener(_SECRET), second) == (ContentType.HANDSHAKE, b"protected")


def test_new_receiving_keys_inside_a_message_are_an_unexpected_message() -> None:
    effects = _effects()
    effects.joiner.feed(b"\x14\x00\x00\x30half")
    with pytest.raises(ProtocolViolation) as caught:
        effects.read_with(_SECRET)
    assert caught.value.alert is Alert.UNEXPECTED_MESSAGE
    assert effects.opener is None


def test_a_limit_holds_for_protected_records_and_not_for_plain_ones() -> None:
    effects = _effects()
    effects.limit_records(64, 16385)
    effects.send(bytes(200))
    effects.flush()
    (plain,) = split_records(bytes(effects.output))
    assert len(plain) == 5 + 200
    effects.output.clear()
    effects.write_with(_SECRET)
    effects.send(bytes(200))
    effects.flush()
    opener = RecordOpener(_SECRET)
    pieces = [len(_opened(opener, record)[1]) for record in split_records(bytes(effects.output))]
    assert pieces == [63, 63, 63, 11]


def test_a_limit_that_comes_later_holds_for_the_keys_that_are_in_use() -> None:
    effects = _effects()
    effects.write_with(_SECRET)
    effects.send(bytes(100))
    effects.limit_records(64, 16385)
    effects.send(bytes(100))
    effects.flush()
    opener = RecordOpener(_SECRET)
    pieces = [len(_opened(opener, record)[1]) for record in split_records(bytes(effects.output))]
    assert pieces == [100, 63, 37]


def test_a_limit_above_that_of_tls_1_3_changes_nothing() -> None:
    effects = _effects()
    effects.limit_records(2**16 - 1, 16385)
    assert effects.fragment_size == MAX_FRAGMENT


def test_large_records_begin_with_the_next_keys_each_way_and_not_before() -> None:
    effects = _effects()
    effects.write_with(_SECRET)
    effects.read_with(_SECRET)
    effects.enlarge_records(2**20, 1000)
    assert effects.fragment_size == MAX_FRAGMENT
    effects.send(bytes(100))
    effects.write_with(_SECRET)
    (record,) = split_records(bytes(effects.output))
    assert len(_opened(RecordOpener(_SECRET), record)[1]) == 100
    assert effects.fragment_size == LARGE_FRAGMENT, "no more than buffers are made for, whatever the peer takes"
    effects.output.clear()
    effects.send(bytes(MAX_FRAGMENT + 1))
    effects.flush()
    assert len(effects.output) == MAX_FRAGMENT + 4 + 17 + 1 + 1 + 17, "handshake messages are cut as ever"
    assert effects.output[:4] == (0x8000_0000 | MAX_FRAGMENT + 17).to_bytes(4, "big")
    opener = effects.opener
    assert opener is not None
    assert _opened(opener, record)[1] == bytes(100), "they have not come yet"
    effects.read_with(_SECRET)
    opener = effects.opener
    with pytest.raises(ProtocolViolation) as caught:
        _opened(opener, b"\x43\xf9" + bytes(1017))  # 1001 bytes and the tag
    assert caught.value.alert is Alert.RECORD_OVERFLOW


def test_events_are_told_in_order() -> None:
    effects = _effects()
    effects.emit(PeerClosed())
    effects.emit(PeerClosed())
    assert effects.events == [PeerClosed(), PeerClosed()]
