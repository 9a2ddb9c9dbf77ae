"""Strict JSON: one meaning for every reader, or none."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.strict_json import NotStrict, load_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), VALUES))
def test_an_object_is_read_as_it_was_written(value: dict[str, object]) -> None:
    assert load_object(json.dumps(value).encode(), 64) == value


@given(st.binary())
def test_any_bytes_are_an_object_or_refused(text: bytes) -> None:
    try:
        assert isinstance(load_object(text, 8), dict)
    except NotStrict as refused:
        assert str(refused)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"x": [{"a": 1, "b": 2, "a": 3}]}', "twice"),
        (b'{"a": 1, "\\u0061": 2}', "twice"),
        (b'{"a": NaN}', "no JSON"),
        (b'{"a": [-Infinity]}', "no JSON"),
        (b'{"a": 1e400}', "out of range"),
        (b'{"a": -1e400}', "out of range"),
        (b"[]", "not an object"),
        (b'"a"', "not an object"),
        (b"null", "not an object"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", "not JSON", id="more digits than Python takes"),
        (b'{"a": "\xff"}', "UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
    ],
)
def test_what_readers_understand_differently_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(NotStrict, match=why):
        load_object(text, 8)


def test_the_message_has_nothing_of_the_text_in_it() -> None:
    with pytest.raises(NotStrict) as refused:
        load_object(b'{"secret": hunter2}', 8)

    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


class TestDepth:
    @pytest.mark.parametrize("opening", [b'{"a":', b"["])
    def test_nesting_is_bounded(self, opening: bytes) -> None:
        closing = b"]" if opening == b"[" else b"}"
        inner = {depth: opening * (depth - 1) + b"1" + closing * (depth - 1) for depth in (8, 9)}

        assert load_object(b'{"x":' + inner[8] + b"}", 8)
        with pytest.raises(NotStrict, match="more than 8 deep"):
            load_object(b'{"x":' + inner[9] + b"}", 8)

    def test_a_very_deep_text_is_refused_before_the_parser_sees_it(self) -> None:
        with pytest.raises(NotStrict, match="deep"):
            load_object(b'{"a":' * 100_000, 32)

    def test_brackets_in_strings_are_no_nesting(self) -> None:
        text = json.dumps({"a": "[" * 100 + '\\"{' * 100, "b": ["{", "\\"]}).encode()

        assert load_object(text, 2)["a"] == "[" * 100 + '\\"{' * 100

    def test_many_brackets_side_by_side_are_no_nesting(self) -> None:
        assert len(load_object(json.dumps({"a": [[]] * 1000}).encode(), 3)["a"]) == 1000

    @given(VALUES.filter(lambda value: isinstance(value, list | dict)), st.integers(1, 5))
    def test_depth_is_counted_as_one_would_count_it(self, value: object, depth: int) -> None:
        text = json.dumps({"x": value}).encode()
        if deep(value) + 1 > depth:
            with pytest.raises(NotStrict, match="deep"):
                load_object(text, depth)
        else:
            assert load_object(text, depth) == {"x": value}

    @pytest.mark.parametrize("unit", [b'\\"', b'"', b"\\", b'"\\', b'\\"['])
    def test_a_string_that_does_not_end_takes_no_more_time_than_its_length(self, unit: bytes) -> None:
        """Quadratic time would be minutes here."""
        with pytest.raises(NotStrict):
            load_object(b'{"a":["' + b"[" * 10 + unit * 200_000, 4)


def deep(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(deep, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(deep, value), default=0)
    return 0


def test_a_fraction_stays_what_it_is() -> None:
    assert load_object(b'{"exp": 1.5e3}', 2) == {"exp": 1500.0}
    assert math.isfinite(load_object(b'{"exp": 1e308}', 2)["exp"])
