"""Several processes behind the same ports (SO_REUSEPORT), one parent that watches them and answers for all.

The parent binds, forks, and serves metrics and health. A worker that dies takes the whole sidecar with it, with one
line: a supervisor (the kubelet, systemd) restarts what it can see, and a half-dead sidecar is what it cannot see.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from mesh.errors import UserError
from proxy import loop
from proxy.admin.channel import ParentChannel, WorkerChannel
from proxy.config import ProxyConfig
from proxy.life import Stop

if TYPE_CHECKING:
    from proxy.binding import Bound
    from proxy.readiness import Readiness

_METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
# Where Linux has files in memory; a container's is its own, 64 MB as a rule, whether its root is read-only or not.
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  # mkdtemp makes a folder that is ours alone
# Bytes that a worker's counters may come to: 256 peers' series in four counters, 600 bytes each, and twice that.
_ROOM_FOR_COUNTERS: Final = 1 << 20
# A worker whose connections were given --drain-seconds ends at once afterwards; this is for the machine's slowness.
_GRACE_SECONDS: Final = 5.0

# The parent's end of a worker's channel, and the worker's.
_Pair = tuple[socket.socket, socket.socket]

_log = logging.getLogger("qbitel.proxy")


def run(config: ProxyConfig) -> int:
    """Run a sidecar or tunnel to its end, in one process or several; return the exit code.

    Raises UserError before anything is served, where a file, a port or a permission is wrong.
    """
    if config.workers > 1:
        return _run_many(config)
    from proxy import binding, server  # noqa: PLC0415  # prometheus_client is imported behind them; see _run_many

    bound = binding.build(config)
    binding.raise_descriptor_limit(config.limits.max_connections)
    _settle()
    return loop.run(server.run_alone(bound))


def _settle() -> None:
    """Let the garbage collector leave alone what is there for good: looking at all of it stops everything for 25 ms.

    It also keeps those pages shared between workers, because a collection writes to each object.
    """
    gc.freeze()
    # Connections die by their counts of references. What does not is looked for at every 10,000th object that came and
    # stayed, some 2 MB of them, and not at every 700th: a fifteenth of what a new connection costs.
    gc.set_threshold(10_000, 10, 10)


def _run_many(config: ProxyConfig) -> int:
    folder = _counters_folder(config.workers)
    try:
        # prometheus_client decides when it is imported whether its values are shared between processes.
        os.environ[_METRICS_VARIABLE] = folder
        from proxy import binding  # noqa: PLC0415  # see above

        limits = dataclasses.replace(config.limits, max_connections=-(-config.limits.max_connections // config.workers))
        bound = binding.build(dataclasses.replace(config, limits=limits))
        binding.raise_descriptor_limit(limits.max_connections)
        _settle()
        return _Parent(bound, folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a worker that is being killed may still write


def _counters_folder(workers: int) -> str:
    """A new folder (mode 0700) for the counters of so many workers, or UserError.

    Counters are mapped files, and touching a page for which there is no room is no error but SIGBUS. So they lie in
    memory, where nobody else's files take the room, unless TMPDIR says where.
    """
    place = None if "TMPDIR" in os.environ or not os.access(_SHARED_MEMORY, os.W_OK) else _SHARED_MEMORY
    folder = None
    try:
        folder = tempfile.mkdtemp(prefix="qbitel-metrics-", dir=place)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, workers * _ROOM_FOR_COUNTERS)
    except OSError as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise UserError(
            f"--workers needs a writable folder with room for its counters, {workers * _ROOM_FOR_COUNTERS >> 20} MiB: "
            f"{error.strerror}; set TMPDIR to one"
        ) from None
    return folder


class _Parent:
    """Forks the workers, then serves status and forwards signals until all have ended."""

    def __init__(self, bound: Bound, folder: str) -> None:
        self._bound = bound
        self._folder = folder
        # Held open by the parent alone: workers see its end when the parent is gone, even by SIGKILL.
        self._lifeline_read, self._lifeline_write = os.pipe()
        self._pairs = [_socket_pair() for _ in range(bound.config.workers)]
        self._failed = False

    def run(self) -> int:
        """Return the exit code: 0 when it was asked to end, 1 when a worker died."""
        from proxy.readiness import Readiness  # noqa: PLC0415  # see _run_many

        readiness = Readiness(self._bound)  # while the sockets are still ours to ask
        children = [self._fork(index) for index in range(self._bound.config.workers)]
        os.close(self._lifeline_read)
        for _, theirs in self._pairs:
            theirs.close()
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
            os.close(self._lifeline_write)
            _Worker(self._bound, index, self._folder, self._lifeline_read, self._pairs).run()
        return pid

    async def _watch(self, children: list[int], readiness: Readiness) -> None:
        from proxy import server  # noqa: PLC0415  # see _run_many
        from proxy.metrics import exposition_registry  # noqa: PLC0415

        running = asyncio.get_running_loop()
        stop = Stop(running)
        channels = [
            WorkerChannel(ours, functools.partial(readiness.changed, index))
            for index, (ours, _) in enumerate(self._pairs)
        ]
        listening = [running.create_task(channel.run()) for channel in channels]
        for task in listening:
            stop.at_failure_of(task)

        async def ask(question: str, parameters: Mapping[str, str]) -> list[Any]:
            if question == "quitquitquit":
                stop.end()  # before a worker does: one that ends earlier than another answers has not died
            answers = await asyncio.gather(*(channel.ask(question, parameters) for channel in channels))
            _do_here(question, parameters, answers, stop)
            return answers

        async with server.status_of(self._bound, exposition_registry(None), ask, readiness, stop):
            readiness.announce()
            await self._until_all_ended(running, stop, children)
        for channel in channels:
            channel.close()
        await asyncio.gather(*listening, return_exceptions=True)
        self._failed |= stop.failed

    async def _until_all_ended(self, running: asyncio.AbstractEventLoop, stop: Stop, children: list[int]) -> None:
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


def _socket_pair() -> _Pair:
    pair = socket.socketpair()
    for sock in pair:
        sock.setblocking(False)
    return pair


def _do_here(question: str, parameters: Mapping[str, str], answers: Sequence[Any], stop: Stop) -> None:
    """What the parent has to do itself of what workers were told to do."""
    if any(answer is not None and "refused" in answer for answer in answers):
        return
    match question:
        case "logging":
            from proxy.admin.inspector import set_level  # noqa: PLC0415  # see _run_many

            set_level(parameters)
        case "drain":
            stop.drain()


class _Worker:
    """The child's side of the fork. Never returns."""

    def __init__(self, bound: Bound, index: int, folder: str, lifeline: int, pairs: list[_Pair]) -> None:
        self._bound = bound
        self._index = index
        self._folder = folder
        self._lifeline = lifeline
        self._pairs = pairs
        self._orphaned = False

    def run(self) -> NoReturn:
        """Serve, and leave by os._exit: the parent's cleaning up is not ours to do."""
        code = 1
        try:
            for index, (theirs, ours) in enumerate(self._pairs):
                theirs.close()
                if index != self._index:
                    ours.close()
            # Ctrl-C goes to the whole foreground group; only the parent's word counts here.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for index, group in enumerate(self._bound.listeners):
                for sock in group if index != self._index else ():
                    sock.close()
            for sock in (*self._bound.metrics, *self._bound.health, *self._bound.admin):
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
        stop = Stop(running)
        stop.on(signal.SIGTERM)
        running.add_reader(self._lifeline, self._parent_gone, running, stop)
        process = server.Process(self._bound, self._index, stop)
        channel = ParentChannel(self._pairs[self._index][1], process.inspector.answer)
        listening = running.create_task(channel.run())
        stop.at_failure_of(listening)
        await process.run(channel.tell)
        listening.cancel()
        return stop.failed

    def _parent_gone(self, running: asyncio.AbstractEventLoop, stop: Stop) -> None:
        running.remove_reader(self._lifeline)
        self._orphaned = True
        stop.end()  # nobody is left who could wait for a drain
