from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from cli.demo.descendants import children

# Runs in a process of its own: its descendants must be all that there are. The daemon leaves its parent and session.
SCRIPT = """
import os, subprocess, sys
from cli.demo.descendants import adopt_orphans, {end}, children
DAEMON = '''
import os, time
if os.fork():
    os._exit(0)
os.setsid()
{trap}
print(os.getpid(), flush=True)
time.sleep(60)
'''
adopt_orphans()
with subprocess.Popen([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE, text=True) as process:
    pid = int(process.stdout.readline())
    process.wait()
    assert children(os.getpid()) == [pid]
    {end}()
assert children(os.getpid()) == []
print(pid)
"""


def run(end: str, trap: str) -> int:
    script = SCRIPT.format(end=end, trap=trap)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_daemon_that_left_its_parent_is_killed() -> None:
    assert not Path(f"/proc/{run('kill_descendants', 'pass')}").exists()


def test_a_daemon_may_clean_up_before_it_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "note"
    trap = f"import signal; signal.signal(15, lambda *_: (open({str(note)!r}, 'w').close(), os._exit(0)))"
    assert not Path(f"/proc/{run('end_descendants', trap)}").exists()
    assert note.exists()


def test_a_daemon_that_ignores_the_request_is_killed_soon() -> None:
    start = time.monotonic()
    assert not Path(f"/proc/{run('end_descendants', 'import signal; signal.signal(15, signal.SIG_IGN)')}").exists()
    assert time.monotonic() - start < 5


def test_children_are_found_whatever_their_name() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert process.pid in children(os.getpid())
        process.kill()
