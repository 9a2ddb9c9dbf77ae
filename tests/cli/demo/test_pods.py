from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from cli.demo import pods
from cli.demo.content import Markers
from cli.demo.errors import CannotIsolateError
from cli.demo.pods import PodStage

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
TOKEN = Markers("pods-token")


@pytest.mark.root
@needs_root
def test_pod_a_reaches_the_server_in_pod_b_over_a_wire_that_is_tapped(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stage = PodStage(stack, tmp_path, 8080)
        stage.start_sample(TOKEN.token)
        wire = stage.open_wire(sidecars=False)
        wire.watch(TOKEN.patterns())
        stage.run_client("latency", wire.endpoint, 10, token=TOKEN.token, requests=3, new_connections=2)
        report = wire.report()
    assert report.hits == {"request": 8, "response": 8, "file": 0}
    assert report.complete


@pytest.mark.root
@needs_root
def test_where_the_rules_cannot_be_made_there_are_no_pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = (sys.executable, "-c", "import sys; sys.exit('qbitel init: iptables is missing; install it')")
    monkeypatch.setattr(pods, "QBITEL", failing)
    with ExitStack() as stack, pytest.raises(CannotIsolateError, match="iptables is missing"):
        PodStage(stack, tmp_path, 8080)


def test_files_that_the_sidecars_user_cannot_read_are_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "pods.py"
    closed.touch(mode=0o600)
    monkeypatch.setattr(pods, "__file__", str(closed))
    with pytest.raises(CannotIsolateError, match=r"chmod -R go\+rX"):
        pods._check_readable()


PRIVATE = """
from pathlib import Path
from cli.demo.pods import make_private_folder
folder = make_private_folder()
(folder / "inside").touch()
Path("/run/qbitel-demo-test.pid").write_text("1")
print(folder, (folder.stat().st_mode & 0o777) == 0o711, (folder / "run/qbitel-demo-test.pid").exists())
"""


@pytest.mark.root
@needs_root
def test_the_private_folder_and_what_is_written_to_run_are_seen_inside_only() -> None:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", PRIVATE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    folder, mode_is_right, covered = done.stdout.split()
    assert mode_is_right == "True"
    assert not Path(folder).exists()
    if covered == "True":  # where the kernel has overlayfs
        assert not Path("/run/qbitel-demo-test.pid").exists()
    else:
        Path("/run/qbitel-demo-test.pid").unlink()
