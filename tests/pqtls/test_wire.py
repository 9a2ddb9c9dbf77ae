"""The reader never reads past its end and never leaves bytes unread without saying so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqtls.errors import Alert, DecodeError
from pqtls.wire import Reader, read_uint16_list, tagged_vector, uint16, uint16_list, vector


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


@given(st.lists(st.tuples(st.integers(0, 2**16 - 1), st.binary(max_size=40)), max_size=6))
def test_tagged_vectors_come_back_as_they_were_written(pairs: list[tuple[int, bytes]]) -> None:
    reader = Reader(b"x" + b"".join(tagged_vector(tag, content) for tag, content in pairs), "test")
    reader.take(1)
    assert reader.tagged_vectors() == pairs
    reader.finish()


@given(st.integers(0, 2**16 - 1), st.binary(max_size=300))
def test_a_tagged_vector_is_a_code_point_and_a_vector(tag: int, content: bytes) -> None:
    assert tagged_vector(tag, content) == uint16(tag) + vector(2, content)


@given(st.lists(st.tuples(st.integers(0, 2**16 - 1), st.binary(max_size=20)), min_size=1, max_size=3), st.data())
def test_tagged_vectors_cut_anywhere_but_between_two_are_a_decode_error(
    pairs: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    written = [tagged_vector(tag, content) for tag, content in pairs]
    whole = b"".join(written)
    cut = data.draw(st.integers(1, len(whole) - 1))
    ends = {sum(map(len, written[:count])): count for count in range(len(written) + 1)}
    reader = Reader(whole[:cut], "Test")
    if cut in ends:
        assert reader.tagged_vectors() == pairs[: ends[cut]]
    else:
        with pytest.raises(DecodeError, match="Test is cut short"):
            reader.tagged_vectors()


@given(st.binary(max_size=60))
def test_of_any_bytes_tagged_vectors_are_all_or_a_decode_error(data: bytes) -> None:
    try:
        pairs = Reader(data, "test").tagged_vectors()
    except DecodeError:
        return
    assert b"".join(tagged_vector(tag, content) for tag, content in pairs) == data


@pytest.mark.parametrize("read", [lambda reader: reader.uint(3), lambda reader: reader.vector(3)])
def test_an_integer_or_a_length_that_is_cut_short_is_a_decode_error_that_says_how(
    read: Callable[[Reader], Any],
) -> None:
    with pytest.raises(DecodeError, match="Test is cut short: 3 bytes wanted, 2 left"):
        read(Reader(b"ab", "Test"))
