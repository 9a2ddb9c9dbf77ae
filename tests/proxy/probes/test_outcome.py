"""What came of a question is a value."""

from __future__ import annotations

from proxy.probes.outcome import Outcome


def test_two_outcomes_with_the_same_words_are_the_same():
    assert Outcome(200, "fine") == Outcome(200, "fine", location="")
