"""`qbitel ca` as its user meets it: files, what is printed, and one line with exit code 2 for what cannot
work.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import verification
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certmgr.authority import spiffe_id_of
from certmgr.files import read_authority, read_workload
from cli.main import main

WEB = "spiffe://cluster.local/ns/shop/sa/web"


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    output: str
    errors: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `qbitel ca …` within this process."""

    def call(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        try:
            code = main(["ca", *map(str, arguments)])
        except SystemExit as end:
            assert isinstance(end.code, int)
            code = end.code
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def authority(tmp_path: Path, run: Run) -> Path:
    folder = tmp_path / "ca"
    assert run("init", folder).code == 0
    return folder


def refused(outcome: Outcome) -> str:
    """The one line on stderr of a run that ended with exit code 2 and printed nothing else."""
    assert outcome.code == 2
    assert outcome.output == ""
    assert outcome.errors.startswith("qbitel ca")
    assert outcome.errors.endswith("\n")
    assert outcome.errors.count("\n") == 1
    return outcome.errors


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# What is made


def test_init_makes_a_root_in_a_private_folder_and_shows_where(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "ca"
    outcome = run("init", folder)

    root = read_authority(folder)
    assert outcome.code == 0
    assert outcome.errors == ""
    assert "CN=QBITEL mesh root,O=QBITEL" in outcome.output
    assert f"certificate  {folder}/ca.crt\n" in outcome.output
    assert f"private key  {folder}/ca.key " in outcome.output
    assert f"SHA-256      {root.fingerprint}\n" in outcome.output
    ends = root.certificate.not_valid_after_utc
    assert f" to {ends:%Y-%m-%d %H:%M:%S} UTC\n" in outcome.output
    assert mode(folder) == 0o700
    assert mode(folder / "ca.key") == 0o600


def test_init_takes_a_subject_and_years(tmp_path: Path, run: Run) -> None:
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    assert run("init", tmp_path, "--subject", "CN=Mine,O=Me", "--years", "2").code == 0
    after = datetime.datetime.now(datetime.UTC)

    root = read_authority(tmp_path).certificate
    assert root.subject.rfc4514_string() == "CN=Mine,O=Me"
    two_years = datetime.timedelta(days=730)
    assert before + two_years <= root.not_valid_after_utc <= after + two_years


def test_init_replaces_a_root_only_when_forced(authority: Path, run: Run) -> None:
    first = read_authority(authority)

    line = refused(run("init", authority))
    assert "exists already" in line
    assert "--force" in line
    assert read_authority(authority) == first

    assert run("init", authority, "--force").code == 0
    assert read_authority(authority) != first


def test_issue_makes_a_workload_s_folder_named_after_its_id(authority: Path, run: Run) -> None:
    outcome = run("issue", authority, "--spiffe", WEB)

    assert outcome.code == 0
    assert outcome.errors == ""
    folder = authority / "web"
    workload = read_workload(folder)
    leaf = workload.credential.certificate
    assert str(spiffe_id_of(leaf)) == WEB
    assert workload.roots == (read_authority(authority).certificate,)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == datetime.timedelta(hours=24, minutes=5)
    for shown in (WEB, f"{folder}/tls.crt", f"{folder}/tls.key", f"{folder}/ca.crt"):
        assert shown in outcome.output
    assert workload.credential.fingerprint in outcome.output
    assert "note" not in outcome.output
    assert mode(folder) == 0o700
    assert mode(folder / "tls.key") == 0o600


def test_issue_takes_names_hours_and_a_folder(authority: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "elsewhere" / "web"
    flags = ("--dns", "a.example", "b.example", "--dns", "c.example", "--ip", "10.0.0.7", "fd00::7")
    assert run("issue", authority, "--spiffe", WEB, *flags, "--hours", "2", "--out", out).code == 0

    leaf = read_workload(out).credential.certificate
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example", "b.example", "c.example"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("10.0.0.7"),
        ipaddress.ip_address("fd00::7"),
    ]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == datetime.timedelta(hours=2, minutes=5)


def test_what_was_issued_verifies_against_what_was_written_as_roots(authority: Path, run: Run) -> None:
    assert run("issue", authority, "--spiffe", WEB).code == 0
    workload = read_workload(authority / "web")
    builder = verification.PolicyBuilder().store(verification.Store(workload.roots))

    client = builder.time(datetime.datetime.now(datetime.UTC)).build_client_verifier()
    assert client.verify(workload.credential.certificate, []).subjects == [x509.UniformResourceIdentifier(WEB)]


def test_issuing_again_renews(authority: Path, run: Run) -> None:
    assert run("issue", authority, "--spiffe", WEB).code == 0
    first = read_workload(authority / "web")
    assert run("issue", authority, "--spiffe", WEB).code == 0

    assert read_workload(authority / "web") != first


def test_a_leaf_that_its_root_cuts_short_comes_with_a_note(tmp_path: Path, run: Run) -> None:
    assert run("init", tmp_path, "--years", "1").code == 0
    outcome = run("issue", tmp_path, "--spiffe", WEB, "--hours", str(398 * 24))

    assert outcome.code == 0
    assert "it ends with its root, which is earlier than was asked for" in outcome.output


def test_no_key_is_ever_printed(tmp_path: Path, run: Run) -> None:
    outcomes = [run("init", tmp_path), run("issue", tmp_path, "--spiffe", WEB)]
    secrets = [(tmp_path / "ca.key").read_text(), (tmp_path / "web" / "tls.key").read_text()]

    for outcome in outcomes:
        for secret in secrets:
            body = secret.splitlines()[1]
            # The first 28 characters are the algorithm; the rest, in pieces, is the seed.
            assert not any(body[at : at + 8] in outcome.output for at in range(28, len(body) - 8))


def test_the_command_works_as_a_process_of_its_own(tmp_path: Path) -> None:
    program = "import sys; from cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "ca"]
    made = subprocess.run([*command, "init", str(tmp_path)], capture_output=True, text=True, check=False, timeout=30)
    again = subprocess.run([*command, "init", str(tmp_path)], capture_output=True, text=True, check=False, timeout=30)

    assert (made.returncode, made.stderr) == (0, "")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.count("\n") == 1


# What cannot work


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        ((), "COMMAND"),
        (("sign",), "invalid choice: 'sign'"),
        (("init",), "DIR"),
        (("init", "DIR", "--colour"), "--colour"),
        (("init", "DIR", "--years", "0"), "whole number of at least 1"),
        (("init", "DIR", "--years", "31"), "at most 30 years"),
        (("init", "DIR", "--years", "9" * 5000), "--years"),
        (("init", "DIR", "--subject", "me"), "CN=Example root"),
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
    ],
)
def test_a_wrong_argument_gets_one_line_and_makes_nothing(
    tmp_path: Path, run: Run, flags: tuple[str, ...], fault: str
) -> None:
    folder = str(tmp_path / "new")

    assert fault in refused(run(*(folder if flag == "DIR" else flag for flag in flags)))
    assert not any(tmp_path.iterdir())


def test_a_folder_without_a_root_gets_one_line(tmp_path: Path, run: Run) -> None:
    assert "ca.crt does not exist" in refused(run("issue", tmp_path / "none", "--spiffe", WEB))
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_gets_one_line(run: Run) -> None:
    assert "/proc/self" in refused(run("init", "/proc/self/ca"))


def test_a_file_in_the_folder_s_place_gets_one_line(authority: Path, run: Run) -> None:
    assert "is no folder" in refused(run("init", authority / "ca.crt"))
    assert "is no folder" in refused(run("issue", authority, "--spiffe", "spiffe://a/ca.key"))


def test_a_root_s_key_that_others_may_read_gets_one_line(authority: Path, run: Run) -> None:
    (authority / "ca.key").chmod(0o644)

    assert "run: chmod 600" in refused(run("issue", authority, "--spiffe", WEB))


def test_a_workload_of_the_same_last_segment_in_another_namespace_does_not_lose_its_folder(
    authority: Path, run: Run
) -> None:
    assert run("issue", authority, "--spiffe", WEB).code == 0

    line = refused(run("issue", authority, "--spiffe", "spiffe://cluster.local/ns/other/sa/web"))
    assert f"belongs to {WEB}" in line
    assert "--out" in line


def test_a_leaf_does_not_serve_as_a_root(authority: Path, run: Run) -> None:
    assert run("issue", authority, "--spiffe", WEB).code == 0
    web = authority / "web"
    (web / "tls.crt").replace(web / "ca.crt")
    (web / "tls.key").replace(web / "ca.key")

    assert "is no authority's certificate" in refused(run("issue", web, "--spiffe", WEB))


# An option's value must not look like an option itself; argparse says so in its own words, tested above.
values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).map("x{}".format)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.tuples(st.one_of(values, values.map("spiffe://{}".format)), values, values))
def test_any_words_for_names_get_files_or_one_line(
    authority: Path, tmp_path: Path, run: Run, words: tuple[str, str, str]
) -> None:
    spiffe, dns, ip = words
    out = tmp_path / "out"
    outcome = run("issue", authority, "--out", out, "--spiffe", spiffe, "--dns", dns, "--ip", ip)

    assert "is no" in refused(outcome) or "does not start" in outcome.errors or "has a path" in outcome.errors
    assert not out.exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(subject=st.one_of(values, values.map("CN={}".format)))
def test_any_words_for_a_subject_get_a_root_or_one_line(tmp_path: Path, run: Run, subject: str) -> None:
    outcome = run("init", tmp_path, "--force", "--subject", subject)

    if outcome.code == 0:
        assert len(re.findall(r"\n", outcome.output)) == 5
    else:
        assert "is no subject" in refused(outcome)


def test_a_path_that_is_no_text_is_shown_quoted(tmp_path: Path, run: Run) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n"))

    outcome = run("init", folder)
    assert outcome.code == 0
    assert "\\udcff\\n/ca.crt'\n" in outcome.output
    assert outcome.output.count("\n") == 5
    assert "\\udcff\\n" in refused(run("init", folder))
