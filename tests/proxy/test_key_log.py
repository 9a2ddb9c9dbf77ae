"""The key log: two switches, one private file, and what it is good for."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time

import pytest

from mesh.errors import UserError
from proxy.key_log import SWITCH, open_key_log

ON = {SWITCH: "1"}


@pytest.mark.parametrize("environment", [{}, {SWITCH: ""}, {SWITCH: "0"}, {SWITCH: "yes"}])
def test_without_the_second_switch_nothing_is_opened(tmp_path, environment):
    with pytest.raises(UserError, match=f"only with {SWITCH}=1"):
        open_key_log(tmp_path / "keys", environment)
    assert not (tmp_path / "keys").exists()


def test_the_file_is_private_the_log_warns_and_lines_are_appended(tmp_path, caplog):
    path = tmp_path / "keys"
    before = os.umask(0)
    try:
        for line in ("one", "two"):
            open_key_log(path, ON)(line)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "one\ntwo\n"
    assert caplog.text.count("can decrypt all traffic") == 2


def test_a_file_that_others_can_use_is_refused(tmp_path):
    path = tmp_path / "keys"
    path.touch()
    path.chmod(0o640)
    with pytest.raises(UserError, match=f"chmod 600 {path}"):
        open_key_log(path, ON)


def test_a_link_and_a_folder_that_is_not_there_are_refused_in_one_line(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "link", tmp_path / "nowhere" / "keys"):
        with pytest.raises(UserError, match="cannot write the key log"):
            open_key_log(path, ON)
    assert not (tmp_path / "elsewhere").exists()


def test_a_pipe_is_refused_at_once_with_and_without_a_reader(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UserError, match="cannot write the key log"):
        open_key_log(tmp_path / "pipe", ON)
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(UserError, match="is no regular file"):
            open_key_log(tmp_path / "pipe", ON)
    finally:
        os.close(reader)


def test_a_file_with_a_second_name_is_refused(tmp_path):
    (tmp_path / "keys").touch(0o600)
    (tmp_path / "second").hardlink_to(tmp_path / "keys")
    with pytest.raises(UserError, match="hard link"):
        open_key_log(tmp_path / "keys", ON)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_a_file_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "keys").touch(0o600)
    os.chown(tmp_path / "keys", 12345, 12345)
    with pytest.raises(UserError, match="belongs to somebody else"):
        open_key_log(tmp_path / "keys", ON)


@pytest.mark.root
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="capturing packets needs root")
def test_tshark_decrypts_a_capture_of_ours_with_it(tmp_path, qbitel, pki, application, dial, monkeypatch):
    monkeypatch.setenv(SWITCH, "1")
    keys, capture = tmp_path / "keys", tmp_path / "capture.pcapng"

    def end(role: str, target: int, name: str, *more: object):
        folder = pki.base / name
        return qbitel(
            "tunnel", role, "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target}", "--profile", "hybrid-l5",
            "--cert", folder / "tls.crt", "--key", folder / "tls.key", "--ca", folder / "ca.crt", *more,
        )  # fmt: skip

    server = end("server", application.getsockname()[1], "api")
    client = end("client", server.port("inbound"), "web", "--key-log", keys)
    port = server.port("inbound")
    command = ["tshark", "-i", "lo", "-f", f"tcp port {port}", "-w", str(capture), "-q"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as sniffer:
        try:
            _wait_for_capture(sniffer, capture, port)
            near = dial(client.port("outbound"))
            with application.accept()[0] as far:
                near.sendall(b"GET /secret-of-the-mesh HTTP/1.1\r\nHost: a\r\n\r\n")
                assert far.recv(100)
                far.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
                assert near.recv(100)
            near.close()
            client.wait_for(client.lines)
            time.sleep(1)  # dumpcap writes what it has every half second
        finally:
            sniffer.terminate()
    assert b"secret-of-the-mesh" not in capture.read_bytes()
    read = ["tshark", "-r", str(capture), "-d", f"tcp.port=={port},tls", "-o", f"tls.keylog_file:{keys}"]
    # Some builds know no SecP384r1MLKEM1024 by name; the keys come from the log, and that is all they need.
    shown = subprocess.run([*read, "-V", "-x"], capture_output=True, text=True, check=True, errors="replace").stdout
    assert "Decrypted TLS" in shown
    assert "secret-of-the-mesh" in shown


def _wait_for_capture(sniffer: subprocess.Popen, capture, port: int) -> None:
    """Until packets to the port are in the file: connections that nobody minds prove it."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and sniffer.poll() is None:
        socket.create_connection(("127.0.0.1", port), 5).close()
        time.sleep(0.3)
        if capture.exists() and capture.stat().st_size > 500:
            return
    raise AssertionError(f"tshark captures nothing (exit code {sniffer.poll()})")
