"""`qbitel ca revoke`: on the lists at once, for good."""

from __future__ import annotations

from pathlib import Path

from tests.cli.ca.conftest import DB, WEB, Ca


def revoked(ca: Ca, authority: Path) -> dict[str, str]:
    """Serial number and reason of all that stand on the exported lists."""
    lists = ca.data("show", authority / "crl.pem")["found"]
    return {one["serial"]: one["reason"] for crl in lists for one in crl["revoked"]}


def serial(ca: Ca, authority: Path, identity: str, *flags: str) -> str:
    return str(ca.data("issue", authority, "--spiffe", identity, *flags)["certificate"]["serial"])


def test_a_file_s_first_certificate_is_revoked(authority: Path, ca: Ca) -> None:
    number = serial(ca, authority, WEB)
    outcome = ca.good("revoke", authority, authority / "web" / "tls.crt", "--reason", "keyCompromise")

    assert revoked(ca, authority) == {number: "keyCompromise"}
    assert f"certificate  {WEB}" in outcome.output
    assert number in outcome.output


def test_a_serial_number_is_enough(authority: Path, ca: Ca) -> None:
    number = serial(ca, authority, WEB)

    data = ca.data("revoke", authority, "--serial", number)
    assert (data["revoked"], data["changed"]) == ([number], True)
    assert set(revoked(ca, authority)) == {number}


def test_all_live_certificates_of_an_identity_are_revoked_and_no_other(authority: Path, tmp_path: Path, ca: Ca) -> None:
    ours = {serial(ca, authority, WEB), serial(ca, authority, WEB, "--out", str(tmp_path / "b"))}
    serial(ca, authority, DB)

    assert set(ca.data("revoke", authority, "--spiffe", WEB)["revoked"]) == ours
    assert set(revoked(ca, authority)) == ours


def test_an_identity_that_holds_nothing_gets_one_line(authority: Path, ca: Ca) -> None:
    serial(ca, authority, WEB, "--hours", "1")
    ca.later(hours=2)

    assert "no certificate of" in ca("revoke", authority, "--spiffe", WEB).refusal
    assert revoked(ca, authority) == {}


def test_revoking_again_changes_nothing_and_says_so(authority: Path, ca: Ca) -> None:
    number = serial(ca, authority, WEB)
    ca.good("revoke", authority, "--serial", number)
    log = (authority / "audit.log").read_text()

    outcome = ca.good("revoke", authority, "--serial", number)
    assert outcome.output.startswith("revoked already")
    assert (authority / "audit.log").read_text() == log


def test_a_revoked_intermediate_is_replaced(authority: Path, ca: Ca) -> None:
    before = (authority / "intermediates.crt").read_bytes()
    ca.good("revoke", authority, authority / "intermediates.crt")

    assert (authority / "intermediates.crt").read_bytes() != before
    ca.good("issue", authority, "--spiffe", WEB)
    assert ca.good("verify", authority / "web").output.startswith("accepted")


def test_what_is_not_this_authority_s_gets_one_line(authority: Path, root: Path, ca: Ca) -> None:
    ca.good("issue", root, "--spiffe", WEB)

    assert "is not of this authority" in ca("revoke", authority, root / "web" / "tls.crt").refusal
    assert "a root is not revoked" in ca("revoke", authority, authority / "ca.crt").refusal
    assert "holds no certificate" in ca("revoke", authority, root / "ca.key").refusal
    assert '"revoked"' not in (authority / "audit.log").read_text()


def test_it_is_written_down_or_does_not_happen(authority: Path, ca: Ca) -> None:
    number = serial(ca, authority, WEB)
    ca.good("revoke", authority, "--serial", number)
    assert f'"serials":["{number}"]' in (authority / "audit.log").read_text()

    other = serial(ca, authority, DB)
    (authority / "audit.log").unlink()
    (authority / "audit.log").mkdir()
    assert "audit log" in ca("revoke", authority, "--serial", other).refusal
    assert other not in revoked(ca, authority)
