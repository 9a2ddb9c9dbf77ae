"""Where policies come from: besides files, a cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cli.policy import places
from control.folder import read_path
from tests.cli.policy.conftest import Folder, Policy
from tests.mesh.written import mode, resource, strict


def test_the_root_namespace_can_be_another(policy: Policy, folder: Folder) -> None:
    folder.write("a.yaml", strict("qbitel-system/default"))
    question = ("explain", folder.path, "--to", "shop/web:80")

    assert "STRICT" not in policy.says(0, *question)
    assert "STRICT" in policy.says(1, *question, "--root-namespace", "qbitel-system")


def test_folders_within_folders_are_read_where_that_is_asked_for(policy: Policy, folder: Folder) -> None:
    folder.write("a.yaml", strict())
    Folder(folder.path / "more").write("b.yaml", strict("other/default"))

    assert policy.data(0, "check", folder.path)["files"] == 1
    assert policy.data(0, "check", folder.path, "-r")["files"] == 2


def test_a_set_that_a_sidecar_would_not_act_on_is_not_explained(policy: Policy, folder: Folder) -> None:
    file = folder.write("a.yaml", resource("PeerAuthentication", "shop/a", "{mtls: 3}"), "- x\n")

    for question in (("explain", folder.path, "--to", "shop/web"), ("diff", folder.path, folder.path)):
        refusal = policy(*question).refusal
        assert f"qbitel policy: {file}:" in refusal
        assert refusal.endswith("(and 1 more); a sidecar would not act on this set: see `qbitel policy check`")


def test_a_cluster_wants_the_extra(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "control.cluster", None)

    refusal = policy("check", "--cluster").refusal
    assert refusal.endswith("a cluster wants the extra: pip install 'qbitel-mesh[kubernetes]'")


def test_a_cluster_that_is_not_there_is_one_line(policy: Policy, tmp_path: Path) -> None:
    pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")

    assert (
        "does not exist; give a kubeconfig file"
        in policy("check", "--cluster", "--kubeconfig", tmp_path / "none").refusal
    )


def test_files_beside_a_cluster_count_as_if_they_were_applied(
    policy: Policy, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Folder(tmp_path / "there")
    there.write("a.yaml", strict(), strict("other/default"))
    folder.write("a.yaml", mode("shop/default", "PERMISSIVE"))
    monkeypatch.setattr(places, "cluster", lambda _options: read_path(there.path))

    for namespace, code in (("shop", 0), ("other", 1)):
        policy.says(code, "explain", "--cluster", folder.path, "--to", f"{namespace}/web:80")
    policy.says(1, "explain", "--cluster", "--to", "shop/web:80")
