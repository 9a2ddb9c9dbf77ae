"""`qbitel wait`: what a pod's hooks run in the sidecar's container where Kubernetes has no native sidecars."""

from __future__ import annotations

import argparse
import http.client
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from cli.arguments import Address, Parser, address
from mesh import names

EXIT_TIMEOUT: Final = 1
_LOCAL: Final = "127.0.0.1"
# One question; the sidecar answers in milliseconds, or is busy starting.
_ANSWER_SECONDS: Final = 2.0
# How often it is asked: what waits here is the start of a pod.
_PAUSE: Final = 0.1
# What lasts longer is cut by the pod's own grace (Kubernetes' default is 30 s), in which SIGTERM must have its turn.
_DRAIN_SECONDS: Final = 20.0
_READY_SECONDS: Final = 600.0


def main(arguments: Sequence[str]) -> int:
    """Run `qbitel wait` with `arguments`; return its exit code."""
    options = _parser().parse_args(arguments)
    seconds = options.timeout
    if options.ready:
        where = options.health or Address(_LOCAL, names.HEALTH_PORT)
        return _until(lambda: _is_ready(where), _READY_SECONDS if seconds is None else seconds, "ready")
    where = options.admin or Address(_LOCAL, names.ADMIN_PORT)
    _ask(where, "POST", "/drain")
    return _until(lambda: _is_drained(where), _DRAIN_SECONDS if seconds is None else seconds, "drained")


def _parser() -> Parser:
    parser = Parser(
        prog="qbitel wait",
        description="Wait for the sidecar of this pod. Injected pods run this in their hooks where the cluster has no "
        "native sidecars.",
        epilog="exit codes: 0 it is so; 1 it was not within the time; 2 an error",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--ready", action="store_true", help="until traffic may flow")
    what.add_argument(
        "--drained", action="store_true", help="tell it to take no more tunnels, and wait until no connection is left"
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=_seconds,
        help=f"({_READY_SECONDS:g} for --ready, {_DRAIN_SECONDS:g} for --drained)",
    )
    parser.add_argument(
        "--health", metavar="ADDR", type=address, help=f"the health port ({_LOCAL}:{names.HEALTH_PORT})"
    )
    parser.add_argument("--admin", metavar="ADDR", type=address, help=f"the admin port ({_LOCAL}:{names.ADMIN_PORT})")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _until(is_so: Callable[[], bool], seconds: float, what: str) -> int:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() >= deadline:
            print(f"qbitel wait: the sidecar is not {what} after {seconds:g} seconds", file=sys.stderr)
            return EXIT_TIMEOUT
        time.sleep(_PAUSE)
    return 0


def _is_ready(where: Address) -> bool:
    return _ask(where, "GET", "/healthz/ready")[0] == http.HTTPStatus.OK


def _is_drained(where: Address) -> bool:
    status, body = _ask(where, "GET", "/connections?limit=1")
    if status is None:
        return True  # it has ended already
    try:
        total = json.loads(body).get("total")
    except (ValueError, AttributeError):
        return False
    return bool(total == 0)


def _ask(where: Address, method: str, path: str) -> tuple[int | None, bytes]:
    """The status and body of an answer; None where nobody answers."""
    connection = http.client.HTTPConnection(where.host, where.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()
