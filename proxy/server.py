"""One process of a sidecar: everything is bound first, then it runs until a signal, drains, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mesh.errors import UserError
from pqtls import ChainCache, TicketKeeper
from pqtls.config import ignore_secret
from proxy import sockets
from proxy.access_log import AccessLog
from proxy.config import Direction, ListenerConfig, ProxyConfig
from proxy.credential_files import CredentialStore
from proxy.credentials import CHAIN_CACHE_CAPACITY, TlsSettings, utc_now
from proxy.engine import Scratch
from proxy.identity import IdentityRule
from proxy.inbound import inbound
from proxy.keeper import FileKeeper, Keeper
from proxy.key_log import open_key_log
from proxy.listener import Listener
from proxy.messages import dropped_messages
from proxy.metrics import Metrics, exposition_registry
from proxy.outbound import carry_at_once, outbound
from proxy.phases import Phases, Services, serve
from proxy.providers import choose_provider
from proxy.reactor import Reactor
from proxy.record import Sinks
from proxy.refusals import RefusalLog
from proxy.registry import SWEEP_SECONDS, Registry
from proxy.routes import RouteTable
from proxy.sessions import SessionStore
from proxy.status import StatusServer
from proxy.tunnels.buffers import TunnelBuffers
from proxy.tunnels.moving import Movable
from proxy.tunnels.pool import TunnelPool
from proxy.unfinished import Unfinished

if TYPE_CHECKING:
    from proxy.enrolled_credentials import EnrolledCredentials

# How often the certificate files are looked at: three stat() calls. The kubelet itself takes a minute to bring them.
_RELOAD_SECONDS: Final = 5.0
# Descriptors besides those of connections: listeners, epolls, logs, a scrape or two.
_SPARE_DESCRIPTORS: Final = 256

_log = logging.getLogger("qbitel.proxy")


@dataclass(frozen=True, slots=True)
class Bound:
    """A checked configuration whose every port is ours. `listeners` holds one set of sockets per worker."""

    config: ProxyConfig
    credentials: CredentialStore | EnrolledCredentials
    listeners: tuple[tuple[socket.socket, ...], ...]
    metrics: tuple[socket.socket, ...]
    health: tuple[socket.socket, ...]

    def close(self) -> None:
        """Give the ports back."""
        for sock in (*(sock for each in self.listeners for sock in each), *self.metrics, *self.health):
            sock.close()


def build(config: ProxyConfig, environment: Mapping[str, str] = os.environ) -> Bound:
    """Load the certificates or roots and bind every port, or raise UserError with one line and leave nothing bound."""
    provider = choose_provider(config.provider, environment)
    credentials = _credentials(
        config,
        TlsSettings(
            profiles=config.profiles,
            accept_identity=IdentityRule(config.trust_domains, config.peers),
            server_name=config.server_name,
            now=utc_now,
            provider=provider,
            # Both are still empty when workers are forked: each makes ticket keys and entries of its own.
            tickets=TicketKeeper(provider),
            chain_cache=ChainCache(CHAIN_CACHE_CAPACITY),
            key_log=ignore_secret if config.key_log is None else open_key_log(config.key_log, environment),
        ),
    )
    with contextlib.ExitStack() as undo:

        def keep(sock: socket.socket) -> socket.socket:
            return undo.enter_context(contextlib.closing(sock))

        columns = [_bind_for_workers(listener, config.workers, keep) for listener in config.listeners]
        metrics = tuple(keep(sockets.listen(endpoint)) for endpoint in config.metrics)
        health = tuple(keep(sockets.listen(endpoint)) for endpoint in config.health)
        bound = Bound(config, credentials, tuple(zip(*columns, strict=True)), metrics, health)
        undo.pop_all()
    return bound


def _credentials(config: ProxyConfig, settings: TlsSettings) -> CredentialStore | EnrolledCredentials:
    if config.files is not None:
        return CredentialStore(config.files, settings)
    if config.enrolment is not None:
        # Whoever has files does without two megabytes of HTTP client.
        from proxy.enrolled_credentials import EnrolledCredentials  # noqa: PLC0415

        return EnrolledCredentials(config.enrolment, settings, config.trust_domains)
    raise AssertionError("a ProxyConfig has one of them")


def _keeper(bound: Bound, metrics: Metrics, worker: int) -> Keeper:
    if isinstance(bound.credentials, CredentialStore):
        return FileKeeper(bound.credentials, metrics)
    if bound.config.enrolment is not None:
        from proxy.enrolment_keeper import EnrolmentKeeper  # noqa: PLC0415  # see _credentials

        return EnrolmentKeeper(bound.config.enrolment, bound.credentials, metrics, worker)
    raise AssertionError("credentials of an authority come of a configuration that names it")


def _bind_for_workers(
    listener: ListenerConfig, workers: int, keep: Callable[[socket.socket], socket.socket]
) -> list[socket.socket]:
    first = sockets.listen(listener.bind, proxied=True)
    if workers == 1:
        return [keep(first)]
    # SO_REUSEPORT would share a port with another qbitel of the same user without a word. Without it, it fails where
    # anybody has the port, and tells the number that the kernel chose for port 0.
    address = listener.bind if listener.bind.port else type(listener.bind)(listener.bind.host, first.getsockname()[1])
    first.close()
    return [keep(sockets.listen(address, reuse_port=True, proxied=True)) for _ in range(workers)]


class Stop:
    """What signals ask for, first to drain, then to end at once; and what the end of a task asks for that must not end.

    `failed` afterwards: it was a bug that asked, and the exit code must say so.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.asked = asyncio.Event()
        self.now = asyncio.Event()
        self.failed = False

    def on(self, *numbers: signal.Signals) -> None:
        """Let these signals ask."""
        for number in numbers:
            self._loop.add_signal_handler(number, self.ask)

    def ask(self) -> None:
        """The first call asks to drain, the second to end."""
        if self.asked.is_set():
            self.now.set()
        self.asked.set()

    def at_failure_of(self, task: asyncio.Task[None]) -> None:
        """Ask to drain when `task` raises: a sidecar that does only a part of its work must not look healthy."""
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        _log.error("a bug ended what this sidecar cannot go on without; it ends, please report it", exc_info=error)
        self.failed = True
        if not self.asked.is_set():
            self.ask()


class Process:
    """Serves one worker's set of listening sockets, with its own loop, reactor, counters and connections."""

    def __init__(self, bound: Bound, worker: int) -> None:
        self._config = bound.config
        self._credentials = bound.credentials
        self._sockets = bound.listeners[worker]
        self._registry = Registry()
        self._refusals = RefusalLog()
        self._messages_dropped = 0
        self._ready = False
        self.metrics = Metrics()
        self._keeper = _keeper(bound, self.metrics, worker)

    async def run(self, stop: Stop, on_ready: Callable[[bool], None]) -> None:
        """Serve until `stop` asks for the end; then drain. `on_ready` hears when that changes: is traffic welcome?

        Before there are credentials nothing is accepted: whoever dials waits in the queues of the listening sockets.
        """
        loop = asyncio.get_running_loop()
        reactor = Reactor(loop)
        # None: it was started with standard output closed.
        stdout = sys.stdout.fileno() if sys.stdout is not None else None
        access_log = AccessLog(stdout, self.metrics.log_lines_dropped.inc)
        services = self._services(loop, reactor, access_log)
        listeners = [
            self._listener(services, sock, listener)
            for sock, listener in zip(self._sockets, self._config.listeners, strict=True)
        ]
        loop.add_signal_handler(signal.SIGHUP, self._keeper.refresh)
        chores: list[asyncio.Task[None]] = []
        self._keeper.start(stop.at_failure_of)
        try:
            await _first((self._keeper.has_credentials(), stop.asked.wait()))
            if not stop.asked.is_set():
                chores.append(loop.create_task(self._chores(loop, on_ready)))
                stop.at_failure_of(chores[0])
                for listener in listeners:
                    listener.start()
                self._tell(on_ready)
                await stop.asked.wait()
                for listener in listeners:
                    listener.close()
                await self._drain(stop)
        finally:
            for task in chores:
                task.cancel()
            await self._keeper.close()
            for listener in listeners:
                listener.close()
            await self._registry.end_all()
            self._refusals.sum_up()
            access_log.close()
            reactor.close()

    def _services(self, loop: asyncio.AbstractEventLoop, reactor: Reactor, access_log: AccessLog) -> Services:
        limits = self._config.limits
        scratch = Scratch()
        return Services(
            loop=loop,
            reactor=reactor,
            scratch=scratch,
            credentials=self._credentials,
            sessions=SessionStore(),
            registry=self._registry,
            sinks=Sinks(self.metrics, access_log, utc_now, refusals=self._refusals),
            limits=limits,
            profile=self._config.profile_names,
            own_ports=frozenset(sock.getsockname()[1] for sock in self._sockets),
            unfinished=Unfinished(limits.max_handshakes),
            buffers=TunnelBuffers(scratch),
            movable=Movable(),
            tunnels=TunnelPool() if self._config.tunnels else None,
        )

    def _listener(self, services: Services, sock: socket.socket, config: ListenerConfig) -> Listener:
        phases: Phases
        at_once: Callable[[socket.socket], bool] = _never
        if config.direction is Direction.OUTBOUND:
            routes = RouteTable(self._config.mesh)
            phases = outbound(config, routes)
            at_once = functools.partial(carry_at_once, config, routes, services)
        else:
            phases = inbound(config, self._config.mode)

        def on_accept(accepted: socket.socket) -> None:
            if not at_once(accepted):
                serve(services, accepted, config.direction, phases)

        return Listener(services.loop, sock, on_accept, self._config.limits.accept_pause)

    async def _drain(self, stop: Stop) -> None:
        if not len(self._registry):
            return
        seconds = self._config.limits.drain_seconds
        _log.info("draining: %d connections have up to %g s to end", self._registry.connections, seconds)
        await _first((self._registry.drained(seconds), stop.now.wait()))
        if self._registry.connections:
            _log.warning("%d connections did not end in time and are reset", self._registry.connections)

    async def _chores(self, loop: asyncio.AbstractEventLoop, on_ready: Callable[[bool], None]) -> None:
        """What has to be done from time to time."""
        while True:
            expiry = self._credentials.current.credential.not_valid_after
            self.metrics.cert_expiry.set((expiry - utc_now()).total_seconds())
            await asyncio.sleep(min(SWEEP_SECONDS, _RELOAD_SECONDS, self._config.limits.idle_timeout / 4))
            self._registry.sweep(loop.time(), self._config.limits.idle_timeout)
            self._refusals.sum_up()
            self._count_dropped_messages()
            self._keeper.tend()
            # Here and not when a list comes: a handshake that began under the old one may have ended since.
            if revoked := self._credentials.current.trust.revoked:
                self._registry.end_revoked(revoked)
            self._tell(on_ready)

    def _tell(self, on_ready: Callable[[bool], None]) -> None:
        if self._ready != self._keeper.is_usable:
            self._ready = self._keeper.is_usable
            on_ready(self._ready)

    def _count_dropped_messages(self) -> None:
        dropped = dropped_messages()
        self.metrics.messages_dropped.inc(dropped - self._messages_dropped)
        self._messages_dropped = dropped


def _never(_accepted: socket.socket) -> bool:
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
    """Run a sidecar of one process, with its status server, until a signal ends it; return the exit code."""
    stop = Stop(asyncio.get_running_loop())
    stop.on(signal.SIGTERM, signal.SIGINT)
    process = Process(bound, 0)
    readiness = Readiness(bound)
    status = StatusServer(exposition_registry(process.metrics), lambda: readiness.obstacle(stop), stop.at_failure_of)
    await status.start(bound.metrics, bound.health)
    readiness.announce()
    try:
        await process.run(stop, readiness.changed)
    finally:
        await status.close()
    return 1 if stop.failed else 0


class Readiness:
    """How many workers are ready, and what is said of it: on which addresses we listen, in fact, and who we are."""

    def __init__(self, bound: Bound) -> None:
        """To be made while the sockets of `bound` are ours to ask."""
        self._bound = bound
        self._lines = _addresses(bound)
        self._ready = 0
        self._said = False

    def announce(self) -> None:
        """Say where we listen: whoever dials from now on waits at worst."""
        for line in self._lines:
            _log.info("%s", line)
        if self._bound.config.enrolment is not None:
            _log.info("asking for the first certificate: nothing is let in or out before it is there")

    def changed(self, ready: bool) -> None:
        """One worker became ready, or is not any more."""
        self._ready += 1 if ready else -1
        if self._ready == self._bound.config.workers and not self._said:
            self._said = True
            _log.info("%s", _who_we_are(self._bound))

    def obstacle(self, stop: Stop) -> str:
        """Why traffic is not welcome now; "" where it is."""
        if stop.asked.is_set():
            return "draining"
        return "" if self._ready == self._bound.config.workers else "no valid certificate"


def _addresses(bound: Bound) -> list[str]:
    lines = []
    for sock, listener in zip(bound.listeners[0], bound.config.listeners, strict=True):
        target = f"to {listener.target}" if listener.target else "to where interception found it going"
        lines.append(f"{listener.direction.value} on {_name(sock)} {target}")
    for what, group in (("metrics", bound.metrics), ("health", bound.health)):
        lines += [f"{what} on {_name(sock)}" for sock in group]
    return lines


def _who_we_are(bound: Bound) -> str:
    config = bound.config
    if config.enrolment is None:
        who = bound.credentials.current.identity
    elif config.workers == 1:
        who = f"{bound.credentials.current.identity}, enrolled with {config.enrolment.authority}"
    else:  # each worker knows, and has said so
        who = f"enrolled with {config.enrolment.authority}"
    workers = f", {config.workers} workers" if config.workers > 1 else ""
    return f"ready: we are {who}, profile {config.profile_names}, {config.mode.value}{workers}"


def _name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def raise_descriptor_limit(max_connections: int) -> None:
    """Ask for as many descriptors as the connections may need (two each); say so where the system gives fewer."""
    wanted = 2 * max_connections + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    possible = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, possible), hard))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot raise the limit of open files to {possible}: {error}") from None
    if possible < 2 * max_connections:
        _log.warning(
            "the limit of open files is %d: room for some %d connections, not the %d of --max-connections "
            "(ulimit -Hn raises it)",
            possible,
            max(0, (possible - _SPARE_DESCRIPTORS) // 2),
            max_connections,
        )
