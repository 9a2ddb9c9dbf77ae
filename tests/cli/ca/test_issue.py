"""`qbitel ca issue`: folders that a sidecar starts with, from an authority and from a root alone."""

from __future__ import annotations

import datetime
import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import verification
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certmgr.authority import spiffe_id_of
from certmgr.files import read_authority, read_workload
from tests.cli.ca.conftest import DB, WEB, Ca

_KINDS = pytest.mark.parametrize("kind", ["root", "authority"])


@pytest.fixture
def issuer(kind: str, request: pytest.FixtureRequest) -> Path:
    folder = request.getfixturevalue(kind)
    assert isinstance(folder, Path)
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@_KINDS
def test_issue_makes_a_workload_s_folder_named_after_its_id(issuer: Path, ca: Ca) -> None:
    outcome = ca.good("issue", issuer, "--spiffe", WEB)

    folder = issuer / "web"
    workload = read_workload(folder)
    leaf = workload.credential.certificate
    assert str(spiffe_id_of(leaf)) == WEB
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == datetime.timedelta(hours=24, minutes=5)
    for shown in (WEB, f"{folder}/tls.crt", f"{folder}/tls.key", f"{folder}/ca.crt"):
        assert shown in outcome.output
    assert workload.credential.fingerprint in outcome.output
    assert "note" not in outcome.output
    assert mode(folder) == 0o700
    assert mode(folder / "tls.key") == 0o600


@_KINDS
def test_issue_takes_names_hours_and_a_folder(issuer: Path, tmp_path: Path, ca: Ca) -> None:
    out = tmp_path / "elsewhere" / "web"
    flags = ("--dns", "a.example", "b.example", "--dns", "c.example", "--ip", "10.0.0.7", "fd00::7")
    ca.good("issue", issuer, "--spiffe", WEB, *flags, "--hours", "2", "--out", out)

    leaf = read_workload(out).credential.certificate
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example", "b.example", "c.example"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("10.0.0.7"),
        ipaddress.ip_address("fd00::7"),
    ]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == datetime.timedelta(hours=2, minutes=5)


@_KINDS
def test_what_was_issued_verifies_against_what_was_written_as_roots(issuer: Path, ca: Ca) -> None:
    ca.good("issue", issuer, "--spiffe", WEB)
    workload = read_workload(issuer / "web")
    builder = verification.PolicyBuilder().store(verification.Store(workload.roots))

    client = builder.time(ca.now).build_client_verifier()
    found = client.verify(workload.credential.certificate, list(workload.issuers))
    assert found.subjects == [x509.UniformResourceIdentifier(WEB)]


@_KINDS
def test_issuing_again_renews(issuer: Path, ca: Ca) -> None:
    ca.good("issue", issuer, "--spiffe", WEB)
    first = read_workload(issuer / "web")
    ca.good("issue", issuer, "--spiffe", WEB)

    assert read_workload(issuer / "web") != first


@_KINDS
def test_another_identity_s_folder_is_left_alone(issuer: Path, ca: Ca) -> None:
    ca.good("issue", issuer, "--spiffe", WEB)
    before = (issuer / "web" / "tls.crt").read_bytes()

    line = ca("issue", issuer, "--spiffe", "spiffe://cluster.local/ns/other/sa/web").refusal
    assert f"belongs to {WEB}" in line
    assert "--out" in line
    assert (issuer / "web" / "tls.crt").read_bytes() == before


# By an authority


def test_an_authority_writes_all_that_the_workload_judges_its_peers_by(authority: Path, ca: Ca) -> None:
    data = ca.data("issue", authority, "--spiffe", WEB)

    folder = authority / "web"
    assert sorted(path.name for path in folder.iterdir()) == [
        "ca.crt",
        "crl.pem",
        "intermediates.crt",
        "tls.crt",
        "tls.key",
    ]
    for name in ("ca.crt", "crl.pem", "intermediates.crt"):
        assert (folder / name).read_bytes() == (authority / name).read_bytes()
    intermediates = tuple(x509.load_pem_x509_certificates((folder / "intermediates.crt").read_bytes()))
    assert read_workload(folder).issuers == intermediates
    assert data["generation"] == ca.data("bundle", authority)["generation"]
    assert data["notes"] == []


def test_the_holder_of_a_folder_is_a_peer_that_has_what_was_written(authority: Path, ca: Ca) -> None:
    ca.good("issue", authority, "--spiffe", WEB)
    ca.good("rotate", authority, "--start")
    (blocker,) = ca.data("rotate", authority, "--status")["blockers"]
    assert (blocker["identity"], blocker["instance"]) == (WEB, str(authority / "web"))

    ca.later(seconds=2)
    ca.good("issue", authority, "--spiffe", WEB)
    assert ca.data("rotate", authority, "--status")["blockers"] == []


def test_two_folders_of_one_identity_are_two_peers_and_may_be_named(authority: Path, tmp_path: Path, ca: Ca) -> None:
    ca.good("issue", authority, "--spiffe", WEB, "--out", tmp_path / "a")
    ca.good("issue", authority, "--spiffe", WEB, "--out", tmp_path / "b", "--instance", "host-b")

    ca.good("rotate", authority, "--start")
    blockers = ca.data("rotate", authority, "--status")["blockers"]
    assert sorted(one["instance"] for one in blockers) == [str(tmp_path / "a"), "host-b"]
    assert "cannot be used" in ca("issue", authority, "--spiffe", DB, "--instance", "a b").refusal


def test_a_list_that_would_be_too_old_before_the_certificate_ends_is_left_out(authority: Path, ca: Ca) -> None:
    """Once a list is out of use, its holder lets nobody in: a folder that nobody renews must not end like that."""
    outcome = ca.good("issue", authority, "--spiffe", WEB, "--hours", "48")

    assert not (authority / "web" / "crl.pem").exists()
    assert "it has no revocation list" in outcome.output
    ca.later(hours=47)
    assert ca.good("verify", authority / "web").output.startswith("accepted")


def test_a_list_that_is_there_is_renewed_and_its_end_is_told(authority: Path, ca: Ca) -> None:
    ca.good("issue", authority, "--spiffe", WEB)
    ca.later(hours=3)
    outcome = ca.good("issue", authority, "--spiffe", WEB, "--hours", "48")

    assert (authority / "web" / "crl.pem").read_bytes() == (authority / "crl.pem").read_bytes()
    assert "its revocation list goes out of use at" in outcome.output


def test_lists_and_intermediates_are_renewed_where_no_server_runs(authority: Path, ca: Ca) -> None:
    first = (authority / "crl.pem").read_bytes(), (authority / "intermediates.crt").read_bytes()
    ca.later(days=300)
    ca.good("issue", authority, "--spiffe", WEB)

    assert (authority / "crl.pem").read_bytes() != first[0]
    assert (authority / "intermediates.crt").read_bytes() != first[1]
    assert ca.good("verify", authority / "web").output.startswith("accepted")


def test_an_identity_of_another_trust_domain_is_issued_with_a_note(authority: Path, ca: Ca) -> None:
    outcome = ca.good("issue", authority, "--spiffe", "spiffe://example.org/server")

    assert "example.org is not this authority's trust domain, cluster.local" in outcome.output
    assert ca.good("verify", authority / "server").output.startswith("accepted")


def test_every_issue_is_in_the_audit_log(authority: Path, ca: Ca) -> None:
    serial = ca.data("issue", authority, "--spiffe", WEB)["certificate"]["serial"]

    assert f'"serial":"{serial}"' in (authority / "audit.log").read_text()


def test_what_cannot_be_written_down_is_not_issued(authority: Path, ca: Ca) -> None:
    (authority / "audit.log").unlink()
    (authority / "audit.log").mkdir()

    assert "audit.log" in ca("issue", authority, "--spiffe", WEB).refusal
    assert not (authority / "web").exists()


def test_a_damaged_authority_gets_one_line(authority: Path, ca: Ca) -> None:
    state = authority / "authority.state"
    state.write_bytes(state.read_bytes()[:-100])
    assert "damaged" in ca("issue", authority, "--spiffe", WEB).refusal

    state.write_bytes(b"something else")
    assert "authority.state" in ca("issue", authority, "--spiffe", WEB).refusal

    state.chmod(0o644)
    assert "chmod 600" in ca("issue", authority, "--spiffe", WEB).refusal


# By a root alone


def test_a_root_alone_writes_its_own_certificate_as_the_only_root(root: Path, ca: Ca) -> None:
    ca.good("issue", root, "--spiffe", WEB)

    workload = read_workload(root / "web")
    assert workload.roots == (read_authority(root).certificate,)
    assert workload.issuers == ()
    assert sorted(path.name for path in (root / "web").iterdir()) == ["ca.crt", "tls.crt", "tls.key"]


def test_a_leaf_that_its_root_cuts_short_comes_with_a_note(tmp_path: Path, ca: Ca) -> None:
    ca.good("init", tmp_path, "--root-only", "--years", "1")
    outcome = ca.good("issue", tmp_path, "--spiffe", WEB, "--hours", str(398 * 24))

    assert "it ends with its root, which is earlier than was asked for" in outcome.output


def test_a_leaf_that_its_intermediate_cuts_short_comes_with_a_note(authority: Path, ca: Ca) -> None:
    outcome = ca.good("issue", authority, "--spiffe", WEB, "--hours", str(398 * 24))

    assert "it ends with its issuer, which is earlier than was asked for" in outcome.output


def test_a_root_s_key_that_others_may_read_gets_one_line(root: Path, ca: Ca) -> None:
    (root / "ca.key").chmod(0o644)

    assert "run: chmod 600" in ca("issue", root, "--spiffe", WEB).refusal


def test_a_leaf_does_not_serve_as_a_root(root: Path, ca: Ca) -> None:
    ca.good("issue", root, "--spiffe", WEB)
    web = root / "web"
    (web / "tls.crt").replace(web / "ca.crt")
    (web / "tls.key").replace(web / "ca.key")

    assert "is no authority's certificate" in ca("issue", web, "--spiffe", WEB).refusal


# What cannot work


@_KINDS
def test_a_file_in_the_folder_s_place_gets_one_line(issuer: Path, ca: Ca) -> None:
    assert "is no folder" in ca("issue", issuer, "--spiffe", "spiffe://a/ca.crt").refusal


# An option's value must not look like an option itself; argparse says so in its own words.
values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).map("x{}".format)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.tuples(st.one_of(values, values.map("spiffe://{}".format)), values, values))
def test_any_words_for_names_get_files_or_one_line(
    root: Path, tmp_path: Path, ca: Ca, words: tuple[str, str, str]
) -> None:
    spiffe, dns, ip = words
    out = tmp_path / "out"
    line = ca("issue", root, "--out", out, "--spiffe", spiffe, "--dns", dns, "--ip", ip).refusal

    assert "is no" in line or "does not start" in line or "has a path" in line
    assert not out.exists()
