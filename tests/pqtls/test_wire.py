"""The reader never reads past its end and never leaves bytes unread without saying so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqtls.errors import Alert, DecodeError
from pqtls.wire import Reader, read_uint16_list, uint16, uint16_list, vector


@given(st.binary(max_size=300), st.sampled_from([2, 3]))
def test_a_vector_comes_back_as_it_was_written(content: bytes, length_size: int) -> None:
    reader = Reader(vector(length_size, content), "test")
    assert reader.vector(length_size) == content
    reader.finish()


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=50))
def test_a_list_of_code_points_comes_back_as_it_was_written(values: list[int]) -> None:
    reader = Reader(uint16_list(tuple(values)), "test")
    assert read_uint16_list(reader) == tuple(values)
    reader.finish()


@given(st.binary(min_size=1, max_size=40), st.data())
def test_a_vector_cut_anywhere_is_a_decode_error(content: bytes, data: st.DataObject) -> None:
    written = vector(2, content)
    cut = data.draw(st.integers(0, len(written) - 1))
    with pytest.raises(DecodeError, match="cut short"):
        Reader(written[:cut], "test").vector(2)


def test_taking_exactly_what_is_there_works_and_one_byte_more_does_not() -> None:
    reader = Reader(b"abc", "Test")
    assert reader.take(3) == b"abc"
    with pytest.raises(DecodeError, match="Test is cut short: 1 bytes wanted, 0 left") as caught:
        reader.take(1)
    assert caught.value.alert is Alert.DECODE_ERROR


def test_integers_are_in_network_order() -> None:
    assert Reader(b"\x01\x02\x03", "test").uint(3) == 0x010203
    assert uint16(0x1302) == b"\x13\x02"


def test_bytes_left_over_are_a_decode_error() -> None:
    reader = Reader(b"ab", "Test")
    reader.take(1)
    assert reader.remaining == 1
    with pytest.raises(DecodeError, match="Test has 1 bytes too many"):
        reader.finish()


@pytest.mark.parametrize("length", [1, 5])
def test_a_vector_out_of_its_range_is_a_decode_error(length: int) -> None:
    with pytest.raises(DecodeError, match=f"has {length} bytes, which is out of its range"):
        Reader(vector(1, bytes(length)), "test").vector(1, minimum=2, maximum=4)


@pytest.mark.parametrize("length", [2, 4])
def test_a_vector_at_the_ends_of_its_range_is_taken(length: int) -> None:
    assert Reader(vector(1, bytes(length)), "test").vector(1, minimum=2, maximum=4) == bytes(length)


def test_a_nested_reader_ends_where_its_vector_ends() -> None:
    reader = Reader(vector(2, b"ab") + b"c", "test")
    inner = reader.nested(2)
    assert inner.take(2) == b"ab"
    with pytest.raises(DecodeError):
        inner.take(1)
    assert reader.take(1) == b"c"


@pytest.mark.parametrize("content", [b"\x00\x00", b"\x00\x01\x13", b"\x00\x03\x13\x01\x13"])
def test_a_list_of_code_points_that_is_empty_or_odd_is_a_decode_error(content: bytes) -> None:
    with pytest.raises(DecodeError):
        read_uint16_list(Reader(content, "test"))
