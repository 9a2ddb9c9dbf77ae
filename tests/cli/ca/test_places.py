"""Where an authority is, and that commands at the same time, or on a bad day, lose nothing."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cli.ca.places import place_of
from mesh.errors import UserError
from tests.cli.ca.conftest import WEB, Ca

_PROGRAM = [sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())", "ca"]


def test_commands_at_the_same_time_lose_nothing(authority: Path, ca: Ca) -> None:
    revoked = [f"{number:x}" for number in range(1000, 1003)]
    commands = [
        *(["revoke", str(authority), "--serial", serial] for serial in revoked),
        *(["issue", str(authority), "--spiffe", f"spiffe://cluster.local/w{number}"] for number in range(3)),
        ["token", str(authority), "--spiffe", WEB],
    ]
    started = [
        subprocess.Popen([*_PROGRAM, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    for process in started:
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, ""), output

    ca.later(minutes=2)
    ca.good("bundle", authority)
    lists = ca.data("show", authority / "crl.pem")["found"]
    assert {one["serial"] for crl in lists for one in crl["revoked"]} == set(revoked)
    summary = ca.data("show", authority)["found"][0]
    assert (summary["live_certificates"], summary["tokens_waiting"]) == (3, 1)
    log = (authority / "audit.log").read_text()
    assert [log.count(f'"event":"{event}"') for event in ("revoked", "issued", "token made")] == [3, 3, 1]


def test_a_disk_that_is_full_gets_one_line_and_loses_nothing(authority: Path, ca: Ca) -> None:
    before = {path.name: path.read_bytes() for path in authority.iterdir()}

    def full() -> None:
        # No file may grow beyond this, which is what a write to a full disk meets: the audit log still has room.
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    ended = subprocess.run(
        [*_PROGRAM, "revoke", str(authority), "--serial", "1234"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=full,  # this process has no thread that could hold a lock
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1), ended.stderr
    assert ended.stderr.startswith("qbitel ca: ")
    after = {path.name: path.read_bytes() for path in authority.iterdir()}
    assert after.keys() == before.keys()
    assert after["authority.state"] == before["authority.state"]
    assert after["crl.pem"] == before["crl.pem"]
    ca.good("revoke", authority, "--serial", "1234")


def test_a_cluster_that_cannot_be_used_gets_one_line(tmp_path: Path, ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")
    broken = tmp_path / "config"
    broken.write_text("nothing: of the kind")

    assert str(broken) in ca("rotate", "--kubernetes", "--kubeconfig", broken, "--status").refusal
    monkeypatch.setenv("KUBECONFIG", str(broken))
    assert str(broken) in ca("show", "--kubernetes").refusal
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "no pod" in ca("revoke", "--kubernetes", "--serial", "1").refusal


@pytest.mark.parametrize("name", ["", "..", "a/b", "Upper", "a.b", "x" * 64])
def test_what_is_no_namespace_is_one_line(ca: Ca, name: str) -> None:
    assert "is no name for Kubernetes" in ca("init", "--kubernetes", "--namespace", name).refusal


def test_an_empty_variable_names_no_kubeconfig(tmp_path: Path, ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")
    monkeypatch.setenv("KUBECONFIG", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    assert "no pod" in ca("show", "--kubernetes").refusal


def test_without_the_extra_it_is_said_how_to_get_it(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ("kubernetes_asyncio", "certmgr.kubernetes", "kube.")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kubernetes_asyncio", None)

    assert "pip install 'qbitel-mesh[kubernetes]'" in ca("bundle", "--kubernetes", "--out", "/nowhere").refusal


def test_a_place_is_a_folder_or_a_cluster_and_not_both() -> None:
    async def look(**words: object) -> None:
        async with place_of(argparse.Namespace(**words)):
            pass

    for words in ({"folder": None, "kubernetes": False}, {"folder": Path(os.sep), "kubernetes": True}):
        with pytest.raises(UserError, match="DIR, or --kubernetes"):
            asyncio.run(look(**words))
