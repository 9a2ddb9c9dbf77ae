"""Pod Security's levels, where the cluster enforces them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster import cluster
from tests.cluster.installation import Mesh
from tests.cluster.workloads import Workload

# PodSecurity is enabled by default from there on (beta).
_ENFORCED_SINCE = (1, 23)
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def test_a_restricted_namespace_takes_a_sidecar_without_interception_and_no_other(
    mesh: Mesh, saw: Callable[[str], None]
) -> None:
    if mesh.version < _ENFORCED_SINCE:
        pytest.skip(f"Kubernetes {mesh.version[0]}.{mesh.version[1]} enforces no Pod Security Standards")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with cluster.new_namespace("restricted", qbitel_injection="enabled") as namespace:
        cluster.kubectl("label", "namespace", namespace, *(f"{key}={value}" for key, value in labels.items()))
        said = {}
        for mode in ("REDIRECT", "NONE"):
            annotations = {"qbitel.io/interception-mode": mode}
            workload = Workload(
                name="one", account="default", annotations=annotations, container={"securityContext": _RESTRICTED}
            )
            template = workload.template()
            metadata = {"name": mode.lower(), "annotations": annotations}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
            said[mode] = cluster.attempt("create", "--dry-run=server", "-n", namespace, "-f", "-", given=pod)

    assert said["REDIRECT"].returncode != 0
    assert "qbitel-init" in said["REDIRECT"].stderr
    assert said["NONE"].returncode == 0, said["NONE"].stderr
    saw(f"REDIRECT: {said['REDIRECT'].stderr.strip()[:200]}; NONE: {said['NONE'].stdout.strip()}")
