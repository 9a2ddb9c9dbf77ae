"""Servers that are not ours, behind the sidecar as they are."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.demo.guard import why_no_namespaces
from cli.demo.own_server import common_excerpt

RunDemo = Callable[..., Any]

needs_pods = pytest.mark.skipif(bool(why_no_namespaces()), reason=f"no pods: {why_no_namespaces()}")
SECONDS = 60

SERVER_FIRST = """
import socket, sys, threading
def serve(connection):
    with connection:
        connection.sendall(b'220 server first\\r\\n')
        while line := connection.recv(1000):
            connection.sendall(b'250 ' + line)
listener = socket.create_server(('0.0.0.0', int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def command_line(*words: object) -> str:
    return shlex.join(map(str, words))


@pytest.mark.root
@needs_pods
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_redis_answers_through_the_door_while_the_demo_lives(run_demo: RunDemo) -> None:
    demo = run_demo("--app", "redis-server --port 6379 --save '' --protected-mode no", "--port", "6379")
    demo.wait_for(" handshakes, ")
    text = demo.text()
    assert "NOT SEEN" not in text
    hint = re.search(r"redis-cli -p (\d+)", text)
    assert hint is not None
    with socket.create_connection(("127.0.0.1", int(hint[1])), 5) as client:
        client.sendall(b"PING\r\n")
        assert client.recv(100) == b"+PONG\r\n"
        client.sendall(b"SET greeting hello\r\nGET greeting\r\n")
        answer = b""
        while b"hello" not in answer:
            answer += client.recv(100)
    assert demo.end(signal.SIGTERM) == 0
    assert demo.left() == []


@pytest.mark.root
@needs_pods
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_as_a_daemon_is_seen_and_leaves_no_pid_file(run_demo: RunDemo, tmp_path: Path) -> None:
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        "pid /run/qbitel-demo-nginx.pid; error_log stderr; events {}\n"
        "http { access_log off; server { listen 8081; location / { return 200 'hello from nginx'; } } }\n"
    )
    demo = run_demo("--once", "--app", command_line("nginx", "-c", configuration), "--port", "8081")
    while demo.process.poll() is None:
        demo.look()
    assert demo.process.returncode == 0, demo.text()
    assert "it answers HTTP" in demo.text()
    assert demo.left() == []
    assert not Path("/run/qbitel-demo-nginx.pid").exists()


def test_a_server_that_speaks_first_works_on_loopback_too(run_demo: RunDemo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    demo = run_demo(
        *("--once", "--loopback", "--port", str(port)),
        *("--app", command_line(sys.executable, "-c", SERVER_FIRST, port)),
    )
    assert demo.process.wait(SECONDS) == 0, demo.text()
    assert "it speaks first: 220 server first" in demo.text()
    assert demo.left() == []


def test_an_excerpt_is_a_line_that_both_answers_have() -> None:
    first = b"HTTP/1.1 200 OK\r\nDate: one\r\n\r\nhello world, long line"
    second = b"HTTP/1.1 200 OK\r\nDate: two\r\n\r\nhello world, long line"
    assert common_excerpt(first, second) == b"hello world, long line"
    assert common_excerpt(b"short", b"short") == b""
    assert common_excerpt(b"a long enough line", b"another long line..") == b""
    assert common_excerpt(b"", b"") == b""
    assert len(common_excerpt(bytes(1000), bytes(1000))) == 64
