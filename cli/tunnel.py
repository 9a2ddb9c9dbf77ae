"""`qbitel tunnel client` and `qbitel tunnel server`: plain TCP on one side, TLS on the other."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cli.arguments import Parser, address, positive_int
from cli.proxy import DEFAULT_PROFILE, add_engine_options, add_log_level, endpoint, set_up_logging
from mesh.errors import UserError
from proxy import config, tunnel, workers
from proxy.config import CredentialFiles, ProxyConfig, TrustFiles

# RFC 1035 §2.3.4; the engine checks the rest.
_MAX_SERVER_NAME = 253


def main(arguments: Sequence[str]) -> int:
    """Run one end of a tunnel until SIGTERM or SIGINT; return the exit code."""
    options = _parser().parse_args(arguments)
    set_up_logging(options.log_level)
    return workers.run(_config(options))


def _parser() -> Parser:
    parser = Parser(
        prog="qbitel tunnel",
        description="Run one end of a tunnel in the foreground. It ends at SIGTERM or Ctrl-C. The other end may be a "
        "tunnel too, or any TLS 1.3 peer with what the profile lists: one TLS stream per TCP connection.",
    )
    ends = parser.add_subparsers(dest="end", metavar="{client,server}", required=True)
    client = ends.add_parser(
        "client", help="plain TCP in, TLS out", description="Take plain TCP, speak TLS to the target."
    )
    server = ends.add_parser(
        "server",
        help="TLS in, plain TCP out",
        description="Take TLS with a client certificate, speak plain TCP to the target.",
    )
    for end in (client, server):
        end.add_argument("--listen", metavar="HOST:PORT", type=address, required=True)
        end.add_argument("--target", metavar="HOST:PORT", type=address, required=True)
        end.add_argument(
            "--cert", metavar="FILE", type=Path, required=True, help="our certificate chain, PEM, leaf first"
        )
        end.add_argument("--key", metavar="FILE", type=Path, required=True, help="its private key, PEM")
        end.add_argument("--ca", metavar="FILE", type=Path, required=True, help="the roots that we trust, PEM")
        end.add_argument(
            "--intermediates",
            metavar="FILE",
            type=Path,
            help="intermediates that we hold beside the roots, PEM: peers need not send them, and --crl may hold their "
            "lists (none)",
        )
        end.add_argument(
            "--crl", metavar="FILE", type=Path, help="revocation lists of these authorities, PEM (nothing is revoked)"
        )
        add_engine_options(end)
        end.add_argument(
            "--trust-domain",
            metavar="D",
            action="append",
            default=[],
            help="trust domain of the other end; repeatable (any that the roots vouch for)",
        )
        end.add_argument("--workers", metavar="N", type=positive_int, default=1, help="processes (%(default)s)")
        end.add_argument("--metrics", metavar="ADDR", type=address, help="GET /metrics here (nowhere)")
        add_log_level(end)
    client.add_argument(
        "--expect",
        metavar="SPIFFE-ID",
        action="append",
        default=[],
        help="the identity that the server must have; repeatable (any)",
    )
    client.add_argument("--server-name", metavar="N", help="sent as SNI (nothing)")
    server.add_argument(
        "--allow",
        metavar="SPIFFE-ID",
        action="extend",
        nargs="+",
        default=[],
        help="the identities that may come in (any)",
    )
    return parser


def _config(options: argparse.Namespace) -> ProxyConfig:
    listen, target = endpoint(options.listen), endpoint(options.target)
    trust = TrustFiles(options.ca, options.crl, intermediates=options.intermediates)
    files = CredentialFiles(options.cert, options.key, trust)
    profiles = config.profiles_named(options.profile or [DEFAULT_PROFILE])
    domains = config.trust_domains(options.trust_domain)
    metrics = (endpoint(options.metrics),) if options.metrics else ()
    if options.end == "client":
        return tunnel.client(
            listen=listen,
            target=target,
            files=files,
            profiles=profiles,
            provider=options.provider,
            key_log=options.key_log,
            expect=config.identities("--expect", options.expect),
            trust_domains=domains,
            server_name=_server_name(options.server_name),
            metrics=metrics,
            workers=options.workers,
        )
    return tunnel.server(
        listen=listen,
        target=target,
        files=files,
        profiles=profiles,
        provider=options.provider,
        key_log=options.key_log,
        allow=config.identities("--allow", options.allow),
        trust_domains=domains,
        metrics=metrics,
        workers=options.workers,
    )


def _server_name(name: str | None) -> str | None:
    if name is not None and not (name.isascii() and 0 < len(name) <= _MAX_SERVER_NAME and " " not in name):
        raise UserError(f"--server-name {name[:64]!r} is no DNS name")
    return name
