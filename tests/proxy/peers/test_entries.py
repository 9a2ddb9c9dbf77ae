"""What an entry needs besides being looked up."""

from __future__ import annotations

import pytest

from proxy.peers.entries import MESH_FLAG, Balancing, Ejection, PeerEndpoint, PeerEntry, Retrying, mesh_entry
from proxy.peers.table import network_of
from proxy.routes import EVERY_PORT, Mode


def test_the_short_form_requires_the_mesh_at_every_port_and_keeps_no_state():
    entry = mesh_entry(network_of("10.0.0.0/8"))
    assert (entry.mode, entry.ports, entry.needs_state) == (Mode.REQUIRE, (EVERY_PORT,), False)
    assert entry.name == f"{MESH_FLAG} 10.0.0.0/8"


@pytest.mark.parametrize(
    "more",
    [
        {"endpoints": (PeerEndpoint("10.0.0.1"),)}, {"balancing": Balancing.RANDOM}, {"retrying": Retrying()},
        {"ejection": Ejection()}, {"max_connections": 1}, {"max_pending": 1},
    ],
)  # fmt: skip
def test_whatever_has_to_be_counted_or_chosen_needs_state(more):
    assert PeerEntry(name="a", mode=Mode.REQUIRE, **more).needs_state


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (PeerEndpoint("10.0.0.1"), "10.0.0.1"),
        (PeerEndpoint("10.0.0.1", 80), "10.0.0.1:80"),
        (PeerEndpoint("fd00::1", 80), "[fd00::1]:80"),
    ],
)
def test_an_endpoint_is_written_as_an_address(endpoint, text):
    assert str(endpoint) == text
