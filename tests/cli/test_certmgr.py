"""`qbitel certmgr serve`: what bad input gets, and a life of the real process from its first line to SIGTERM."""

from __future__ import annotations

import pytest

from cli.main import main


def refusal(capsys, *words: object) -> str:
    """Run `qbitel certmgr WORDS`, which must fail with one line and exit code 2; return the line."""
    try:
        code = main(["certmgr", *map(str, words)])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("qbitel certmgr")
    return line


QUIET = ("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "required: COMMAND"),
        (["sell"], "invalid choice: 'sell'"),
        (["serve"], "required: DIR"),
        (["serve", "ca", "--listen", "15012"], "is not HOST:PORT"),
        (["serve", "ca", "--profile", "rot13"], "is no profile"),
        (["serve", "ca", "--drain-seconds", "-1"], "is not a number of seconds from 0 to 3600"),
        (["serve", "ca", "--drain-seconds", "nan"], "is not a number of seconds from 0 to 3600"),
        (["serve", "ca", "--drain-seconds", "soon"], "is not a number of seconds from 0 to 3600"),
        (["serve", "ca", "--log-level", "loud"], "invalid choice: 'loud'"),
    ],
)
def test_a_wrong_flag_is_one_line(capsys, words, expected):
    assert expected in refusal(capsys, *words)
