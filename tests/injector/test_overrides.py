"""A container of the user's under one of our names."""

from __future__ import annotations

from typing import Any

import pytest

from injector.overrides import Override, merged, take_overrides
from injector.refusal import PodRefused
from tests.injector.rig import containers, inject, pod

WEB = {"name": "web", "image": "x"}


def overridden(**fields: Any) -> dict[str, Any]:
    given = pod(containers=[WEB, {"name": "qbitel-proxy", **fields}])
    found: dict[str, Any] = containers(inject(given).pod)["qbitel-proxy"]
    return found


@pytest.mark.parametrize("image", ["auto", "", None])
def test_a_container_without_an_image_gets_ours(image: str | None) -> None:
    assert overridden(image=image)["image"] == "qbitel/quantum-sidecar:latest"


def test_what_the_user_says_holds_and_the_rest_is_ours() -> None:
    container = overridden(image="own", resources={"limits": {"cpu": "2"}}, terminationMessagePath="/dev/log")

    assert (container["image"], container["terminationMessagePath"]) == ("own", "/dev/log")
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "512Mi"}
    assert container["command"] == ["qbitel"]


def test_variables_mounts_and_ports_are_merged_by_their_names() -> None:
    container = overridden(
        env=[{"name": "POD_NAME", "value": "x"}, {"name": "TZ", "value": "UTC"}],
        volumeMounts=[{"name": "mine", "mountPath": "/mine"}],
    )

    assert [one["name"] for one in container["env"]].count("POD_NAME") == 1
    assert {"name": "POD_NAME", "value": "x"} in container["env"]
    assert "/etc/qbitel/roots" in [one["mountPath"] for one in container["volumeMounts"]]
    assert container["volumeMounts"][-1] == {"name": "mine", "mountPath": "/mine"}


def test_a_list_without_names_takes_the_place_of_ours() -> None:
    assert overridden(args=["proxy"])["args"] == ["proxy"]


@pytest.mark.parametrize("context", [{"runAsUser": 0}, {"runAsGroup": 1000}])
def test_a_sidecar_of_another_user_is_refused(context: dict[str, int]) -> None:
    with pytest.raises(PodRefused, match="a user or group of its own"):
        overridden(securityContext=context)


def test_two_containers_of_one_name_are_refused() -> None:
    ours = {"name": "qbitel-proxy"}

    with pytest.raises(PodRefused, match="two containers named qbitel-proxy"):
        take_overrides(pod(initContainers=[ours], containers=[WEB, ours]))


def test_what_was_taken_knows_its_place() -> None:
    given = pod(containers=[WEB, {"name": "qbitel-proxy"}])

    assert take_overrides(given) == {"qbitel-proxy": Override("containers", 1, {"name": "qbitel-proxy"})}
    assert given["spec"]["containers"] == [WEB]


def test_the_rules_container_may_be_overridden_too() -> None:
    ours = {"name": "qbitel-init", "image": "ours", "securityContext": {"runAsUser": 0}}

    assert merged(ours, Override("initContainers", 0, {"name": "qbitel-init", "image": "own"}))["image"] == "own"


TPROXY = {"name": "web", "annotations": {"qbitel.io/interception-mode": "TPROXY"}}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"command": ["qbitel"]}, "a command of its own"),
        ({"securityContext": {"runAsUser": 2102}}, "a user or group of its own"),
    ],
)
def test_with_tproxy_what_makes_the_sidecar_its_user_stays(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(PodRefused, match=words):
        inject(pod(metadata=TPROXY, containers=[WEB, {"name": "qbitel-proxy", **fields}]))


def test_with_tproxy_everything_else_may_be_said() -> None:
    given = pod(metadata=TPROXY, containers=[WEB, {"name": "qbitel-proxy", "image": "own"}])

    assert containers(inject(given).pod)["qbitel-proxy"]["image"] == "own"
