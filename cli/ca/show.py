"""`qbitel ca show`: certificates, requests, revocation lists, and folders of them, as a person reads them."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from certmgr.describe import describe
from certmgr.files import AUTHORITY_KEY_FILE
from certmgr.folder_store import FolderStore
from cli.ca.answers import Answer
from cli.ca.places import Clock, add_cluster, is_authority_folder, opened, run
from cli.ca.reading import STANDARD_INPUT, found_in
from cli.ca.summary import summary_of
from mesh import names
from mesh.errors import UserError, shown

# What folders of ours hold, in the order in which it is read best.
_IN_FOLDERS: Final = (
    names.CERTIFICATE_FILE,
    names.PRIVATE_KEY_FILE,
    names.KEM_CERTIFICATE_FILE,
    names.KEM_PRIVATE_KEY_FILE,
    names.ROOTS_FILE,
    AUTHORITY_KEY_FILE,
    names.INTERMEDIATES_FILE,
    names.REVOCATION_FILE,
)


@dataclass(frozen=True, slots=True)
class _Shown:
    """One thing with where it was found."""

    place: str
    text: str
    data: dict[str, Any]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """`show FILE…`."""
    parser = commands.add_parser("show", parents=[common], help="say what files hold: certificates, requests, lists")
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="PEM or DER, one thing or many; a folder; or - for standard input. Private keys are named, never shown",
    )
    add_cluster(parser)
    parser.set_defaults(run=_run, folder=None)


def _run(options: argparse.Namespace, clock: Clock) -> int:
    now = clock()
    if not options.files and not options.kubernetes:
        raise UserError("say what to show: FILE…, a folder, or --kubernetes for the authority there")
    found = [one for word in options.files for one in _look_at(word, now)]
    if options.kubernetes:
        found.append(run(_cluster(options, now)))
    text = "\n\n".join(f"{one.place}\n{one.text}" for one in found)
    data = [{"file": one.place, **one.data} for one in found]
    return Answer([text], {"found": data}).tell(options)


def _look_at(word: str, now: datetime.datetime) -> Iterator[_Shown]:
    path = Path(word)
    if word == STANDARD_INPUT or not path.is_dir():
        yield from _told(word, now)
        return
    there = [path / name for name in _IN_FOLDERS if (path / name).exists()]
    if is_authority_folder(path):
        summary = run(summary_of(FolderStore(path), now))
        yield _Shown(shown(path), "\n".join(summary.lines), dict(summary.data))
    elif not there:
        raise UserError(f"{shown(path)} holds none of {', '.join(_IN_FOLDERS)}; give a file")
    for file in there:
        yield from _told(str(file), now)


async def _cluster(options: argparse.Namespace, now: datetime.datetime) -> _Shown:
    async with opened(options) as place:
        summary = await summary_of(place.store, now)
    return _Shown(place.name, "\n".join(summary.lines), dict(summary.data))


def _told(word: str, now: datetime.datetime) -> Iterator[_Shown]:
    place = "standard input" if word == STANDARD_INPUT else shown(word)
    found = found_in(word)
    for number, one in enumerate(found, 1):
        description = describe(one, now)
        count = f" ({number} of {len(found)})" if len(found) > 1 else ""
        yield _Shown(f"{place}{count}", description.text, {"form": one.form, **description.data})
