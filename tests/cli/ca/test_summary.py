"""An authority in a few lines."""

from __future__ import annotations

from pathlib import Path

from tests.cli.ca.conftest import DB, WEB, Ca


def test_it_counts_what_is_live_revoked_and_waiting(authority: Path, ca: Ca) -> None:
    ca.good("issue", authority, "--spiffe", WEB)
    ca.good("issue", authority, "--spiffe", DB, "--hours", "1")
    ca.good("token", authority, "--spiffe", WEB, "--minutes", "30")
    ca.good("revoke", authority, "--spiffe", WEB, "--no-bar")

    now = ca.data("show", authority)["found"][0]
    assert (now["live_certificates"], now["revoked"], now["tokens_waiting"]) == (1, 1, 1)
    ca.later(hours=2)
    later = ca.data("show", authority)["found"][0]
    assert (later["live_certificates"], later["revoked"], later["tokens_waiting"]) == (0, 1, 0)


def test_it_says_which_root_signs_and_where_its_key_is(authority: Path, ca: Ca) -> None:
    ca.good("rotate", authority, "--start")
    found = ca.data("show", authority)["found"][0]

    assert found["phase"] == "publishing"
    assert [one["signs"] for one in found["generations"]] == [True, False]
    assert [one["root_key_is_here"] for one in found["generations"]] == [True, True]
    output = ca.good("show", authority).output
    assert output.count("(signs)") == 1
    assert "phase        publishing since" in output
    assert output.count("  intermediate ") == 2


def test_it_names_who_is_barred_up_to_a_screenful(authority: Path, ca: Ca) -> None:
    assert "  barred  " not in ca.good("show", authority).output
    ca.good("revoke", authority, "--spiffe", WEB, "--reason", "keyCompromise")
    assert f"  barred       {WEB} since 20" in ca.good("show", authority).output
    assert "(keyCompromise)" in ca.good("show", authority).output
    for number in range(20):
        ca.good("revoke", authority, "--spiffe", f"{DB}-{number}")
    output = ca.good("show", authority).output
    assert output.count("  barred  ") == 21
    assert "and 1 more (--json has them all)" in output
    barred = ca.data("show", authority)["found"][0]["barred"]
    assert len(barred) == 21
    assert (barred[0]["identity"], barred[0]["reason"]) == (WEB, "keyCompromise")
