from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cli.demo.errors import PartFailedError
from cli.demo.processes import Child, Event, Place, describe_exit, module, own_environment, wait_until


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def python(stack: ExitStack, script: str, **options: object) -> Child:
    child = Child("the part", [sys.executable, "-u", "-c", script], **options)  # type: ignore[arg-type]
    stack.callback(child.stop)
    return child


def test_events_come_in_order(stack: ExitStack) -> None:
    child = python(stack, """print('{"event": "a", "n": 1}'); print('{"event": "b"}')""")
    assert child.expect("a", 5) == {"event": "a", "n": 1}
    child.expect("b", 5)
    child.finish(5)


def test_a_part_that_fails_tells_its_last_words(stack: ExitStack) -> None:
    child = python(stack, "import sys; print('not json'); sys.exit('it went wrong')")
    with pytest.raises(PartFailedError, match="the part ended too early") as failure:
        child.expect("ready", 5)
    assert "it went wrong" in failure.value.lines


def test_only_the_end_of_a_flood_is_kept(stack: ExitStack) -> None:
    child = python(stack, "import sys\nfor n in range(1000): print(n, file=sys.stderr)\nsys.exit(3)")
    with pytest.raises(PartFailedError, match="exit code 3") as failure:
        child.finish(5)
    assert failure.value.lines[-1] == "999"
    assert len(failure.value.lines) < 50


def test_a_silent_part_is_late(stack: ExitStack) -> None:
    child = python(stack, "import time; time.sleep(60)")
    with pytest.raises(PartFailedError, match=r"said nothing for 0.1 seconds"):
        child.expect("ready", 0.1)
    with pytest.raises(PartFailedError, match=r"did not end within 0.1 seconds"):
        child.finish(0.1)


def test_an_unexpected_event_is_a_failure(stack: ExitStack) -> None:
    child = python(stack, """print('{"event": "other"}')""")
    with pytest.raises(PartFailedError, match="said 'other' where 'ready' was expected"):
        child.expect("ready", 5)


def test_a_part_answers_and_one_that_is_gone_does_not(stack: ExitStack) -> None:
    child = python(stack, """import json; print(json.dumps({"event": "echo", "got": json.loads(input())}))""")
    assert child.ask({"x": 1}, "echo", 5)["got"] == {"x": 1}
    child.finish(5)
    with pytest.raises(PartFailedError):
        child.ask({"x": 2}, "echo", 5)


def test_a_part_that_ignores_sigterm_is_killed(stack: ExitStack) -> None:
    child = python(stack, "import signal, time; signal.signal(15, signal.SIG_IGN); print('{\"event\": \"on\"}')\n"
                   "time.sleep(60)")  # fmt: skip
    child.expect("on", 5)
    child.stop(0.2)
    assert child.exit_code == -9
    child.stop()


def test_a_part_that_ends_with_its_input_completes_its_work(stack: ExitStack, tmp_path: Path) -> None:
    note = tmp_path / "note"
    script = f"import sys; sys.stdin.read(); open({str(note)!r}, 'w').write('complete')"
    python(stack, script, ends_with_input=True).stop()
    assert note.read_text() == "complete"


def test_a_daemon_that_keeps_the_pipes_does_not_hold_up_the_end(stack: ExitStack) -> None:
    child = python(stack, "import subprocess; subprocess.Popen(['sleep', '5'], start_new_session=True)")
    child.finish(5)
    start = time.monotonic()
    child.stop()
    assert time.monotonic() - start < 3


def test_events_can_be_handed_to_a_reader(stack: ExitStack) -> None:
    seen: list[Event] = []
    python(stack, """print('{"event": "a"}'); print('[1]'); print('{"event": "b"}')""", on_event=seen.append).finish(5)
    assert wait_until(lambda: len(seen) == 2, 5)
    assert [event["event"] for event in seen] == ["a", "b"]


def test_a_place_is_a_command_line() -> None:
    place = Place(network=Path("/n"), user=(1, 2), die_with=3)
    words = [*module("confine"), "--network", "/n", "--user", "1:2", "--die-with", "3", "--", "true"]
    assert place.wrap(["true"]) == words


def test_the_environment_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    assert "SOME_TOKEN" not in own_environment()
    assert own_environment()["PATH"] == os.environ["PATH"]


def test_exits_are_described() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-9) == "killed by SIGKILL"


def test_waiting_ends_when_the_time_is_over() -> None:
    assert wait_until(lambda: True, 0)
    assert not wait_until(lambda: False, 0.1)
