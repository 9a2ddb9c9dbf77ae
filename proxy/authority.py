"""The client of the authority's API (docs/adr/0012-authority.md): HTTP over our own TLS, four requests.

What comes back is somebody else's: its size, its form and the time that it takes are bounded here, and whatever is
wrong with it ends in one AuthorityFailed.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

import aiotls
from mesh.errors import UserError
from pqtls import Alert, AlertReceived, ClientConfig, Credential
from proxy.answers import (
    MAX_MESSAGE,
    AuthorityFailed,
    Failure,
    Issued,
    News,
    Unusable,
    read_issued,
    read_published,
    read_refusal,
)
from proxy.config import Endpoint
from proxy.printable import printable

# Bytes of an answer. A revocation list of 100,000 certificates has some 4 MB, and a third more as JSON.
MAX_ANSWER: Final = 16 << 20
# Seconds that a request may take in all. Signing takes milliseconds, a write to Kubernetes up to seconds.
_REQUEST_TIMEOUT: Final = 30.0
# Seconds that the authority may hold back its answer until there is news (RFC 7240 §4.3): short enough for what stands
# between and drops silent connections, long enough for 10,000 sidecars to make some 300 requests a second.
BUNDLE_WAIT: Final = 30
# Seconds. News may not be kept from us for longer than this, however busy the authority is.
_LONGEST_PAUSE: Final = 60.0
# What the authority's TLS says about the certificate that we showed (RFC 8446 §6.2).
_OF_OUR_CERTIFICATE: Final = frozenset(
    {
        Alert.BAD_CERTIFICATE, Alert.UNSUPPORTED_CERTIFICATE, Alert.CERTIFICATE_REVOKED, Alert.CERTIFICATE_EXPIRED,
        Alert.CERTIFICATE_UNKNOWN, Alert.UNKNOWN_CA, Alert.ACCESS_DENIED,
    }
)  # fmt: skip
# 429 and 5xx ask to come again; other refusals are of this request.
_COME_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})


class AuthorityClient:
    """Speaks to the authority at `endpoint`, with the TLS configuration that `config_for` gives for a credential.

    `config_for` (None: as nobody) may raise UserError. Every method raises AuthorityFailed.
    """

    def __init__(self, endpoint: Endpoint, config_for: Callable[[Credential | None], ClientConfig]) -> None:
        self._endpoint = endpoint
        self._config_for = config_for
        self._kept: aiohttp.ClientSession | None = None
        self._kept_as: Credential | None = None

    async def request_certificate(
        self,
        csr: bytes,
        *,
        instance: str,
        anchors: str,
        now: datetime.datetime,
        credential: Credential | None = None,
        authorization: str = "",
    ) -> Issued:
        """Ask for a certificate for the key in `csr` (PEM), proven by a certificate of ours or by a header's value.

        `anchors`: what we acknowledge to trust already, or "".
        """
        body = {"csr": csr.decode("ascii"), "instance": instance, "time": now.isoformat()}
        if anchors:
            body["anchors"] = anchors
        headers = {"Authorization": authorization} if authorization else {}
        async with self._session(credential) as session:
            _, content, _ = await self._exchange(
                session, "POST", "/v1/certificates", expected=(201,), headers=headers, body=body,
                showed_certificate=credential is not None,
            )  # fmt: skip
        return read_issued(content)

    async def acknowledge(self, anchors: str, *, instance: str, credential: Credential) -> None:
        """Say that from now on our connections trust the roots of this name, over the connection that is kept."""
        session = await self._kept_for(credential)
        await self._exchange(
            session, "POST", "/v1/acknowledgements", expected=(204,), showed_certificate=True,
            body={"anchors": anchors, "instance": instance},
        )  # fmt: skip

    async def next_bundle(self, etag: str, credential: Credential | None) -> News:
        """What is published, as soon as it is another than `etag`'s, or after BUNDLE_WAIT.

        Nobody needs a `credential` for it, but an authority in need drops strangers first.
        """
        session = await self._kept_for(credential)
        headers = {"If-None-Match": f'"{etag}"', "Prefer": f"wait={BUNDLE_WAIT}"}
        status, content, pause = await self._exchange(
            session,
            "GET",
            "/v1/bundle",
            expected=(200, 304),
            headers=headers,
            wait=BUNDLE_WAIT,
            showed_certificate=credential is not None,
        )
        return News(None if status == 304 else read_published(content), pause)

    async def close(self) -> None:
        """Close what is kept open: what comes next opens another, to another replica perhaps. May be called again."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            await _close(kept)

    async def _kept_for(self, credential: Credential | None) -> aiohttp.ClientSession:
        """The connection that is kept from poll to poll: a handshake each half a minute would be the authority's main
        work. It is another for each credential, because what is acknowledged is so for the one that was shown.
        """
        if self._kept is not None and self._kept_as is not credential:
            await self.close()
        if self._kept is None:
            self._kept, self._kept_as = self._new_session(credential), credential
        return self._kept

    @contextlib.asynccontextmanager
    async def _session(self, credential: Credential | None) -> AsyncIterator[aiohttp.ClientSession]:
        """A connection for one request: they are rare, and each shows the certificate of its moment."""
        session = self._new_session(credential)
        try:
            yield session
        finally:
            await _close(session)

    def _new_session(self, credential: Credential | None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # The scheme only keeps aiohttp from bringing its own TLS; ours is the connector's.
            f"http://{self._endpoint}",
            connector=_MeshConnector(self._endpoint, lambda: self._config_for(credential)),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a small answer must not become a large one behind the count of bytes
            headers={"Accept-Encoding": "identity", "Accept": "application/json"},
        )

    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        *,
        expected: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, str] | None = None,
        wait: float = 0.0,
        showed_certificate: bool = False,
    ) -> tuple[int, bytes, float]:
        timeout = aiohttp.ClientTimeout(total=wait + _REQUEST_TIMEOUT)
        try:
            async with session.request(
                method, path, headers=headers, json=body, timeout=timeout, allow_redirects=False
            ) as answer:
                content = await _read(answer)
                status, retry_after = answer.status, _seconds(answer.headers.get("Retry-After"))
        except (aiohttp.ClientError, OSError, TimeoutError, UserError, ValueError) as error:
            lost = session.connector.lost if isinstance(session.connector, _MeshConnector) else None
            raise self._failed([*_causes(error), *_causes(lost)]) from error
        if status in expected:
            return status, content, min(retry_after or 0.0, _LONGEST_PAUSE)
        raise AuthorityFailed(
            Failure.UNREACHABLE if status in _COME_AGAIN else Failure.REFUSED,
            f"the authority {self._endpoint} answers {read_refusal(status, content)}",
            retry_after=retry_after,
            of_certificate=showed_certificate and status in (401, 403),
        )

    def _failed(self, causes: Sequence[BaseException]) -> AuthorityFailed:
        """What failed, outermost error first, as a sentence and a kind."""
        who = f"the authority {self._endpoint}"
        for cause in causes:
            match cause:
                case AlertReceived():
                    return AuthorityFailed(
                        Failure.REFUSED,
                        f"{who} refuses the connection: {_shown(cause)}",
                        of_certificate=cause.alert in _OF_OUR_CERTIFICATE,
                    )
                case aiotls.StreamTruncated():
                    return AuthorityFailed(Failure.UNREACHABLE, f"{who} broke off the connection")
                case aiotls.PeerFailed():
                    return AuthorityFailed(Failure.INVALID, f"{who} is not the one that we know: {_shown(cause)}")
                case UserError() | Unusable():
                    return AuthorityFailed(Failure.INVALID, f"{who}: {_shown(cause)}")
                case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError() | ValueError():
                    return AuthorityFailed(Failure.INVALID, f"{who} answers what is no HTTP of its API")
        if isinstance(causes[0], TimeoutError):
            return AuthorityFailed(Failure.UNREACHABLE, f"{who} does not answer in time")
        return AuthorityFailed(Failure.UNREACHABLE, f"{who} cannot be reached: {_reason(causes)}")


class _MeshConnector(aiohttp.BaseConnector):
    """Where the connections come from: ours, each with the configuration of its moment.

    `lost` is why the last one ended: a refusal of our certificate may come before aiohttp has begun to look.
    """

    def __init__(self, endpoint: Endpoint, config_source: Callable[[], ClientConfig]) -> None:
        # Longer than a poll, so that the next one finds the connection; one at a time is all that is used.
        super().__init__(limit=1, keepalive_timeout=2.0 * BUNDLE_WAIT)
        self._endpoint = endpoint
        self._config_source = config_source
        self._living: dict[ResponseHandler, aiotls.TlsTransport] = {}
        self._none_left = asyncio.Event()
        self.lost: BaseException | None = None

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: Any, timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        self.lost = None
        transport, protocol = await aiotls.create_connection(
            lambda: _Handler(self._loop, self._on_lost), self._endpoint.host, self._endpoint.port, self._config_source()
        )
        self._living[protocol] = transport
        self._none_left.clear()
        return protocol

    def _on_lost(self, protocol: ResponseHandler, error: BaseException | None) -> None:
        self.lost = error
        self._living.pop(protocol, None)
        if not self._living:
            self._none_left.set()

    async def hang_up(self) -> None:
        """End what aiohttp gave up and did not wait for: a connection that failed gets no time to end in order."""
        for transport in tuple(self._living.values()):
            transport.abort()
        if self._living:
            await self._none_left.wait()


class _Handler(ResponseHandler):
    """aiohttp's own, which also says when and why it lost its connection."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_lost: Callable[[ResponseHandler, BaseException | None], None]
    ) -> None:
        super().__init__(loop)
        self._on_lost = on_lost

    def connection_lost(self, exc: BaseException | None) -> None:
        """The transport's last call."""
        self._on_lost(self, exc)
        super().connection_lost(exc)


async def _close(session: aiohttp.ClientSession) -> None:
    connector = session.connector
    await session.close()
    if isinstance(connector, _MeshConnector):
        await connector.hang_up()


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for piece in answer.content.iter_any():
        content += piece
        if len(content) > MAX_ANSWER:
            answer.close()
            raise Unusable(f"its answer has more than {MAX_ANSWER >> 20} MiB")
    return bytes(content)


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds (RFC 9110 §10.2.3); its other form, a date, is not what our authority sends."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what caused it, outermost first; aiotls wraps the engine's errors, and aiohttp wraps those."""
    while error is not None:
        if isinstance(error, aiotls.PeerFailed) and isinstance(error.peer_error, AlertReceived):
            yield error.peer_error
        yield error
        error = error.__cause__


def _reason(causes: Sequence[BaseException]) -> str:
    """What the kernel or the resolver says, or else whoever failed first."""
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno:
            # Those of the resolver are negative, and its words are the better ones; asyncio's about errno are not.
            return os.strerror(cause.errno) if cause.errno > 0 else _shown(cause)
    return _shown(causes[-1])


def _shown(error: BaseException) -> str:
    return printable(str(error) or type(error).__name__, MAX_MESSAGE)
