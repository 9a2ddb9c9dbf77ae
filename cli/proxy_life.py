"""The flags of `qbitel proxy` about its life: limits, draining, readiness, and what an operator sees of it."""

from __future__ import annotations

import argparse
import os
from typing import Any, Final

from cli.arguments import Address, Parser, address, positive_int
from cli.proxy_policy import labels
from mesh import names
from mesh.errors import UserError
from proxy import self_test
from proxy.config import ACCESS_LOG_FORMATS, Endpoint, Limits, WorkloadConfig
from proxy.probes.questions import read_questions

_DEFAULTS: Final = Limits()
# Every limit in seconds that has a flag of its name, and what it bounds.
_SECONDS: Final = {
    "connect_timeout": "until a connection stands",
    "handshake_timeout": "until its TLS does",
    "first_bytes_timeout": "until an inbound client has sent its hello",
    "peek_timeout": "PERMISSIVE: until a silent client is taken for one that waits for the server",
    "idle_timeout": "without a byte either way",
    "stall_timeout": "without a byte either way while some wait for an end that does not read, or is gone",
    "drain_seconds": "from SIGTERM until what is left is reset",
    "drain_quiet": "after SIGTERM, without connections and without new ones, until it ends early",
}


def add_limits(parser: Parser) -> None:
    """How long anything may take, and how many handshakes may be under way."""
    for name, what in _SECONDS.items():
        default = getattr(_DEFAULTS, name)
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, metavar="S", type=float, default=default, help=f"seconds {what} (%(default)g)")
    parser.add_argument(
        "--max-handshakes",
        metavar="N",
        type=positive_int,
        default=_DEFAULTS.max_handshakes,
        help="inbound handshakes under way; beyond it the oldest of the busiest address goes (%(default)s)",
    )


def limits(options: argparse.Namespace) -> dict[str, Any]:
    """The same as arguments of Limits."""
    return {name: getattr(options, name) for name in (*_SECONDS, "max_handshakes")}


def add_life_options(parser: Parser) -> None:
    """What an operator sees of it, and when it is ready."""
    parser.add_argument(
        "--admin",
        metavar="ADDR",
        type=address,
        help=f"the admin port, on a loopback address ({names.ADMIN_PORT}; without capture, none)",
    )
    parser.add_argument("--no-admin", action="store_true", help="no admin port")
    parser.add_argument(
        "--no-self-test",
        action="store_true",
        help="be ready without proof that interception brings connections here",
    )
    parser.add_argument(
        "--access-log",
        choices=ACCESS_LOG_FORMATS,
        default=ACCESS_LOG_FORMATS[0],
        help="how its lines are written on standard output (%(default)s)",
    )
    parser.add_argument(
        "--workload-name",
        metavar="NAME",
        default=os.environ.get("QBITEL_WORKLOAD_NAME", ""),
        help="what we are called in metrics, beside --workload-labels (QBITEL_WORKLOAD_NAME of the environment)",
    )


def life(options: argparse.Namespace) -> dict[str, Any]:
    """The same as arguments of ProxyConfig. Raises UserError."""
    return {
        "admin": _admin(options.admin, options),
        "self_test": not (options.no_capture or options.no_self_test) and self_test.can_be_tried(),
        "access_log": options.access_log,
        "app_probes": read_questions(probes) if (probes := os.environ.get(names.APP_PROBES_VARIABLE)) else {},
        "workload": WorkloadConfig.of_labels(options.workload_name, labels(options.workload_labels)),
    }


def _admin(given: Address | None, options: argparse.Namespace) -> tuple[Endpoint, ...]:
    if options.no_admin:
        if given is not None:
            raise UserError("--admin and --no-admin contradict each other: give one of them")
        return ()
    if given is not None:
        host = "127.0.0.1" if given.host == "localhost" else given.host
        return (Endpoint(host, given.port),)
    return () if options.no_capture else (Endpoint("127.0.0.1", names.ADMIN_PORT),)
