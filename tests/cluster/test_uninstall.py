"""The mesh goes, and nothing of it stays. The last test of all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mesh import names
from tests.cluster import cluster
from tests.cluster.installation import Mesh
from tests.cluster.workloads import Workload

_CLUSTER_SCOPED = ("namespace", "clusterrole", "clusterrolebinding", "mutatingwebhookconfiguration")


def test_uninstalling_leaves_nothing(mesh: Mesh, saw: Callable[[str], None]) -> None:
    if not mesh.ours:
        pytest.skip("the mesh was there before this suite, and stays")
    before = _ours()
    assert before

    mesh.delete()

    cluster.until("everything is gone", lambda: not _ours(), otherwise=lambda: "\n".join(_ours()))
    with cluster.new_namespace("after", qbitel_injection="enabled") as namespace:
        # Nobody is asked about pods any more.
        template = Workload(name="one", account="default").template()
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": template["spec"]}
        cluster.kubectl("create", "--dry-run=server", "-n", namespace, "-f", "-", given=pod)
    saw(f"{len(before)} objects are gone: {', '.join(before)}")


def _ours() -> list[str]:
    """Every object of the mesh that is outside of its namespace, and that namespace itself."""
    found = [
        f"{kind}/{one['metadata']['name']}"
        for kind in _CLUSTER_SCOPED
        for one in cluster.listed(kind)
        if one["metadata"]["name"].startswith("qbitel-") and cluster.LABEL not in one["metadata"].get("labels", {})
    ]
    published = [
        f"configmap/{one['metadata']['namespace']}/{one['metadata']['name']}"
        for one in cluster.listed("configmap")
        if one["metadata"]["name"] in (names.ROOTS_CONFIG_MAP, names.MESH_CONFIG_MAP)
    ]
    return found + published
