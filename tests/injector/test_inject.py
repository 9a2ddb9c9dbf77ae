"""Pod in, pod out: what holds for every pod."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.decide import Namespace
from injector.refusal import PodRefused
from injector.remove import remove
from mesh.errors import UserError
from tests.injector.rig import CLASSIC, ENABLED, annotated, containers, inject, injector, pod
from tests.support.kubernetes_schema import pod_problems

NAME = st.from_regex(r"[a-z]([-a-z0-9]{0,6}[a-z0-9])?", fullmatch=True)
PORT = st.integers(1, 65535)
HANDLER = st.one_of(
    st.builds(
        lambda port, path: {"httpGet": {"path": path, "port": port}}, PORT, st.text(max_size=5).map("/{}".format)
    ),
    st.builds(lambda port: {"tcpSocket": {"port": port}}, PORT),
    st.builds(lambda port: {"grpc": {"port": port}}, PORT),
    st.just({"exec": {"command": ["true"]}}),
)
HOOK = HANDLER.filter(lambda handler: "grpc" not in handler)
CONTAINER = st.fixed_dictionaries(
    {"image": NAME},
    optional={
        "livenessProbe": HANDLER,
        "readinessProbe": HANDLER,
        "lifecycle": st.fixed_dictionaries({}, optional={"preStop": HOOK}),
        "securityContext": st.fixed_dictionaries({}, optional={"runAsUser": st.integers(0, 2000)}),
        "volumeMounts": st.just([{"name": "data", "mountPath": "/data"}]),
    },
)


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAME, min_size=2, max_size=5, unique=True))
    made = [{"name": name, **draw(CONTAINER)} for name in names]
    cut = draw(st.integers(1, len(made)))
    spec: dict[str, Any] = {"containers": made[:cut]}
    if made[cut:] or draw(st.booleans()):
        spec["initContainers"] = made[cut:]
    if draw(st.booleans()):
        spec["volumes"] = draw(st.sampled_from([[], [{"name": "data", "emptyDir": {}}]]))
    metadata = draw(
        st.fixed_dictionaries({}, optional={"name": NAME, "labels": st.dictionaries(NAME, NAME, max_size=2),
                                            "annotations": st.dictionaries(NAME, st.text(max_size=5), max_size=2)})
    )  # fmt: skip
    whole = {"apiVersion": "v1", "kind": "Pod", "spec": spec}
    return {**whole, "metadata": metadata} if metadata or draw(st.booleans()) else whole


@given(pods(), st.booleans())
def test_taking_the_sidecar_out_gives_back_any_pod(given: dict[str, Any], native: bool) -> None:
    before = copy.deepcopy(given)

    outcome = inject(given, native_sidecars=native)

    assert given == before
    assert outcome.decision.inject
    assert remove(outcome.pod) == given
    assert inject(outcome.pod, native_sidecars=native).pod is outcome.pod
    assert pod_problems(outcome.pod) == pod_problems(given)


@given(pods())
def test_every_field_that_is_not_ours_stays_in_any_pod(given: dict[str, Any]) -> None:
    injected = inject(given).pod

    after = containers(injected)
    for name, container in containers(given).items():
        for field in container.keys() - {"livenessProbe", "readinessProbe", "lifecycle"}:
            assert after[name][field] == container[field]
    for key, value in given.get("metadata", {}).get("annotations", {}).items():
        assert injected["metadata"]["annotations"][key] == value
    assert injected["spec"]["volumes"][: len(given["spec"].get("volumes", []))] == given["spec"].get("volumes", [])


def order(value: dict[str, Any]) -> list[list[str]]:
    return [[one["name"] for one in value["spec"][field]] for field in ("initContainers", "containers")]


def test_native_sidecars_start_before_the_application_s_init_containers() -> None:
    given = pod(initContainers=[{"name": "migrate", "image": "x"}])

    assert order(inject(given).pod) == [["qbitel-init", "qbitel-proxy", "migrate"], ["web"]]


def test_classic_rules_are_made_after_the_application_s_init_containers() -> None:
    given = pod(initContainers=[{"name": "migrate", "image": "x"}])

    assert order(inject(given, **CLASSIC).pod) == [["migrate", "qbitel-init"], ["qbitel-proxy", "web"]]


def test_without_capture_there_is_no_container_with_privileges() -> None:
    assert "qbitel-init" not in containers(inject(annotated(interception_mode="NONE")).pod)


@pytest.mark.parametrize("value", [None, [], {}, {"spec": {}}, "pod"])
def test_what_is_no_pod_is_refused(value: Any) -> None:
    with pytest.raises(PodRefused, match="it cannot be read"):
        injector().inject(value, ENABLED)


def test_rules_that_cannot_be_rendered_are_the_pod_s_fault() -> None:
    with pytest.raises(PodRefused, match=r"qbitel\.io/include-outbound-cidrs"):
        inject(annotated(include_outbound_cidrs="10.0.0.0/99"))


def test_no_sidecar_in_a_labelled_namespace_is_told_unless_the_pod_chose_it() -> None:
    assert inject(pod(hostNetwork=True)).warnings == (
        "no sidecar: it is in the host's network, where rules for it would be rules for the node",
    )
    assert inject(pod(metadata={"labels": {"qbitel.io/inject": "false"}})).warnings == ()
    assert injector().inject(pod(hostNetwork=True), Namespace("shop")).warnings == ()


def test_a_renderer_s_own_fault_is_no_refusal() -> None:
    class Fault(Exception):
        pass

    def fails(_: object) -> str:
        raise Fault

    broken = injector()
    with pytest.raises(Fault):
        type(broken)(config=broken.config, render_script=fails, version="0").inject(pod(), ENABLED)
    assert not issubclass(Fault, UserError)
