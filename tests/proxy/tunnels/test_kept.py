"""A tunnel in the registry: asked for signs of life, closed when nobody needs it, ended for a recorded reason."""

from __future__ import annotations

import types

import pytest

from proxy.config import Limits
from proxy.registry import Registry
from proxy.relay import End
from proxy.tunnels.kept import KeptTunnel

LIMITS = Limits(tunnel_silence=15, tunnel_idle_timeout=300)


class FakeTunnel:
    """What its owner sees of a tunnel."""

    def __init__(self) -> None:
        self.streams: dict[int, object] = {}
        self.heard = False
        self.ended = False
        self.done: list[object] = []

    def tidy(self) -> None:
        pass

    def ping(self) -> None:
        self.done.append("ping")

    def close(self) -> None:
        self.done.append("close")

    def drain(self) -> None:
        self.done.append("drain")

    def abort(self, end: End) -> None:
        self.done.append(end)
        self.ended = True

    def start(self, first: bytes) -> None:
        self.done.append(("start", first))


class FakeRecord:
    """What its owner does with a record."""

    def __init__(self) -> None:
        self.closed: list[object] = []

    def close(self, verdict: object) -> None:
        self.closed.append(verdict)


class Clock:
    """The loop's."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def kept():
    registry = Registry()
    services = types.SimpleNamespace(loop=Clock(), registry=registry, limits=LIMITS)
    event = types.SimpleNamespace(peer_path_ids=(b"leaf",))
    made = KeptTunnel(services, event, FakeRecord())
    made.start(FakeTunnel(), b"first")
    assert made.tunnel.done.pop() == ("start", b"first")
    return made


def test_it_is_in_the_registry_until_it_ends_and_is_no_connection(kept):
    registry = kept.services.registry
    assert (len(registry), registry.connections) == (1, 0)
    kept.on_end(kept.tunnel, End.CLOSED, None)
    assert len(registry) == 0
    assert [verdict.reason for verdict in kept.record.closed] == ["-"]


def test_without_streams_it_is_closed_after_its_time_and_never_pinged(kept):
    kept.sweep(1000 + 599, 3600)
    assert kept.tunnel.done == []
    kept.sweep(1000 + 600, 3600)
    assert kept.tunnel.done == ["close"]


def test_a_stream_begins_the_time_anew(kept):
    kept.taken()
    kept.tunnel.streams[1] = object()
    kept.services.loop.now = 5000.0
    kept.tunnel.heard = True
    kept.sweep(5000, 3600)
    kept.tunnel.streams.clear()
    kept.on_empty(kept.tunnel)
    kept.sweep(5000 + 599, 3600)
    assert kept.tunnel.done == []
    kept.sweep(5000 + 600, 3600)
    assert kept.tunnel.done == ["close"]


def test_silence_is_asked_about_once_and_then_believed(kept):
    kept.taken()
    kept.tunnel.streams[1] = object()
    for second in (5, 10, 14):
        kept.sweep(1000 + second, 3600)
    assert kept.tunnel.done == []
    for second in (15, 20, 29):
        kept.sweep(1000 + second, 3600)
    assert kept.tunnel.done == ["ping"]
    kept.sweep(1000 + 30, 3600)
    assert kept.tunnel.done == ["ping", End.PEER_SILENT]


def test_whoever_answers_is_alive(kept):
    kept.taken()
    kept.tunnel.streams[1] = object()
    kept.sweep(1015, 3600)
    kept.tunnel.heard = True
    kept.sweep(1020, 3600)
    assert not kept.tunnel.heard
    kept.sweep(1034, 3600)
    assert kept.tunnel.done == ["ping"]
    kept.sweep(1035, 3600)
    assert kept.tunnel.done == ["ping", "ping"]


def test_a_revoked_peer_loses_the_tunnel_and_others_do_not(kept):
    assert not kept.end_if_revoked(frozenset({b"somebody else"}))
    assert kept.end_if_revoked(frozenset({b"leaf"}))
    assert kept.tunnel.done == [End.REVOKED]
    assert not kept.end_if_revoked(frozenset({b"leaf"}))


def test_the_end_of_the_process_is_told_and_then_enforced(kept):
    kept.start_draining()
    kept.end()
    assert kept.tunnel.done == ["drain", End.DRAINED]


def test_what_ended_it_is_remembered_for_whoever_was_about_to_use_it(kept):
    error = ValueError("why")
    kept.on_end(kept.tunnel, End.INTERNAL_ERROR, error)
    assert kept.take_failure() is error
    assert kept.take_failure() is None


def test_nothing_that_ended_it_knows_it(kept):
    """The frames of a traceback know all that their functions had: it would be freed by the garbage collector alone."""
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018
    kept.on_end(kept.tunnel, End.INTERNAL_ERROR, caught.value)
    assert kept.take_failure().__traceback__ is None
