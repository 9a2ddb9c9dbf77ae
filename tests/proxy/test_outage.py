"""What is said of something that fails again and again."""

from __future__ import annotations

import logging

from proxy.outage import Outage


def test_each_change_of_state_is_one_line(caplog):
    caplog.set_level(logging.INFO)
    outage = Outage("it fails", "it works")
    outage.ends()
    for _ in range(3):
        outage.begins("unreachable", "nobody there")
    outage.begins("refused", "they say no")
    outage.begins("refused", "they say no, in other words")
    outage.ends()
    outage.ends()
    outage.begins("refused", "once more")
    assert [record.getMessage() for record in caplog.records] == [
        "it fails: nobody there", "it fails: they say no", "it works", "it fails: once more"
    ]  # fmt: skip
