"""Requests of HTTP/1.1 as a kubelet, Prometheus and a person with curl make them: a head, and no body. Pure.

RFC 9112 in its strict reading: what is ambiguous is refused and never repaired, so that nobody can make two readers see
two requests. A general server library would be a fifth of a sidecar's memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

# A browser with all its cookies sends 4 KB; Prometheus 300 bytes.
MAX_HEAD: Final = 8192  # bytes
END_OF_HEAD: Final = b"\r\n\r\n"
_MAX_HEADERS: Final = 64
_MAX_PARAMETERS: Final = 16

_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,4096}) HTTP/1\.([0-9])\Z")
# RFC 9110 §5.6.2 (token) and §5.5 (field values: visible characters, blanks, obs-text).
_HEADER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}):[ \t]*([\t -~\x80-\xff]*)\Z")


# What the beginning of a request may look like, before its first line is whole.
_BEGINNING: Final = re.compile(rb"[A-Z]{0,16}(?: |\Z)")


def may_become_request(beginning: bytes) -> bool:
    """Whether more bytes could make a request of this: whoever speaks TLS to a plain port should hear so at once."""
    return _BEGINNING.match(beginning) is not None


class BadRequest(Exception):
    """The request is refused with `status`; the message is one line for whoever sent it. The connection ends."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are in lower case; a parameter that is given twice has its last value. `local` is the
    address at which it came."""

    method: str
    path: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    keep_alive: bool = True
    local: str = ""

    @property
    def host(self) -> str:
        """What the client thinks that it talks to, with its port; "" where it did not say."""
        return self.headers.get("host", "")


def parse(head: bytes) -> Request:
    """The request whose head is `head`, up to END_OF_HEAD and without it. Raises BadRequest."""
    first, *lines = head.split(b"\r\n")
    line = _REQUEST_LINE.match(first)
    if line is None:
        raise BadRequest(400, "that is no request of HTTP/1.1")
    headers = _headers(lines)
    if line[3] != b"0" and "host" not in headers:
        raise BadRequest(400, "a request of HTTP/1.1 names its Host")
    if "transfer-encoding" in headers:
        raise BadRequest(501, "no transfer coding is known here; send no body")
    if headers.get("content-length", "0") != "0":
        raise BadRequest(413, "no request here has a body; put arguments behind a question mark")
    path, parameters, host = _target(line[2].decode("ascii"))
    if host:  # RFC 9112 §3.2.2: it replaces the header's
        headers["host"] = host
    options = {word.strip().lower() for word in headers.get("connection", "").split(",")}
    keep_alive = line[3] != b"0" and "close" not in options
    return Request(line[1].decode("ascii"), path, parameters, headers, keep_alive)


def _headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > _MAX_HEADERS:
        raise BadRequest(431, f"more than {_MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.match(line)
        if match is None:  # a folded line too (RFC 9112 §5.2)
            raise BadRequest(400, "a header is malformed")
        name = match[1].decode("ascii").lower()
        if name in headers and name in ("host", "content-length", "transfer-encoding", "origin"):
            raise BadRequest(400, f"{name} is given twice")
        value = match[2].decode("latin-1").strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _target(target: str) -> tuple[str, dict[str, str], str]:
    """(path, parameters, host) of a request's target in origin form or absolute form."""
    try:
        parts = urlsplit(target if target.startswith("http://") else f"http://here{target}")
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS))
    except ValueError:
        raise BadRequest(400, "the request's target is malformed, or has too many parameters") from None
    absolute = target.startswith("http://")
    if not absolute and not target.startswith("/"):
        raise BadRequest(400, "the request's target is no path")
    return unquote(parts.path) or "/", parameters, parts.netloc if absolute else ""
