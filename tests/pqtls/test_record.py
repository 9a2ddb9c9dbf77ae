"""Record protection: limits, padding, buffers, sequence numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqtls.errors import Alert, MisuseError, ProtocolViolation
from pqtls.key_schedule import TrafficSecret
from pqtls.provider_cryptography import PROVIDER
from pqtls.record import MAX_EMPTY_RECORDS, MAX_FRAGMENT, ContentType, RecordOpener, RecordSealer, sealed_size
from pqtls.suites import CIPHER_SUITES, TLS_AES_256_GCM_SHA384, CipherSuite

DATA = ContentType.APPLICATION_DATA
_LENGTHS = (1, 2, MAX_FRAGMENT - 1, MAX_FRAGMENT, MAX_FRAGMENT + 1, 2 * MAX_FRAGMENT, 2 * MAX_FRAGMENT + 1)


def _secret(suite: CipherSuite = TLS_AES_256_GCM_SHA384) -> TrafficSecret:
    return TrafficSecret(suite, PROVIDER, bytes(suite.hash_length))


def _seal(sealer: RecordSealer, data: bytes) -> bytes:
    plaintext, records = bytearray(data + b"\x55"), bytearray(sealed_size(len(data)))
    written = sealer.seal_into(memoryview(plaintext), len(data), memoryview(records))
    assert plaintext == data + b"\x55", "the buffer is left as it was"
    return bytes(records[:written])


def _inner(inner: bytes, sequence: int = 0, length: int | None = None) -> bytes:
    """A record whose TLSInnerPlaintext is `inner`, whatever the rules say."""
    keys = _secret().keys()
    header = b"\x17\x03\x03" + (len(inner) + 16 if length is None else length).to_bytes(2, "big")
    nonce = (int.from_bytes(keys.iv, "big") ^ sequence).to_bytes(12, "big")
    body = bytearray(len(inner) + 16)
    PROVIDER.aead(TLS_AES_256_GCM_SHA384, keys.key).encrypt_into(nonce, inner, header, body)
    return header + bytes(body)


def _open(opener: RecordOpener, wire: bytes) -> tuple[int, bytes, int, bytes]:
    plaintext = bytearray(len(wire))
    consumed, produced, content_type, size = opener.open_into(memoryview(wire), memoryview(plaintext))
    return consumed, bytes(plaintext[:produced]), content_type, bytes(plaintext[produced : produced + max(size, 0)])


def _refused(wire: bytes, alert: Alert, text: str) -> None:
    with pytest.raises(ProtocolViolation, match=text) as caught:
        _open(RecordOpener(_secret()), wire)
    assert caught.value.alert is alert


@pytest.mark.parametrize("suite", CIPHER_SUITES.values(), ids=lambda suite: suite.name)
@pytest.mark.parametrize("length", _LENGTHS)
def test_what_is_sealed_opens_at_the_other_end(suite: CipherSuite, length: int) -> None:
    data = bytes(index % 251 for index in range(length))
    wire = _seal(RecordSealer(_secret(suite)), data)
    assert _open(RecordOpener(_secret(suite)), wire) == (len(wire), data, DATA, b"")


@pytest.mark.parametrize("length", _LENGTHS)
def test_plaintext_is_cut_at_2_to_14_bytes_and_no_sooner(length: int) -> None:
    wire, sizes = _seal(RecordSealer(_secret()), bytes(length)), []
    while wire:
        assert wire[:3] == b"\x17\x03\x03"
        sizes.append(int.from_bytes(wire[3:5], "big") - 17)
        wire = wire[5 + sizes[-1] + 17 :]
    full, rest = divmod(length, MAX_FRAGMENT)
    assert sizes == [MAX_FRAGMENT] * full + [rest] * (rest > 0)


@pytest.mark.parametrize("length", [0, *_LENGTHS])
def test_sealed_size_is_the_exact_size_and_one_key_update(length: int) -> None:
    sealer = RecordSealer(_secret())
    key_update = sealer.seal(ContentType.HANDSHAKE, b"\x18\x00\x00\x01\x00")
    assert sealed_size(length) == len(_seal(sealer, bytes(length))) + len(key_update)


def test_the_sealer_writes_no_byte_beyond_what_it_says() -> None:
    plaintext, records = bytearray(101), bytearray(b"\xee" * 1000)
    written = RecordSealer(_secret()).seal_into(memoryview(plaintext), 100, memoryview(records))
    assert written == 100 + 22
    assert records[written:] == b"\xee" * (1000 - written)


def test_each_record_has_its_own_sequence_number() -> None:
    sealer, opener = RecordSealer(_secret()), RecordOpener(_secret())
    one, two = _seal(sealer, b"same"), _seal(sealer, b"same")
    assert one != two
    assert sealer.records == 2
    assert _open(opener, one + two)[1] == b"samesame"
    assert opener.records == 2
    for wire in (one, two):  # replayed
        with pytest.raises(ProtocolViolation) as caught:
            _open(opener, wire)
        assert caught.value.alert is Alert.BAD_RECORD_MAC
    _refused(two, Alert.BAD_RECORD_MAC, "fails authentication")  # out of order


def test_handshake_fragments_and_data_share_one_sequence() -> None:
    sealer, opener = RecordSealer(_secret()), RecordOpener(_secret())
    wire = _seal(sealer, b"a") + sealer.seal(ContentType.HANDSHAKE, b"message") + _seal(sealer, b"b")
    consumed, data, content_type, content = _open(opener, wire)
    assert (data, content_type, content) == (b"a", ContentType.HANDSHAKE, b"message")
    assert _open(opener, wire[consumed:])[1] == b"b"


@pytest.mark.parametrize("position", [1, 2, 4, 5, 10, 26])
def test_a_damaged_byte_of_header_or_body_is_a_bad_record(position: int) -> None:
    wire = bytearray(_seal(RecordSealer(_secret()), b"hello"))
    wire[position] ^= 1
    _refused(bytes(wire) + bytes(300), Alert.BAD_RECORD_MAC, "fails authentication")


@given(st.integers(0, 200), st.integers(1, 40))
def test_only_whole_records_are_consumed(cut: int, length: int) -> None:
    sealer = RecordSealer(_secret())
    first, second = _seal(sealer, bytes(length)), _seal(sealer, bytes(length))
    wire = (first + second)[:cut]
    opener = RecordOpener(_secret())
    consumed, data, _, _ = _open(opener, wire)
    whole = len(wire) // len(first)
    assert consumed == whole * len(first)
    assert data == bytes(whole * length)
    rest = (first + second)[consumed:]
    assert _open(opener, rest)[0] == len(rest)


def test_padding_is_taken_off_whatever_its_length() -> None:
    for padding in (1, 100, MAX_FRAGMENT - 5):
        assert _open(RecordOpener(_secret()), _inner(b"hello\x17" + bytes(padding)))[1] == b"hello"


def test_zeros_in_the_content_are_not_padding() -> None:
    assert _open(RecordOpener(_secret()), _inner(b"\0\0a\0\0\x17\0"))[1] == b"\0\0a\0\0"


def test_a_padded_message_of_another_type_comes_with_its_own_length() -> None:
    assert _open(RecordOpener(_secret()), _inner(b"\x01\x00\x15\0\0"))[2:] == (ContentType.ALERT, b"\x01\x00")


@pytest.mark.parametrize("size", [1, 17])
def test_a_record_of_zeros_alone_has_no_type_and_is_an_unexpected_message(size: int) -> None:
    _refused(_inner(bytes(size)), Alert.UNEXPECTED_MESSAGE, "no content type")


def test_inner_plaintext_of_2_to_14_plus_1_bytes_is_the_longest_padding_included() -> None:
    longest = b"\x01" * MAX_FRAGMENT + b"\x17"
    assert len(_open(RecordOpener(_secret()), _inner(longest))[1]) == MAX_FRAGMENT
    _refused(_inner(b"\x01" + longest), Alert.RECORD_OVERFLOW, "has 16386 bytes, more than the 16385 that we take")
    _refused(
        _inner(b"x\x17" + bytes(MAX_FRAGMENT)),
        Alert.RECORD_OVERFLOW,
        "has 16386 bytes, more than the 16385 that we take",
    )


def test_a_record_of_2_to_14_plus_257_bytes_is_refused_by_its_header_alone() -> None:
    _refused(b"\x17\x03\x03" + (MAX_FRAGMENT + 257).to_bytes(2, "big"), Alert.RECORD_OVERFLOW, "exceeds 16640")
    assert _open(RecordOpener(_secret()), b"\x17\x03\x03" + (MAX_FRAGMENT + 256).to_bytes(2, "big"))[0] == 0


@pytest.mark.parametrize("size", [0, 1, 16])
def test_a_record_too_short_for_tag_and_type_is_a_bad_record(size: int) -> None:
    _refused(b"\x17\x03\x03" + size.to_bytes(2, "big") + bytes(size), Alert.BAD_RECORD_MAC, "too short")


def test_a_few_empty_records_are_taken_and_more_in_a_row_refused() -> None:
    few = b"".join(_inner(b"\x17", sequence) for sequence in range(MAX_EMPTY_RECORDS))
    opener = RecordOpener(_secret())
    assert _open(opener, few) == (len(few), b"", DATA, b"")
    with pytest.raises(ProtocolViolation, match="empty records in a row") as caught:
        _open(opener, _inner(b"\x17", MAX_EMPTY_RECORDS))
    assert caught.value.alert is Alert.UNEXPECTED_MESSAGE


def test_data_between_empty_records_begins_the_count_anew() -> None:
    opener, wire = RecordOpener(_secret()), b""
    for sequence in range(3 * MAX_EMPTY_RECORDS):
        wire += _inner(b"x\x17" if sequence % MAX_EMPTY_RECORDS == 0 else b"\x17\0", sequence)
    assert _open(opener, wire)[1] == b"xxx"


def test_an_unprotected_record_stops_before_it_is_consumed() -> None:
    sealed = _seal(RecordSealer(_secret()), b"hello")
    plaintext = bytearray(100)
    opener = RecordOpener(_secret())
    result = opener.open_into(memoryview(sealed + b"\x15\x03\x03\x00\x02\x02\x28"), memoryview(plaintext))
    assert result == (len(sealed), 5, ContentType.ALERT, -1)
    assert opener.records == 1


def test_a_fragment_of_more_than_2_to_14_bytes_is_misuse() -> None:
    sealer = RecordSealer(_secret())
    assert len(sealer.seal(ContentType.HANDSHAKE, bytes(MAX_FRAGMENT))) == MAX_FRAGMENT + 22
    with pytest.raises(MisuseError, match="must be split"):
        sealer.seal(ContentType.HANDSHAKE, bytes(MAX_FRAGMENT + 1))


def test_room_and_wear_count_records() -> None:
    suite = CipherSuite("test", 0, "AES-GCM", 32, "sha384", 48, 3)
    sealer, opener = RecordSealer(_secret(suite)), RecordOpener(_secret(suite))
    assert (sealer.room(), opener.is_worn()) == (3, False)
    for left in (2, 1, 0):
        _open(opener, _seal(sealer, b"x"))
        assert (sealer.room(), opener.is_worn()) == (left, left == 0)
