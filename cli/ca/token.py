"""`qbitel ca token`: a secret with which a machine gets its first certificate, once."""

from __future__ import annotations

import argparse
import datetime
import os
import secrets
from pathlib import Path
from typing import Any, Final

from certmgr.storage import SECRET_MODE, File, write_files
from certmgr.tokens import add_token
from certmgr.wording import rfc3339, shown_time, span
from cli.ca import arguments
from cli.ca.answers import Answer, row
from cli.ca.places import Clock, add_place, opened, run
from mesh.errors import UserError, shown

# 256 bits: nobody guesses it, so that its plain hash can be kept.
_TOKEN_BYTES: Final = 32
# For a machine that is being set up now.
_MINUTES: Final = 60


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """`token DIR --spiffe ID`."""
    parser = commands.add_parser(
        "token",
        parents=[common],
        help="make a one-time token for a machine's first certificate",
        description="Make a token for `qbitel proxy --bootstrap-token`: who shows it first gets a certificate for this "
        "identity. It is printed once and kept nowhere; the authority keeps its hash.",
    )
    add_place(parser)
    parser.add_argument(
        "--spiffe", type=arguments.spiffe_id, required=True, metavar="ID", help="spiffe://TRUST-DOMAIN/PATH"
    )
    parser.add_argument(
        "--dns", type=arguments.dns_name, action="extend", nargs="+", default=[], metavar="NAME", help="further name"
    )
    parser.add_argument(
        "--minutes", type=arguments.minutes, default=_MINUTES, metavar="N", help="how long it serves (%(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there with mode 0600 and do not print it")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, clock: Clock) -> int:
    out: Path | None = options.out
    if out is not None and os.path.lexists(out):
        raise UserError(f"{shown(out)} exists already; give another file")
    return run(_make(options, clock)).tell(options)


async def _make(options: argparse.Namespace, clock: Clock) -> Answer:
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    now = clock()
    until = now + datetime.timedelta(minutes=options.minutes)
    out: Path | None = options.out
    async with opened(options) as place:
        service = await place.service(clock)
        # Tried before it is written down, so that what is refused does not stand in the log as done.
        add_token(service.state, token, options.spiffe, options.dns, until, now)
        await place.note(now, "token made", identity=str(options.spiffe), until=rfc3339(until))
        await service.change(lambda state: add_token(state, token, options.spiffe, options.dns, until, now))
    if out is not None:
        write_files(out.parent, [File(out.name, f"{token}\n".encode(), SECRET_MODE)], replace=False)
    lines = [
        f"made a token, good for one certificate: {options.spiffe}",
        row("token", token) if out is None else row("file", shown(out)),
        row("until", f"{shown_time(until)}, for {span(until - now)}"),
    ]
    data = {
        "identity": str(options.spiffe),
        "dns_names": options.dns,
        "until": rfc3339(until),
        **({"token": token} if out is None else {"file": str(out)}),
    }
    return Answer(lines, data)
