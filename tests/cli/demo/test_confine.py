from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.demo.confine import first_closed, needed_folders
from cli.demo.processes import Place

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing user or namespace needs root")
STATUS = "print(open('/proc/self/status').read())"


def run(place: Place, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(place.wrap(command), capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.root
@needs_root
def test_a_user_has_no_rights_at_all() -> None:
    done = run(Place(user=(2102, 2102)), sys.executable, "-c", STATUS)
    fields = {line.partition(":")[0]: line.partition(":")[2].split() for line in done.stdout.splitlines()}
    assert set(fields["Uid"]) == set(fields["Gid"]) == {"2102"}
    assert fields["Groups"] == []
    assert fields["NoNewPrivs"] == ["1"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name][0], 16) == 0, name


@pytest.mark.root
@needs_root
def test_an_account_runs_with_its_own_groups() -> None:
    done = run(Place(account="nobody"), "id", "-un")
    assert done.stdout == "nobody\n"


REVEAL = """
import os, sys
from pathlib import Path
from cli.demo import confine
confine._reveal([*confine.needed_folders(), Path(sys.argv[1])])
os.execvp("setpriv", ["setpriv", "--reuid", "2102", "--regid", "2102", "--clear-groups", *sys.argv[2:]])
"""


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("mode_of_the_last", [0o755, 0o700])
def test_a_folder_behind_closed_ones_can_be_reached_and_its_neighbours_cannot(
    tmp_path: Path, mode_of_the_last: int
) -> None:
    closed = tmp_path / "closed"
    project = closed / "a" / "project"
    (project / "inner").mkdir(parents=True)
    (project / "inner" / "file").write_text("readable")
    (project / "top").write_text("too")
    (closed / "secret").write_text("secret")
    closed.chmod(0o700)
    project.chmod(mode_of_the_last)
    files = [project / "inner" / "file", project / "top", closed / "secret"]
    command = [sys.executable, "-c", REVEAL, str(project), "cat", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout == "readabletoo"
    assert "secret" in done.stderr
    assert closed.stat().st_mode & 0o777 == 0o700
    assert (closed / "secret").read_text() == "secret"


def test_the_outermost_closed_folder_is_found(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "a").chmod(0o700)
    closed = first_closed(inner)
    assert closed is not None
    assert closed in (tmp_path / "a", *tmp_path.parents)


def test_the_interpreter_and_the_project_are_needed() -> None:
    folders = needed_folders()
    assert Path(sys.prefix) in folders
    assert Path(__file__).resolve().parents[3] in folders


@pytest.mark.parametrize(
    "account",
    [
        None,
        # The kernel forgets the wish when the user changes, unless it is told again behind the change.
        pytest.param("nobody", marks=[pytest.mark.root, needs_root]),
    ],
)
def test_a_process_dies_with_the_one_it_was_told_to(account: str | None) -> None:
    script = (
        "import os, subprocess\n"
        "from cli.demo.processes import Place\n"
        f"place = Place(die_with=os.getpid(), account={account!r})\n"
        "child = subprocess.Popen(place.wrap(['sleep', '60']), stdout=subprocess.PIPE)\n"
        "open('/proc/self/comm').read()\n"
        "print(child.pid, flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path(f"/proc/{int(parent.stdout.readline())}")
        while b"sleep" not in (child / "cmdline").read_bytes().split(b"\0")[0]:
            pass  # until it has become what it shall be
        parent.kill()
        parent.wait()
        for _ in range(10_000):
            if not child.exists() or "Z" in (child / "stat").read_text().rpartition(")")[2].split()[0]:
                return
        os.kill(int(child.name), signal.SIGKILL)
        pytest.fail("it survived")


def test_a_process_whose_parent_has_ended_does_not_start() -> None:
    done = run(Place(die_with=1 if os.getpid() != 1 else 2), "true")
    assert done.returncode == 127
    assert done.stderr == "could not start true: the demo has ended\n"


def test_a_missing_program_is_one_line() -> None:
    done = run(Place(), "/no/such/program")
    assert done.returncode == 127
    assert done.stderr.count("\n") == 1
    assert "could not start /no/such/program" in done.stderr
