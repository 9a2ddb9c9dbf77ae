"""Several worker processes behind one port, one answer of /metrics, and an end that leaves nothing."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from cli.demo.confine import CLONE_NEWNS, check, libc
from tests.proxy.conftest import PATIENCE


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def many(scratch, inbound_sidecar, application):
    return inbound_sidecar(application.getsockname()[1], "--workers", "2", "--mode", "DISABLE")


def test_workers_share_the_port_and_one_answer_sums_them(many, application, dial, scratch):
    assert len(children(many.process.pid)) == 2
    clients = [dial(many.port("inbound")) for _ in range(16)]
    accepted = [application.accept()[0] for _ in clients]
    assert many.get("health", "/healthz/ready") == (200, "ready\n")
    many.wait_for(lambda: many.metric("qbitel_connections_open", direction="inbound") == 16)
    files = {name.name.rpartition("_")[2] for name in next(scratch.iterdir()).glob("gauge_livesum_*.db")}
    assert files == {f"{pid}.db" for pid in children(many.process.pid)}, "one of the workers got nothing"
    for sock in (*clients, *accepted):
        sock.close()
    many.wait_for(lambda: many.metric("istio_tcp_connections_closed_total") == 16)
    assert many.metric("qbitel_build_info") == 1
    assert many.stop() == 0
    assert list(scratch.iterdir()) == []


def test_a_worker_that_dies_ends_the_lot_with_one_line(many, scratch):
    workers = children(many.process.pid)
    os.kill(workers[0], signal.SIGKILL)
    assert many.process.wait(15) == 1
    assert all(map(gone, workers))
    assert [line for line in many.messages.splitlines() if "ERROR" in line] == [
        line for line in many.messages.splitlines() if f"worker {workers[0]} was killed by signal 9" in line
    ]
    assert list(scratch.iterdir()) == []


def test_workers_end_when_their_parent_is_killed(many, scratch):
    workers = children(many.process.pid)
    many.process.kill()
    many.process.wait()
    deadline_reached = _wait_until(lambda: all(map(gone, workers)) and not list(scratch.iterdir()))
    assert deadline_reached


def _wait_until(condition, patience: float = 10.0) -> bool:
    import time

    end = time.monotonic() + patience
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_sigterm_drains_all_workers(many, application, dial):
    client = dial(many.port("inbound"))
    with application.accept()[0] as accepted:
        many.process.send_signal(signal.SIGTERM)
        many.wait_for(lambda: "draining" in many.messages)
        client.sendall(b"still works")
        assert accepted.recv(100) == b"still works"
        client.close()
        assert accepted.recv(100) == b""
    assert many.process.wait(15) == 0


def test_ctrl_c_in_a_terminal_reaches_all_and_still_drains(many, application, dial):
    client = dial(many.port("inbound"))
    with application.accept()[0] as accepted:
        for pid in (*children(many.process.pid), many.process.pid):  # what a terminal does
            os.kill(pid, signal.SIGINT)
        many.wait_for(lambda: "draining" in many.messages)
        client.sendall(b"still works")
        assert accepted.recv(100) == b"still works"
    client.close()
    assert many.process.wait(15) == 0


def test_quitquitquit_is_no_failure_where_one_worker_ends_before_another_has_answered(
    scratch, inbound_sidecar, application
):
    many = inbound_sidecar(
        application.getsockname()[1], "--workers", "2", "--mode", "DISABLE", "--admin", "127.0.0.1:0"
    )
    quick, slow = children(many.process.pid)
    os.kill(slow, signal.SIGSTOP)
    try:
        with socket.create_connection(("127.0.0.1", many.port("admin"))) as operator:
            operator.sendall(b"POST /quitquitquit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
            assert _wait_until(lambda: gone(quick))
    finally:
        os.kill(slow, signal.SIGCONT)
    assert many.process.wait(15) == 0
    assert "ended with exit code" not in many.messages


def test_without_a_writable_temporary_folder_it_says_so(qbitel, pki, tmp_path, monkeypatch):
    import subprocess
    import sys

    environment = {**os.environ, "TMPDIR": str(tmp_path / "nowhere")}
    code = (
        "import sys, tempfile\n"
        "nowhere = [sys.argv.pop(1)]\n"
        "tempfile._candidate_tempdir_list = lambda: nowhere\n"
        "from cli.main import main\n"
        "sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "nowhere"), "proxy", "--no-capture", "--workers", "2",
         "--certs", str(pki.base / "api"), "--explicit-inbound", "127.0.0.1:0=127.0.0.1:9"],
        env=environment, capture_output=True, text=True, timeout=15, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--workers needs a writable folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_where_there_is_no_room_for_the_counters_that_is_said_in_one_line_and_no_worker_dies_of_it(
    qbitel, pki, tmp_path
):
    """A mapped file on a full disk is not an error but SIGBUS."""
    if os.geteuid() != 0:
        pytest.skip("needs root on Linux: it mounts a small file system")
    place = tmp_path / "small"
    place.mkdir()

    def enter() -> None:
        check(libc.unshare(CLONE_NEWNS), "unshare")
        check(libc.mount(b"none", b"/", None, 0x44000, None), "making the mounts our own")  # MS_REC | MS_PRIVATE
        check(libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, b"size=64k"), "mounting")
        os.environ["TMPDIR"] = str(place)

    sidecar = qbitel(
        "proxy", "--no-capture", "--workers", "2", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0",
        "--certs", pki.base / "api", "--explicit-inbound", "127.0.0.1:0=127.0.0.1:9", ready=False, preexec=enter,
    )  # fmt: skip
    assert sidecar.process.wait(PATIENCE) == 2
    assert "--workers needs a writable folder with room for its counters" in sidecar.messages
    assert "Traceback" not in sidecar.messages
