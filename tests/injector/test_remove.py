"""Taking the sidecar out again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from injector.refusal import PodRefused
from injector.remove import remove
from tests.injector.rig import CLASSIC, inject, pod

WEB = {"name": "web", "image": "x"}


def test_a_pod_without_our_sidecar_is_itself() -> None:
    given = pod()

    assert remove(given) is given


@pytest.mark.parametrize("settings", [{}, CLASSIC])
@pytest.mark.parametrize(
    "given",
    [
        pod(),
        pod(metadata={"name": "web", "annotations": None}, volumes=None, initContainers=None),
        pod(metadata={"name": "web", "annotations": {}}, volumes=[], initContainers=[]),
        pod(containers=[WEB, {"name": "qbitel-proxy", "image": "auto"}, {"name": "last", "image": "x"}]),
        pod(initContainers=[{"name": "qbitel-init", "image": "own"}, {"name": "migrate", "image": "x"}]),
        pod(volumes=[{"name": "qbitel-keys", "emptyDir": {}}]),
    ],
)
def test_the_pod_is_as_it_was(given: dict[str, Any], settings: dict[str, Any]) -> None:
    assert remove(inject(given, **settings).pod) == given


def test_what_others_added_meanwhile_stays() -> None:
    injected = inject(pod()).pod
    injected["spec"]["volumes"].append({"name": "late", "emptyDir": {}})
    injected["metadata"]["annotations"]["late"] = "yes"

    after = remove(injected)

    assert after["spec"]["volumes"] == [{"name": "late", "emptyDir": {}}]
    assert after["metadata"]["annotations"] == {"late": "yes"}


def test_a_probe_that_somebody_changed_meanwhile_stays() -> None:
    given = pod(containers=[{**WEB, "livenessProbe": {"tcpSocket": {"port": 80}}}])
    injected = inject(given).pod
    probe = {"exec": {"command": ["true"]}}
    injected["spec"]["containers"][0]["livenessProbe"] = probe

    assert remove(injected)["spec"]["containers"][0]["livenessProbe"] == probe


@pytest.mark.parametrize("status", ["", "{", "{}", json.dumps({"version": "1", "replaced": {"web": 1}})])
def test_a_status_that_cannot_be_read_is_refused_and_changes_nothing(status: str) -> None:
    given = pod(metadata={"annotations": {"qbitel.io/status": status}})

    with pytest.raises(PodRefused, match=r"qbitel\.io/status"):
        remove(given)


def test_every_status_of_a_stranger_is_taken_or_refused() -> None:
    good = json.loads(inject(pod()).pod["metadata"]["annotations"]["qbitel.io/status"])

    for created in (["spec"], ["metadata"], ["a.b.c"], [""], ["spec.containers"], ["metadata.annotations.x.y"]):
        text = json.dumps(
            {**good, "created": created, "replaced": {"x": {"field": "containers", "index": 10**9, "container": {}}}}
        )
        after = remove(pod(metadata={"annotations": {"qbitel.io/status": text, "kept": "1"}}))
        assert after["spec"]["containers"][0]["name"] == "web"
        assert after["metadata"]["annotations"] == {"kept": "1"}
