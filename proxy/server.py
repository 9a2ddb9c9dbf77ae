"""One process of a sidecar: everything is bound first, then it runs until a signal, drains, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mesh.errors import UserError
from pqtls import ChainCache, TicketKeeper
from pqtls.config import ignore_secret
from proxy import sockets
from proxy.access_log import AccessLog
from proxy.config import Direction, ListenerConfig, ProxyConfig
from proxy.credentials import CHAIN_CACHE_CAPACITY, CredentialStore, TlsSettings, utc_now
from proxy.engine import Scratch
from proxy.identity import IdentityRule
from proxy.inbound import inbound
from proxy.key_log import open_key_log
from proxy.listener import Listener
from proxy.messages import dropped_messages
from proxy.metrics import Metrics, exposition_registry
from proxy.outbound import outbound
from proxy.phases import Phases, Services, serve
from proxy.providers import choose_provider
from proxy.reactor import Reactor
from proxy.record import Sinks
from proxy.refusals import RefusalLog
from proxy.registry import SWEEP_SECONDS, Registry
from proxy.routes import RouteTable
from proxy.sessions import SessionStore
from proxy.status import StatusServer
from proxy.unfinished import Unfinished

# How often the certificate files are looked at: three stat() calls. The kubelet itself takes a minute to bring them.
_RELOAD_SECONDS: Final = 5.0
# Descriptors besides those of connections: listeners, epolls, logs, a scrape or two.
_SPARE_DESCRIPTORS: Final = 256

_log = logging.getLogger("qbitel.proxy")


@dataclass(frozen=True, slots=True)
class Bound:
    """A checked configuration whose every port is ours. `listeners` holds one set of sockets per worker."""

    config: ProxyConfig
    credentials: CredentialStore
    listeners: tuple[tuple[socket.socket, ...], ...]
    metrics: tuple[socket.socket, ...]
    health: tuple[socket.socket, ...]

    def close(self) -> None:
        """Give the ports back."""
        for sock in (*(sock for each in self.listeners for sock in each), *self.metrics, *self.health):
            sock.close()


def build(config: ProxyConfig, environment: Mapping[str, str] = os.environ) -> Bound:
    """Load the certificates and bind every port, or raise UserError with one line and leave nothing bound."""
    provider = choose_provider(config.provider, environment)
    credentials = CredentialStore(
        config.files,
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


def _bind_for_workers(
    listener: ListenerConfig, workers: int, keep: Callable[[socket.socket], socket.socket]
) -> list[socket.socket]:
    first = sockets.listen(listener.bind)
    if workers == 1:
        return [keep(first)]
    # SO_REUSEPORT would share a port with another qbitel of the same user without a word. Without it, it fails where
    # anybody has the port, and tells the number that the kernel chose for port 0.
    address = listener.bind if listener.bind.port else type(listener.bind)(listener.bind.host, first.getsockname()[1])
    first.close()
    return [keep(sockets.listen(address, reuse_port=True)) for _ in range(workers)]


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
        self.metrics = Metrics()

    async def run(self, stop: Stop, on_listening: Callable[[], None]) -> None:
        """Serve until `stop` asks for the end; then drain."""
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
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        chores = loop.create_task(self._chores(loop))
        stop.at_failure_of(chores)
        try:
            for listener in listeners:
                listener.start()
            on_listening()
            await stop.asked.wait()
            for listener in listeners:
                listener.close()
            await self._drain(stop)
        finally:
            chores.cancel()
            for listener in listeners:
                listener.close()
            await self._registry.end_all()
            self._refusals.sum_up()
            access_log.close()
            reactor.close()

    def _services(self, loop: asyncio.AbstractEventLoop, reactor: Reactor, access_log: AccessLog) -> Services:
        limits = self._config.limits
        return Services(
            loop=loop,
            reactor=reactor,
            scratch=Scratch(),
            credentials=self._credentials,
            sessions=SessionStore(),
            registry=self._registry,
            sinks=Sinks(self.metrics, access_log, utc_now, refusals=self._refusals),
            limits=limits,
            profile=self._config.profile_names,
            own_ports=frozenset(sock.getsockname()[1] for sock in self._sockets),
            unfinished=Unfinished(limits.max_handshakes),
        )

    def _listener(self, services: Services, sock: socket.socket, config: ListenerConfig) -> Listener:
        phases: Phases
        if config.direction is Direction.OUTBOUND:
            phases = outbound(config, RouteTable(self._config.mesh))
        else:
            phases = inbound(config, self._config.mode)

        def on_accept(accepted: socket.socket) -> None:
            serve(services, accepted, config.direction, phases)

        return Listener(services.loop, sock, on_accept, self._config.limits.accept_pause)

    async def _drain(self, stop: Stop) -> None:
        if not len(self._registry):
            return
        seconds = self._config.limits.drain_seconds
        _log.info("draining: %d connections have up to %g s to end", len(self._registry), seconds)
        waiting = asyncio.ensure_future(self._registry.drained(seconds))
        hurry = asyncio.ensure_future(stop.now.wait())
        await asyncio.wait((waiting, hurry), return_when=asyncio.FIRST_COMPLETED)
        for task in (waiting, hurry):
            task.cancel()
        if len(self._registry):
            _log.warning("%d connections did not end in time and are reset", len(self._registry))

    async def _chores(self, loop: asyncio.AbstractEventLoop) -> None:
        """What has to be done from time to time."""
        while True:
            expiry = self._credentials.current.credential.not_valid_after
            self.metrics.cert_expiry.set((expiry - utc_now()).total_seconds())
            await asyncio.sleep(min(SWEEP_SECONDS, _RELOAD_SECONDS, self._config.limits.idle_timeout / 4))
            self._registry.sweep(loop.time(), self._config.limits.idle_timeout)
            self._refusals.sum_up()
            self._count_dropped_messages()
            if self._credentials.has_changed():
                self._reload()

    def _count_dropped_messages(self) -> None:
        dropped = dropped_messages()
        self.metrics.messages_dropped.inc(dropped - self._messages_dropped)
        self._messages_dropped = dropped

    def _reload(self) -> None:
        self.metrics.reloads.labels("ok" if self._credentials.reload() else "failed").inc()


async def run_alone(bound: Bound) -> int:
    """Run a sidecar of one process, with its status server, until a signal ends it; return the exit code."""
    stop = Stop(asyncio.get_running_loop())
    stop.on(signal.SIGTERM, signal.SIGINT)
    process = Process(bound, 0)
    listening = asyncio.Event()
    status = StatusServer(
        exposition_registry(process.metrics),
        lambda: listening.is_set() and not stop.asked.is_set(),
        stop.at_failure_of,
    )
    await status.start(bound.metrics, bound.health)

    def on_listening() -> None:
        listening.set()
        for line in announcement(bound):
            _log.info("%s", line)

    try:
        await process.run(stop, on_listening)
    finally:
        await status.close()
    return 1 if stop.failed else 0


def announcement(bound: Bound) -> list[str]:
    """On which addresses it listens, in fact, and who it is: what is logged once it serves."""
    config = bound.config
    lines = []
    for sock, listener in zip(bound.listeners[0], config.listeners, strict=True):
        target = f"to {listener.target}" if listener.target else "to where interception found it going"
        lines.append(f"{listener.direction.value} on {_name(sock)} {target}")
    for what, group in (("metrics", bound.metrics), ("health", bound.health)):
        lines += [f"{what} on {_name(sock)}" for sock in group]
    workers = f", {config.workers} workers" if config.workers > 1 else ""
    identity = bound.credentials.current.identity
    lines.append(f"ready: we are {identity}, profile {config.profile_names}, {config.mode.value}{workers}")
    return lines


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
