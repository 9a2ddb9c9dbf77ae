"""The length in front of a large record: one form for each value, and every other is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqtls.errors import Alert, ProtocolViolation
from pqtls.varuint import MAX_VARUINT, read_varuint, write_varuint


def _read(data: bytes, at: int = 0) -> tuple[int, int]:
    return read_varuint(memoryview(data), at)


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (0, "00"),
        (37, "25"),  # RFC 9000 appendix A.1 has these four, which RFC 9420 takes over
        (63, "3f"),
        (64, "4040"),
        (15_293, "7bbd"),
        (2**14 - 1, "7fff"),
        (2**14, "80004000"),
        (494_878_333, "9d7f3e7d"),
        (MAX_VARUINT, "bfffffff"),
    ],
)
def test_a_value_has_its_shortest_form_and_is_read_back(value: int, wire: str) -> None:
    assert write_varuint(value).hex() == wire
    assert _read(bytes.fromhex(wire)) == (len(wire) // 2, value)


@given(st.integers(0, MAX_VARUINT), st.binary(max_size=3), st.binary(max_size=3))
def test_any_value_is_read_from_any_place(value: int, before: bytes, after: bytes) -> None:
    wire = write_varuint(value)
    assert _read(before + wire + after, len(before)) == (len(wire), value)


@given(st.integers(64, MAX_VARUINT), st.data())
def test_a_length_whose_end_has_not_come_is_none_yet(value: int, data: st.DataObject) -> None:
    wire = write_varuint(value)
    assert _read(wire[: data.draw(st.integers(1, len(wire) - 1))]) == (0, 0)


@pytest.mark.parametrize("wire", ["c0", "ff", "c000000000000000", "4000", "403f", "80000000", "80000040", "80003fff"])
def test_what_is_not_the_shortest_form_is_a_record_overflow(wire: str) -> None:
    with pytest.raises(ProtocolViolation, match="length") as caught:
        _read(bytes.fromhex(wire))
    assert caught.value.alert is Alert.RECORD_OVERFLOW


@given(st.binary(min_size=1, max_size=8))
def test_whatever_comes_is_read_in_its_one_form_or_refused_or_waits(data: bytes) -> None:
    try:
        size, value = _read(data)
    except ProtocolViolation as refused:
        assert refused.alert is Alert.RECORD_OVERFLOW
        return
    if size:
        assert write_varuint(value) == data[:size]
    else:
        assert len(data) < (1, 2, 4)[data[0] >> 6]
