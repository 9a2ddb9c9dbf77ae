"""Several processes behind the same ports (SO_REUSEPORT), one parent that watches them and answers for all.

The parent binds, forks, and serves metrics and health. A worker that dies takes the whole sidecar with it, with one
line: a supervisor (the kubelet, systemd) restarts what it can see, and a half-dead sidecar is what it cannot see.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

from mesh.errors import UserError
from proxy import loop
from proxy.config import ProxyConfig

if TYPE_CHECKING:
    from proxy.server import Bound, Readiness

_METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
# A worker whose connections were given --drain-seconds ends at once afterwards; this is for the machine's slowness.
_GRACE_SECONDS: Final = 5.0

# What a worker writes to its parent when its readiness changes.
_READY: Final = b"+"
_NOT_READY: Final = b"-"

_log = logging.getLogger("qbitel.proxy")


def run(config: ProxyConfig) -> int:
    """Run a sidecar or tunnel to its end, in one process or several; return the exit code.

    Raises UserError before anything is served, where a file, a port or a permission is wrong.
    """
    if config.workers > 1:
        return _run_many(config)
    from proxy import server  # noqa: PLC0415  # prometheus_client is imported behind it; see _run_many

    bound = server.build(config)
    server.raise_descriptor_limit(config.limits.max_connections)
    return loop.run(server.run_alone(bound))


def _run_many(config: ProxyConfig) -> int:
    try:
        folder = tempfile.mkdtemp(prefix="qbitel-metrics-")  # mode 0700
    except OSError as error:
        raise UserError(
            f"--workers needs a writable folder for its counters: {error.strerror}; set TMPDIR to one"
        ) from None
    try:
        # prometheus_client decides when it is imported whether its values are shared between processes.
        os.environ[_METRICS_VARIABLE] = folder
        from proxy import server  # noqa: PLC0415  # see above

        limits = dataclasses.replace(config.limits, max_connections=-(-config.limits.max_connections // config.workers))
        bound = server.build(dataclasses.replace(config, limits=limits))
        server.raise_descriptor_limit(limits.max_connections)
        return _Parent(bound, folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a worker that is being killed may still write


class _Parent:
    """Forks the workers, then serves status and forwards signals until all have ended."""

    def __init__(self, bound: Bound, folder: str) -> None:
        self._bound = bound
        self._folder = folder
        # Held open by the parent alone: workers see its end when the parent is gone, even by SIGKILL.
        self._lifeline_read, self._lifeline_write = os.pipe()
        self._ready_read, self._ready_write = os.pipe()
        self._failed = False

    def run(self) -> int:
        """Return the exit code: 0 when it was asked to end, 1 when a worker died."""
        from proxy import server  # noqa: PLC0415  # see _run_many

        readiness = server.Readiness(self._bound)  # while the sockets are still ours to ask
        children = [self._fork(index) for index in range(self._bound.config.workers)]
        os.close(self._lifeline_read)
        os.close(self._ready_write)
        for group in self._bound.listeners:
            for sock in group:
                sock.close()
        loop.run(self._watch(children, readiness))
        return 1 if self._failed else 0

    def _fork(self, index: int) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _Worker(self._bound, index, self._folder, self._lifeline_read, self._ready_write).run(
                close=(self._lifeline_write, self._ready_read)
            )
        return pid

    async def _watch(self, children: list[int], readiness: Readiness) -> None:
        from proxy import server  # noqa: PLC0415  # see _run_many
        from proxy.metrics import exposition_registry  # noqa: PLC0415
        from proxy.status import StatusServer  # noqa: PLC0415

        running = asyncio.get_running_loop()
        stop = server.Stop(running)
        status = StatusServer(
            exposition_registry(None),
            lambda: readiness.obstacle(stop),
            stop.at_failure_of,
        )
        await status.start(self._bound.metrics, self._bound.health)
        readiness.announce()
        alive = set(children)
        everyone_gone = asyncio.Event()

        def tell(number: signal.Signals) -> None:
            for pid in alive:
                os.kill(pid, number)

        def end() -> None:
            stop.ask()
            tell(signal.SIGTERM)

        def reap(pid: int, pidfd: int) -> None:
            running.remove_reader(pidfd)
            os.close(pidfd)
            _, status_code = os.waitpid(pid, 0)
            alive.discard(pid)
            if not stop.asked.is_set():
                self._failed = True
                code = os.waitstatus_to_exitcode(status_code)
                how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                _log.error("worker %d %s; the others end now, and so does this sidecar", pid, how)
                end()
            if not alive:
                everyone_gone.set()

        for pid in children:
            pidfd = os.pidfd_open(pid)
            running.add_reader(pidfd, reap, pid, pidfd)
        for number in (signal.SIGTERM, signal.SIGINT):
            running.add_signal_handler(number, end)
        running.add_signal_handler(signal.SIGHUP, tell, signal.SIGHUP)
        running.add_reader(self._ready_read, self._hear, running, readiness)
        await stop.asked.wait()
        if stop.failed:  # nobody has told the workers yet
            tell(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._bound.config.limits.drain_seconds + _GRACE_SECONDS):
                await everyone_gone.wait()
        except TimeoutError:
            _log.error("%d workers did not end in time and are killed", len(alive))
            tell(signal.SIGKILL)
            await everyone_gone.wait()
        await status.close()
        self._failed |= stop.failed

    def _hear(self, running: asyncio.AbstractEventLoop, readiness: Readiness) -> None:
        """Workers tell of their readiness, a byte for each change."""
        said = os.read(self._ready_read, 4096)
        if not said:
            running.remove_reader(self._ready_read)
        for one in said:
            readiness.changed(one == _READY[0])


class _Worker:
    """The child's side of the fork. Never returns."""

    def __init__(self, bound: Bound, index: int, folder: str, lifeline: int, ready: int) -> None:
        self._bound = bound
        self._index = index
        self._folder = folder
        self._lifeline = lifeline
        self._ready = ready
        self._orphaned = False

    def run(self, close: tuple[int, ...]) -> NoReturn:
        """Serve, and leave by os._exit: the parent's cleaning up is not ours to do."""
        code = 1
        try:
            for fd in close:
                os.close(fd)
            # Ctrl-C goes to the whole foreground group; only the parent's word counts here.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for index, group in enumerate(self._bound.listeners):
                for sock in group if index != self._index else ():
                    sock.close()
            for sock in (*self._bound.metrics, *self._bound.health):
                sock.close()
            failed = loop.run(self._serve())
            if self._orphaned:
                shutil.rmtree(self._folder, ignore_errors=True)  # several orphans clean the same folder
            code = 1 if failed else 0
        except Exception:  # noqa: BLE001  # a forked child must not run on into its parent's code
            _log.exception("a worker ended by a bug; please report it")
        finally:
            logging.shutdown()
            os._exit(code)

    async def _serve(self) -> bool:
        from proxy import server  # noqa: PLC0415  # see _run_many

        running = asyncio.get_running_loop()
        stop = server.Stop(running)
        stop.on(signal.SIGTERM)
        running.add_reader(self._lifeline, self._parent_gone, running, stop.ask)
        await server.Process(self._bound, self._index).run(stop, self._tell_ready)
        return stop.failed

    def _tell_ready(self, ready: bool) -> None:
        with contextlib.suppress(BrokenPipeError):  # the parent is gone: the lifeline says so too
            os.write(self._ready, _READY if ready else _NOT_READY)

    def _parent_gone(self, running: asyncio.AbstractEventLoop, ask: Callable[[], None]) -> None:
        running.remove_reader(self._lifeline)
        self._orphaned = True
        ask()
        ask()  # nobody is left who could wait for a drain
