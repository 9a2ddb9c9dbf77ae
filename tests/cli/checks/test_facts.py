"""Facts: what is known, what is not, and what is read out of objects."""

from __future__ import annotations

import datetime

import pytest

from cli.checks.facts import Scrape, known, last_change, mesh_namespaces, moment, unknown
from cli.checks.findings import Unknown
from tests.cli.checks.rig import namespace


def test_a_fact_is_known_or_says_why_not() -> None:
    assert known([]).value == []
    with pytest.raises(Unknown, match="forbidden"):
        _ = unknown("forbidden").value


def test_the_mesh_is_what_is_labelled_alive_and_asked_for() -> None:
    going = namespace("going", qbitel__injection="enabled")
    going["metadata"]["deletionTimestamp"] = "2026-11-25T12:00:00Z"
    found = [going, *(namespace(name, qbitel__injection="enabled") for name in ("b", "a")), namespace("c")]
    assert mesh_namespaces(found) == ("a", "b")
    assert mesh_namespaces(found, frozenset({"b", "c"})) == ("b",)


@pytest.mark.parametrize("bad", [None, 1, "", "yesterday", "2026-11-25T12:00:00"])
def test_what_is_no_time_is_none(bad: object) -> None:
    assert moment(bad) is None


def test_the_last_change_is_of_whoever_wrote_last_but_for_the_status() -> None:
    written = {"creationTimestamp": "2026-11-25T10:00:00Z"}
    assert last_change({"metadata": written}) == datetime.datetime(2026, 11, 25, 10, tzinfo=datetime.UTC)
    fields = [{"time": "2026-11-25T11:00:00Z"}, {"time": "2026-11-25T12:00:00Z", "subresource": "status"}]
    changed = last_change({"metadata": {**written, "managedFields": fields}})
    assert changed is not None
    assert changed.hour == 11


def test_series_are_added_up_by_the_labels_that_are_asked_for() -> None:
    inbound = (("direction", "inbound"),)
    one = Scrape({("a", inbound): 1.0, ("a", (("direction", "outbound"),)): 2.0})
    assert (one.total("a"), one.total("a", direction="inbound"), one.total("b")) == (3.0, 1.0, None)
