"""What the kubelet would have asked the application, as the injector says it in the environment. Pure.

The form is written down in docs/adr/0021-injection.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh import names
from mesh.errors import UserError

# A container's name is a label of RFC 1123.
_PATH: Final = re.compile(
    r"/(?:app-health/[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?/(?:livez|readyz|startupz)"
    r"|app-lifecycle/[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?/(?:poststart|prestop))\Z"
)
HOOKS: Final = "/app-lifecycle/"
# RFC 9110 §5.6.2 (token) and §5.5 (no control characters but the tab).
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}\Z")
_HEADER_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*\Z")
# What frames a request is not its caller's to say; the kubelet's own client passes it over, too.
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "trailer"})
# Characters of a path, a header's value or a service's name: servers take some 8 KB in a line.
_MAX_TEXT: Final = 8000
_MAX_TIMEOUT: Final = 2**31 - 1  # Kubernetes' int32, in seconds
_DEFAULT_TIMEOUT: Final = 1  # where Kubernetes finds a 0, in seconds


@dataclass(frozen=True, slots=True)
class HttpGet:
    """GET `path` (with its query) by "http" or "https". Headers may hold secrets: they are shown to nobody."""

    scheme: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class TcpConnect:
    """A connection that stands is all there is to ask."""


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """grpc.health.v1.Health/Check of `service`; "" is the server as a whole."""

    service: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """One probe or hook: what is asked, at which port of the pod's own address, within how many seconds."""

    what: HttpGet | TcpConnect | GrpcCheck
    port: int
    timeout: int


def read_questions(text: str) -> dict[str, Question]:
    """The questions of QBITEL_APP_PROBES by their path on the health port. Raises UserError, without its values."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong("is no JSON") from None
    if not isinstance(found, dict):
        raise _wrong("is no JSON object")
    return {_path(path): _question(path, value) for path, value in found.items()}


def _path(path: str) -> str:
    if not _PATH.match(path):
        raise _wrong(f"{path[:100]!r} is none of /app-health/CONTAINER/… and /app-lifecycle/CONTAINER/…")
    return path


def _question(path: str, value: object) -> Question:
    fields = _mapping(path, value, "its value")
    handlers = _mapping(path, fields.get("handler"), "its handler")
    if len(handlers) != 1:
        raise _wrong(f"{path}: its handler is not one of httpGet, tcpSocket and grpc")
    ((kind, handler),) = handlers.items()
    port = _number(path, fields.get("port"), "port", 1, 65535)
    timeout = _number(path, fields.get("timeoutSeconds"), "timeoutSeconds", 0, _MAX_TIMEOUT) or _DEFAULT_TIMEOUT
    return Question(_what(path, kind, _mapping(path, handler, kind)), port, timeout)


def _what(path: str, kind: str, handler: Mapping[str, Any]) -> HttpGet | TcpConnect | GrpcCheck:
    # The injector leaves such a probe as it is. Whoever writes one here would have us dial where he likes.
    if handler.get("host"):
        raise _wrong(f"{path}: it names a host; only this pod itself is asked")
    match kind:
        case "httpGet":
            scheme = _text(path, handler, "scheme") or "HTTP"
            if scheme not in ("HTTP", "HTTPS"):
                raise _wrong(f"{path}: the scheme is neither HTTP nor HTTPS")
            target = _text(path, handler, "path")
            return HttpGet(scheme.lower(), target if target.startswith("/") else f"/{target}", _headers(path, handler))
        case "tcpSocket":
            return TcpConnect()
        case "grpc":
            return GrpcCheck(_text(path, handler, "service"))
    raise _wrong(f"{path}: {kind[:40]!r} is none of httpGet, tcpSocket and grpc")


def _headers(path: str, handler: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    listed = handler.get("httpHeaders")
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise _wrong(f"{path}: httpHeaders is no list")
    headers = []
    for one in listed:
        header = _mapping(path, one, "a header")
        name, value = _text(path, header, "name"), _text(path, header, "value")
        if not _HEADER_NAME.match(name) or not _HEADER_VALUE.match(value):
            raise _wrong(f"{path}: a header's name or value is not one of HTTP")
        if name.lower() not in _FRAMING:
            headers.append((name, value))
    return tuple(headers)


def _mapping(path: str, value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(f"{path}: {what[:40]} is no JSON object")
    return value


def _text(path: str, fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise _wrong(f"{path}: {name} is no text of at most {_MAX_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair of UTF-16 (RFC 8259 §8.2)
        raise _wrong(f"{path}: {name} has half a character") from None
    return value


def _number(path: str, value: object, name: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:  # a bool is an int to Python
        raise _wrong(f"{path}: {name} is no whole number from {least} to {most}")
    return value


def _wrong(why: str) -> UserError:
    return UserError(
        f"{names.APP_PROBES_VARIABLE} of the environment: {why}; the injector writes it, leave it as it is"
    )
