"""The files that are given on `qbitel ca`'s command line: read with bounds, and named in what is wrong with them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from certmgr.pending import read_request
from certmgr.storage import read_file
from certmgr.x509_files import Certificate, CertificateRequest, Found, certificates_of, find, lists_of, pem_of
from mesh.errors import UserError, shown

# A revocation list of 100,000 certificates has some 4 MB; nothing else comes near.
MAX_FILE_SIZE: Final = 16 << 20
STANDARD_INPUT: Final = "-"

_Result = TypeVar("_Result")


def found_in(word: str) -> tuple[Found, ...]:
    """Everything in a file, or in the standard input, `-`."""
    if word == STANDARD_INPUT:
        return _of("standard input", _standard_input(), find)
    return _read(Path(word), find)


def certificates_in(path: Path) -> tuple[Certificate, ...]:
    """The certificates in a file, at least one."""
    return _read(path, certificates_of)


def certificates_pem_in(path: Path) -> bytes:
    """The same as PEM, whichever form the file has."""
    return pem_of(certificates_in(path))


def lists_pem_in(path: Path) -> bytes:
    """The revocation lists in a file as PEM, at least one."""
    return pem_of(_read(path, lists_of))


def request_in(path: Path) -> CertificateRequest:
    """The one certificate request in a file."""
    return _read(path, read_request)


def _read(path: Path, understand: Callable[[bytes], _Result]) -> _Result:
    return _of(shown(path), read_file(path, limit=MAX_FILE_SIZE), understand)


def _of(name: str, content: bytes, understand: Callable[[bytes], _Result]) -> _Result:
    try:
        return understand(content)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _standard_input() -> bytes:
    content = sys.stdin.buffer.read(MAX_FILE_SIZE + 1)
    if len(content) > MAX_FILE_SIZE:
        raise UserError(f"standard input has more than {MAX_FILE_SIZE} bytes; give a certificate")
    return content
