"""`qbitel certmgr serve` as a whole: the authority, its API, metrics and health, until it is asked to end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web
from cryptography.hazmat.primitives import hashes

from certmgr import limits
from certmgr.api import Api, Service
from certmgr.connections import terms_of
from certmgr.https import CredentialSource, MeshSite, TlsConfigs
from certmgr.metrics import Figures, Metrics
from certmgr.parts import Parts
from certmgr.proofs import TokenVerifier
from certmgr.refusals import Refusals
from certmgr.service import AuthorityService
from certmgr.state import Phase
from certmgr.store import StoreUnavailable
from certmgr.wire import timestamp
from httpd.connection_table import ConnectionTable
from httpd.descriptors import room_for
from httpd.site import address_of
from httpd.status import health_application, metrics_application, serving
from httpd.stop import Stop
from mesh.errors import UserError
from pqtls import Profile

# For answers that are on their way when all requests are finished, or when no more time is given to them.
_CUT_OFF_SECONDS: Final = 0.5
# For refusals that are still to be written down at the end, in seconds.
_JOURNAL_SECONDS: Final = 5.0

_log = logging.getLogger("qbitel.certmgr")

Clock = Callable[[], datetime.datetime]


class Authority(Service, CredentialSource, Protocol):
    """Everything that is asked of service.AuthorityService here."""

    async def run(self) -> None:
        """Do what has to be done beside answering, until cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Listening:
    """Sockets that listen already; connections wait in their queues until they are served."""

    api: Sequence[socket.socket]
    metrics: Sequence[socket.socket]
    health: Sequence[socket.socket]

    def close(self) -> None:
        """Give the ports back. Idempotent."""
        for sock in (*self.api, *self.metrics, *self.health):
            sock.close()


async def run(
    parts: Parts, listening: Listening, *, profiles: tuple[Profile, ...], drain_seconds: float, now: Clock
) -> int:
    """Serve until SIGTERM or SIGINT, drain for up to `drain_seconds`, and return the exit code.

    Raises UserError where the store holds no authority, or where it and `profiles` do not fit.
    """
    stop = Stop()
    stop.on(signal.SIGTERM, signal.SIGINT)
    try:
        service = await AuthorityService.open(parts, now=now)
    except StoreUnavailable as error:
        raise UserError(f"the store of the authority does not answer: {error}") from None
    server = Server(service, parts.tokens, listening, profiles=profiles, now=now, figures=lambda: figures_of(service))
    return await server.serve(stop, drain_seconds)


def figures_of(service: AuthorityService) -> Figures:
    """What the metrics show of the authority's state, as this replica knows it."""
    state = service.state
    return Figures(
        root_fingerprint=state.current.root.fingerprint(hashes.SHA256()).hex(),
        root_end=state.current.root.not_valid_after_utc,
        intermediate_end=state.signer.issuer.certificate.not_valid_after_utc,
        phase=state.phase.value,
        phases=tuple(phase.value for phase in Phase),
        peers=len(service.ledger),
        revoked=len(state.revoked),
        barred=len(state.barred),
    )


class Server:
    """The API of `authority` on sockets that listen already, with metrics and health beside it."""

    def __init__(
        self,
        authority: Authority,
        tokens: TokenVerifier,
        listening: Listening,
        *,
        profiles: tuple[Profile, ...],
        now: Clock,
        figures: Callable[[], Figures],
    ) -> None:
        """Raise UserError where the authority's certificate does not fit the profiles."""
        self._authority = authority
        self._listening = listening
        self._profiles = profiles
        self._now = now
        self._figures = figures
        self._metrics = Metrics()
        self._refusals = Refusals(
            self._metrics, lambda refused, method, source: authority.note_refusal(refused, method=method, source=source)
        )
        self._api = Api(authority, tokens, self._metrics, self._refusals, now)
        self._configs = TlsConfigs(authority, profiles, now)
        wanted = limits.MAX_IDENTIFIED + limits.MAX_ANONYMOUS
        share = room_for(wanted) / wanted
        per_source = limits.MAX_CONNECTIONS_PER_SOURCE
        self._identified = ConnectionTable(int(limits.MAX_IDENTIFIED * share), per_source)
        self._anonymous = ConnectionTable(int(limits.MAX_ANONYMOUS * share), per_source)
        self._evicted = 0
        self._is_ready = False

    async def serve(self, stop: Stop, drain_seconds: float) -> int:
        """Serve until `stop` asks for the end; return the exit code: 1 where a part of the authority failed."""
        chores = asyncio.create_task(self._authority.run())
        writing = asyncio.create_task(self._refusals.run())
        for task in (chores, writing):
            # Whichever ends by itself has failed; the authority must not look healthy without it.
            task.add_done_callback(lambda _task: stop.asked.set())
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self._end, chores, writing)
            await self._serve_status(undo, stop)
            sites = await self._serve_api(undo)
            self._is_ready = True
            self._announce()
            await stop.asked.wait()
            await self._drain(sites, stop, drain_seconds)
        return 1 if any(map(_has_failed, (chores, writing))) else 0

    async def _serve_api(self, undo: contextlib.AsyncExitStack) -> list[MeshSite]:
        runner = web.AppRunner(self._api.application(), shutdown_timeout=_CUT_OFF_SECONDS)
        await runner.setup()
        terms = terms_of(
            self._identified,
            self._anonymous,
            self._now,
            lambda refused, source: self._refusals.of_request(refused, None, source),
        )
        sites = [
            MeshSite(runner, sock, terms, self._configs, self._refusals.of_connection) for sock in self._listening.api
        ]
        for site in sites:
            undo.push_async_callback(site.farewell)
            await site.start()
        undo.push_async_callback(runner.cleanup)
        return sites

    async def _serve_status(self, undo: contextlib.AsyncExitStack, stop: Stop) -> None:
        metrics = metrics_application(self._metrics.registry, self._refresh)
        health = health_application(lambda: "" if self._is_ready and not stop.asked.is_set() else "draining")
        for application, sockets in ((metrics, self._listening.metrics), (health, self._listening.health)):
            await undo.enter_async_context(serving(application, sockets))

    async def _drain(self, sites: Sequence[MeshSite], stop: Stop, seconds: float) -> None:
        """Accept nothing more, answer who waits for a change, let the others finish; at a second signal, end now."""
        for site in sites:
            await site.stop()
        self._api.drain()
        _log.info("draining: %d requests under way have up to %g s to end", self._api.under_way, seconds)
        finished = asyncio.ensure_future(self._api.finished())
        hurry = asyncio.ensure_future(stop.now.wait())
        await asyncio.wait((finished, hurry), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (finished, hurry):
            task.cancel()
        if self._api.under_way:
            _log.warning("%d requests did not end in time and are cut off", self._api.under_way)

    async def _end(self, chores: asyncio.Task[None], writing: asyncio.Task[None]) -> None:
        """End what runs beside the API; what it failed with is said here."""
        self._refusals.close()
        await asyncio.wait((writing,), timeout=_JOURNAL_SECONDS)
        for task in (chores, writing):
            task.cancel()
        for outcome in await asyncio.gather(chores, writing, return_exceptions=True):
            if isinstance(outcome, Exception):
                _log.error("a part of the authority failed, and it ended: %s", outcome, exc_info=outcome)

    def _refresh(self) -> None:
        self._metrics.show(self._figures(), self._now())
        self._metrics.connections.set(len(self._identified) + len(self._anonymous))
        self._metrics.polls.set(self._api.polls)
        evicted = self._identified.evicted + self._anonymous.evicted
        self._metrics.evicted.inc(evicted - self._evicted)
        self._evicted = evicted

    def _announce(self) -> None:
        """Where it listens, in fact, and who it is."""
        for what, sockets in (
            ("metrics", self._listening.metrics),
            ("health", self._listening.health),
            ("API", self._listening.api),
        ):
            for sock in sockets:
                _log.info("%s on %s", what, address_of(sock))
        figures = self._figures()
        _log.info(
            "ready: the authority of %s, profile %s, root SHA-256 %s until %s, intermediate until %s",
            self._authority.trust_domain,
            ",".join(profile.name for profile in self._profiles),
            figures.root_fingerprint,
            timestamp(figures.root_end),
            timestamp(figures.intermediate_end),
        )


def _has_failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None
