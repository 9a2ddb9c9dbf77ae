"""Where resources keep their pods."""

from __future__ import annotations

from typing import Any

import pytest

from injector.workloads import name_of, path_of_pod, pod_of, with_pod

POD = {"spec": {"containers": []}}


@pytest.mark.parametrize(
    ("version", "kind", "resource"),
    [
        ("v1", "Pod", POD),
        ("v1", "PodTemplate", {"template": POD}),
        ("v1", "ReplicationController", {"spec": {"template": POD}}),
        ("apps/v1", "Deployment", {"spec": {"template": POD}}),
        ("apps/v1", "DaemonSet", {"spec": {"template": POD}}),
        ("apps/v1", "StatefulSet", {"spec": {"template": POD}}),
        ("apps/v1", "ReplicaSet", {"spec": {"template": POD}}),
        ("extensions/v1beta1", "Deployment", {"spec": {"template": POD}}),
        ("batch/v1", "Job", {"spec": {"template": POD}}),
        ("batch/v1beta1", "CronJob", {"spec": {"jobTemplate": {"spec": {"template": POD}}}}),
    ],
)
def test_a_pod_is_found_and_put_back_without_touching_anything_else(version: str, kind: str, resource: Any) -> None:
    whole = {"apiVersion": version, "kind": kind, **resource, "status": {"x": 1}}
    path = path_of_pod(whole)
    assert path is not None
    found = pod_of(whole, path)
    assert found["spec"] == POD["spec"]

    changed = with_pod(whole, path, {**found, "new": True})

    assert pod_of(changed, path)["new"]
    assert "new" not in pod_of(whole, path)
    assert changed["status"] == {"x": 1}


@pytest.mark.parametrize(
    "resource",
    [
        {},
        {"apiVersion": "v1", "kind": "Service", "spec": {"template": POD}},
        {"apiVersion": "example.org/v1", "kind": "Deployment", "spec": {"template": POD}},
        {"apiVersion": "apps/v1", "kind": "Deployment"},
        {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": []}},
        {"apiVersion": 1, "kind": "Pod"},
        {"apiVersion": "v1", "kind": []},
    ],
)
def test_what_makes_no_pods_that_we_know_of_has_no_path(resource: dict[str, Any]) -> None:
    assert path_of_pod(resource) is None


@pytest.mark.parametrize(
    ("metadata", "name"), [({"name": "a"}, "job/a"), ({"generateName": "a-"}, "job/a-"), ({}, "job/?"), (None, "job/?")]
)
def test_a_resource_is_named_as_kubectl_does(metadata: Any, name: str) -> None:
    assert name_of({"kind": "Job", "metadata": metadata}) == name
