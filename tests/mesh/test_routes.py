"""VirtualService as values."""

from __future__ import annotations

import dataclasses

import pytest

from mesh.metadata import Metadata
from mesh.routes import MESH_GATEWAY, Route, VirtualService


def test_without_gateways_the_sidecars_are_meant() -> None:
    assert VirtualService(Metadata("VirtualService", "a", "b"), ("h",), ()).gateways == (MESH_GATEWAY,)


def test_a_route_says_nothing_that_was_not_written() -> None:
    route = Route("http")

    assert (route.timeout, route.retries, route.fault, route.matches, route.beyond) == (None, None, None, (), ())
    with pytest.raises(dataclasses.FrozenInstanceError):
        route.timeout = 1.0  # type: ignore[misc]
