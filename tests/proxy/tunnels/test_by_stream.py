"""The tunnel port: where a stream may go, and where nobody gets by way of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Endpoint
from proxy.reasons import Refused
from proxy.tunnels.by_stream import ByStream
from proxy.tunnels.frames import Opening

POD = ByStream(Endpoint("10.0.0.5", 15008), {9000})


def asked(where: ByStream, host: str, port: int) -> Endpoint:
    return where.application(Opening(Endpoint(host, port), bytes(16)))


@pytest.mark.parametrize("host", ["10.0.0.5", "::ffff:10.0.0.5"])
def test_a_port_of_the_address_that_was_dialled_is_reached(host):
    assert asked(POD, host, 8080) == Endpoint("10.0.0.5", 8080)


def test_ipv6_is_no_different():
    assert asked(ByStream(Endpoint("fd00::5", 15008), ()), "fd00::5", 80) == Endpoint("fd00::5", 80)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("10.0.0.6", 80),  # another pod: the sidecar is nobody's way into the network
        ("127.0.0.1", 80),
        ("127.0.0.6", 80),
        ("::1", 80),
        ("0.0.0.0", 80),  # noqa: S104  # which Linux takes for itself
        ("::", 80),
        ("169.254.169.254", 80),
        ("224.0.0.1", 80),
        ("10.0.0.5", 0),
        ("10.0.0.5", 9000),  # a port of the sidecar's own …
        ("10.0.0.5", 15000),  # … and those that it always has
        ("10.0.0.5", 15001),
        ("10.0.0.5", 15006),
        ("10.0.0.5", 15008),
        ("10.0.0.5", 15021),
        ("10.0.0.5", 15090),
    ],
)
def test_nothing_else_is(host, port):
    with pytest.raises(Refused) as refused:
        asked(POD, host, port)
    assert refused.value.verdict.reason == "no_original_destination"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])  # noqa: S104
def test_a_tunnel_that_was_dialled_inside_the_pod_leads_nowhere(host):
    with pytest.raises(Refused):
        asked(ByStream(Endpoint(host, 15008), ()), host, 80)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_whatever_is_asked_for_leads_to_the_pod_or_nowhere(address, port):
    try:
        found = asked(POD, str(address), port)
    except Refused:
        return
    assert found == Endpoint("10.0.0.5", port)
