"""What destinations are told apart by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routes import EVERY_PORT, Mode, PortRange, plain_address


def test_require_is_stricter_than_prefer_and_that_than_off():
    assert sorted(Mode, key=lambda mode: mode.strictness) == [Mode.OFF, Mode.PREFER, Mode.REQUIRE]


@pytest.mark.parametrize(
    ("first", "last", "port", "inside"), [(80, 80, 80, True), (80, 90, 90, True), (80, 90, 91, False)]
)
def test_a_range_has_both_its_ends(first, last, port, inside):
    assert (port in PortRange(first, last)) == inside


def test_a_destination_without_a_port_does_not_escape_an_entry_for_every_port():
    assert 0 in EVERY_PORT
    assert 65535 in EVERY_PORT


@given(st.integers(1, 65535), st.integers(1, 65535), st.integers(1, 65535), st.integers(1, 65535))
def test_ranges_overlap_where_they_share_a_port(a, b, c, d):
    one, other = PortRange(min(a, b), max(a, b)), PortRange(min(c, d), max(c, d))
    shared = max(one.first, other.first) <= min(one.last, other.last)
    assert one.overlaps(other) == other.overlaps(one) == shared


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_spelled_as_ipv6_is_the_ipv4_address(address):
    assert plain_address(f"::ffff:{address}") == address


def test_a_zone_is_no_part_of_an_address():
    assert str(plain_address("fe80::1%eth0")) == "fe80::1"
