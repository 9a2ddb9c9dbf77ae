"""As many connections as there are descriptors for."""

from __future__ import annotations

import resource

import pytest

from httpd.descriptors import room_for


@pytest.mark.parametrize(
    ("limits", "wanted", "room", "raised_to"),
    [
        ((1024, 1 << 20), 4096, 4096, 5376),
        ((1 << 20, 1 << 20), 4096, 4096, None),
        ((1024, resource.RLIM_INFINITY), 4096, 4096, 5376),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 4096, 4096, None),
        ((256, 2048), 4096, 1024, 2048),
        ((1024, 6400), 10_240, 5120, 6400),
        ((1024, 1024), 10_240, 512, 1024),
    ],
)
def test_the_limit_is_raised_as_far_as_it_goes_and_what_is_left_is_said(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limits: tuple[int, int],
    wanted: int,
    room: int,
    raised_to: int | None,
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _which, both: asked.append(both))

    assert room_for(wanted) == room
    assert asked == ([] if raised_to is None else [(raised_to, limits[1])])
    assert (f"room for {room} connections" in caplog.text) == (room < wanted)
