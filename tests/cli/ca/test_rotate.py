"""`qbitel ca rotate`: step by step, and never a step too early."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import pytest
from cryptography import x509

from certmgr import peer_document, rotation
from certmgr.folder_store import FolderStore
from certmgr.peers import Peer
from tests.cli.ca.conftest import DB, WEB, Ca

SETTLE = 0.001  # seconds


@pytest.fixture(autouse=True)
def nothing_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "SETTLE", SETTLE)


def names(path: Path) -> list[str]:
    return [one.subject.rfc4514_string() for one in x509.load_pem_x509_certificates(path.read_bytes())]


def phase(ca: Ca, authority: Path) -> str:
    return str(ca.data("rotate", authority, "--status")["phase"])


def accepts(ca: Ca, holder: Path, other: Path) -> bool:
    """Whether a sidecar with the files of `holder` accepts one with those of `other`."""
    trust = ("--roots", holder / "ca.crt", "--intermediates", holder / "intermediates.crt", "--crl", holder / "crl.pem")
    return ca("verify", other / "tls.crt", *trust).code == 0


def test_a_rotation_from_its_first_step_to_its_last_never_breaks_a_peer(authority: Path, ca: Ca) -> None:
    web, db = authority / "web", authority / "db"

    def issue(identity: str) -> None:
        ca.later(minutes=1)
        ca.good("issue", authority, "--spiffe", identity)
        assert accepts(ca, web, db)
        assert accepts(ca, db, web)

    ca.good("issue", authority, "--spiffe", WEB)
    ca.good("issue", authority, "--spiffe", DB)
    old = names(authority / "ca.crt")
    ca.good("rotate", authority, "--start", "--subject", "CN=The next")
    assert len(names(authority / "ca.crt")) == 2

    issue(WEB)
    assert DB in ca("rotate", authority, "--next").refusal
    issue(DB)
    output = ca.good("rotate", authority, "--next").output
    assert output.startswith("the step was taken\nphase signing since")

    issue(DB)
    assert WEB in ca("rotate", authority, "--next").refusal
    issue(WEB)
    ca.later(minutes=1)
    ca.good("rotate", authority, "--next")
    assert phase(ca, authority) == "stable"
    (root,) = names(authority / "ca.crt")
    assert root not in old
    assert root.startswith("CN=The next ")
    assert accepts(ca, web, db)


def test_the_plan_names_who_is_in_the_way_and_what_comes_next(authority: Path, tmp_path: Path, ca: Ca) -> None:
    before = ca.good("rotate", authority, "--plan").output
    assert "nothing: `--start` begins a rotation" in before
    assert before.count("\n  then ") == 2

    for number in range(7):
        ca.good("issue", authority, "--spiffe", WEB, "--out", tmp_path / str(number))
    ca.good("rotate", authority, "--start")
    output = ca.good("rotate", authority, "--plan").output
    assert "7 live certificates" in output
    assert output.count("has not acknowledged the new root") == 5
    assert "… and 2 more (--json names all)" in output
    assert "next step    Every peer acknowledges root" in output

    data = ca.data("rotate", authority, "--plan")
    assert data["next_phase"] == "signing"
    assert len(data["blockers"]) == 7
    assert [one["signs"] for one in data["roots"]] == [True, False]


def test_two_processes_of_one_name_are_named(authority: Path, ca: Ca) -> None:
    now = datetime.datetime.now(datetime.UTC)
    book = [
        Peer(
            identity=WEB,
            instance=f"pod-{number}",
            generation="aa" * 8,
            serial=f"{number + 1:x}",
            issued_at=now,
            not_after=now + datetime.timedelta(days=1),
            shown=True,
            contested=number > 0,
        )
        for number in range(8)
    ]
    asyncio.run(FolderStore(authority).save("peers-other", peer_document.encode(book), None))
    output = ca.good("rotate", authority, "--status").output
    assert f"two processes are {WEB} (pod-1)" in output
    assert "pod-0" not in output
    assert "… and 2 more (--json names all)" in output
    assert ca.data("rotate", authority, "--status")["shared"][6] == {"identity": WEB, "instance": "pod-7"}


def test_looking_is_no_step(authority: Path, ca: Ca) -> None:
    ca.good("rotate", authority, "--start")
    ca.later(hours=1)

    for flag in ("--plan", "--status"):
        assert "nobody: `--next` takes the step" in ca.good("rotate", authority, flag).output
        assert phase(ca, authority) == "publishing"


def test_a_step_waits_for_what_is_under_way_and_looks_again(
    authority: Path, ca: Ca, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []

    async def somebody_comes(seconds: float) -> None:
        waited.append(seconds)
        place = FolderStore(authority)
        peer = Peer(
            identity=WEB, instance="late", generation="ab", serial="1",
            issued_at=ca.clock(), not_after=ca.clock() + datetime.timedelta(hours=1),
        )  # fmt: skip
        await place.save("peers-other", peer_document.encode([peer]), None)

    ca.good("rotate", authority, "--start")
    monkeypatch.setattr(asyncio, "sleep", somebody_comes)
    assert "(late) has not acknowledged" in ca("rotate", authority, "--next").refusal
    assert waited == [SETTLE]


def test_a_peer_that_is_gone_counts_until_its_certificate_ends(authority: Path, ca: Ca) -> None:
    ca.good("issue", authority, "--spiffe", WEB)
    ca.good("rotate", authority, "--start")
    ca.later(hours=23)
    assert WEB in ca("rotate", authority, "--next").refusal

    ca.later(hours=2)
    ca.good("rotate", authority, "--next")


def test_it_is_said_until_when_a_peer_is_waited_for_and_what_to_do_where_it_is_gone(authority: Path, ca: Ca) -> None:
    ca.good("issue", authority, "--spiffe", WEB, "--instance", "pod;1")
    ca.good("rotate", authority, "--start")
    (blocker,) = ca.data("rotate", authority, "--status")["blockers"]
    until = datetime.datetime.fromisoformat(blocker["until"])

    output = ca.good("rotate", authority, "--status").output
    assert f"has ended, the last one at {until:%Y-%m-%d %H:%M:%S} UTC" in output
    assert f"if gone      `qbitel ca revoke … --spiffe {WEB} --instance 'pod;1'`" in output
    ca.later(seconds=(until - ca.clock()).total_seconds() - 1)
    assert WEB in ca("rotate", authority, "--next").refusal
    ca.later(seconds=2)
    ca.good("rotate", authority, "--next")


def test_a_peer_without_a_name_is_known_by_its_number(authority: Path, ca: Ca) -> None:
    now = ca.clock()
    nameless = Peer(
        identity=WEB, instance="", generation="ab", serial="7f",
        issued_at=now, not_after=now + datetime.timedelta(hours=1),
    )  # fmt: skip
    asyncio.run(FolderStore(authority).save("peers-other", peer_document.encode([nameless]), None))
    ca.good("rotate", authority, "--start")

    assert "`qbitel ca revoke … --serial 7f`" in ca.good("rotate", authority, "--status").output


def test_processes_that_are_gone_are_revoked_and_waited_for_no_longer(authority: Path, ca: Ca) -> None:
    for name in ("pod-1", "pod-2", "pod-3"):
        ca.good("issue", authority, "--spiffe", WEB, "--instance", name, "--out", authority / name)
    ca.good("rotate", authority, "--start")
    ca.good("issue", authority, "--spiffe", WEB, "--instance", "pod-3", "--out", authority / "pod-3")
    ca.later(minutes=1)

    ca.good("revoke", authority, "--spiffe", WEB, "--instance", "pod-1", "--instance", "pod-2")
    ca.good("bundle", authority, "--out", authority / "pod-3")
    assert not accepts(ca, authority / "pod-3", authority / "pod-1")
    assert not accepts(ca, authority / "pod-3", authority / "pod-2")
    assert accepts(ca, authority / "pod-3", authority / "pod-3")
    ca.good("rotate", authority, "--next")
    # The identity is not barred, and who was not gone after all comes back.
    ca.good("issue", authority, "--spiffe", WEB, "--instance", "pod-1", "--out", authority / "pod-1")
    ca.good("bundle", authority, "--out", authority / "pod-3")
    assert accepts(ca, authority / "pod-3", authority / "pod-1")


def test_a_peer_that_is_revoked_is_in_nobody_s_way(authority: Path, ca: Ca) -> None:
    ca.good("issue", authority, "--spiffe", WEB)
    ca.good("rotate", authority, "--start")
    ca.later(minutes=1)
    assert WEB in ca("rotate", authority, "--next").refusal

    ca.good("revoke", authority, "--spiffe", WEB)
    ca.good("rotate", authority, "--next")


@pytest.mark.parametrize(("steps", "then"), [(1, "stable"), (2, "aborting")])
def test_a_rotation_is_taken_back(authority: Path, ca: Ca, steps: int, then: str) -> None:
    (old,) = names(authority / "ca.crt")
    ca.good("rotate", authority, "--start")
    for _ in range(steps - 1):
        ca.later(minutes=1)
        ca.good("rotate", authority, "--next")

    ca.good("rotate", authority, "--abort")
    assert phase(ca, authority) == then
    if then == "aborting":
        ca.later(minutes=1)
        ca.good("rotate", authority, "--next")
    assert names(authority / "ca.crt") == [old]


def test_what_makes_no_sense_gets_one_line_and_is_not_written_down(authority: Path, ca: Ca) -> None:
    log = (authority / "audit.log").read_text()
    assert "no rotation is under way" in ca("rotate", authority, "--next").refusal
    assert "nothing to take back" in ca("rotate", authority, "--abort").refusal
    assert "is no subject" in ca("rotate", authority, "--start", "--subject", "me").refusal
    assert (authority / "audit.log").read_text() == log

    ca.good("rotate", authority, "--start")
    assert "a rotation is under way" in ca("rotate", authority, "--start").refusal
    assert (authority / "audit.log").read_text().count('"event":"rotation"') == 1


def test_every_authority_has_a_list_in_every_phase(authority: Path, ca: Ca) -> None:
    """OpenSSL with -crl_check_all wants one of each."""
    ca.good("rotate", authority, "--start")

    issuers = {one["issuer"] for one in ca.data("show", authority / "crl.pem")["found"]}
    assert issuers == {*names(authority / "ca.crt"), *names(authority / "intermediates.crt")}
