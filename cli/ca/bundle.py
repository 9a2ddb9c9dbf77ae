"""`qbitel ca bundle`: what peers judge each other by, as files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from certmgr.bundle import bundle_of
from cli.ca.answers import Answer, row
from cli.ca.places import Clock, add_place, opened, run, write_public
from mesh.errors import UserError, shown


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """`bundle DIR [--out FOLDER]`."""
    parser = commands.add_parser(
        "bundle",
        parents=[common],
        help="write ca.crt, intermediates.crt and crl.pem",
        description="Write what peers judge each other by, with a fresh revocation list: run this each hour where no "
        "`qbitel certmgr serve` runs.",
    )
    add_place(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: DIR itself")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, clock: Clock) -> int:
    return run(_write(options, clock)).tell(options)


async def _write(options: argparse.Namespace, clock: Clock) -> Answer:
    async with opened(options) as place:
        state = (await place.service(clock)).state
        place.export(state)
        folder: Path | None = options.out or place.folder
    if folder is None:
        raise UserError("say where the files shall be written: --out FOLDER")
    write_public(folder, state)
    bundle = bundle_of(state)
    names = sorted(bundle.files)
    lines = [
        f"wrote the bundle of root {bundle.generation}",
        *(row("file", shown(folder / name)) for name in names),
        row("anchors", bundle.anchors),
        row("etag", bundle.etag),
    ]
    data = {
        "files": [str(folder / name) for name in names],
        "anchors": bundle.anchors,
        "etag": bundle.etag,
        "generation": bundle.generation,
    }
    return Answer(lines, data)
