"""The client of the authority's API (docs/adr/0012-authority.md): HTTP over our own TLS, four requests.

What comes back is somebody else's: its size, its form and the time that it takes are bounded here, and whatever is
wrong with it ends in one AuthorityFailed.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import h11

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
from proxy.authority_connection import AuthorityConnection, HttpAnswer, Lost
from proxy.config import Endpoint
from proxy.printable import printable

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


class _HungUp(Exception):
    """The connection that was kept is over."""


class AuthorityClient:
    """Speaks to the authority at `endpoint`, with the TLS configuration that `config_for` gives for a credential.

    `config_for` (None: as nobody) may raise UserError. Every method raises AuthorityFailed.
    """

    def __init__(self, endpoint: Endpoint, config_for: Callable[[Credential | None], ClientConfig]) -> None:
        self._endpoint = endpoint
        self._config_for = config_for
        # Kept from poll to poll: a handshake each half a minute would be the authority's main work. It is another for
        # each credential, because what is acknowledged is so for the one that was shown.
        self._kept: AuthorityConnection | None = None
        self._kept_as: Credential | None = None
        self._in_use = asyncio.Lock()

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
        # A connection for one request: they are rare, and each shows the certificate of its moment.
        connection = self._connection(credential)
        async with contextlib.aclosing(connection):
            answer = await self._ask(connection, "POST", "/v1/certificates", headers, body)
        content = self._expected(answer, (201,), showed_certificate=credential is not None).content
        return read_issued(content)

    async def acknowledge(self, anchors: str, *, instance: str, credential: Credential) -> None:
        """Say that from now on our connections trust the roots of this name, over the connection that is kept."""
        body = {"anchors": anchors, "instance": instance}
        answer = await self._ask_kept(credential, "POST", "/v1/acknowledgements", {}, body)
        self._expected(answer, (204,), showed_certificate=True)

    async def next_bundle(self, etag: str, credential: Credential | None) -> News:
        """What is published, as soon as it is another than `etag`'s, or after BUNDLE_WAIT.

        Nobody needs a `credential` for it, but an authority in need drops strangers first.
        """
        headers = {"If-None-Match": f'"{etag}"', "Prefer": f"wait={BUNDLE_WAIT}"}
        answer = await self._ask_kept(credential, "GET", "/v1/bundle", headers, wait=BUNDLE_WAIT)
        self._expected(answer, (200, 304), showed_certificate=credential is not None)
        published = None if answer.status == 304 else read_published(answer.content)
        return News(published, min(answer.retry_after or 0.0, _LONGEST_PAUSE))

    async def close(self) -> None:
        """Close what is kept open: what comes next opens another, to another replica perhaps. May be called again."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            await kept.aclose()

    async def _ask_kept(
        self,
        credential: Credential | None,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Mapping[str, str] | None = None,
        *,
        wait: float = 0.0,
    ) -> HttpAnswer:
        async with self._in_use:
            if self._kept is not None and (self._kept_as is not credential or not self._kept.is_reusable):
                await self.close()
            if self._kept is None:
                self._kept, self._kept_as = self._connection(credential), credential
            elif self._kept.has_answered:
                # The server may hang up while our request is on its way; whether it read it does not matter to these.
                with contextlib.suppress(_HungUp):
                    return await self._ask(self._kept, method, path, headers, body, wait=wait, may_have_hung_up=True)
                await self.close()
                self._kept = self._connection(credential)
            return await self._ask(self._kept, method, path, headers, body, wait=wait)

    def _connection(self, credential: Credential | None) -> AuthorityConnection:
        return AuthorityConnection(self._endpoint, lambda: self._config_for(credential))

    async def _ask(
        self,
        connection: AuthorityConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Mapping[str, str] | None = None,
        *,
        wait: float = 0.0,
        may_have_hung_up: bool = False,
    ) -> HttpAnswer:
        data = None if body is None else json.dumps(body).encode()
        try:
            async with asyncio.timeout(wait + _REQUEST_TIMEOUT):
                return await connection.exchange(method, path, headers, data)
        except Lost as lost:
            if may_have_hung_up:
                raise _HungUp from lost
            raise self._failed(list(_causes(lost))) from lost
        except (h11.RemoteProtocolError, OSError, TimeoutError, UserError, Unusable, ValueError) as error:
            raise self._failed(list(_causes(error))) from error

    def _expected(self, answer: HttpAnswer, statuses: tuple[int, ...], *, showed_certificate: bool) -> HttpAnswer:
        if answer.status in statuses:
            return answer
        raise AuthorityFailed(
            Failure.UNREACHABLE if answer.status in _COME_AGAIN else Failure.REFUSED,
            f"the authority {self._endpoint} answers {read_refusal(answer.status, answer.content)}",
            retry_after=answer.retry_after,
            of_certificate=showed_certificate and answer.status in (401, 403),
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
                case Lost() if cause.__cause__ is None:
                    return AuthorityFailed(Failure.UNREACHABLE, f"{who} closed the connection without an answer")
                case h11.RemoteProtocolError() | ValueError():
                    return AuthorityFailed(Failure.INVALID, f"{who} answers what is no HTTP of its API")
        if isinstance(causes[0], TimeoutError):
            return AuthorityFailed(Failure.UNREACHABLE, f"{who} does not answer in time")
        return AuthorityFailed(Failure.UNREACHABLE, f"{who} cannot be reached: {_reason(causes)}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what caused it, outermost first; aiotls wraps the engine's errors."""
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
