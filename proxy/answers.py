"""The authority's answers as values: read strictly, because whoever answers may be broken, or somebody else. Pure."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from mesh import names
from proxy.credentials import TrustPem
from proxy.printable import printable

# Characters of what the authority says about a refusal; ours are shorter.
MAX_MESSAGE: Final = 400
# RFC 8259 §6: what every reader of JSON takes for a whole number.
MAX_ROUND: Final = (1 << 53) - 1


class Failure(Enum):
    """Why a request to the authority came to nothing: a closed set, which metrics show."""

    UNREACHABLE = "unreachable"  # no connection, no answer in time, or an answer that asks to come again
    REFUSED = "refused"  # it says no
    INVALID = "invalid"  # it is not the authority, or what it answers cannot be used


class AuthorityFailed(Exception):
    """A request came to nothing. The message is one sentence, without secrets.

    `retry_after` in seconds, where the authority named a time. `of_certificate`: it was the certificate that we showed,
    so that another proof may do.
    """

    def __init__(
        self, failure: Failure, message: str, *, retry_after: float | None = None, of_certificate: bool = False
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.retry_after = retry_after
        self.of_certificate = of_certificate


@dataclass(frozen=True, slots=True)
class Published:
    """What the authority publishes for judging peers.

    `etag` is its name for all of it; `generation` signs certificates now; `round` counts the rotations of its roots
    that began or were taken back. Its name for these roots is not read: we acknowledge what we find in them.
    """

    trust: TrustPem
    etag: str
    generation: str
    round: int


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate chain in PEM, leaf first; which generation signed it, and what is published now."""

    chain: bytes = field(repr=False)
    generation: str
    published: Published


@dataclass(frozen=True, slots=True)
class News:
    """What is published now (None: as before), and for how many seconds the authority wants no further question."""

    published: Published | None
    pause: float = 0.0


class Unusable(ValueError):
    """An answer that is not of the form that the API promises."""


def read_issued(content: bytes) -> Issued:
    document = _document(content)
    with _as_failure():
        return Issued(
            _text(document, "certificate").encode("ascii"),
            _text(document, "generation"),
            _published_of(_mapping(document, "bundle")),
        )


def read_published(content: bytes) -> Published:
    with _as_failure():
        return _published_of(_document(content))


def _published_of(document: Mapping[str, Any]) -> Published:
    files = _mapping(document, "files")
    trust = TrustPem(
        _text(files, names.ROOTS_FILE).encode("ascii"),
        _text(files, names.INTERMEDIATES_FILE, optional=True).encode("ascii"),
        _text(files, names.REVOCATION_FILE, optional=True).encode("ascii"),
    )
    return Published(
        trust,
        _text(document, "etag"),
        _text(document, "generation"),
        _round(document),
    )


@contextlib.contextmanager
def _as_failure() -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # UnicodeEncodeError is one
        said = printable(str(error), MAX_MESSAGE)
        raise AuthorityFailed(Failure.INVALID, f"the authority's answer cannot be used: {said}") from None


def _document(content: bytes) -> Mapping[str, Any]:
    with _as_failure():
        return _parsed(content)


def _parsed(content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise Unusable("it is no JSON") from None
    if not isinstance(document, dict):
        raise Unusable("it is no JSON object")
    return document


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise Unusable(f"{key!r} is missing, or no object")
    return value


def _text(document: Mapping[str, Any], key: str, *, optional: bool = False) -> str:
    value = document.get(key, "" if optional else None)
    if not isinstance(value, str) or not (value or optional):
        raise Unusable(f"{key!r} is missing, or no text")
    return value


def _round(document: Mapping[str, Any]) -> int:
    value = document.get("round")
    if type(value) is not int or not 0 <= value <= MAX_ROUND:  # a bool is an int to Python
        raise Unusable("'round' is missing, or no whole number")
    return value


def read_refusal(status: int, content: bytes) -> str:
    """What a refusal says: its slug and its sentence, where it has them."""
    try:
        document = _parsed(content)
        error, message = _text(document, "error"), _text(document, "message")
    except Unusable:
        return f"with status {status}"
    return printable(f"{error}: {message}", MAX_MESSAGE)
