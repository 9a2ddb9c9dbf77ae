from __future__ import annotations

from typing import Any

import pytest

from cli.demo.content import Markers
from cli.demo.errors import PartFailedError
from cli.demo.live import LiveView
from cli.demo.search import WireReport
from cli.demo.sidecar import Counters


class Stand:
    """What the view looks at: a stage, its mesh, its sidecars, its wire and a client, all in one."""

    def __init__(self, events: list[dict[str, object]], lines: int) -> None:
        self.events, self.lines = events, lines
        self.counters = Counters(7, 5, 100)
        self.sidecars = (self, self)
        self.endpoint = None
        self.texts: list[str] = []
        self.watched: dict[str, bytes] = {}

    def watch(self, patterns: dict[str, bytes]) -> None:
        self.watched = patterns

    def report(self) -> WireReport:
        return WireReport(bytes=12345, hits={"request": 0}, dropped=0)

    def start_client(self, mode: str, endpoint: object, **options: object) -> Stand:
        assert mode == "background"
        return self

    def try_expect(self, kind: str) -> dict[str, object] | None:
        return self.events.pop(0) if self.events else None

    def check_running(self) -> None:
        if len(self.texts) == self.lines:
            raise PartFailedError("the sidecar of pod-a ended")

    def live(self, text: str) -> None:
        self.texts.append(text)


def show(events: list[dict[str, object]], path: str | None, monkeypatch: pytest.MonkeyPatch) -> Stand:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    stand: Any = Stand(events, 2)
    with pytest.raises(PartFailedError, match="pod-a ended"):
        LiveView(stand, stand, stand, Markers("token"), path).run(stand)
    return stand


def test_a_line_has_requests_handshakes_and_what_is_on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    event = {"event": "second", "requests": 1500, "bytes": 2500, "times_us": [1000, 2000, 3000], "error": ""}
    stand = show([event], "", monkeypatch)
    assert "1,500 requests, 2,500 bytes, p50 2.00 ms" in stand.texts[0]
    assert "7 handshakes, 5 connections ended  |  wire: 12,345 bytes, 0 plaintext" in stand.texts[0]
    assert set(stand.watched) == {"request", "response", "file"}


def test_an_error_of_the_client_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    event = {"event": "second", "requests": 0, "bytes": 0, "times_us": [], "error": "refused"}
    assert "error: refused" in show([event], "", monkeypatch).texts[0]


def test_without_requests_of_our_own_the_connections_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = show([], None, monkeypatch)
    assert "requests" not in stand.texts[0]
    assert "7 handshakes" in stand.texts[0]
