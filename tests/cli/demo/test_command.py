from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.demo import command
from cli.demo.command import parse
from cli.demo.options import Options
from cli.main import main
from mesh.errors import UserError


def test_without_flags_it_is_the_sample_and_a_file_of_256_mib() -> None:
    assert parse([]) == Options(port=8080, file_mib=256)


def test_json_ends_by_itself() -> None:
    assert parse(["--json"]).once


def test_a_command_is_read_as_a_shell_reads_words() -> None:
    assert parse(["--app", "nginx -g 'daemon off;'", "--port", "80"]).app == ("nginx", "-g", "daemon off;")


def test_a_capture_file_is_found_from_wherever_the_demo_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse(["--keep-capture", "a.pcap"]).keep_capture == str(tmp_path / "a.pcap")


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--app", "redis-server"], "--app needs --port"),
        (["--port", "80"], "--port belongs to --app"),
        (["--app", "x", "--port", "65536"], "no TCP port"),
        (["--app", "", "--port", "80"], "--app is empty"),
        (["--app", "sh -c 'oops", "--port", "80"], "cannot be read as a command"),
        (["--app-user", "nobody"], "--app-user belongs to --app"),
        (["--file-mib", "99999"], "too large"),
        (["--keep-capture", "/no/such/folder/x"], "a folder that exists"),
        (["--keep-capture", "/"], "a file name"),
    ],
)
def test_flags_that_do_not_fit_are_one_line(
    arguments: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=advice):
        parse(arguments)
    assert main(["demo", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--port", "x"], ["--file-mib", "0"]])
def test_unknown_flags_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["demo", *arguments])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_another_user_needs_root_and_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--app", "x", "--port", "1", "--app-user"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match="needs root"):
        parse([*words, "nobody"])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UserError, match="no such user"):
        parse([*words, "no-such-user-here"])
    assert parse([*words, "nobody"]).app_user == "nobody"


def test_the_exit_code_is_the_demos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.guard, "run", lambda options: 1 if options.once else 0)
    assert main(["demo", "--once"]) == 1
    assert main(["demo"]) == 0
