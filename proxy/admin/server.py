"""The admin port: one answer for all workers, for whoever is on this machine, and for no page in anybody's browser.

Loopback alone does not keep web pages out: a page may name a host that resolves to 127.0.0.1 (DNS rebinding), or send a
form to it (CSRF). So a request must name a local host, must not come of another site, and POSTs what changes anything.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from proxy.admin import tables
from proxy.admin.http_request import Request
from proxy.admin.http_server import JSON, Answer, HttpServer, text
from proxy.admin.inspector import Refusal, page_of

# Asks every worker; one answer each, None where a worker gave none in time.
Ask = Callable[[str, Mapping[str, str]], Awaitable[Sequence[Any]]]

_READS: Final = {
    "/config_dump": "what this sidecar was told, and what it has loaded",
    "/connections": "live connections; ?offset= &limit= &format=text",
    "/tunnels": "live tunnels; the same",
    "/certs": "certificates, roots and revocation lists; never keys",
    "/memory": "memory and descriptors",
    "/logging": "the level of the log",
    "/ready": "whether traffic is welcome",
    "/state": "each worker in a line",
    "/stats": "where metrics are",
}
_COMMANDS: Final = {
    "/logging": "?level=debug|info|warning|error",
    "/drain": "not ready any more, and no new streams in tunnels; everything else goes on until SIGTERM",
    "/quitquitquit": "end now: the application has finished",
}
# RFC 9110 §7.2: a name or an address, an IPv6 address in brackets, and perhaps a port.
_HOST: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::[0-9]{1,5})?\Z")
_TABLES: Final = {"/connections": tables.CONNECTIONS, "/tunnels": tables.TUNNELS}


@dataclass(frozen=True, slots=True)
class Overview:
    """What the process that answers knows by itself."""

    config: Mapping[str, Any]
    version: str
    metrics_at: Sequence[str]
    why_not_ready: Callable[[], str]


class AdminServer:
    """Serves on sockets that are bound already, to loopback addresses."""

    def __init__(
        self,
        ask: Ask,
        overview: Overview,
        at_failure_of: Callable[[asyncio.Task[None]], None],
    ) -> None:
        """`at_failure_of` gets each task that must not end, and looks after it."""
        self._ask = ask
        self._overview = overview
        self._server = HttpServer(self._on_request, at_failure_of)
        self.start = self._server.start
        self.close = self._server.close

    async def _on_request(self, request: Request) -> Answer:
        if (why := why_foreign(request)) is not None:
            return text(why, 403)
        try:
            return await self._route(request)
        except Refusal as refusal:
            return text(str(refusal), 400)

    async def _route(self, request: Request) -> Answer:
        path = request.path
        if request.method == "POST":
            if path not in _COMMANDS:
                return _wrong_method(path, "GET") if path in _READS or path == "/" else _unknown()
            return _json(_merged(await self._ask(path[1:], request.parameters)))
        if request.method not in ("GET", "HEAD"):
            return _wrong_method(path, "GET, HEAD, POST")
        if path == "/":
            return _help()
        if path not in _READS:
            return _wrong_method(path, "POST") if path in _COMMANDS else _unknown()
        if path == "/logging" and "level" in request.parameters:
            return _wrong_method(path, "POST")
        return await self._read(path, request.parameters)

    async def _read(self, path: str, parameters: Mapping[str, str]) -> Answer:
        as_text = parameters.get("format", "json") == "text"
        match path:
            case "/ready":
                obstacle = self._overview.why_not_ready()
                return text(obstacle, 503) if obstacle else text("ready")
            case "/stats":
                lines = [f"http://{where}/metrics" for where in self._overview.metrics_at]
                return text("\n".join(lines) or "this sidecar serves no metrics (--metrics)")
            case "/connections" | "/tunnels":
                offset, limit = page_of(parameters)
                found = _rows(await self._ask(path[1:], parameters), offset, limit)
                return text(tables.table(_TABLES[path], found["rows"])) if as_text else _json(found)
        found = _merged(await self._ask(path[1:], parameters))
        if path == "/config_dump":
            found = {"version": self._overview.version, "config": dict(self._overview.config), **found}
        return text(tables.outline(found)) if as_text else _json(found)


def why_foreign(request: Request) -> str | None:
    """Why `request` may come of a web page that somebody in front of this machine has opened; None: it does not."""
    if request.host and not _is_local(request.host):
        return f"this port answers to localhost, and not to {request.host[:100]!r}"
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{request.host}":
        return "this port answers no pages of other sites"
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "this port answers no pages of other sites"
    return None


def _is_local(host: str) -> bool:
    match = _HOST.match(host)
    if match is None:
        return False
    name = match["v6"] or match["name"]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _merged(answers: Sequence[Any]) -> dict[str, Any]:
    given = _given(answers)
    return {"workers": given, **_unanswered(answers, given)}


def _rows(answers: Sequence[Any], offset: int, limit: int) -> dict[str, Any]:
    given = _given(answers)
    rows = [row for answer in given for row in answer["rows"]]
    total = sum(answer["total"] for answer in given)
    return {"total": total, "offset": offset, **_unanswered(answers, given), "rows": rows[offset : offset + limit]}


def _given(answers: Sequence[Any]) -> list[Any]:
    given = [answer for answer in answers if answer is not None]
    for answer in given:
        if "refused" in answer:
            raise Refusal(answer["refused"])
    return given


def _unanswered(answers: Sequence[Any], given: Sequence[Any]) -> dict[str, int]:
    missing = len(answers) - len(given)
    return {"workers_without_an_answer": missing} if missing else {}


def _json(value: Any) -> Answer:
    return Answer(json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n", content_type=JSON)


def _unknown() -> Answer:
    return Answer(_help().body, 404)


def _wrong_method(path: str, allowed: str) -> Answer:
    return Answer(f"{path} wants {allowed}\n".encode(), 405, headers={"Allow": allowed})


def _help() -> Answer:
    lines = [f"{method:<5} {path:<15} {what}" for method, pages in (("GET", _READS), ("POST", _COMMANDS))
             for path, what in pages.items()]  # fmt: skip
    return text("\n".join(lines))
