"""The folder of policies: what is in it, whether it has changed, and whether all of it can be read.

Read whole or not at all: a file that was half written, or a resource with an error, leaves everything as it was.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.documents import Document, Problem, read_documents
from mesh.errors import UserError
from mesh.resources import ResourceSet
from mesh.selectors import ROOT_NAMESPACE
from proxy.reading import read_file, signature_of

SUFFIXES: Final = (".yaml", ".yml", ".json")
# A large cluster keeps a file for each namespace. Beyond that somebody has named the wrong folder.
MAX_FILES: Final = 10_000
# All files together: a ConfigMap has 1 MiB, and a reading takes some twenty times its size in memory while it lasts.
MAX_BYTES: Final = 16 << 20
# The kubelet swaps a ConfigMap once a minute; a folder that changes during each of so many readings is being written.
_READINGS: Final = 3

# What changes when the folder does: names, and each file's time, size and inode (behind links, as ConfigMaps have).
Seen = tuple[tuple[str, object], ...]


class Unreadable(UserError):
    """The folder cannot be taken as it is. The message is one line and names the file, and the line where it can."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that the folder holds, without an error in it."""

    resources: ResourceSet
    seen: Seen
    files: int
    warnings: tuple[Problem, ...]


def look(folder: Path) -> Seen:
    """What is in the folder now. Raises Unreadable."""
    paths = _paths(folder)
    return tuple(zip((path.name for path in paths), signature_of(paths), strict=True))


def read(folder: Path, root_namespace: str | None = None) -> Reading:
    """Read all files of the folder (not those within folders in it, and no hidden ones). Raises Unreadable.

    Files that change meanwhile are read again, so that what is returned was there at one time.
    """
    for _ in range(_READINGS):
        seen = look(folder)
        documents, problems = _documents([folder / name for name, _ in seen])
        if look(folder) == seen:
            break
    else:
        raise Unreadable(f"{folder} changes while it is read; it is tried again")
    resources = ResourceSet.of(documents, root_namespace=root_namespace or ROOT_NAMESPACE)
    problems += resources.problems
    _refuse_errors([problem for problem in problems if problem.severity == "error"])
    warnings = tuple(problem for problem in problems if problem.severity == "warning")
    return Reading(resources, seen, len(seen), warnings)


def _refuse_errors(errors: list[Problem]) -> None:
    if errors:
        more = f" (and {len(errors) - 1} more; `qbitel policy check` shows all)" if len(errors) > 1 else ""
        raise Unreadable(f"{errors[0]}{more}")


def _documents(paths: list[Path]) -> tuple[list[Document], list[Problem]]:
    documents: list[Document] = []
    problems: list[Problem] = []
    left = MAX_BYTES
    for path in paths:
        try:
            text = read_file(path, if_missing="it was there a moment ago", limit=left)
        except UserError as error:
            raise Unreadable(str(error)) from None
        left -= len(text)
        found, wrong = read_documents(text, str(path))
        documents += found
        problems += wrong
    return documents, problems


def _paths(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name for entry in entries if entry.name.endswith(SUFFIXES) and not entry.name.startswith(".")
            )
    except OSError as error:
        raise Unreadable(f"{folder} cannot be read: {error.strerror or error}") from None
    if len(names) > MAX_FILES:
        raise Unreadable(f"{folder} has more than {MAX_FILES} files; give a smaller folder")
    return [path for name in names if not (path := folder / name).is_dir()]
