"""The flags of `qbitel proxy` that say which destinations are in the mesh, and how they are reached."""

from __future__ import annotations

import argparse
from pathlib import Path

from cli.arguments import Parser, address
from mesh import names
from mesh.errors import UserError
from proxy import config
from proxy.config import Direction, Endpoint, ListenerConfig


def add_peers_options(parser: Parser) -> None:
    """Destinations, and where tunnels are taken."""
    parser.add_argument(
        "--mesh",
        metavar="CIDR",
        action="append",
        default=[],
        help="destinations that are reached by TLS of the mesh or not at all; repeatable; all others pass as plain TCP",
    )
    parser.add_argument(
        "--peers",
        metavar="FILE",
        type=Path,
        help="the peers document (YAML or JSON): destinations that require or prefer the mesh, their endpoints and "
        "identities; reloaded when it changes and on SIGHUP",
    )
    parser.add_argument(
        "--tunnel-listener",
        metavar="ADDR",
        type=address,
        help="where other sidecars may dial this one itself, each connection in the tunnel saying its port "
        f"({names.TUNNEL_PORT}, where connections are captured)",
    )
    parser.add_argument("--no-tunnel-listener", action="store_true", help="nowhere")


def tunnel_listeners(options: argparse.Namespace, ipv6: bool, *, transparent: bool = False) -> list[ListenerConfig]:
    """The listeners of the tunnel port; where they are `transparent`, streams come from the address of their client."""
    given = options.tunnel_listener
    if given is not None and (options.no_tunnel_listener or not options.tunnels):
        raise UserError("--tunnel-listener is of no use with --no-tunnel-listener or --no-tunnels")
    if given is not None:
        endpoints: tuple[Endpoint, ...] = (Endpoint(given.host, given.port),)
    elif options.no_capture or options.no_tunnel_listener or not options.tunnels:
        endpoints = ()
    else:
        endpoints = config.everywhere(names.TUNNEL_PORT, ipv6)
    return [
        ListenerConfig(direction=Direction.INBOUND, bind=bind, by_stream=True, transparent=transparent)
        for bind in endpoints
    ]
