"""Policies from files: a folder as people keep it, or as Kubernetes mounts a ConfigMap, one file, or standard input."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.documents import Document, Problem, read_documents
from mesh.errors import UserError

# What documents of a cluster show in the place of a file's name.
CLUSTER: Final = "cluster"
SUFFIXES: Final = (".yaml", ".yml", ".json")
# A cluster of thousands of namespaces keeps a file for each. Beyond that somebody has named the wrong folder.
MAX_FILES: Final = 10_000
MAX_BYTES: Final = 64 << 20
_MAX_FOLDERS: Final = 10_000  # as many as files: who keeps one in each has named the right folder still
# What one file may have; read_documents refuses more than that by itself, this keeps it out of memory.
_MAX_FILE_BYTES: Final = 16 << 20
# The link by which the kubelet swaps all files of a ConfigMap at once.
_CONFIG_MAP_LINK: Final = "..data"
# The kubelet swaps once a minute: two swaps within one reading do not happen twice in a row.
_READINGS: Final = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read, and what could not be: of severity "error" where something in force may be missing here."""

    documents: tuple[Document, ...] = ()
    problems: tuple[Problem, ...] = ()
    sources: tuple[str, ...] = ()  # the files, in the order in which they were read

    def __add__(self, other: Reading) -> Reading:
        return Reading(self.documents + other.documents, self.problems + other.problems, self.sources + other.sources)


def read_path(path: Path, *, recursive: bool = False) -> Reading:
    """Read a folder or one file. Raises UserError where `path` does not exist or cannot be looked into.

    Of a folder, files that end in .yaml, .yml or .json are read in the order of their names; hidden ones are left
    out, and folders within it unless `recursive`. Links to files are followed, links to folders are not. What is wrong
    with one file is a problem of the answer and does not hide the others.
    """
    try:
        if not path.is_dir():
            return _read_files([path], must_be_there=True)
        for _ in range(_READINGS):
            before = _config_map_version(path)
            reading = _read_files(list(_files(path, recursive)), must_be_there=False)
            if _config_map_version(path) == before:
                return reading
    except FileNotFoundError:
        raise UserError(f"{_shown(path)} does not exist; give a folder of policies, or a file") from None
    except OSError as error:
        raise UserError(f"{_shown(error.filename or path)} cannot be read: {error.strerror or error}") from None
    raise UserError(f"{_shown(path)} changes faster than it can be read; try again")


def read_text(text: bytes, source: str) -> Reading:
    """Read what came from elsewhere, as from standard input."""
    documents, problems = read_documents(text, source)
    return Reading(documents, problems, (source,))


def _config_map_version(folder: Path) -> str:
    """Where the kubelet's link points; "" where this is no ConfigMap's mount."""
    try:
        return str((folder / _CONFIG_MAP_LINK).readlink())
    except OSError:
        return ""


def _files(folder: Path, recursive: bool) -> Iterator[Path]:
    """The files of policies in `folder`, by name; a folder's own come before those of the folders within it."""
    left, seen = [folder], 0
    while left:
        here = left.pop()
        seen += 1
        if seen > _MAX_FOLDERS:
            raise UserError(f"{_shown(folder)} has more than {_MAX_FOLDERS} folders in it; give a smaller one")
        with os.scandir(here) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        folders = []
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(here / entry.name)
            elif entry.name.endswith(SUFFIXES) and not entry.is_dir():
                yield here / entry.name
        if recursive:
            left += reversed(folders)


def _read_files(files: list[Path], *, must_be_there: bool) -> Reading:
    if len(files) > MAX_FILES:
        raise UserError(f"{_shown(files[0].parent)} has more than {MAX_FILES} files; give a smaller folder")
    documents: list[Document] = []
    problems: list[Problem] = []
    left = MAX_BYTES
    for file in files:
        source = _shown(file)
        try:
            text = _content(file, may_be_pipe=must_be_there)
        except OSError as error:
            if must_be_there:
                raise
            problems.append(Problem(source, 0, "", "", f"cannot be read: {error.strerror or error}"))
            continue
        left -= len(text)
        if left < 0:
            raise UserError(f"{source}: with it there are more than {MAX_BYTES >> 20} MiB; give a smaller folder")
        found, wrong = read_documents(text, source)
        documents += found
        problems += wrong
    return Reading(tuple(documents), tuple(problems), tuple(_shown(file) for file in files))


def _content(file: Path, *, may_be_pipe: bool) -> bytes:
    # O_NONBLOCK: a named pipe in a folder must not make us wait for a writer.
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        mode = os.fstat(descriptor).st_mode
        if may_be_pipe and stat.S_ISFIFO(mode):
            os.set_blocking(descriptor, True)  # as in `qbitel policy diff <(git show HEAD:policies.yaml) policies.yaml`
        elif not stat.S_ISREG(mode):
            raise OSError(0, "it is no regular file", str(file))
        return stream.read(_MAX_FILE_BYTES)


def _shown(path: object) -> str:
    """A path for one line of text."""
    text = str(path)
    return text if text.isprintable() else repr(text)
