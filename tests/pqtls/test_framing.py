"""From a byte stream to whole messages, whatever the cuts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqtls.errors import Alert, DecodeError, NotTls, ProtocolViolation
from pqtls.framing import HandshakeJoiner, HandshakeMessage, HandshakeType, read_plain_record, write_message


def _all(joiner: HandshakeJoiner) -> list[HandshakeMessage]:
    messages = []
    while (message := joiner.next_message()) is not None:
        messages.append(message)
    return messages


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5), st.data())
def test_messages_come_out_whole_however_they_are_cut(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(write_message(HandshakeType.FINISHED, body) for body in bodies)
    joiner, found = HandshakeJoiner(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        joiner.feed(stream[:size])
        stream = stream[size:]
        found += _all(joiner)
    assert [message.body for message in found] == bodies
    assert all(message.raw == write_message(HandshakeType.FINISHED, message.body) for message in found)
    assert joiner.is_empty


def test_half_a_message_is_kept_until_the_rest_comes() -> None:
    joiner = HandshakeJoiner()
    raw = write_message(HandshakeType.KEY_UPDATE, b"\x00")
    joiner.feed(raw[:-1])
    assert joiner.next_message() is None
    assert not joiner.is_empty
    joiner.feed(raw[-1:])
    assert joiner.next_message() == HandshakeMessage(24, b"\x00", raw)


def test_an_empty_handshake_record_is_an_unexpected_message() -> None:
    with pytest.raises(ProtocolViolation, match="an empty handshake record") as caught:
        HandshakeJoiner().feed(b"")
    assert caught.value.alert is Alert.UNEXPECTED_MESSAGE


@pytest.mark.parametrize(
    ("message_type", "limit"),
    [(1, 2**15), (11, 2**16), (4, 2**16), (2, 2**14), (8, 2**14), (15, 2**14), (20, 2**14), (99, 2**14)],
)
def test_a_message_longer_than_its_types_limit_is_refused_by_its_header_alone(message_type: int, limit: int) -> None:
    joiner = HandshakeJoiner()
    joiner.feed(bytes((message_type,)) + limit.to_bytes(3, "big"))
    assert joiner.next_message() is None
    joiner = HandshakeJoiner()
    joiner.feed(bytes((message_type,)) + (limit + 1).to_bytes(3, "big"))
    with pytest.raises(DecodeError, match=f"type {message_type} with {limit + 1} bytes"):
        joiner.next_message()


def test_messages_have_a_name_for_errors() -> None:
    assert HandshakeMessage(20, b"", b"").name == "finished"
    assert HandshakeMessage(99, b"", b"").name == "handshake message of type 99"


def test_a_plain_record_is_taken_once_it_is_whole() -> None:
    wire = b"\x16\x03\x01\x00\x03abc"
    for cut in range(len(wire)):
        assert read_plain_record(wire[:cut], first=True) is None
    record = read_plain_record(wire + b"more", first=True)
    assert record is not None
    assert (record.type, record.content, record.size) == (22, b"abc", 8)


@pytest.mark.parametrize("version", [b"\x03\x00", b"\x03\x03", b"\x07\x07"])
def test_the_records_version_is_ignored_once_tls_was_seen(version: bytes) -> None:
    record = read_plain_record(b"\x16" + version + b"\x00\x01x", first=False)
    assert record is not None
    assert record.content == b"x"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"G", b"\x16\x02", b"\x17\x03\x03", b"\x00"])
def test_first_bytes_that_are_no_tls_are_called_so(data: bytes) -> None:
    with pytest.raises(NotTls, match="does not speak TLS") as caught:
        read_plain_record(data, first=True)
    assert caught.value.alert is Alert.DECODE_ERROR
    assert caught.value.reason == "not_tls"


@pytest.mark.parametrize("content_type", [20, 21, 22])
def test_an_alert_or_a_change_cipher_spec_may_be_the_first_that_comes(content_type: int) -> None:
    record = read_plain_record(bytes((content_type,)) + b"\x03\x03\x00\x02\x02\x28", first=True)
    assert record is not None
    assert record.type == content_type


@pytest.mark.parametrize("content_type", [0, 23, 24, 255])
def test_a_plain_record_of_another_type_is_an_unexpected_message(content_type: int) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        read_plain_record(bytes((content_type,)) + b"\x03\x03\x00\x01", first=False)
    assert caught.value.alert is Alert.UNEXPECTED_MESSAGE


def test_a_plain_record_of_2_to_14_bytes_is_the_longest() -> None:
    assert read_plain_record(b"\x16\x03\x03\x40\x00" + bytes(2**14), first=False) is not None
    with pytest.raises(ProtocolViolation) as caught:
        read_plain_record(b"\x16\x03\x03\x40\x01", first=False)
    assert caught.value.alert is Alert.RECORD_OVERFLOW


@pytest.mark.parametrize("size", [1, 5, 4096])
def test_what_was_taken_is_not_kept(size: int) -> None:
    stream = write_message(HandshakeType.CERTIFICATE, bytes(4000)) + write_message(HandshakeType.FINISHED, bytes(48))
    joiner = HandshakeJoiner()
    for start in range(0, len(stream), size):
        joiner.feed(stream[start : start + size])
        while joiner.next_message() is not None:
            pass
    assert joiner.is_empty
    assert len(joiner._buffer) == 0


def test_a_message_is_taken_whole_whatever_is_done_to_the_one_before_it() -> None:
    first, second = write_message(HandshakeType.FINISHED, b"a" * 48), write_message(HandshakeType.KEY_UPDATE, b"\x01")
    joiner = HandshakeJoiner()
    joiner.feed(first + second[:2])
    assert joiner.next_message() == HandshakeMessage(20, b"a" * 48, first)
    assert not joiner.is_empty
    assert joiner.next_message() is None
    joiner.feed(second[2:])
    assert joiner.next_message() == HandshakeMessage(24, b"\x01", second)
    assert joiner.is_empty
