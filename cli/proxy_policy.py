"""The flags of `qbitel proxy` about policy: which hold for this sidecar, and what one source may ask of it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cli.arguments import Parser, positive_int
from mesh.errors import UserError
from mesh.spiffe import InvalidSpiffeId, check_trust_domain
from proxy.policy.config import PolicyConfig
from proxy.policy.server_first import SERVER_FIRST

# Kubernetes, "Labels and Selectors": an optional prefix and a slash, and up to 63 characters.
_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")


def add_policy_options(parser: Parser) -> None:
    """Everything about who may connect."""
    parser.add_argument(
        "--policy",
        metavar="DIR",
        type=Path,
        help="folder of Istio resources (YAML or JSON) that govern what comes in: PeerAuthentication, "
        "AuthorizationPolicy and limits; reloaded when it changes and on SIGHUP; until it can be read nobody is let in",
    )
    parser.add_argument(
        "--workload-labels", metavar="K=V[,…]", default="", help="the pod's labels, which policies select it by"
    )
    for flag, metavar in (("--namespace", "NS"), ("--service-account", "SA")):
        parser.add_argument(flag, metavar=metavar, help="where our certificate's identity does not say it")
    parser.add_argument("--root-namespace", metavar="NS", help="whose policies hold for every namespace (istio-system)")
    parser.add_argument(
        "--trust-domain-alias",
        metavar="D",
        action="append",
        default=[],
        help="another name of our trust domain in policies; repeatable",
    )
    parser.add_argument(
        "--opaque-ports",
        metavar="P[,…]",
        default="",
        help="ports at which, in PERMISSIVE, a client that is silent for a moment waits for the server to speak; "
        f"beside {','.join(map(str, SERVER_FIRST))}",
    )
    parser.add_argument(
        "--connection-rate",
        metavar="R",
        type=float,
        help="connections per second that one source identity may open, per worker (no limit)",
    )
    parser.add_argument(
        "--connection-burst", metavar="N", type=positive_int, help="how many of them at once (a second's)"
    )
    parser.add_argument(
        "--max-connections-per-peer",
        metavar="N",
        type=positive_int,
        help="connections that one source identity may have open, per worker (no limit)",
    )


def policy_config(options: argparse.Namespace) -> PolicyConfig:
    """What these flags say, or UserError."""
    return PolicyConfig(
        folder=options.policy,
        labels=labels(options.workload_labels),
        namespace=options.namespace,
        service_account=options.service_account,
        root_namespace=options.root_namespace,
        trust_domain_aliases=_aliases(options.trust_domain_alias),
        opaque_ports=frozenset(SERVER_FIRST) | _ports(options.opaque_ports),
        connection_rate=options.connection_rate,
        connection_burst=options.connection_burst,
        max_connections_per_peer=options.max_connections_per_peer,
    )


def labels(text: str) -> Mapping[str, str]:
    """Read `app=web,version=v1`, or raise UserError."""
    found: dict[str, str] = {}
    for pair in text.split(",") if text else ():
        key, equals, value = pair.partition("=")
        if not equals or not _KEY.match(key) or not _VALUE.match(value):
            raise UserError(f"--workload-labels: {pair[:80]!r} is no label; write them as app=web,version=v1")
        if key in found:
            raise UserError(f"--workload-labels: {key} is given twice")
        found[key] = value
    return found


def _ports(text: str) -> frozenset[int]:
    ports = text.split(",") if text else []
    # Five digits: whether it is a port at all is said where all of them are checked.
    if not all(port.isascii() and port.isdigit() and len(port) <= 5 for port in ports):
        raise UserError(f"--opaque-ports: {text[:80]!r} is no list of ports such as 9418,6667")
    return frozenset(int(port) for port in ports)


def _aliases(texts: list[str]) -> tuple[str, ...]:
    try:
        return tuple(check_trust_domain(text) for text in texts)
    except InvalidSpiffeId as error:
        raise UserError(f"--trust-domain-alias: {error}") from None
