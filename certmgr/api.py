"""The authority's HTTP: which request becomes which call, and what is answered (docs/adr/0012-authority.md)."""

from __future__ import annotations

import asyncio
import datetime
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from aiohttp import web
from cryptography import x509

from certmgr import limits, wire
from certmgr.limits import Gate
from certmgr.metrics import Metrics
from certmgr.parts import Authority, Bundle
from certmgr.proofs import Method, ProvenIdentity, Reason, Refused, TokenVerifier
from certmgr.proving import Presented
from certmgr.refusals import Refusals
from certmgr.requests import CheckedRequest, check_csr
from certmgr.store import StoreUnavailable
from httpd.connection import connection_of
from mesh import names
from mesh.errors import UserError

# RFC 7240 §4.3.
_WAIT: Final = re.compile(r"wait\s*=\s*\"?([0-9]{1,5})\"?\Z")
_JSON: Final = "application/json"
# When to come again while the store is away: it is somebody else's to mend, so not at once.
_STORE_RETRY_SECONDS: Final = 10
_UNAVAILABLE: Final = "the authority cannot write down what it does, and so does nothing; its log says why. Come again"
# aiohttp's own limit; ours is kept while reading, and answers in our form.
_NO_LIMIT: Final = 0

_log = logging.getLogger("qbitel.certmgr")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Certified(Protocol):
    """What a peer gets: a part of service.IssuedToPeer."""

    @property
    def certificate(self) -> x509.Certificate:
        """The leaf."""
        ...

    @property
    def certificate_pem(self) -> bytes:
        """The leaf, then the intermediates."""
        ...

    @property
    def kem_certificate_pem(self) -> bytes | None:
        """The certificate of its ML-KEM key, where it asked for one."""
        ...

    @property
    def generation(self) -> str:
        """Who signed."""
        ...


class Service(Authority, Protocol):
    """The authority behind the API: service.AuthorityService."""

    async def issue(
        self,
        proven: ProvenIdentity,
        csr: bytes,
        *,
        instance: str,
        anchors: str,
        kem_public_key: bytes | None,
        shown: str = "",
    ) -> Certified:
        """Certify. Raises Refused, StoreUnavailable, UserError."""
        ...

    async def redeem(self, token: str, check: Callable[[ProvenIdentity], CheckedRequest]) -> ProvenIdentity:
        """Spend a bootstrap token, unless `check` raises. Raises Refused, StoreUnavailable."""
        ...

    async def note_refusal(self, refused: Refused, *, method: Method | None, source: str) -> None:
        """Write into the audit log. Raises StoreUnavailable."""
        ...


class Api:
    """The four requests. `drain()` ends those that wait."""

    def __init__(
        self,
        service: Service,
        tokens: TokenVerifier,
        metrics: Metrics,
        refusals: Refusals,
        now: Callable[[], datetime.datetime],
        *,
        proving: Gate | None = None,
        issuing: Gate | None = None,
        max_polls: int = limits.MAX_POLLS,
        body_seconds: float = limits.BODY_SECONDS,
    ) -> None:
        self._service = service
        self._tokens = tokens
        self._metrics = metrics
        self._refusals = refusals
        self._now = now
        self._proving = proving or Gate(limits.MAX_PROVING, "proofs of identity")
        self._issuing = issuing or Gate(limits.MAX_ISSUING, "requests for certificates")
        self._max_polls = max_polls
        self._body_seconds = body_seconds
        self._polls: set[asyncio.Timeout] = set()
        self._draining = False
        self._finished = asyncio.Event()
        self.under_way = 0
        self._encoded_bundle, self._encoded_etag = b"", ""

    def application(self) -> web.Application:
        """As aiohttp serves it."""
        application = web.Application(client_max_size=_NO_LIMIT, middlewares=[self._answer])
        application.add_routes(
            [
                web.post("/v1/certificates", self._on_certificates),
                web.post("/v1/acknowledgements", self._on_acknowledgements),
                web.get("/v1/bundle", self._on_bundle),
                web.get("/v1/crl", self._on_crl),
            ]
        )
        application.on_response_prepare.append(_hide_versions)
        return application

    def drain(self) -> None:
        """Answer who waits for a change, and let nobody wait from now on."""
        self._draining = True
        _expire(self._polls)
        self._note_finished()

    async def finished(self) -> None:
        """After drain(): return when no request is under way."""
        await self._finished.wait()

    def _note_finished(self) -> None:
        if self._draining and not self.under_way:
            self._finished.set()

    @property
    def polls(self) -> int:
        """How many wait."""
        return len(self._polls)

    # -- certificates -------------------------------------------------------------------------------------------

    async def _on_certificates(self, request: web.Request) -> web.Response:
        method: Method | None = None
        your_time = ""
        try:
            presented = _presented(request)
            method = presented.method
            asked = wire.parse_certificate_request(await self._body(request))
            your_time = asked.time
            wire.check_clock(asked, self._now())
            with self._issuing.pass_through():
                return await self._issue(presented, asked)
        except StoreUnavailable as error:
            refused = _unavailable(error)
        except UserError as error:  # what the operator has to mend, such as an intermediate that ended
            _log.error("no certificate can be issued: %s", error)
            refused = _unavailable(error)
        except Refused as error:
            refused = error
        self._refusals.of_certificate(refused, method, connection_of(request).source)
        return self._refusal(refused, your_time)

    async def _issue(self, presented: Presented, asked: wire.CertificateAsked) -> web.Response:
        began = time.monotonic()
        proven = await presented.prove(
            self._service, self._tokens, self._proving, self._now, lambda proven: check_csr(asked.csr, proven)
        )
        issued = await self._service.issue(
            proven,
            asked.csr,
            instance=_instance(proven.instance, asked.instance),
            anchors=asked.anchors,
            kem_public_key=asked.kem_public_key,
            shown=presented.serial if presented.method is Method.CERTIFICATE else "",
        )
        self._metrics.issued(proven.method, time.monotonic() - began)
        leaf, kem = issued.certificate, issued.kem_certificate_pem
        members = {
            "certificate": issued.certificate_pem.decode("ascii"),
            "kem_certificate": None if kem is None else kem.decode("ascii"),
            "identity": str(proven.spiffe_id),
            "generation": issued.generation,
            "not_before": wire.timestamp(leaf.not_valid_before_utc),
            "not_after": wire.timestamp(leaf.not_valid_after_utc),
            "time": wire.timestamp(self._now()),
        }
        body = wire.with_member(wire.encode(members), "bundle", self._encoded(self._service.bundle()))
        return web.Response(status=201, body=body, content_type=_JSON)

    # -- acknowledgements ---------------------------------------------------------------------------------------

    async def _on_acknowledgements(self, request: web.Request) -> web.Response:
        presented = _presented(request)
        proven = presented.prove_certificate(self._service, self._now())
        acknowledged = wire.parse_acknowledgement(await self._body(request))
        with self._issuing.pass_through():
            await self._service.acknowledge(
                str(proven.spiffe_id), acknowledged.instance, acknowledged.anchors, presented.serial
            )
        return web.Response(status=204)

    # -- what is public -----------------------------------------------------------------------------------------

    async def _on_bundle(self, request: web.Request) -> web.Response:
        bundle = self._service.bundle()
        headers = {}
        if _is_known(request, bundle.etag):
            seconds = _wanted_wait(request)
            if seconds and len(self._polls) >= self._max_polls:
                headers["Retry-After"] = str(limits.POLL_RETRY_SECONDS)
                seconds = 0
            newer = await self._newer(request, bundle.etag, seconds) if seconds and not self._draining else None
            if newer is None:
                return web.Response(status=304, headers={"ETag": f'"{bundle.etag}"', **headers})
            bundle = newer
        body = wire.with_member(self._encoded(bundle), "time", f'"{wire.timestamp(self._now())}"'.encode("ascii"))
        return web.Response(body=body, content_type=_JSON, headers={"ETag": f'"{bundle.etag}"'})

    def _encoded(self, bundle: Bundle) -> bytes:
        """Kept from answer to answer: when it changes, everybody who waits gets it in the same moment."""
        if bundle.etag != self._encoded_etag:
            self._encoded_bundle, self._encoded_etag = wire.encode_bundle(bundle), bundle.etag
        return self._encoded_bundle

    async def _newer(self, request: web.Request, etag: str, seconds: int) -> Bundle | None:
        """A bundle other than `etag`; None when there was none for so long, or nobody waits for it any more."""
        connection = connection_of(request)
        try:
            async with asyncio.timeout(seconds) as deadline:
                self._polls.add(deadline)
                connection.on_lost = lambda: _expire((deadline,))
                try:
                    return await self._service.next_bundle(etag)
                finally:
                    connection.on_lost = None
                    self._polls.discard(deadline)
        except TimeoutError:
            return None

    async def _on_crl(self, _request: web.Request) -> web.Response:
        lists = self._service.bundle().files.get(names.REVOCATION_FILE, b"")
        return web.Response(body=lists, content_type="application/x-pem-file")

    # -- all of them --------------------------------------------------------------------------------------------

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Whatever a handler raises becomes an answer in our form; old connections are closed behind one."""
        self.under_way += 1
        try:
            answer = await self._answer_of(request, handler)
        finally:
            self.under_way -= 1
            self._note_finished()
        if connection_of(request).age > limits.MAX_AGE_SECONDS or self._draining:
            answer.force_close()
        return answer

    async def _answer_of(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        answer: web.StreamResponse
        try:
            answer = await handler(request)
        except Refused as refused:
            answer = self._refused(request, refused)
        except (StoreUnavailable, UserError) as error:
            answer = self._refused(request, _unavailable(error))
        except web.HTTPException as error:  # aiohttp's own: no such path, or not by this method
            answer = self._refused(request, Refused(Reason.BAD_REQUEST, f"the API has no such request: {error.reason}"))
            answer.set_status(error.status)
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
        return answer

    def _refused(self, request: web.Request, refused: Refused) -> web.Response:
        self._refusals.of_request(refused, None, connection_of(request).source)
        return self._refusal(refused)

    def _refusal(self, refused: Refused, your_time: str = "") -> web.Response:
        # What fails in here is for the operator, and in the log: paths and modes are nobody else's business.
        message = _UNAVAILABLE if refused.reason is Reason.AUTHORITY_UNAVAILABLE else str(refused)
        body = wire.refusal(refused.reason.slug, message, self._now(), your_time)
        answer = web.Response(status=refused.reason.status, body=body, content_type=_JSON)
        if refused.retry_after is not None:
            answer.headers["Retry-After"] = str(refused.retry_after)
        if refused.reason.status == 401:
            # RFC 9110 §11.6.1: a 401 names what would be taken.
            answer.headers["WWW-Authenticate"] = "Bearer, Bootstrap"
        if refused.reason in (Reason.TOO_LARGE, Reason.TOO_SLOW):
            # What is left of the body would be taken for the next request.
            answer.force_close()
        return answer

    async def _body(self, request: web.Request) -> bytes:
        """The body, or Refused: TOO_LARGE, TOO_SLOW, BAD_REQUEST, as soon as that is known."""
        length = request.content_length
        if length is not None and length > limits.MAX_BODY:
            raise _too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limits.MAX_BODY:
                        raise _too_large()
        except TimeoutError:
            raise Refused(
                Reason.TOO_SLOW, f"the body did not come within {self._body_seconds:g} s; {len(body)} bytes came"
            ) from None
        except web.RequestPayloadError:
            raise Refused(Reason.BAD_REQUEST, "the body is not what its Transfer-Encoding says") from None
        return bytes(body)


def _instance(known: str, said: str) -> str:
    """What the verifier knows of the pod counts more than what somebody in it says; each worker is one of its own."""
    return said if not known or said.startswith(f"{known}/") else known


def _presented(request: web.Request) -> Presented:
    return Presented(
        request.headers.getall("Authorization", []),
        request.get_extra_info("peer_identity") or "",
        request.get_extra_info("peer_certificate") or b"",
    )


def _too_large() -> Refused:
    return Refused(Reason.TOO_LARGE, f"the body has more than {limits.MAX_BODY} bytes; a CSR has some ten thousand")


def _unavailable(error: Exception) -> Refused:
    return Refused(Reason.AUTHORITY_UNAVAILABLE, str(error), retry_after=_STORE_RETRY_SECONDS)


def _is_known(request: web.Request, etag: str) -> bool:
    """Whether If-None-Match (RFC 9110 §13.1.2) names what we have."""
    return any(one.value in (etag, "*") for one in request.if_none_match or ())


def _wanted_wait(request: web.Request) -> int:
    """Seconds of `Prefer: wait` (RFC 7240 §4.3), as far as we go along; 0 where it is absent."""
    for preference in ",".join(request.headers.getall("Prefer", [])).split(","):
        if found := _WAIT.match(preference.partition(";")[0].strip().lower()):
            return min(int(found[1]), limits.MAX_POLL_SECONDS)
    return 0


def _expire(deadlines: set[asyncio.Timeout] | tuple[asyncio.Timeout, ...]) -> None:
    now = asyncio.get_running_loop().time()
    for deadline in tuple(deadlines):
        if not deadline.expired():
            deadline.reschedule(now)


async def _hide_versions(_request: web.Request, response: web.StreamResponse) -> None:
    """Which Python and which aiohttp this is helps nobody but an attacker; nothing here is to be kept by a cache."""
    response.headers["Server"] = "qbitel"
    response.headers.setdefault("Cache-Control", "no-store")
