"""`qbitel discovery serve`: brings policies and peers to the sidecars of a cluster."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import socket
from collections.abc import Sequence

from cli.arguments import Address, Parser, address
from cli.ca.places import namespace
from cli.certmgr import replica_name
from cli.proxy import add_log_level, endpoint, set_up_logging
from mesh import names
from mesh.errors import UserError
from mesh.spiffe import InvalidSpiffeId, check_trust_domain
from proxy import config, loop, sockets
from proxy.credentials import utc_now

_MODES = ("require", "prefer", "off")


def main(arguments: Sequence[str]) -> int:
    """Run `qbitel discovery` with `arguments`; return its exit code. Raises UserError."""
    options = _parser().parse_args(arguments)
    set_up_logging(options.log_level)
    if options.kubernetes == bool(options.kubeconfig):
        raise UserError("give --kubernetes for the cluster that this pod is in, or --kubeconfig FILE for another")
    try:
        # The client of the API server comes with an extra, and only this needs it.
        from control.discovery import server  # noqa: PLC0415
        from control.discovery.peers_text import MeshSettings  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            f"discovery needs the Python package {error.name}: pip install 'qbitel-mesh[kubernetes]'"
        ) from None
    home = options.namespace or names.CONTROL_NAMESPACE
    settings = MeshSettings(
        trust_domain=_trust_domain(options.trust_domain),
        networks=tuple(_network("--mesh", text) for text in options.mesh),
        service_networks=tuple(_network("--service-network", text) for text in options.service_network),
        detects=options.detect_networks,
        mode=options.mesh_mode,
        control_namespace=home,
    )
    wanted = server.ServeOptions(
        kubeconfig=options.kubeconfig,
        replica=replica_name(options.replica or socket.gethostname()),
        settings=settings,
        root_namespace=options.root_namespace or home,
    )
    with contextlib.ExitStack() as undo:
        listening = server.Listening(
            _bound(undo, options.metrics, names.METRICS_PORT), _bound(undo, options.health, names.HEALTH_PORT)
        )
        return loop.run(server.run(wanted, listening, now=utc_now))


def _parser() -> Parser:
    parser = Parser(prog="qbitel discovery", description="Brings policies and peers to the sidecars of a cluster.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser(
        "serve",
        help=f"keep the ConfigMap {names.MESH_CONFIG_MAP} of each namespace of the mesh up to date",
        description="Read policies (Istio's resources where the cluster has them, and ConfigMaps with the label "
        f"{names.POLICY_LABEL}=true), Services and pods, and write the ConfigMap {names.MESH_CONFIG_MAP} of each "
        "namespace of the mesh, in the foreground. Of several replicas one writes. SIGTERM ends it.",
    )
    serve.add_argument("--kubernetes", action="store_true", help="the cluster that this pod is in")
    serve.add_argument("--kubeconfig", metavar="FILE", help="another cluster")
    serve.add_argument(
        "--namespace",
        metavar="N",
        type=namespace,
        help=f"of the control plane, and of the Lease ({names.CONTROL_NAMESPACE})",
    )
    serve.add_argument(
        "--root-namespace",
        metavar="N",
        type=namespace,
        help="whose policies hold in every namespace (that of the control plane)",
    )
    serve.add_argument(
        "--replica",
        metavar="NAME",
        help="what no other replica is called at the same time (the host's name, which is a pod's)",
    )
    serve.add_argument("--trust-domain", metavar="D", default=names.DEFAULT_TRUST_DOMAIN, help="(%(default)s)")
    serve.add_argument(
        "--mesh",
        metavar="CIDR",
        action="append",
        default=[],
        help="networks of the cluster's pods, beside those that its nodes say; repeatable",
    )
    serve.add_argument(
        "--service-network",
        metavar="CIDR",
        action="append",
        default=[],
        help="networks of the cluster's Services, beside those that its ServiceCIDRs say (since 1.33); repeatable",
    )
    serve.add_argument(
        "--detect-networks",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask the cluster for its networks (%(default)s)",
    )
    serve.add_argument(
        "--mesh-mode",
        choices=_MODES,
        default="prefer",
        help="what is asked there of a pod that is dialled by its own address, or of a Service that is not known yet "
        "(%(default)s); off: it passes as plain TCP",
    )
    serve.add_argument("--metrics", metavar="ADDR", type=address, help=f"GET /metrics ({names.METRICS_PORT})")
    serve.add_argument(
        "--health", metavar="ADDR", type=address, help=f"GET /healthz/ready and /healthz/live ({names.HEALTH_PORT})"
    )
    add_log_level(serve)
    return parser


def _trust_domain(text: str) -> str:
    try:
        return check_trust_domain(text)
    except InvalidSpiffeId as error:
        raise UserError(f"--trust-domain: {error}") from None


def _network(flag: str, text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise UserError(f"{flag}: {error}; give a network such as 10.244.0.0/16") from None
    if getattr(network.network_address, "ipv4_mapped", None) is not None:
        raise UserError(f"{flag}: {text} are IPv4 addresses in IPv6 form; write them as IPv4")
    return network


def _bound(undo: contextlib.ExitStack, given: Address | None, port: int) -> list[socket.socket]:
    """Listening sockets, or UserError."""
    where = config.everywhere(port, sockets.ipv6_available()) if given is None else (endpoint(given),)
    return [undo.enter_context(contextlib.closing(sockets.listen(one))) for one in where]
