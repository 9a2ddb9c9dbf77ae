"""What a stranger sent, as it may stand in a log."""

from __future__ import annotations

import pytest

from proxy.printable import MAX_MESSAGE, printable


@pytest.mark.parametrize("text", ["", "plain", "spiffe://cluster.local/ns/a/sa/b", "Grüße 語 😀", "a\\b"])
def test_what_a_person_can_read_is_left_alone(text):
    assert printable(text) is text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r", "a\\nb\\r"),
        ("\x1b[2J\x9b", "\\x1b[2J\\x9b"),
        ("\u202e\u2028\ufeff", "\\u202e\\u2028\\ufeff"),
        ("\udc80", "\\udc80"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("character", ["x", "\n", "\U000e0041", "語"])
def test_no_text_is_longer_than_its_limit(character):
    for length in (MAX_MESSAGE - 1, MAX_MESSAGE, MAX_MESSAGE + 1, 1_000_000):
        shown = printable(character * length)
        assert len(shown) <= MAX_MESSAGE
        assert shown.isprintable()
        assert shown.endswith("…") == (shown != character * length)
