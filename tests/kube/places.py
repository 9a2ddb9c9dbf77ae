"""The same behaviour is wanted of the stand-in and of a real API server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kube.rig import Place, needs_cluster, real_cluster, stand_in

Where = Callable[[], contextlib.AbstractAsyncContextManager[Place]]


@pytest.fixture(params=["stand-in", "real"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    """Opens a place of either kind."""
    if request.param == "stand-in":
        return lambda: stand_in(tmp_path)
    needs_cluster()
    return lambda: real_cluster(tmp_path)


@pytest.fixture
def fake(tmp_path: Path) -> Where:
    """Opens the stand-in, for faults that cannot be had of a real one at will."""
    return lambda: stand_in(tmp_path)


@pytest.fixture
def real(tmp_path: Path) -> Where:
    """Opens the real cluster, for what only that can judge."""
    needs_cluster()
    return lambda: real_cluster(tmp_path)
