"""`qbitel ca` as a whole: its words, its help, its exit codes as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.ca.conftest import WEB, Ca

_PROGRAM = [sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())", "ca"]
_ALL = ["init", "issue", "token", "show", "verify", "revoke", "rotate", "bundle", "request", "sign", "import"]


def test_help_names_every_command(ca: Ca) -> None:
    output = ca("--help").output

    assert all(f"\n    {word} " in output for word in _ALL)


@pytest.mark.parametrize("word", _ALL)
def test_every_command_has_help_and_json(ca: Ca, word: str) -> None:
    outcome = ca(word, "--help")

    assert outcome.code == 0
    assert "--json" in outcome.output


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        ((), "COMMAND"),
        (("sing",), "invalid choice: 'sing'"),
        (("init",), "give its folder, DIR, or --kubernetes"),
        (("init", "DIR", "--colour"), "--colour"),
        (("init", "DIR", "--subject", "me"), "CN=Example root"),
        (("init", "DIR", "--years", "2"), "--years is for --root-only"),
        (("init", "DIR", "--trust-domain", "UPPER"), "no trust domain"),
        (("init", "DIR", "--leaf-hours", "1", "--leaf-days", "1"), "not allowed with"),
        (("init", "DIR", "--leaf-days", "399"), "at most 398 days"),
        (("init", "DIR", "--kubernetes"), "give its folder, DIR, or --kubernetes"),
        (("init", "DIR", "--root-only", "--years", "0"), "whole number of at least 1"),
        (("init", "DIR", "--root-only", "--years", "31"), "at most 30 years"),
        (("init", "DIR", "--root-only", "--years", "9" * 5000), "--years"),
        (("init", "DIR", "--root-only", "--leaf-days", "3"), "leave out --trust-domain, --leaf-"),
        (("init", "--root-only", "--kubernetes"), "is made in a folder"),
        (("issue", "DIR"), "--spiffe"),
        (("issue", "DIR", "--spiffe", "https://example.org/web"), "does not start with spiffe://"),
        (("issue", "DIR", "--spiffe", "spiffe://example.org"), "has a path"),
        (("issue", "DIR", "--spiffe", "spiffe://UPPER/web"), "no trust domain"),
        (("issue", "DIR", "--spiffe", "spiffe://a/../b"), "no path segment"),
        (("issue", "DIR", "--spiffe", WEB, "--dns", "*.example"), "no wildcard"),
        (("issue", "DIR", "--spiffe", WEB, "--ip", "10.0.0.256"), "is no IP address"),
        (("issue", "DIR", "--spiffe", WEB, "--ip", "fe80::1%eth0"), "is no IP address"),
        (("issue", "DIR", "--spiffe", WEB, "--hours", "-3"), "--hours"),
        (("issue", "DIR", "--spiffe", WEB, "--hours", "9553"), "at most 9552 hours"),
        (("issue", "--kubernetes", "--spiffe", WEB), "--out FOLDER"),
        (("issue", "DIR", "--spiffe", WEB), "ca.crt does not exist"),
        (("token", "DIR", "--spiffe", WEB, "--minutes", "0"), "--minutes"),
        (("token", "DIR", "--spiffe", WEB), "holds no authority"),
        (("revoke", "DIR"), "one of the four"),
        (("revoke", "DIR", "--serial", "1", "--spiffe", WEB), "one of the four"),
        (("revoke", "DIR", "--lift", WEB, "--spiffe", WEB), "one of the four"),
        (("revoke", "DIR", "--lift", WEB, "--bar"), "leave out --bar"),
        (("revoke", "DIR", "--lift", "web"), "--lift"),
        (("revoke", "DIR", "--serial", "xyz"), "no serial number"),
        (("revoke", "DIR", "--serial", "1", "--reason", "whim"), "invalid choice: 'whim'"),
        (("revoke", "DIR", "--serial", "1"), "holds no authority"),
        (("rotate", "DIR"), "--plan"),
        (("rotate", "DIR", "--start", "--abort"), "not allowed with"),
        (("rotate", "DIR", "--status"), "holds no authority"),
        (("bundle", "DIR"), "holds no authority"),
        (("sign", "DIR", "--out", "x"), "--csr"),
        (("import", "DIR"), "--certificate"),
        (("show",), "say what to show"),
        (("show", "DIR"), "does not exist"),
        (("verify", "DIR"), "--roots"),
        (("verify", "DIR", "--at", "noon"), "is no time"),
        (("bundle", "--kubernetes", "--kubeconfig", "DIR"), "does not exist"),
    ],
)
def test_a_wrong_argument_gets_one_line_and_makes_nothing(
    tmp_path: Path, ca: Ca, flags: tuple[str, ...], fault: str
) -> None:
    folder = str(tmp_path / "new")

    assert fault in ca(*(folder if flag == "DIR" else flag for flag in flags)).refusal
    assert not any(tmp_path.iterdir())


def test_the_command_works_as_a_process_of_its_own(tmp_path: Path) -> None:
    def process(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*_PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
        )

    made = process("init", "pki")
    again = process("init", "pki")
    accepted = process("issue", "pki", "--spiffe", "spiffe://example.org/server", "--out", "pki/server")
    shown = process("show", "-")

    assert (made.returncode, made.stderr) == (0, "")
    assert (again.returncode, again.stdout, again.stderr.count("\n")) == (2, "", 1)
    assert (accepted.returncode, accepted.stderr) == (0, "")
    assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (2, "", 1)
    assert process("verify", "pki/server").returncode == 0
    assert process("verify", "pki/server", "--identity", "spiffe://example.org/client").returncode == 1
