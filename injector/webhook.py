"""The webhook as HTTPS: reviews in, answers out, until it is asked to end. What it decides is review.py's."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from injector import review
from injector.inject import Injector
from injector.review import Answer
from injector.webhook_configuration import LABELLED_NAMESPACE_PATH, LABELLED_POD_PATH
from mesh.errors import UserError

# The API server takes 3 MiB of any request, and a review may hold an object twice, with escapes.
LARGEST_REVIEW: Final = 8 << 20
BACKLOG: Final = 1024
# Certificates change every few weeks, and are looked at more often than anybody waits for that.
RELOAD_SECONDS: Final = 5.0
# Reviews under way at the end; the API server gives up after five seconds (webhook_configuration).
_DRAIN_SECONDS: Final = 5.0
# The best that Python's ssl offers for the API server's client, which is Go's: TLS 1.3, whose groups OpenSSL chooses
# (X25519MLKEM768 first since OpenSSL 3.5, where both sides have it).
_OLDEST_TLS: Final = ssl.TLSVersion.TLSv1_3
_JSON: Final = "application/json"

_log = logging.getLogger("qbitel.injector")


@dataclass(frozen=True, slots=True)
class ServingFiles:
    """The webhook's certificate with its chain, and its key: PEM."""

    certificate: Path
    key: Path

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """What changes when one of the files does (mounted Secrets are links that are swapped)."""
        stats = [path.stat() for path in (self.certificate, self.key)]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in stats)


class ServingCertificate:
    """A TLS context whose certificate follows its files; the last good one stays."""

    def __init__(self, files: ServingFiles) -> None:
        """Raise UserError where there is no usable certificate now."""
        self._files = files
        self._stamp = _stamp_of(files)
        self.context = _context(files)

    def refresh(self) -> None:
        """Look at the files, and take what they hold for connections from now on."""
        try:
            stamp = self._files.stamp()
            if stamp == self._stamp:
                return
            # Loaded into a context of its own first: a certificate without its key would spoil the one in use.
            _context(self._files)
            self.context.load_cert_chain(self._files.certificate, self._files.key)
        except (OSError, UserError) as error:
            _log.warning("the new certificate cannot be used, the last one stays: %s", error)
            return
        self._stamp = stamp
        _log.info("a new certificate is in use")

    async def follow(self) -> None:
        """Refresh until cancelled."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            self.refresh()


def application(injector: Injector) -> web.Application:
    """What answers on the webhook's port."""
    app = web.Application(middlewares=[_errors_as_status], client_max_size=LARGEST_REVIEW)
    # Which labels the API server has found says which path it calls.
    app.router.add_post(LABELLED_NAMESPACE_PATH, _reviewer(injector, "enabled"))
    app.router.add_post(LABELLED_POD_PATH, _reviewer(injector, None))
    for path in ("/healthz/live", "/healthz/ready"):
        app.router.add_get(path, _on_health)
    return app


async def run(injector: Injector, certificate: ServingCertificate, listening: Sequence[socket.socket]) -> int:
    """Serve on sockets that listen already, until SIGTERM or SIGINT; return the exit code."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    runner = web.AppRunner(application(injector), access_log=None, shutdown_timeout=_DRAIN_SECONDS)
    await runner.setup()
    following = asyncio.create_task(certificate.follow())
    try:
        for sock in listening:
            await web.SockSite(runner, sock, ssl_context=certificate.context, backlog=BACKLOG).start()
            _log.info("the webhook is on port %d", sock.getsockname()[1])
        await asked.wait()
    finally:
        following.cancel()
        await runner.cleanup()
    return 0


def _reviewer(injector: Injector, label: str | None) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        if request.content_type != _JSON:
            return _response(review.refused_request(415, f"the body must be {_JSON}"))
        answer = review.answer(await request.read(), injector, label)
        _log.info("%s %s: %s", answer.verdict, answer.pod or "?", answer.reason)
        return _response(answer)

    return handle


async def _on_health(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


@web.middleware
async def _errors_as_status(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Whatever goes wrong is told in Kubernetes' own words; the API server then refuses the pod (failurePolicy)."""
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        return _response(review.refused_request(413, f"a review has at most {LARGEST_REVIEW} bytes"))
    except web.HTTPException as error:
        return _response(review.refused_request(error.status, f"{request.method} {request.path[:80]}: {error.reason}"))
    except Exception:  # noqa: BLE001  # logged with its trace; whoever made the pod must get an answer
        _log.exception("a bug kept a review from being answered; the pod is refused, please report it")
        return _response(review.refused_request(500, "the injector failed; its log says where"))


def _response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, content_type=_JSON)


def _context(files: ServingFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _OLDEST_TLS
    try:
        # An encrypted key must not make it ask somebody at a terminal.
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except ssl.SSLError as error:
        raise UserError(
            f"{files.certificate} and {files.key}: {error.reason or 'no certificate and its key'}"
        ) from None
    except OSError as error:
        raise UserError(f"{files.certificate}: {error.strerror}") from None
    return context


def _no_password() -> bytes:
    raise UserError("the webhook's key is encrypted; give one that is not")


def _stamp_of(files: ServingFiles) -> tuple[tuple[int, int, int], ...]:
    try:
        return files.stamp()
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
