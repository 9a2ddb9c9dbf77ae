"""`qbitel discovery serve` as a whole: election, watching and writing, metrics and health, until it is asked to end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from control.discovery.discovery import Discovery
from control.discovery.metrics import Metrics
from control.discovery.peers_text import MeshSettings
from httpd.status import health_application, metrics_application, serving
from kube.client import connect
from kube.election import Election
from mesh.names import DISCOVERY_SERVICE

_log = logging.getLogger("qbitel.discovery")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What it runs with. `kubeconfig` None: the cluster of this pod; `replica` is what no other is called."""

    kubeconfig: str | None
    replica: str
    settings: MeshSettings
    root_namespace: str


@dataclass(frozen=True, slots=True)
class Listening:
    """Sockets that listen already."""

    metrics: Sequence[socket.socket]
    health: Sequence[socket.socket]


async def run(options: ServeOptions, listening: Listening, *, now: Callable[[], datetime.datetime]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code: 1 where a part failed. Raises UserError as `connect`."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    return await serve(options, listening, asked, now=now)


async def serve(
    options: ServeOptions, listening: Listening, asked: asyncio.Event, *, now: Callable[[], datetime.datetime]
) -> int:
    """As `run`, until `asked`."""
    metrics = Metrics()
    async with connect(options.kubeconfig, DISCOVERY_SERVICE) as cluster:
        home = options.settings.control_namespace
        election = Election(cluster, home, DISCOVERY_SERVICE, options.replica, now=now)
        discovery = Discovery(
            cluster, election.is_leader, options.settings, metrics, root_namespace=options.root_namespace
        )
        work = asyncio.create_task(_both(election, discovery))
        # Whichever ends by itself has failed; nobody may take the rest for healthy.
        work.add_done_callback(lambda _task: asked.set())
        async with (
            serving(
                metrics_application(metrics.registry, lambda: metrics.leader.set(election.is_leader())),
                listening.metrics,
            ),
            serving(health_application(lambda: "ending" if asked.is_set() else discovery.obstacle), listening.health),
        ):
            for what, sockets in (("metrics", listening.metrics), ("health", listening.health)):
                for sock in sockets:
                    _log.info("%s on port %d", what, sock.getsockname()[1])
            await asked.wait()
        return await _ended(work)


async def _both(election: Election, discovery: Discovery) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(election.run())
        group.create_task(discovery.run())


async def _ended(work: asyncio.Task[None]) -> int:
    """Let go of the Lease; a part that had failed before is told here."""
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        try:
            await work
        except Exception as error:  # noqa: BLE001  # a bug: the log says where, and the process ends
            _log.error("a part of discovery failed, and it ended: %s", error, exc_info=error)
            return 1
    return 0
