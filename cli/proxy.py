"""`qbitel proxy`: the sidecar of a pod."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from cli.arguments import Address, Parser, address, busy_poll, positive_int
from cli.proxy_life import add_life_options, add_limits, life, limits
from cli.proxy_peers import add_peers_options, tunnel_listeners
from cli.proxy_policy import add_policy_options, policy_config
from cli.sealed import open_sealed_key
from mesh import names
from mesh.errors import UserError
from mesh.modes import MTLSMode
from proxy import config, key_log, sockets, workers
from proxy.busy_polling import WINDOW
from proxy.config import (
    CredentialFiles,
    Direction,
    Endpoint,
    EnrolmentConfig,
    InterceptionMode,
    Limits,
    ListenerConfig,
    ProxyConfig,
    TrustFiles,
)
from proxy.messages import MessageHandler, OneLine
from proxy.providers import PROVIDER_NAMES

_DEFAULTS = Limits()
DEFAULT_PROFILE = "qbitel"
LOG_LEVELS = ("debug", "info", "warning", "error")


def main(arguments: Sequence[str]) -> int:
    """Run the sidecar until SIGTERM or SIGINT; return the exit code."""
    options = _parser().parse_args(arguments)
    set_up_logging(options.log_level)
    return workers.run(_config(options))


def _parser() -> Parser:
    parser = Parser(
        prog="qbitel proxy",
        description="Run the sidecar of a pod: what the application dials goes out as TLS of the mesh, and what comes "
        "in as TLS of the mesh reaches the application as plain TCP. Runs in the foreground; SIGTERM drains, a second "
        "one ends it.",
    )
    _add_credentials(parser)
    parser.add_argument(
        "--trust-domain",
        metavar="D",
        action="append",
        default=[],
        help=f"trust domain whose identities are let in; repeatable ({names.DEFAULT_TRUST_DOMAIN})",
    )
    add_engine_options(parser)
    parser.add_argument(
        "--mode",
        choices=[mode.value for mode in MTLSMode],
        default=MTLSMode.STRICT.value,
        help="what the inbound side takes where no policy says it: TLS of the mesh only, plaintext too, or plaintext "
        "only (%(default)s)",
    )
    add_policy_options(parser)
    add_peers_options(parser)
    parser.add_argument(
        "--outbound", metavar="ADDR", type=address, help="where captured outbound connections arrive (15001)"
    )
    parser.add_argument(
        "--inbound", metavar="ADDR", type=address, help="where captured inbound connections arrive (15006)"
    )
    parser.add_argument("--metrics", metavar="ADDR", type=address, help="GET /metrics (15090)")
    parser.add_argument("--health", metavar="ADDR", type=address, help="GET /healthz/ready and /healthz/live (15021)")
    add_life_options(parser)
    parser.add_argument(
        "--interception-mode",
        choices=[mode.value for mode in InterceptionMode],
        default=InterceptionMode.REDIRECT.value,
        help="how interception brings inbound connections (%(default)s); TPROXY shows the application its client's "
        "address, and needs the capability NET_ADMIN",
    )
    parser.add_argument("--no-capture", action="store_true", help="no captured listeners: only the explicit ones")
    for side, what in (
        ("outbound", "plain TCP in, TLS of the mesh out"),
        ("inbound", "TLS of the mesh in, plain TCP out"),
    ):
        parser.add_argument(
            f"--explicit-{side}",
            metavar="LISTEN=TARGET",
            type=_pair,
            action="append",
            default=[],
            help=f"{what}, without interception; repeatable",
        )
    parser.add_argument("--max-connections", metavar="N", type=positive_int, default=_DEFAULTS.max_connections)
    add_limits(parser)
    _add_tunnels(parser)
    parser.add_argument("--workers", metavar="N", type=positive_int, default=1, help="processes (%(default)s)")
    parser.add_argument(
        "--busy-poll",
        metavar="US",
        type=busy_poll,
        help="how long to look for the next event before sleeping, where that pays, in microseconds; 0: never "
        f"({WINDOW * 1e6:g} where there is a processor for each worker, and more than one, else 0)",
    )
    add_log_level(parser)
    return parser


def _add_tunnels(parser: Parser) -> None:
    """How connections to other sidecars share TLS connections."""
    parser.add_argument(
        "--no-tunnels",
        dest="tunnels",
        action="store_false",
        help="a TLS connection for each connection of the application",
    )
    for name, what in (
        ("idle-timeout", "how long one without connections is kept"),
        ("silence", "how long its other end may say nothing while connections are open"),
        ("max-age", "how long it takes new connections"),
    ):
        default = getattr(_DEFAULTS, f"tunnel_{name.replace('-', '_')}")
        text = f"{what}, in seconds (%(default)g)"
        parser.add_argument(f"--tunnel-{name}", metavar="S", type=float, default=default, help=text)


def _add_credentials(parser: Parser) -> None:
    """Who we are: from files, or from an authority."""
    parser.add_argument(
        "--certs",
        metavar="DIR",
        type=Path,
        help="folder with tls.crt, tls.key, ca.crt perhaps intermediates.crt, crl.pem; reloaded when they change and "
        f"on SIGHUP ({names.CERTIFICATE_FOLDER})",
    )
    parser.add_argument(
        "--kem-key",
        metavar="FILE",
        type=Path,
        help=f"the ML-KEM key that opens a sealed tls.key ({names.KEM_PRIVATE_KEY_FILE} in the folder)",
    )
    parser.add_argument(
        "--authority",
        metavar="HOST:PORT",
        type=address,
        help="instead of --certs: get certificates from this authority (`qbitel certmgr serve`) and renew them",
    )
    parser.add_argument(
        "--authority-roots",
        metavar="DIR",
        type=Path,
        help="folder with the ca.crt that vouches for the authority, and perhaps intermediates.crt and crl.pem "
        f"({names.ROOTS_FOLDER})",
    )
    parser.add_argument(
        "--token",
        metavar="FILE",
        type=Path,
        help=f"the service account's token that proves who we are, read at each use ({names.TOKEN_FILE})",
    )
    parser.add_argument(
        "--bootstrap-token",
        metavar="FILE",
        type=Path,
        help="instead of --token: a token of `qbitel ca token`, good for the first certificate alone",
    )
    parser.add_argument(
        "--instance",
        metavar="NAME",
        help="what tells us apart from others of the same identity (POD_UID of the environment, or the host's name)",
    )


def _config(options: argparse.Namespace) -> ProxyConfig:
    ipv6 = sockets.ipv6_available()
    return ProxyConfig(
        files=_files(options),
        enrolment=_enrolment(options),
        listeners=tuple(_listeners(options, ipv6)),
        profiles=config.profiles_named(options.profile or [DEFAULT_PROFILE]),
        provider=options.provider,
        key_log=options.key_log,
        trust_domains=config.trust_domains(options.trust_domain or [names.DEFAULT_TRUST_DOMAIN]),
        mode=MTLSMode(options.mode),
        policy=policy_config(options),
        mesh=config.networks(options.mesh),
        peers_file=options.peers,
        **life(options),
        metrics=_endpoints(options.metrics, names.METRICS_PORT, ipv6),
        health=_endpoints(options.health, names.HEALTH_PORT, ipv6),
        limits=Limits(
            max_connections=options.max_connections,
            **limits(options),
            tunnel_idle_timeout=options.tunnel_idle_timeout,
            tunnel_silence=options.tunnel_silence,
            tunnel_max_age=options.tunnel_max_age,
        ),
        tunnels=options.tunnels,
        workers=options.workers,
        busy_poll=options.busy_poll,
    )


def _files(options: argparse.Namespace) -> CredentialFiles | None:
    if options.authority is not None:
        if options.certs is not None or options.kem_key is not None:
            raise UserError("--authority brings the certificate: leave --certs and --kem-key out")
        return None
    for flag in ("authority_roots", "token", "bootstrap_token", "instance"):
        if getattr(options, flag) is not None:
            raise UserError(f"--{flag.replace('_', '-')} goes with --authority: give that too")
    folder = options.certs or Path(names.CERTIFICATE_FOLDER)
    return CredentialFiles.in_folder(folder, kem_key=options.kem_key, open_sealed=open_sealed_key)


def _enrolment(options: argparse.Namespace) -> EnrolmentConfig | None:
    if options.authority is None:
        return None
    token = options.token or (None if options.bootstrap_token else Path(names.TOKEN_FILE))
    return EnrolmentConfig(
        authority=endpoint(options.authority),
        roots=TrustFiles.in_folder(options.authority_roots or Path(names.ROOTS_FOLDER)),
        token=token,
        bootstrap_token=options.bootstrap_token,
        instance=options.instance or os.environ.get("POD_UID") or socket.gethostname(),
    )


def _listeners(options: argparse.Namespace, ipv6: bool) -> list[ListenerConfig]:
    listeners = []
    tproxy = InterceptionMode(options.interception_mode) is InterceptionMode.TPROXY
    if tproxy and options.no_capture:
        raise UserError("--interception-mode TPROXY is of no use with --no-capture: leave one of them out")
    if not options.no_capture:
        for direction, given, port in (
            (Direction.OUTBOUND, options.outbound, names.OUTBOUND_PORT),
            (Direction.INBOUND, options.inbound, names.INBOUND_PORT),
        ):
            is_transparent = tproxy and direction is Direction.INBOUND
            listeners += [
                ListenerConfig(direction=direction, bind=bind, transparent=is_transparent)
                for bind in _endpoints(given, port, ipv6)
            ]
    for direction, pairs in (
        (Direction.OUTBOUND, options.explicit_outbound),
        (Direction.INBOUND, options.explicit_inbound),
    ):
        for bind, target in pairs:
            listeners.append(ListenerConfig(direction=direction, bind=bind, target=target))
    return listeners + tunnel_listeners(options, ipv6, transparent=tproxy)


def _endpoints(given: Address | None, port: int, ipv6: bool) -> tuple[Endpoint, ...]:
    return config.everywhere(port, ipv6) if given is None else (endpoint(given),)


def endpoint(given: Address) -> Endpoint:
    """The proxy's word for an address on the command line."""
    return Endpoint(given.host, given.port)


def _pair(text: str) -> tuple[Endpoint, Endpoint]:
    listen, equals, target = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not LISTEN=TARGET, for example 127.0.0.1:9000=10.0.0.7:9443")
    return endpoint(address(listen)), endpoint(address(target))


def add_engine_options(parser: Parser) -> None:
    """The flags about TLS itself that sidecar and tunnel share."""
    parser.add_argument(
        "--profile",
        metavar="P[,P…]",
        action="append",
        default=[],
        help=f"what may be negotiated; several in order of preference, with commas or repeated ({DEFAULT_PROFILE})",
    )
    parser.add_argument(
        "--provider",
        choices=PROVIDER_NAMES,
        default=PROVIDER_NAMES[0],
        help="whose ML-KEM and ML-DSA are used (%(default)s)",
    )
    parser.add_argument(
        "--key-log",
        metavar="FILE",
        type=Path,
        help=f"for development, and only with {key_log.SWITCH}=1 in the environment: append the secrets of every "
        "connection to FILE, in NSS's format",
    )


def add_log_level(parser: Parser) -> None:
    """The flag that sidecar and tunnel share."""
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info", help="of the lines on stderr (%(default)s)")


def set_up_logging(level: str) -> None:
    """One line per event on stderr; standard output is the access log's."""
    try:
        handler: logging.Handler = MessageHandler(sys.stderr.fileno())
    except (AttributeError, OSError):  # closed at the start (None), or replaced by what is no file
        handler = logging.StreamHandler()
        handler.setFormatter(OneLine())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
