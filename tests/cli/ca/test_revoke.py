"""`qbitel ca revoke`: on the lists at once, for good; and barred until that is lifted."""

from __future__ import annotations

import json
from pathlib import Path

from certmgr.audit import read_journal
from tests.cli.ca.conftest import DB, WEB, Ca


def revoked(ca: Ca, authority: Path) -> dict[str, str]:
    """Serial number and reason of all that stand on the exported lists."""
    lists = ca.data("show", authority / "crl.pem")["found"]
    return {one["serial"]: one["reason"] for crl in lists for one in crl["revoked"]}


def barred(ca: Ca, authority: Path) -> list[str]:
    """The identities that `show` says are barred."""
    return [one["identity"] for one in ca.data("show", authority)["found"][0]["barred"]]


def events(authority: Path) -> list[str]:
    """What the audit log says was done by hand."""
    entries = [json.loads(line) for line in (authority / "audit.log").read_text().splitlines()]
    return [entry["event"] for entry in entries if entry.get("by") == "command line"]


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


def test_of_one_process_all_live_certificates_are_revoked_and_no_others_of_its_identity(
    authority: Path, ca: Ca
) -> None:
    gone = {serial(ca, authority, WEB, "--instance", "pod-1") for _ in range(2)}
    serial(ca, authority, WEB, "--instance", "pod-2")
    serial(ca, authority, DB, "--instance", "pod-1")

    outcome = ca.data("revoke", authority, "--spiffe", WEB, "--instance", "pod-1")
    assert (set(outcome["revoked"]), outcome["barred"]) == (gone, False)
    assert set(revoked(ca, authority)) == gone
    assert barred(ca, authority) == []
    (entry,) = [one for one in read_journal(authority / "audit.log") if one["event"] == "revoked"]
    assert (entry["identity"], entry["instances"]) == (WEB, ["pod-1"])


def test_a_process_that_is_not_known_gets_one_line_and_nothing_is_revoked(authority: Path, ca: Ca) -> None:
    serial(ca, authority, WEB, "--instance", "pod-1")
    both = ("--instance", "pod-1", "--instance", "pod-l")

    assert "with the instance 'pod-l' is known" in ca("revoke", authority, "--spiffe", WEB, *both).refusal
    assert revoked(ca, authority) == {}
    assert "--instance goes with --spiffe" in ca("revoke", authority, "--serial", "7f", "--instance", "a").refusal
    refusal = ca("revoke", authority, "--spiffe", WEB, "--instance", "pod-1", "--bar").refusal
    assert "leave out one" in refusal


def test_an_identity_that_holds_nothing_gets_one_line(authority: Path, ca: Ca) -> None:
    serial(ca, authority, WEB, "--hours", "1")
    ca.later(hours=2)

    assert "no certificate of" in ca("revoke", authority, "--spiffe", WEB, "--no-bar").refusal
    assert revoked(ca, authority) == {}
    assert barred(ca, authority) == []
    outcome = ca.good("revoke", authority, "--spiffe", WEB)
    assert outcome.output.startswith(f"no certificate of {WEB} is known that has not ended\n")
    assert barred(ca, authority) == [WEB]


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


def test_an_identity_that_was_revoked_gets_no_certificate_until_the_bar_is_lifted(authority: Path, ca: Ca) -> None:
    number = serial(ca, authority, WEB)
    ca.good("token", authority, "--spiffe", WEB)
    outcome = ca.good("revoke", authority, "--spiffe", WEB, "--reason", "keyCompromise")

    assert f"--lift {WEB}" in outcome.output
    assert revoked(ca, authority) == {number: "keyCompromise"}
    assert barred(ca, authority) == [WEB]
    assert ca.data("show", authority)["found"][0]["tokens_waiting"] == 0
    assert "is barred since" in ca("issue", authority, "--spiffe", WEB, "--out", authority / "other").refusal
    assert not (authority / "other").exists()
    assert "is barred: lift that first" in ca("token", authority, "--spiffe", WEB).refusal
    serial(ca, authority, DB)

    lifted = ca.good("revoke", authority, "--lift", WEB)
    assert lifted.output.startswith(f"lifted the bar: {WEB} may have certificates again\n")
    assert barred(ca, authority) == []
    assert serial(ca, authority, WEB) != number
    assert set(revoked(ca, authority)) == {number}
    assert [one for one in events(authority) if "bar" in one or one == "revoked"] == ["barred", "revoked", "bar lifted"]


def test_barring_again_changes_nothing_and_lifting_twice_is_refused(authority: Path, ca: Ca) -> None:
    serial(ca, authority, WEB)
    ca.good("revoke", authority, "--spiffe", WEB)
    before = events(authority)
    assert ca.data("revoke", authority, "--spiffe", WEB)["changed"] is False
    assert events(authority) == before
    ca.good("revoke", authority, "--lift", WEB)
    before = events(authority)
    assert "is not barred" in ca("revoke", authority, "--lift", WEB).refusal
    assert events(authority) == before


def test_without_a_bar_the_identity_may_come_back_at_once(authority: Path, ca: Ca) -> None:
    number = serial(ca, authority, WEB)
    outcome = ca.good("revoke", authority, "--spiffe", WEB, "--no-bar")

    assert "gets a new certificate at once" in outcome.output
    assert set(revoked(ca, authority)) == {number}
    assert serial(ca, authority, WEB) != number


def test_one_certificate_bars_nobody_unless_it_is_asked_for(authority: Path, ca: Ca) -> None:
    number = serial(ca, authority, WEB)
    ca.good("revoke", authority, authority / "web" / "tls.crt")
    assert barred(ca, authority) == []
    assert ca.data("revoke", authority, authority / "web" / "tls.crt", "--bar")["changed"] is True
    assert barred(ca, authority) == [WEB]
    ca.good("revoke", authority, "--lift", WEB)
    assert ca.data("revoke", authority, "--serial", number, "--bar")["identity"] == WEB
    assert barred(ca, authority) == [WEB]
    assert "nobody knows whose" in ca("revoke", authority, "--serial", "abcdef", "--bar").refusal
    assert "nobody knows whose" in ca("revoke", authority, authority / "intermediates.crt", "--bar").refusal
    assert set(revoked(ca, authority)) == {number}


def test_the_authority_s_own_identity_is_not_barred(authority: Path, ca: Ca) -> None:
    own = "spiffe://cluster.local/ns/qbitel-system/sa/qbitel-certmgr"
    assert "the authority's own identity" in ca("revoke", authority, "--spiffe", own).refusal
    assert barred(ca, authority) == []


def forget_peers(authority: Path) -> None:
    """As if the list of peers had had no room for them."""
    for path in authority.glob("peers-*.state"):
        path.unlink()


def test_certificates_that_only_the_audit_log_knows_are_revoked_too(authority: Path, ca: Ca) -> None:
    ended = serial(ca, authority, WEB, "--hours", "1")
    ca.later(hours=2)
    ours = {serial(ca, authority, WEB), serial(ca, authority, WEB)}
    serial(ca, authority, DB)
    forget_peers(authority)

    assert set(ca.data("revoke", authority, "--spiffe", WEB)["revoked"]) == ours
    assert set(revoked(ca, authority)) == ours
    assert ended not in ours


def test_further_audit_logs_are_looked_at_whatever_else_stands_in_them(authority: Path, tmp_path: Path, ca: Ca) -> None:
    number = serial(ca, authority, WEB)
    forget_peers(authority)
    rotated = tmp_path / "rotated.log"
    (authority / "audit.log").rename(rotated)
    entry = {"event": "issued", "identity": WEB, "serial": "ab", "not_after": "2999-01-01T00:00:00Z"}
    odd = [entry | {"serial": 7}, entry | {"serial": "xyz"}, entry | {"not_after": "noon"}, entry | {"not_after": None}]
    odd += [{key: value for key, value in entry.items() if key != gone} for gone in ("serial", "not_after")]
    with rotated.open("ab") as log:
        log.write(b"2026-11-25 INFO a line of somebody else\n\xff\xfe\n[1]\n" + b"[" * 70_000 + b"\n")
        log.write(b"".join(json.dumps(one).encode() + b"\n" for one in odd))

    assert ca.data("revoke", authority, "--spiffe", WEB, "--audit", rotated)["revoked"] == [number]
    assert "cannot be read" in ca("revoke", authority, "--spiffe", WEB, "--audit", tmp_path / "none").refusal
    assert "--audit goes with --spiffe" in ca("revoke", authority, "--serial", "1", "--audit", rotated).refusal


def test_entries_of_an_identity_leave_the_lists_a_day_after_their_certificates_ended(authority: Path, ca: Ca) -> None:
    number = serial(ca, authority, WEB)
    ca.good("revoke", authority, "--spiffe", WEB)
    ca.later(hours=47)
    ca.good("bundle", authority)
    assert set(revoked(ca, authority)) == {number}
    ca.later(hours=2)
    ca.good("bundle", authority)
    assert revoked(ca, authority) == {}
