"""The client application of the demo: plain sockets and http.client; it knows nothing of TLS, certificates or the mesh.

    latency     small requests over one kept connection, then each over a new one; all times in microseconds
    fetch       one large file; its size, SHA-256 and time
    background  small requests without end; one line of numbers each second
    probe       whatever TCP server there is: what does it send, by itself or when it sees an HTTP request?
    wait        until a server accepts connections

Each writes JSON lines to stdout; an error that a network can make is one line on stderr and exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

# A server that speaks first (SMTP, MySQL, SSH) does so at once; what says nothing for this long waits for us.
SERVER_FIRST_WAIT: Final = 0.4
# The background client keeps a connection for so many requests, so that handshakes happen in the live view too.
REQUESTS_PER_CONNECTION: Final = 25
BACKGROUND_PAUSE: Final = 0.02  # 50 requests a second: visible, and no load
MAX_PROBE_ANSWER: Final = 1 << 16
READ_SIZE: Final = 1 << 18


class WrongAnswerError(Exception):
    """The server answered, but not what was asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the modes."""
    options = _parser().parse_args(arguments)
    modes: dict[str, Callable[[argparse.Namespace], None]] = {
        "latency": _latency,
        "fetch": _fetch,
        "background": _background,
        "probe": _probe,
        "wait": _wait,
    }
    try:
        modes[options.mode](options)
    except (OSError, http.client.HTTPException, WrongAnswerError) as error:
        print(f"{options.mode} {options.host}:{options.port}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="client")
    parser.add_argument("mode", choices=["latency", "fetch", "background", "probe", "wait"])
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--timeout", type=float, default=15.0)
    parser.add_argument("--token", default="")
    parser.add_argument("--requests", type=int, default=0)
    parser.add_argument("--new-connections", type=int, default=0)
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--path", default="")
    # A probe's answer is over when nothing more has come for so long.
    parser.add_argument("--rest-wait", type=float, default=0.2)
    parser.add_argument("--pause", type=float, default=0)
    parser.add_argument("--listen-first", type=int, default=1)
    return parser


def _latency(options: argparse.Namespace) -> None:
    kept, fresh = [], []
    connection = _connection(options)
    for _ in range(options.requests):
        start = time.perf_counter_ns()
        _echo(connection, options.token)
        kept.append((time.perf_counter_ns() - start) // 1000)
    connection.close()
    for _ in range(options.new_connections):
        connection = _connection(options)
        start = time.perf_counter_ns()
        _small(connection, options.token)
        fresh.append((time.perf_counter_ns() - start) // 1000)
        connection.close()
    _say(event="latency", kept_us=kept, fresh_us=fresh)


def _fetch(options: argparse.Namespace) -> None:
    connection = _connection(options)
    start = time.perf_counter()
    connection.request("GET", f"/file?bytes={options.bytes}")
    response = connection.getresponse()
    digest, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(READ_SIZE))
    while count := response.readinto(buffer):
        digest.update(buffer[:count])
        size += count
    seconds = time.perf_counter() - start
    connection.close()
    _say(event="fetched", status=response.status, bytes=size, sha256=digest.hexdigest(), seconds=seconds)


def _background(options: argparse.Namespace) -> None:
    connection, total, sent = _connection(options), 0, 0
    window: list[int] = []
    since = time.monotonic()
    while True:
        start = time.perf_counter_ns()
        try:
            sent += _get(connection, options.path) if options.path else _echo(connection, options.token)
            total += 1
            window.append((time.perf_counter_ns() - start) // 1000)
            error = ""
        except (OSError, http.client.HTTPException, WrongAnswerError) as failure:
            error = f"{type(failure).__name__}: {failure}"
            connection.close()
        if total % REQUESTS_PER_CONNECTION == 0:
            connection.close()  # http.client opens a new one for the next request
        now = time.monotonic()
        if now - since >= 1 or error:
            _say(event="second", requests=total, bytes=sent, times_us=window, error=error)
            window, since = [], now
        time.sleep(1 if error else BACKGROUND_PAUSE)


def _probe(options: argparse.Namespace) -> None:
    for number in range(max(1, options.requests)):
        time.sleep(options.pause if number else 0)
        start = time.perf_counter_ns()
        with socket.create_connection((options.host, options.port), options.timeout) as connection:
            answer, kind = b"", "server-first"
            try:
                if options.listen_first:
                    answer, kind = _read_some(connection, SERVER_FIRST_WAIT)
                if kind != "closed" and not answer:
                    start = time.perf_counter_ns()
                    connection.sendall(_probe_request(options))
                    answer, kind = _read_some(connection, options.timeout)
                    kind = kind if not answer else "http" if answer.startswith(b"HTTP/1.") else "other"
                elapsed = (time.perf_counter_ns() - start) // 1000
                rest = _read_rest(connection, answer, options.rest_wait)
            except (ConnectionResetError, BrokenPipeError):
                elapsed, kind, rest = (time.perf_counter_ns() - start) // 1000, "reset" if not answer else kind, b""
        _say(event="probe", kind=kind, answer=(answer + rest).hex(), first_byte_us=elapsed)


def _probe_request(options: argparse.Namespace) -> bytes:
    head = f"GET / HTTP/1.1\r\nHost: {options.host}:{options.port}\r\nConnection: close\r\n"
    return f"{head}X-Demo: {options.token}-request\r\n\r\n".encode()


def _wait(options: argparse.Namespace) -> None:
    deadline = time.monotonic() + options.timeout
    while True:
        try:
            with socket.create_connection((options.host, options.port), 1):
                _say(event="accepts")
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _connection(options: argparse.Namespace) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(options.host, options.port, timeout=options.timeout)


def _echo(connection: http.client.HTTPConnection, token: str) -> int:
    """POST a line; return the bytes of both bodies. The answer must be the line."""
    line = f"{token}-request and {token}-response\n".encode()
    connection.request("POST", "/echo", body=line)
    response = connection.getresponse()
    if (body := response.read()) != line:
        raise WrongAnswerError(f"/echo answered {response.status} with {body[:80]!r}")
    return 2 * len(line)


def _small(connection: http.client.HTTPConnection, token: str) -> int:
    connection.request("GET", "/small", headers={"X-Demo": f"{token}-request"})
    response = connection.getresponse()
    body = response.read()
    if response.status != http.HTTPStatus.OK or f"{token}-response".encode() not in body:
        raise WrongAnswerError(f"/small answered {response.status} with {body[:80]!r}")
    return len(body)


def _get(connection: http.client.HTTPConnection, path: str) -> int:
    """GET `path` of a server that is not ours: any status will do."""
    connection.request("GET", path)
    return len(connection.getresponse().read())


def _read_some(connection: socket.socket, seconds: float) -> tuple[bytes, str]:
    """The first bytes that come, and what that makes the server: server-first, or closed or silent without any."""
    connection.settimeout(seconds)
    try:
        answer = connection.recv(MAX_PROBE_ANSWER)
    except TimeoutError:
        return b"", "silent"
    return answer, "server-first" if answer else "closed"


def _read_rest(connection: socket.socket, so_far: bytes, seconds: float) -> bytes:
    rest = b""
    while len(so_far) + len(rest) < MAX_PROBE_ANSWER and (more := _read_some(connection, seconds)[0]):
        rest += more
    return rest


def _say(**event: object) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    sys.exit(main())
