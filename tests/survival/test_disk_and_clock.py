"""The machine around a sidecar: a disk without room, a clock that jumps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from cli.demo.confine import CLONE_NEWNS, check, libc
from tests.survival.mesh import Mesh
from tests.survival.traffic import dialled, echo, make, round_trip, serving, until

_MS_REC_PRIVATE = 0x4000 | 0x40000  # linux/mount.h


def _logs_on_a_full_disk(place: Path) -> Callable[[], None]:
    """To be run in a child: its output goes into a file system of 16 KiB that only it sees."""

    def enter() -> None:
        check(libc.unshare(CLONE_NEWNS), "unshare")
        check(libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None), "making the mounts our own")
        check(libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, b"size=16k"), "mounting")
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)

    return enter


def test_a_disk_without_room_costs_lines_of_the_log_and_no_request(
    qbitel, folders, run, tmp_path, amount, saw, needs_root
):
    count = amount(2_000, short=150)

    def start(*words: object):
        place = tmp_path / f"small-{len(list(tmp_path.iterdir()))}"
        place.mkdir()
        running = qbitel("proxy", *words, ready=False, preexec=_logs_on_a_full_disk(place))
        # Its own view of the file system is the only one that has the files.
        seen = Path(f"/proc/{running.process.pid}/root{place}")
        running.out, running.err = seen / "out", seen / "err"
        running.wait_for(running.err.exists)
        return running.wait_ready()

    async def main() -> None:
        common = ("--no-capture", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0")
        async with serving(echo) as target:
            inbound = await asyncio.to_thread(
                start, *common, "--certs", folders / "api", "--explicit-inbound", f"127.0.0.1:0=127.0.0.1:{target}"
            )
            outbound = await asyncio.to_thread(
                start, *common, "--certs", folders / "web",
                "--explicit-outbound", f"127.0.0.1:0=127.0.0.1:{inbound.port('inbound')}",
            )  # fmt: skip
            sidecars = Mesh(outbound, inbound)
            await make(count, sidecars.port)
            await asyncio.to_thread(sidecars.settle)
            # A reload says something, on a disk that has no room for it.
            outbound.process.send_signal(signal.SIGHUP)
            await until(lambda: outbound.metric("qbitel_cert_reloads_total", result="ok") >= 1)
            await make(50, sidecars.port)
            for name, side in sidecars.sides.items():
                lost = await asyncio.to_thread(side.metric, "qbitel_access_log_lines_dropped_total")
                saw(f"{name}: {lost:.0f} lines were lost, of {count} connections none")
                assert lost >= count - 16 * 1024 / 300  # what fits: a line has more than 300 bytes
                assert side.get("health", "/healthz/ready")[0] == 200
                side.process.send_signal(signal.SIGTERM)
            for side in sidecars.sides.values():
                assert await asyncio.to_thread(side.process.wait, 60) == 0

    run(main(), 180)


# The whole program with a clock of ours in the place of the machine's: what the file says, in seconds from now.
_CLOCKED = """
import datetime, sys
from pathlib import Path
import proxy.credentials
real, offset = proxy.credentials.utc_now, Path(sys.argv.pop(1))
proxy.credentials.utc_now = lambda: real() + datetime.timedelta(seconds=float(offset.read_text()))
from cli.main import main
sys.exit(main())
"""


def test_a_clock_that_jumps_breaks_no_connection_and_when_it_is_right_again_so_is_everything(
    qbitel, folders, run, tmp_path, monkeypatch, saw
):
    """Certificates are of twelve hours. Beyond them nobody new is let in, which is what their end means."""
    hours = 3600
    offset = tmp_path / "offset"
    offset.write_text("0")

    def start(*words: object):
        # `python -c CODE WORDS` becomes `python -c CLOCKED OFFSET WORDS`.
        with monkeypatch.context() as patched:
            import subprocess

            real = subprocess.Popen

            def clocked(command: list[str], **options: object):
                return real([sys.executable, "-c", _CLOCKED, str(offset), *command[3:]], **options)

            patched.setattr(subprocess, "Popen", clocked)
            return qbitel("proxy", "--no-capture", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0", *words)

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def jump(seconds: float) -> None:
            new = offset.with_suffix(".new")
            new.write_text(str(seconds))
            new.replace(offset)

        async def reload(*sides: object) -> None:
            """New credentials: the next connection needs a new handshake."""
            for side in sides:
                before = side.messages.count("certificates reloaded")
                side.process.send_signal(signal.SIGHUP)
                await until(lambda side=side, before=before: side.messages.count("certificates reloaded") > before)

        async with serving(echo) as target, contextlib.AsyncExitStack() as stack:
            inbound = await asyncio.to_thread(
                start, "--certs", folders / "api", "--explicit-inbound", f"127.0.0.1:0=127.0.0.1:{target}"
            )
            outbound = await asyncio.to_thread(
                start, "--certs", folders / "web",
                "--explicit-outbound", f"127.0.0.1:0=127.0.0.1:{inbound.port('inbound')}",
            )  # fmt: skip
            port = outbound.port("outbound")
            held = await stack.enter_async_context(dialled(port))
            await round_trip(held, b"before")
            for jumped, welcome in (
                (60, True), (-60, True), (6 * hours, True), (-24 * hours, False), (0, True), (24 * hours, False),
                (365 * 24 * hours, False), (0, True),
            ):  # fmt: skip
                jump(jumped)
                await round_trip(held, b"a clock does not concern what is up")
                await reload(outbound, inbound)
                async with asyncio.timeout(30), dialled(port) as new:
                    try:
                        await round_trip(new, b"new")
                        let_in = True
                    except (ConnectionError, AssertionError):
                        let_in = False
                assert let_in is welcome, f"a clock that is {jumped / hours:g} hours off: {outbound.messages}"
                await round_trip(held, b"still up")
            saw("the connection from before lived through all jumps")
            for side in (outbound, inbound):
                assert side.process.poll() is None
                assert "a bug" not in side.messages
            # Timers go by a clock that does not jump.
            began = loop.time()
            outbound.process.send_signal(signal.SIGTERM)
            held.close()
            assert await asyncio.to_thread(outbound.process.wait, 60) == 0
            assert loop.time() - began < 60

    run(main(), 180)
