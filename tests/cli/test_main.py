"""The `qbitel` command: which subcommand runs, and what becomes of its errors."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import types
from collections.abc import Callable, Sequence

import pytest

from cli import main as cli_main
from cli.main import COMMANDS, EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, main
from mesh.errors import UserError

PROGRAM = "import sys; from cli.main import main; sys.exit(main())"


@pytest.fixture
def subcommand(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Sequence[str]], int]], None]:
    """Makes `qbitel sample …` call a function of the test's."""

    def add(function: Callable[[Sequence[str]], int]) -> None:
        module = types.ModuleType("sample_command")
        module.main = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "sample_command", module)
        monkeypatch.setitem(cli_main.COMMANDS, "sample", ("sample_command", "a sample"))

    return add


@pytest.mark.parametrize("word", ["-h", "--help", "help"])
def test_help_lists_every_command_with_what_it_does(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    output = capsys.readouterr().out
    for name, (_, purpose) in COMMANDS.items():
        assert any(line.split() == [name, *purpose.split()] for line in output.splitlines())


def test_no_command_at_all_shows_the_help_and_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: qbitel COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["-V", "--version", "version"])
def test_the_version_is_the_installed_one(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    assert capsys.readouterr().out == f"qbitel {importlib.metadata.version('qbitel-mesh')}\n"


def test_an_unknown_command_gets_one_line_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["servemesh"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"qbitel: 'servemesh' is no command; there are: {', '.join(COMMANDS)}\n"
    assert captured.err.endswith(
        " demo, proxy, status, tunnel, init, inject, uninject, injector, wait, ca, certmgr, discovery, policy, check, "
        "bench\n"
    )


def test_a_subcommand_gets_the_rest_of_the_words_and_its_code_is_returned(
    subcommand: Callable[[Callable[[Sequence[str]], int]], None],
) -> None:
    seen: list[str] = []

    def run(arguments: Sequence[str]) -> int:
        seen.extend(arguments)
        return 7

    subcommand(run)
    assert main(["sample", "--flag", "value"]) == 7
    assert seen == ["--flag", "value"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("wrong; mend it"), "wrong; mend it"),
        (OSError(28, "No space left on device", "/out"), "/out: No space left on device"),
        (OSError("gone"), "the system: gone"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_exit_code_2(
    error: Exception,
    line: str,
    subcommand: Callable[[Callable[[Sequence[str]], int]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(_arguments: Sequence[str]) -> int:
        raise error

    subcommand(run)
    assert main(["sample"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"qbitel sample: {line}\n")


def test_an_error_of_our_own_is_not_hidden(
    subcommand: Callable[[Callable[[Sequence[str]], int]], None],
) -> None:
    def run(_arguments: Sequence[str]) -> int:
        raise ZeroDivisionError

    subcommand(run)
    with pytest.raises(ZeroDivisionError):
        main(["sample"])


def test_an_interrupt_is_the_exit_code_that_shells_know(
    subcommand: Callable[[Callable[[Sequence[str]], int]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(_arguments: Sequence[str]) -> int:
        raise KeyboardInterrupt

    subcommand(run)
    assert main(["sample"]) == EXIT_INTERRUPTED == 130
    assert capsys.readouterr().err == ""


def test_the_process_s_own_arguments_are_the_default() -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", PROGRAM, "nothing"], capture_output=True, text=True, check=False, timeout=30
    )

    assert outcome.returncode == 2
    assert outcome.stderr.startswith("qbitel: 'nothing' is no command")


def test_help_imports_no_program() -> None:
    """The init container starts for every pod: it must not pay for what the other commands import."""
    program = (
        "import sys; from cli.main import main; main(['help']); "
        "heavy = {'pqtls', 'cryptography', 'proxy', 'init', 'certmgr', 'uvloop', 'aiohttp', 'asyncio'}; "
        "print(*sorted(heavy & set(sys.modules)))"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)

    assert outcome.stdout.splitlines()[-1] == ""


def test_a_reader_that_has_gone_gets_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed_pipe:
        outcome = subprocess.run(
            [sys.executable, "-c", PROGRAM, "help"], stdout=closed_pipe, stderr=subprocess.PIPE, check=False, timeout=30
        )
    assert (outcome.returncode, outcome.stderr) == (EXIT_BROKEN_PIPE, b"")
