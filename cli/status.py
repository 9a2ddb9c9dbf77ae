"""`qbitel status`: what a running sidecar says of itself, read from its admin port."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Sequence
from typing import Final

from cli.arguments import Address, Parser, address
from mesh import names
from mesh.errors import UserError

# What can be asked for, and the page of the admin port that has it (proxy/admin/server.py).
_PAGES: Final = {
    "state": "/state",
    "connections": "/connections",
    "tunnels": "/tunnels",
    "certs": "/certs",
    "config": "/config_dump",
    "memory": "/memory",
}
_TIMEOUT: Final = 15.0  # seconds; workers are given five to answer


def main(arguments: Sequence[str]) -> int:
    """Print one page; 0, or 1 where the sidecar refuses the question."""
    options = _parser().parse_args(arguments)
    wanted = [f"limit={options.limit}"] if options.limit else []
    if not options.json:
        wanted.append("format=text")
    status, body = _get(options.admin, f"{_PAGES[options.what]}?{'&'.join(wanted)}")
    (sys.stdout if status == http.HTTPStatus.OK else sys.stderr).write(body)
    return 0 if status == http.HTTPStatus.OK else 1


def _parser() -> Parser:
    parser = Parser(
        prog="qbitel status",
        description="Show what a running sidecar says of itself: live connections with their identities, tunnels, "
        "certificates, configuration, memory. Run it where the sidecar runs.",
    )
    parser.add_argument("what", nargs="?", choices=_PAGES, default="state", help="what to show (%(default)s)")
    parser.add_argument(
        "--admin",
        metavar="ADDR",
        type=address,
        default=Address("127.0.0.1", names.ADMIN_PORT),
        help="the sidecar's admin port (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, with everything that is known")
    parser.add_argument("--limit", metavar="N", default="", help="rows of a table, at most (1000)")
    return parser


def _get(admin: Address, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(admin.host, admin.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"no sidecar answers at {admin} ({getattr(error, 'strerror', None) or error}); "
            "is one running here, and is that its --admin address?"
        ) from None
    finally:
        connection.close()
