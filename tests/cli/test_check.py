"""`qbitel check`: what is looked at in which mode, what is printed, and what the exit code says."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from cli import check
from cli.check import Clocks
from cli.checks import gathering
from cli.checks.facts import ClusterFacts, unknown
from mesh.errors import UserError
from tests.cli.checks.rig import NOW, good
from tests.kube.rig import kubeconfig_file

NOWHERE = {"HOME": "/nonexistent"}


class Time:
    """A clock that sleeping sets forward."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def clocks(self) -> Clocks:
        return Clocks(lambda: datetime.datetime.now(datetime.UTC), lambda: self.seconds, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None is at hand but what a test names."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(check, "_POD_TOKEN", tmp_path / "none")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[ClusterFacts]:
    """What is found out of a cluster, one after the other; the last stays."""
    looks: list[ClusterFacts] = []

    async def gathered(*_arguments: Any) -> ClusterFacts:
        return looks.pop(0) if len(looks) > 1 else looks[0]

    monkeypatch.setattr(gathering, "gather", gathered)
    return looks


def run(*arguments: str, environment: dict[str, str] | None = None, time: Time | None = None) -> int:
    return check.run(arguments, environment or {}, (time or Time()).clocks())


def test_without_a_cluster_this_machine_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "machine"
    assert any(line.startswith("✓ python") for line in lines)
    assert any(line.startswith("– api-reachable") and "no cluster is at hand" in line for line in lines)


def test_a_failure_is_exit_code_1_and_every_problem_says_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("--local", "--certs", str(tmp_path / "nowhere"), "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["certificates"]["status"] == "failure"
    assert "tls.crt does not exist" in found["certificates"]["detail"]
    assert all(set(one) == {"group", "status", "detail", "fix", "items"} for one in found.values())
    assert all(one["fix"] for one in found.values() if one["status"] in ("warning", "failure"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--frobnicate"],
        ["--pre", "--proxy"],
        ["--wait", "-1"],
        ["--wait", "soon"],
        ["--sample", "0"],
        ["--sample", "1000000"],
        ["-o", "xml"],
    ],
)
def test_a_wrong_flag_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_who_asks_for_a_cluster_where_there_is_none_hears_it() -> None:
    for arguments in (["--pre"], ["--proxy"]):
        with pytest.raises(UserError, match="no cluster is at hand"):
            run(*arguments)
    with pytest.raises(UserError, match="--context is of a kubeconfig"):
        run("--context", "other")
    with pytest.raises(UserError, match="does not exist"):
        run("--pre", "--kubeconfig", "/nonexistent/kubeconfig")


def test_a_context_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="with the context other"):
        run("--pre", "--kubeconfig", kubeconfig_file(tmp_path, 1), "--context", "other")


def test_each_mode_looks_at_its_groups(cluster: list[ClusterFacts], capsys: pytest.CaptureFixture[str]) -> None:
    cluster.append(good())
    for mode, groups in (
        (["--pre"], {"machine", "cluster", "pre"}),
        (["--proxy"], {"data-plane"}),
        ([], {"machine", "cluster", "control-plane", "webhook", "trust", "data-plane"}),
        (["--only", "trust"], {"trust"}),
        (["--local"], {"machine"}),
    ):
        assert run(*mode, "-o", "json", environment={"KUBECONFIG": "some"}) == 0
        found = json.loads(capsys.readouterr().out)
        assert {one["group"] for one in found.values()} == groups


def test_nobody_takes_an_absent_cluster_or_mesh_for_a_good_one(
    cluster: list[ClusterFacts], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.append(ClusterFacts(now=NOW, unreachable="refused"))
    assert run("--proxy", "--kubeconfig", "some") == 1
    assert "× api-reachable" in capsys.readouterr().out
    cluster[:] = [good(namespaces=[], pods=[])]
    assert run("--proxy", "--kubeconfig", "some") == 1
    assert "× control-namespace" in capsys.readouterr().out


def test_waiting_ends_as_soon_as_nothing_fails(cluster: list[ClusterFacts]) -> None:
    bad = ClusterFacts(now=NOW, unreachable="refused", pods=unknown("refused"))
    cluster += [bad, bad, good()]
    time = Time()
    assert run("--skip", "machine", "--kubeconfig", "some", "--wait", "60", time=time) == 0
    assert time.seconds == 4.0


def test_waiting_has_an_end(cluster: list[ClusterFacts]) -> None:
    cluster.append(ClusterFacts(now=NOW, unreachable="refused"))
    time = Time()
    assert run("--skip", "machine", "--kubeconfig", "some", "--wait", "5", time=time) == 1
    assert time.seconds == 5.0


def test_files_are_looked_at_instead_of_anything_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pod.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a}]}\n"
    )
    assert run("-f", str(tmp_path), "-o", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["group"] for one in found.values()} == {"files"}
    assert found["files-injected"]["detail"] == "1 pod: 1 would get a sidecar"


def test_the_list_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list") == 0
    assert "root-expiry" in capsys.readouterr().out
