"""One connection to the authority: HTTP/1.1 (RFC 9112) over our own TLS, one request at a time.

h11 knows the protocol and holds no socket; so a sidecar needs no HTTP client with a TLS, pool and cookies of its own,
which cost it ten of its fifty megabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import h11

import aiotls
from mesh.errors import UserError
from pqtls import ClientConfig
from proxy.answers import Unusable
from proxy.config import Endpoint

# Bytes of an answer. A revocation list of 100,000 certificates has some 4 MB, and a third more as JSON.
MAX_ANSWER: Final = 16 << 20
# Bytes of its status line and headers; the authority sends some hundred.
_MAX_HEAD: Final = 16 << 10
_READ_SIZE: Final = 64 << 10
# Seconds for an end in order, close_notify both ways; what is not over then is reset.
_CLOSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What the server said: its status, Retry-After in seconds where it has one, and the body."""

    status: int
    retry_after: float | None
    content: bytes


class Lost(Exception):
    """The connection ended before a byte of the answer came; its cause is why."""


class AuthorityConnection:
    """Connects with the first request, which may find `config_source` raise UserError, and stays open."""

    def __init__(self, endpoint: Endpoint, config_source: Callable[[], ClientConfig]) -> None:
        self._endpoint = endpoint
        self._config_source = config_source
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._answered = False

    @property
    def is_reusable(self) -> bool:
        """Whether a request may go out: nothing has, or the last answer came whole and left the connection open."""
        if self._reader is None or self._writer is None:
            return True
        gone = self._reader.at_eof() or self._reader.exception() is not None or self._writer.transport.is_closing()
        return self._http.our_state is h11.IDLE and not gone

    @property
    def has_answered(self) -> bool:
        """Whether a request got its answer here: one that is lost now may have met a server that hung up meanwhile."""
        return self._answered

    async def exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> HttpAnswer:
        """Send a request and read the answer, whatever its status.

        Raises Lost, h11.RemoteProtocolError (what came is no HTTP), Unusable (it is too much), UserError, OSError and
        aiotls' errors. The connection is closed then.
        """
        if self._writer is None:
            self._reader, self._writer = await aiotls.open_connection(
                self._endpoint.host, self._endpoint.port, self._config_source()
            )
        try:
            await self._send(self._writer, method, path, headers, body)
            answer = await self._answer()
        except BaseException:  # cancelled, for one: whatever still comes is no answer to the next request
            self._writer.transport.abort()
            raise
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        self._answered = True
        return answer

    async def aclose(self) -> None:
        """Close it, in order where the other side answers to that; may be called again."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.close()
        try:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _send(
        self, writer: asyncio.StreamWriter, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> None:
        fields = {"Host": str(self._endpoint), "Accept": "application/json", "Accept-Encoding": "identity", **headers}
        if body is not None:
            fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        try:
            request = h11.Request(method=method, target=path, headers=list(fields.items()))
        except h11.LocalProtocolError:  # its message has the header's value, which may be a token
            raise UserError("what should be sent is no header of HTTP; does the token's file hold a token?") from None
        data = bytearray(self._http.send(request) or b"")
        if body is not None:
            data += self._http.send(h11.Data(data=body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        writer.write(bytes(data))
        # Why a write fails is said by what came before: an alert, which reading raises.
        with contextlib.suppress(OSError):
            await writer.drain()

    async def _answer(self) -> HttpAnswer:
        head: h11.Response | None = None
        content = bytearray()
        has_begun = False
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._read(has_begun))
                has_begun = True
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                content += event.data
                if len(content) > MAX_ANSWER:
                    raise Unusable(f"its answer has more than {MAX_ANSWER >> 20} MiB")
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return HttpAnswer(head.status_code, _seconds(dict(head.headers).get(b"retry-after")), bytes(content))

    async def _read(self, has_begun: bool) -> bytes:
        if self._reader is None:
            raise Lost
        try:
            data = await self._reader.read(_READ_SIZE)
        except OSError as error:
            if has_begun:
                raise
            raise Lost from error
        if not data and not has_begun:
            raise Lost
        return data


def _seconds(header: bytes | None) -> float | None:
    """Retry-After in seconds (RFC 9110 §10.2.3); its other form, a date, is not what our authority sends."""
    return float(header) if header is not None and header.isdigit() else None
