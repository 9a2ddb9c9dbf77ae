"""Reviews over HTTP: bodies in, answers out. What an answer is, review.py decides."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from httpd.connection import connection_of
from injector import review
from injector.connections import JSON
from injector.inject import Injector
from injector.metrics import Metrics
from injector.review import Answer, Verdict
from injector.webhook_configuration import LABELLED_NAMESPACE_PATH, LABELLED_POD_PATH

# The API server takes 3 MiB of any request; a review may have escapes for what was one byte there.
LARGEST_REVIEW: Final = 8 << 20
# Beyond this a body is rare: pods have some 5 kB. Of those few are taken at a time, and they are worked at beside the
# others, which a pod with a million of anything would keep waiting for seconds.
LARGE_REVIEW: Final = 256 << 10
MAX_LARGE: Final = 2
# A connection keeps what it sent and got last; those with more than this are not kept, so that a thousand of them need
# no more than half a gigabyte.
LARGEST_KEPT: Final = 64 << 10
# Seconds from a request's head to the last byte of its body; the API server gives up after five.
BODY_SECONDS: Final = 5.0
# Whoever sends us nonsense all the time fills no disk with it.
_SECONDS_BETWEEN_COMPLAINTS: Final = 1.0

_log = logging.getLogger("qbitel.injector")


class Webhook:
    """What answers on the webhook's port."""

    def __init__(self, injector: Injector, metrics: Metrics) -> None:
        self._injector = injector
        self._metrics = metrics
        self._large = asyncio.Semaphore(MAX_LARGE)
        self._complained = -_SECONDS_BETWEEN_COMPLAINTS
        self._unsaid = 0
        # Whether requests are welcome; if not, those that still come are answered, and their connections closed.
        self.is_draining = False

    def application(self) -> web.Application:
        """For a server of aiohttp."""
        app = web.Application(middlewares=[self._errors_as_status])
        # Which labels the API server has found says which path it calls.
        app.router.add_post(LABELLED_NAMESPACE_PATH, self._reviewer("enabled"))
        app.router.add_post(LABELLED_POD_PATH, self._reviewer(None))
        app.router.add_get("/healthz/live", self._on_live)
        app.router.add_get("/healthz/ready", self._on_ready)
        return app

    def note(self, answer: Answer) -> None:
        """Count and log what was answered."""
        self._metrics.answered(answer.verdict)
        if answer.verdict is not Verdict.MALFORMED:
            _log.info("%s %s: %s", answer.verdict, answer.pod or "?", answer.reason)
        elif time.monotonic() - self._complained >= _SECONDS_BETWEEN_COMPLAINTS:
            _log.info("%s: %s (and %d more since the last)", answer.verdict, answer.reason, self._unsaid)
            self._complained, self._unsaid = time.monotonic(), 0
        else:
            self._unsaid += 1

    def _reviewer(self, label: str | None) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            if request.content_type != JSON:
                return self._respond(review.refused_request(415, f"the body must be {JSON}"))
            async with contextlib.AsyncExitStack() as turn:
                try:
                    async with asyncio.timeout(BODY_SECONDS):
                        body = await self._read(request, turn)
                except TimeoutError:
                    return self._respond(review.refused_request(408, f"the body took more than {BODY_SECONDS:g} s"))
                is_large = len(body) > LARGE_REVIEW
                answer = await asyncio.to_thread(self._answer, body, label) if is_large else self._answer(body, label)
            response = self._respond(answer)
            if len(body) > LARGEST_KEPT:
                response.force_close()
            return response

        return handle

    async def _read(self, request: web.Request, turn: contextlib.AsyncExitStack) -> bytes:
        """The body; a large one waits for its turn, and the connection with it."""
        declared = request.content_length or 0
        body = bytearray()
        async for chunk in request.content.iter_any():
            if len(body) <= LARGE_REVIEW < len(body) + len(chunk):
                await turn.enter_async_context(self._large)
            body += chunk
            if max(declared, len(body)) > LARGEST_REVIEW:
                raise web.HTTPRequestEntityTooLarge(LARGEST_REVIEW, declared)
        return bytes(body)

    def _answer(self, body: bytes, label: str | None) -> Answer:
        began = time.perf_counter()
        answer = review.answer(body, self._injector, label)
        self._metrics.took(time.perf_counter() - began)
        return answer

    async def _on_live(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _on_ready(self, _request: web.Request) -> web.Response:
        return web.Response(status=503, text="draining\n") if self.is_draining else web.Response(text="ok\n")

    @web.middleware
    async def _errors_as_status(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Whatever goes wrong is told in Kubernetes' own words; the API server then refuses the pod (failurePolicy)."""
        connection_of(request).has_begun()
        try:
            response = await handler(request)
        except web.HTTPRequestEntityTooLarge:
            response = self._respond(review.refused_request(413, f"a review has at most {LARGEST_REVIEW} bytes"))
        except web.HTTPException as error:
            what = f"{request.method} {request.path[:80]}: {error.reason}"
            response = self._respond(review.refused_request(error.status, what))
        except Exception:  # noqa: BLE001  # logged with its trace; whoever made the pod must get an answer
            _log.exception("a bug kept a review from being answered; the pod is refused, please report it")
            response = self._respond(review.refused_request(500, "the injector failed; its log says where"))
        if self.is_draining:
            response.force_close()
        return response

    def _respond(self, answer: Answer) -> web.Response:
        self.note(answer)
        response = web.Response(status=answer.status, body=answer.body, content_type=JSON)
        if answer.status != 200:
            # Whoever sends what is no review may still be sending; the API server never does.
            response.force_close()
        return response
