"""The flags about destinations."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.arguments import Parser
from cli.proxy_peers import add_peers_options, tunnel_listeners
from mesh import names
from mesh.errors import UserError
from proxy.config import Endpoint


def parsed(*words: str):
    parser = Parser()
    add_peers_options(parser)
    parser.add_argument("--no-capture", action="store_true")
    parser.add_argument("--no-tunnels", dest="tunnels", action="store_false")
    return parser.parse_args(words)


def binds(*words: str, ipv6: bool = False) -> list[Endpoint]:
    listeners = tunnel_listeners(parsed(*words), ipv6)
    assert all(listener.by_stream and listener.mesh_only for listener in listeners)
    return [listener.bind for listener in listeners]


def test_both_forms_are_taken():
    options = parsed("--mesh", "10.0.0.0/8", "--mesh", "fd00::/8", "--peers", "peers.yaml")
    assert options.mesh == ["10.0.0.0/8", "fd00::/8"]
    assert options.peers == Path("peers.yaml")


def test_where_connections_are_captured_the_tunnel_port_is_listened_on():
    everywhere = Endpoint("0.0.0.0", names.TUNNEL_PORT)  # noqa: S104
    assert binds() == [everywhere]
    assert binds(ipv6=True) == [everywhere, Endpoint("::", names.TUNNEL_PORT)]


@pytest.mark.parametrize("flag", ["--no-capture", "--no-tunnels", "--no-tunnel-listener"])
def test_elsewhere_it_is_not(flag):
    assert binds(flag) == []


def test_an_address_of_its_own_can_be_given():
    assert binds("--no-capture", "--tunnel-listener", "10.0.0.1:9008") == [Endpoint("10.0.0.1", 9008)]


@pytest.mark.parametrize("flag", ["--no-tunnels", "--no-tunnel-listener"])
def test_an_address_that_nothing_is_to_be_taken_at_is_a_slip(flag):
    with pytest.raises(UserError, match="--tunnel-listener is of no use"):
        binds("--tunnel-listener", "10.0.0.1:9008", flag)
