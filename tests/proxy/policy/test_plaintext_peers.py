"""Who comes without TLS of the mesh is named, and strangers cannot make the table grow or push the others out."""

from __future__ import annotations

import datetime

import pytest

from proxy.policy.plaintext_peers import MAX_NAMED, PlaintextPeers

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Peers(PlaintextPeers):
    def __init__(self) -> None:
        self.now, self.counted = START, []
        super().__init__(lambda: self.now, self.counted.append)


@pytest.fixture
def peers() -> Peers:
    return Peers()


def test_each_source_is_counted_with_its_ports_and_times(peers, caplog):
    caplog.set_level("INFO")
    peers.passed("10.0.0.7", 80, "plaintext")
    peers.now += datetime.timedelta(minutes=1)
    peers.passed("10.0.0.7", 25, "silent")
    (peer,) = peers.peers()
    assert peer.as_dict() == {
        "source": "10.0.0.7",
        "first_seen": "2026-01-01T00:00:00+00:00",
        "last_seen": "2026-01-01T00:01:00+00:00",
        "connections": 2,
        "ports": [25, 80],
        "received_as": "silent",
    }
    assert peers.counted == ["10.0.0.7", "10.0.0.7"]
    assert caplog.text.count("10.0.0.7 comes without TLS of the mesh to port 80") == 1


def test_the_latest_comes_first(peers):
    for source in "abca":
        peers.now += datetime.timedelta(seconds=1)
        peers.passed(source, 80, "plaintext")
    assert [peer.source for peer in peers.peers()] == ["a", "c", "b"]


def test_more_sources_than_can_be_named_are_counted_together_and_push_nobody_out(peers):
    for number in range(MAX_NAMED + 50):
        peers.passed(f"2001:db8::{number:x}", number, "plaintext")
    named = {peer.source: peer.connections for peer in peers.peers()}
    assert len(named) == MAX_NAMED + 1
    assert named["other"] == 50
    assert "2001:db8::0" in named
    assert len(next(peer.ports for peer in peers.peers() if peer.source == "other")) == 16


def test_whoever_has_not_come_for_a_day_makes_room(peers):
    for number in range(MAX_NAMED):
        peers.passed(f"10.0.{number}", 80, "plaintext")
    peers.now += datetime.timedelta(days=1)
    peers.passed("10.1.0", 80, "plaintext")
    named = {peer.source for peer in peers.peers()}
    assert len(named) == MAX_NAMED
    assert "10.1.0" in named
    assert "other" not in named
