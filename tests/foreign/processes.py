"""Processes at both ends: a foreign peer that reports in JSON lines, our own tunnel, and a plain TCP application."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

# Pure Python needs up to a second for a signature, and two suites may share a core.
DEADLINE: Final = 20.0
_HEADER: Final = 8
_PIECE: Final = 65536


class Child:
    """A process whose lines on stdout and stderr are kept, and which is gone when the block ends."""

    def __init__(self, *command: str | Path) -> None:
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
        )
        self.out: queue.Queue[str] = queue.Queue()
        self.err: queue.Queue[str] = queue.Queue()
        self.seen: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self._process.stdout, self.out), (self._process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def wait(self) -> int:
        """The exit code."""
        return self._process.wait(DEADLINE)

    def line(self, source: queue.Queue[str], pattern: str) -> re.Match[str]:
        """Wait for a line that matches `pattern`; lines before it are dropped."""
        end = time.monotonic() + DEADLINE
        while True:
            try:
                text = source.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line matched {pattern!r}; there was:\n" + "\n".join(self.seen)) from None
            found = re.search(pattern, text)
            if found:
                return found

    def _read(self, stream: IO[str], lines: queue.Queue[str]) -> None:
        for text in stream:
            self.seen.append(text.rstrip())
            lines.put(text.rstrip())


class Peer(Child):
    """A foreign stack. Its script takes one JSON object and prints one per line, each with an "event"."""

    def __init__(self, *command: str | Path, **options: Any) -> None:
        super().__init__(*command, json.dumps(options, default=str))

    def event(self, name: str) -> dict[str, Any]:
        """Wait for the event `name`. Any other that comes first is a failure, and is shown."""
        facts = self.any_event()
        assert facts["event"] == name, f"expected {name}, got {facts}; all lines: {self.seen}"
        return facts

    def any_event(self) -> dict[str, Any]:
        """Wait for whatever comes next."""
        facts: dict[str, Any] = json.loads(self.line(self.out, r"^\{.*\}$")[0])
        return facts


class Tunnel(Child):
    """`qbitel tunnel client|server` on a port of its own choice, ready to take connections."""

    def __init__(self, end: str, target: int, folder: Path, profile: str, *options: str) -> None:
        super().__init__(
            *(sys.executable, "-c", "from cli.main import main; raise SystemExit(main())", "tunnel", end),
            *("--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target}", "--profile", profile),
            *("--cert", folder / "tls.crt", "--key", folder / "tls.key", "--ca", folder / "ca.crt"),
            *options,
        )
        try:
            self.port = int(self.line(self.err, r"(?:in|out)bound on 127\.0\.0\.1:(\d+)")[1])
            self.line(self.err, r"ready: ")
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def handshake(self) -> dict[str, Any]:
        """The next handshake in the access log: what was negotiated, and with whom."""
        facts: dict[str, Any] = json.loads(self.line(self.out, r'^\{.*"handshake".*\}$')[0])
        return facts

    def warning(self, pattern: str) -> str:
        """Wait for a warning that matches `pattern`."""
        return self.line(self.err, rf"WARNING .*(?:{pattern})").string


class EchoApplication:
    """A plain TCP server that reads a length and sends so many bytes back: the application behind a tunnel."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.connections = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # shut down
            with connection:
                self.connections += 1
                _echo(connection)


def _echo(connection: socket.socket) -> None:
    connection.settimeout(DEADLINE)
    with connection.makefile("rb") as source:
        header = source.read(_HEADER)
        left = int.from_bytes(header, "big") if len(header) == _HEADER else 0
        while left and (data := source.read1(min(left, _PIECE))):
            left -= len(data)
            connection.sendall(data)


def exchange(port: int, size: int) -> str:
    """Send `size` random bytes to an echo at `port` while they come back; return their SHA-256, both ways the same."""
    payload = os.urandom(min(size, 2**20)) * (size // 2**20 or 1)
    payload += os.urandom(size - len(payload))
    back = hashlib.sha256()
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as connection:
        connection.sendall(len(payload).to_bytes(_HEADER, "big"))
        writer = threading.Thread(target=connection.sendall, args=(payload,))
        writer.start()
        left = size
        while left and (data := connection.recv(_PIECE)):
            left -= len(data)
            back.update(data)
        writer.join()
    assert left == 0, f"{left} of {size} bytes did not come back"
    assert back.digest() == hashlib.sha256(payload).digest()
    return back.hexdigest()
