"""One process of a sidecar: it serves what is bound already until a signal, drains, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.metadata
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from proxy import cpus, self_test
from proxy.access_log import AccessLog
from proxy.admin.inspector import Inspector
from proxy.admin.plain import plain
from proxy.admin.server import AdminServer, Ask, Overview
from proxy.binding import Bound
from proxy.busy_polling import BusyPolling, window_where
from proxy.config import Direction, Endpoint, ListenerConfig, ProxyConfig
from proxy.credential_files import CredentialStore
from proxy.credentials import utc_now
from proxy.endings import Endings
from proxy.engine import Scratch
from proxy.handshake_queue import HandshakeQueue
from proxy.inbound import inbound
from proxy.keeper import FileKeeper, Keeper
from proxy.life import Stop
from proxy.listener import Listener
from proxy.messages import dropped_messages
from proxy.metrics import Exposition, Metrics, exposition_registry
from proxy.outbound import carry_at_once, outbound
from proxy.peers.peers import peers_of, router_of
from proxy.phases import Phases, Services, serve
from proxy.policy.gate import Gate
from proxy.policy.policies import NoPolicies, Policies, policies_of
from proxy.prepared_lines import PreparedLines
from proxy.probes.answering import ProbeAnswers
from proxy.reactor import Reactor
from proxy.readiness import DRAINING, STARTING, Readiness, name_of
from proxy.record import Sinks
from proxy.refusals import RefusalLog
from proxy.registry import SWEEP_SECONDS, Registry
from proxy.sessions import SessionStore
from proxy.status import StatusServer
from proxy.tunnels.buffers import TunnelBuffers
from proxy.tunnels.moving import Movable
from proxy.tunnels.pool import TunnelPool
from proxy.tunnels.shares import Shares
from proxy.unfinished import Unfinished

# How often the certificate files are looked at: three stat() calls. The kubelet itself takes a minute to bring them.
_RELOAD_SECONDS: Final = 5.0

NOT_REDIRECTED: Final = (
    "a connection that interception must bring here did not arrive (qbitel init --check shows the rules)"
)
NO_LONGER_REDIRECTED: Final = (
    "a connection to {target} that interception brought here before does not arrive any more, somebody has changed the "
    "rules and applications may talk past the mesh (qbitel init --check shows what is missing)"
)

_log = logging.getLogger("qbitel.proxy")


def _keeper(bound: Bound, metrics: Metrics, worker: int) -> Keeper:
    if isinstance(bound.credentials, CredentialStore):
        return FileKeeper(bound.credentials, metrics)
    if bound.config.enrolment is not None:
        from proxy.enrolment_keeper import EnrolmentKeeper  # noqa: PLC0415  # as in binding

        return EnrolmentKeeper(bound.config.enrolment, bound.credentials, metrics, worker)
    raise AssertionError("credentials of an authority come of a configuration that names it")


def _reactor(loop: asyncio.AbstractEventLoop, config: ProxyConfig) -> Reactor:
    window = config.busy_poll
    if window is None:
        window = window_where(cpus.available(), config.workers)
    _log.debug("it looks for the next event for up to %g µs before it sleeps", window * 1e6)
    return Reactor(loop, BusyPolling(window) if window else None)


class Process:
    """Serves one worker's set of listening sockets, with its own loop, reactor, counters and connections."""

    def __init__(self, bound: Bound, worker: int, stop: Stop) -> None:
        self._stop = stop
        self._config = bound.config
        self._credentials = bound.credentials
        self._sockets = bound.listeners[worker]
        self._registry = Registry()
        self._refusals = RefusalLog()
        self._messages_dropped = 0
        self._told = STARTING
        # Why interception is not known to work; "" where it is.
        self._interception = NOT_REDIRECTED if self._config.self_test else ""
        self.metrics = Metrics(self._config.workload)
        self._keeper = _keeper(bound, self.metrics, worker)
        self._policies: Policies = NoPolicies()
        self._router = router_of(self._config, self.metrics)
        self._peers = peers_of(self._config, self._router)
        self.inspector = Inspector(self._registry, self._credentials, utc_now, lambda: self._told, stop)

    async def run(self, on_obstacle: Callable[[str], None]) -> None:
        """Serve until `stop` asks for the end; then drain. `on_obstacle` hears what keeps traffic from being welcome,
        whenever that changes; "" for nothing.

        Before there are credentials nothing is accepted: whoever dials waits in the queues of the listening sockets.
        """
        loop = asyncio.get_running_loop()
        stop = self._stop
        reactor = _reactor(loop, self._config)
        # None: it was started with standard output closed.
        stdout = sys.stdout.fileno() if sys.stdout is not None else None
        access_log = AccessLog(stdout, self.metrics.log_lines_dropped.inc, self._config.access_log)
        services = self._services(loop, reactor, access_log)
        self._policies = policies_of(
            self._config.policy, self._config.mode, services.gate, self._credentials, self._registry,
            lambda: self._tell(on_obstacle), self._peers.follow,
        )  # fmt: skip
        self.inspector.sections["policy"] = lambda: {**services.gate.describe(), **self._policies.describe()}
        self.inspector.sections["peers"] = self._router.describe
        listeners = [
            self._listener(services, sock, listener)
            for sock, listener in zip(self._sockets, self._config.listeners, strict=True)
        ]
        loop.add_signal_handler(signal.SIGHUP, self._refresh)
        chores: list[asyncio.Task[None]] = []
        self._keeper.start(stop.at_failure_of)
        try:
            if not self._keeper.is_usable:  # what else may be missing is not known before there are listeners
                self._tell(on_obstacle)
            await _first((self._keeper.has_credentials(), stop.asked.wait()))
            if not stop.asked.is_set():
                await self._policies.load()
                await self._peers.load()
                for listener in listeners:
                    listener.start()
                chores.append(loop.create_task(self._chores(loop, on_obstacle)))
                proof = loop.create_task(self._test_itself(on_obstacle))
                chores.append(proof)
                for chore in chores:
                    stop.at_failure_of(chore)
                await stop.draining.wait()
                proof.cancel()  # its connections would keep us from being quiet
                self._registry.start_draining()
                self._tell(on_obstacle)
                await stop.asked.wait()
                await self._wind_down(stop, listeners)
        finally:
            for task in chores:
                task.cancel()
            await self._keeper.close()
            await self._policies.close()
            await self._peers.close()
            for listener in listeners:
                listener.close()
            await self._registry.end_all()
            self.metrics.before_reading()
            self._refusals.sum_up()
            access_log.close()
            reactor.close()

    def _services(self, loop: asyncio.AbstractEventLoop, reactor: Reactor, access_log: AccessLog) -> Services:
        limits = self._config.limits
        scratch = Scratch()
        endings = Endings(loop.call_later, self.metrics.settle, utc_now)
        self.metrics.before_reading = endings.flush
        prepared = PreparedLines(access_log) if self._config.access_log == "json" else None
        sinks = Sinks(self.metrics, access_log, utc_now, refusals=self._refusals, endings=endings, prepared=prepared)
        return Services(
            loop=loop,
            reactor=reactor,
            scratch=scratch,
            credentials=self._credentials,
            sessions=SessionStore(),
            registry=self._registry,
            sinks=sinks,
            limits=limits,
            profile=self._config.profile_names,
            own_ports=frozenset(sock.getsockname()[1] for sock in self._sockets),
            unfinished=Unfinished(limits.max_handshakes),
            handshakes=HandshakeQueue(loop, self.metrics.handshake_queue.set),
            buffers=TunnelBuffers(scratch),
            movable=Movable(),
            shares=Shares(limits.max_connections),
            gate=Gate(self._config.policy, self._config.mode, sinks),
            tunnels=TunnelPool() if self._config.tunnels else None,
        )

    def _listener(self, services: Services, sock: socket.socket, config: ListenerConfig) -> Listener:
        phases: Phases
        at_once: Callable[[socket.socket, Endpoint], bool] = _never
        if config.direction is Direction.OUTBOUND:
            phases = outbound(config, self._router)
            at_once = functools.partial(carry_at_once, config, self._router, services)
        else:
            phases = inbound(config)

        def on_accept(accepted: socket.socket, source: Endpoint) -> None:
            if not at_once(accepted, source):
                serve(services, accepted, config.direction, phases)

        # Our own application's connections are never held back for those of strangers.
        is_busy = services.has_too_many_strangers if config.direction is Direction.INBOUND else _is_never_busy
        return Listener(services.loop, services.reactor, sock, on_accept, self._config.limits.accept_pause, is_busy)

    async def _wind_down(self, stop: Stop, listeners: Sequence[Listener]) -> None:
        """Go on serving until nobody comes any more, in bounded time.

        The application may dial others while it ends, and those who have not heard yet that we leave dial it.
        """
        seconds = self._config.limits.drain_seconds
        _log.info("draining: %d connections have up to %g s to end", self._registry.connections, seconds)
        await _first((self._quiet(listeners), asyncio.sleep(seconds), stop.now.wait()))
        if self._registry.connections:
            _log.warning("%d connections did not end in time and are reset", self._registry.connections)

    async def _quiet(self, listeners: Sequence[Listener]) -> None:
        await self._registry.quiet(self._config.limits.drain_quiet)
        for listener in listeners:  # who waits in their queues is accepted still
            listener.close()
        await self._registry.quiet(0)

    async def _test_itself(self, on_obstacle: Callable[[str], None]) -> None:
        """Have a proof that interception works, from before the first connection on."""
        if not self._config.self_test:
            return
        captured = [
            sock.family
            for sock, listener in zip(self._sockets, self._config.listeners, strict=True)
            if listener.direction is Direction.INBOUND and listener.target is None and not listener.by_stream
        ]
        probes = functools.partial(self_test.probes_for, captured)
        while True:
            await self_test.until_redirected(probes)
            self._interception = ""
            self._tell(on_obstacle)
            lost = await self_test.until_lost(probes)
            self._interception = NO_LONGER_REDIRECTED.format(target=lost.target)
            self._tell(on_obstacle)

    async def _chores(self, loop: asyncio.AbstractEventLoop, on_obstacle: Callable[[str], None]) -> None:
        """What has to be done from time to time."""
        limits = self._config.limits
        while True:
            expiry = self._credentials.current.credential.not_valid_after
            self.metrics.cert_expiry.set((expiry - utc_now()).total_seconds())
            self._tell(on_obstacle)
            await asyncio.sleep(min(SWEEP_SECONDS, _RELOAD_SECONDS, limits.idle_timeout / 4, limits.stall_timeout / 4))
            self._registry.sweep(loop.time(), limits.idle_timeout, limits.stall_timeout, limits.tunnel_silence)
            self._refusals.sum_up()
            self._count_dropped_messages()
            self.metrics.settle()
            self._keeper.tend()
            self._policies.tend()
            self._peers.tend()
            # Here and not when a list comes: a handshake that began under the old one may have ended since.
            if revoked := self._credentials.current.trust.revoked:
                self._registry.end_revoked(revoked)

    def _tell(self, on_obstacle: Callable[[str], None]) -> None:
        obstacle = self._obstacle()
        if self._told != obstacle:
            self._told = obstacle
            on_obstacle(obstacle)

    def _obstacle(self) -> str:
        if self._stop.draining.is_set():
            return DRAINING
        if not self._keeper.is_usable:
            return "no valid certificate"
        if self._policies.obstacle:
            return self._policies.obstacle
        return self._interception

    def _refresh(self) -> None:
        self._keeper.refresh()
        self._policies.refresh()
        self._peers.refresh()

    def _count_dropped_messages(self) -> None:
        dropped = dropped_messages()
        self.metrics.messages_dropped.inc(dropped - self._messages_dropped)
        self._messages_dropped = dropped


def _is_never_busy() -> bool:
    return False


def _never(_accepted: socket.socket, _source: Endpoint) -> bool:
    return False


async def _first(waiting: Sequence[Coroutine[Any, Any, object]]) -> None:
    """Return when the first of them does; the others are given up."""
    tasks = [asyncio.ensure_future(one) for one in waiting]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def run_alone(bound: Bound) -> int:
    """Run a sidecar of one process, with its own status, until a signal ends it; return the exit code."""
    stop = Stop(asyncio.get_running_loop())
    stop.on(signal.SIGTERM, signal.SIGINT)
    process = Process(bound, 0, stop)
    readiness = Readiness(bound)

    async def ask(question: str, parameters: Mapping[str, str]) -> list[Any]:
        return [process.inspector.answer(question, parameters)]

    async with status_of(bound, exposition_registry(process.metrics), ask, readiness, stop):
        readiness.announce()
        await process.run(functools.partial(readiness.changed, 0))
    return 1 if stop.failed else 0


@contextlib.asynccontextmanager
async def status_of(
    bound: Bound, metrics: Exposition, ask: Ask, readiness: Readiness, stop: Stop
) -> AsyncIterator[None]:
    """Answer on the ports for metrics, health and admin meanwhile, for all workers."""

    def why_not_ready() -> str:
        return readiness.obstacle(stop)

    probes = ProbeAnswers(bound.config.app_probes)
    status = StatusServer(metrics, why_not_ready, stop.at_failure_of, probes)
    overview = Overview(
        config=plain(bound.config),
        version=importlib.metadata.version("qbitel-mesh"),
        metrics_at=tuple(map(name_of, bound.metrics)),
        why_not_ready=why_not_ready,
    )
    admin = AdminServer(ask, overview, stop.at_failure_of)
    status.start(bound.metrics, bound.health)
    admin.start(bound.admin)
    try:
        yield
    finally:
        await status.close()
        await admin.close()
