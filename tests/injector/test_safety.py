"""What is refused, and what is warned of."""

from __future__ import annotations

from typing import Any

import pytest

from injector.refusal import PodRefused
from tests.injector.rig import CLASSIC, annotated, inject, pod


def one(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "web", "image": "x", **fields}]


@pytest.mark.parametrize(
    "spec",
    [
        {"securityContext": {"runAsUser": 2102}},
        {"securityContext": {"runAsGroup": 2102}},
        {"containers": one(securityContext={"runAsUser": 2102})},
        {"containers": one(securityContext={"runAsGroup": 2102})},
        {"initContainers": one(securityContext={"runAsUser": 2102})},
        {"securityContext": {"runAsUser": 2102}, "containers": one(securityContext={"runAsGroup": 1})},
    ],
)
def test_an_application_as_the_sidecar_s_user_or_group_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(PodRefused, match="which is the sidecar's: its traffic would be neither captured nor encrypted"):
        inject(pod(**spec))


def test_a_container_that_is_another_user_than_its_pod_is_taken() -> None:
    spec = {"securityContext": {"runAsUser": 2102}, "containers": one(securityContext={"runAsUser": 1000})}

    assert inject(pod(**spec)).decision.inject


@pytest.mark.parametrize("name", ["istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane"])
def test_a_pod_of_another_mesh_is_refused(name: str) -> None:
    with pytest.raises(PodRefused, match="a pod is in one mesh"):
        inject(pod(containers=[*one(), {"name": name}]))


@pytest.mark.parametrize("port", [15000, 15001, 15006, 15008, 15021, 15090])
def test_a_port_of_the_sidecar_in_the_application_is_a_warning(port: int) -> None:
    (warning,) = inject(pod(containers=one(ports=[{"containerPort": port}]))).warnings

    assert f"port {port}" in warning


@pytest.mark.parametrize(
    ("drain", "grace", "warned"), [("20", None, False), ("30", None, True), ("30", 60, False), ("5", 5, True)]
)
def test_a_drain_that_the_pod_s_grace_cuts_is_a_warning(drain: str, grace: int | None, warned: bool) -> None:
    given = annotated(drain_seconds=drain)
    if grace is not None:
        given["spec"]["terminationGracePeriodSeconds"] = grace

    assert bool(inject(given).warnings) is warned


def test_a_short_grace_is_no_warning_where_the_drain_follows_it() -> None:
    assert inject(pod(terminationGracePeriodSeconds=5)).warnings == ()


@pytest.mark.parametrize("policy", ["Never", "OnFailure"])
def test_a_pod_that_is_to_end_is_a_warning_where_sidecars_are_classic(policy: str) -> None:
    assert "quitquitquit" in inject(pod(restartPolicy=policy), **CLASSIC).warnings[0]
    assert inject(pod(restartPolicy=policy)).warnings == ()


def test_a_mount_of_a_volume_that_is_nowhere_is_a_warning() -> None:
    given = annotated(user_volume_mount='{"cache": {"mountPath": "/cache"}}')

    assert "does not have" in inject(given).warnings[0]
    given["spec"]["volumes"] = [{"name": "cache", "emptyDir": {}}]
    assert inject(given).warnings == ()
