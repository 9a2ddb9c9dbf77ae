"""`qbitel ca init`: an authority, or a root alone."""

from __future__ import annotations

import datetime
import os
import re
import stat
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certmgr.files import read_authority
from tests.cli.ca.conftest import WEB, Ca


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# An authority


def test_init_makes_an_authority_in_a_private_folder_and_says_where(tmp_path: Path, ca: Ca) -> None:
    folder = tmp_path / "ca"
    outcome = ca.good("init", folder)

    assert outcome.output.startswith("made an authority, ML-DSA-87: ")
    assert f"{folder}/authority.state (has both keys: keep it secret)" in outcome.output
    assert "trust domain cluster.local" in outcome.output
    assert "leaves live  24 hours" in outcome.output
    assert mode(folder) == 0o700
    assert {path.name: mode(path) for path in folder.iterdir()} == {
        "authority.state": 0o600,
        "audit.log": 0o600,
        ".lock": 0o600,
        "ca.crt": 0o644,
        "intermediates.crt": 0o644,
        "crl.pem": 0o644,
    }
    (root,) = x509.load_pem_x509_certificates((folder / "ca.crt").read_bytes())
    assert root.subject.rfc4514_string() in outcome.output
    assert root.not_valid_after_utc - ca.now > datetime.timedelta(days=3651)


def test_init_takes_a_subject_a_trust_domain_and_the_life_of_leaves(tmp_path: Path, ca: Ca) -> None:
    flags = ("--subject", "CN=Mine,O=Me", "--trust-domain", "example.org", "--leaf-days", "90")
    data = ca.data("init", tmp_path, *flags)

    assert data["trust_domain"] == "example.org"
    assert data["leaf_seconds"] == 90 * 86400
    assert re.fullmatch(r"CN=Mine [0-9a-f]{8},O=Me", data["root"]["subject"])
    assert data["root_key_is_here"] is True
    leaf = ca.data("issue", tmp_path, "--spiffe", "spiffe://example.org/a")["certificate"]
    assert leaf["seconds_left"] > 89 * 86400


def test_an_authority_is_replaced_only_when_forced(authority: Path, ca: Ca) -> None:
    ca.good("issue", authority, "--spiffe", WEB)
    before = contents(authority)

    assert "--force" in ca("init", authority).refusal
    assert contents(authority) == before

    ca.good("init", authority, "--force")
    after = contents(authority)
    assert all(after[name] != before[name] for name in ("authority.state", "ca.crt", "intermediates.crt", "crl.pem"))
    assert ca.data("show", authority)["found"][0]["live_certificates"] == 0


def test_an_authority_and_a_root_alone_are_not_put_into_one_folder(root: Path, authority: Path, ca: Ca) -> None:
    assert "ca.key exists already" in ca("init", root, "--force").refusal
    assert "authority.state exists already" in ca("init", authority, "--root-only", "--force").refusal


def test_a_bundle_of_the_user_s_own_is_not_overwritten(tmp_path: Path, ca: Ca) -> None:
    (tmp_path / "ca.crt").write_text("mine")

    assert "ca.crt exists already" in ca("init", tmp_path).refusal
    assert contents(tmp_path) == {"ca.crt": b"mine"}


# An authority where there is none


def test_if_absent_makes_an_authority_once_and_then_leaves_it_as_it_is(tmp_path: Path, ca: Ca) -> None:
    folder = tmp_path / "ca"
    made = ca.data("init", folder, "--if-absent", "--trust-domain", "example.org")
    ca.good("issue", folder, "--spiffe", "spiffe://example.org/a")
    before = contents(folder)

    assert (
        "is there already, and stays as it is\n  trust domain example.org\n"
        in ca.good("init", folder, "--if-absent").output
    )
    again = ca.data("init", folder, "--if-absent", "--trust-domain", "example.org", "--leaf-hours", "2")
    assert again == {name: made[name] for name in ("place", "trust_domain", "generation")}
    assert contents(folder) == before


def test_if_absent_refuses_an_authority_of_another_trust_domain(authority: Path, ca: Ca) -> None:
    before = contents(authority)

    line = ca("init", authority, "--if-absent", "--trust-domain", "example.org").refusal
    assert "is of the trust domain cluster.local, not example.org" in line
    assert contents(authority) == before


def test_if_absent_does_not_go_with_replacing_nor_with_a_root_alone(tmp_path: Path, ca: Ca) -> None:
    assert "not allowed with" in ca("init", tmp_path, "--if-absent", "--force").refusal.splitlines()[-1]
    assert "--if-absent is for an authority" in ca("init", tmp_path, "--if-absent", "--root-only").refusal
    assert contents(tmp_path) == {}


def test_if_absent_does_not_take_a_root_alone_for_an_authority(root: Path, ca: Ca) -> None:
    assert "ca.key exists already" in ca("init", root, "--if-absent").refusal


# A root alone


def test_a_root_alone_is_a_certificate_and_its_key(tmp_path: Path, ca: Ca) -> None:
    folder = tmp_path / "ca"
    outcome = ca.good("init", folder, "--root-only")

    root = read_authority(folder)
    assert "CN=QBITEL mesh root,O=QBITEL" in outcome.output
    assert f"certificate  {folder}/ca.crt\n" in outcome.output
    assert f"private key  {folder}/ca.key " in outcome.output
    assert f"SHA-256      {root.fingerprint}\n" in outcome.output
    ends = root.certificate.not_valid_after_utc
    assert f" to {ends:%Y-%m-%d %H:%M:%S} UTC\n" in outcome.output
    assert mode(folder) == 0o700
    assert mode(folder / "ca.key") == 0o600
    assert sorted(contents(folder)) == ["ca.crt", "ca.key"]


def test_a_root_alone_takes_a_subject_and_years(tmp_path: Path, ca: Ca) -> None:
    ca.good("init", tmp_path, "--root-only", "--subject", "CN=Mine,O=Me", "--years", "2")

    root = read_authority(tmp_path).certificate
    assert root.subject.rfc4514_string() == "CN=Mine,O=Me"
    assert root.not_valid_after_utc == ca.now.replace(microsecond=0) + datetime.timedelta(days=730)


def test_a_root_is_replaced_only_when_forced(root: Path, ca: Ca) -> None:
    first = read_authority(root)

    line = ca("init", root, "--root-only").refusal
    assert "exists already" in line
    assert "--force" in line
    assert read_authority(root) == first

    ca.good("init", root, "--root-only", "--force")
    assert read_authority(root) != first


@pytest.mark.parametrize("kind", [(), ("--root-only",)])
def test_no_key_is_ever_printed(tmp_path: Path, ca: Ca, kind: tuple[str, ...]) -> None:
    outcomes = [
        ca.good("init", tmp_path, *kind),
        ca.good("issue", tmp_path, "--spiffe", WEB),
        ca.good("show", tmp_path, tmp_path / "web", "--json"),
    ]

    secrets = [path.read_text() for path in (tmp_path / "web" / "tls.key", tmp_path / "ca.key") if path.exists()]
    for outcome in outcomes:
        for secret in secrets:
            body = secret.splitlines()[1]
            # The first 28 characters are the algorithm; the rest, in pieces, is the seed.
            assert not any(body[at : at + 8] in outcome.output for at in range(28, len(body) - 8))


# What cannot work


@pytest.mark.parametrize("kind", [(), ("--root-only",)])
def test_a_place_that_cannot_be_written_gets_one_line(root: Path, ca: Ca, kind: tuple[str, ...]) -> None:
    assert "/proc/self" in ca("init", "/proc/self/ca", *kind).refusal
    assert "is no folder" in ca("init", root / "ca.crt", *kind).refusal


values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).map("x{}".format)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(subject=st.one_of(values, values.map("CN={}".format)), kind=st.sampled_from([(), ("--root-only",)]))
def test_any_words_for_a_subject_get_an_authority_or_one_line(
    tmp_path: Path, ca: Ca, subject: str, kind: tuple[str, ...]
) -> None:
    outcome = ca("init", tmp_path / str(bool(kind)), *kind, "--force", "--subject", subject)

    if outcome.code == 0:
        assert len(re.findall(r"\n", outcome.output)) == (5 if kind else 7)
    else:
        assert "is no subject" in outcome.refusal


@pytest.mark.parametrize(("kind", "lines"), [((), 7), (("--root-only",), 5)])
def test_a_path_that_is_no_text_is_shown_quoted(tmp_path: Path, ca: Ca, kind: tuple[str, ...], lines: int) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n"))

    outcome = ca.good("init", folder, *kind)
    assert "\\udcff\\n/ca.crt'\n" in outcome.output
    assert outcome.output.count("\n") == lines
    assert "\\udcff\\n" in ca("init", folder, *kind).refusal
