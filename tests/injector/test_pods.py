"""Pods read without trusting their shape."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector import pods
from tests.injector.rig import pod

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["metadata", "spec", "containers", "x"]), inner)
    ),
    max_leaves=12,
)


def test_a_pod_s_shape_is_taken() -> None:
    assert pods.shape_fault(pod()) is None
    assert pods.shape_fault({"spec": {"containers": [{}], "volumes": None}}) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"spec": 1},
        {"metadata": None, "spec": {"containers": [{}]}},
        {"spec": {}},
        {"spec": {"containers": []}},
        {"spec": {"containers": [1]}},
        {"spec": {"containers": {}}},
        {"metadata": {"annotations": ["x"]}, "spec": {"containers": [{}]}},
        {"metadata": {"labels": "x"}, "spec": {"containers": [{}]}},
        {"spec": {"containers": [{}], "volumes": "x"}},
    ],
)
def test_what_is_no_pod_is_told_in_words(value: Any) -> None:
    fault = pods.shape_fault(value)

    assert fault is not None
    assert fault.startswith(("it ", "its ", "metadata.", "spec."))


@given(JSON)
def test_reading_never_fails_on_any_object(value: Any) -> None:
    whole = value if isinstance(value, dict) else {"spec": value}

    pods.shape_fault(value)
    assert all(isinstance(container, dict) for _, container in pods.containers(whole))
    assert all(isinstance(text, str) for text in pods.annotations_of(whole).values())


def test_containers_come_in_the_order_in_which_they_start() -> None:
    given = pod(initContainers=[{"name": "first"}], containers=[{"name": "second"}])

    assert [(field, one["name"]) for field, one in pods.containers(given)] == [
        ("initContainers", "first"),
        ("containers", "second"),
    ]


def test_only_an_init_container_that_is_always_restarted_is_a_native_sidecar() -> None:
    assert pods.is_native_sidecar("initContainers", {"restartPolicy": "Always"})
    assert not pods.is_native_sidecar("initContainers", {})
    assert not pods.is_native_sidecar("containers", {"restartPolicy": "Always"})


def test_ports_without_a_name_or_a_number_are_left_out() -> None:
    assert pods.ports({"ports": [{"name": "a", "containerPort": 1}, {"containerPort": 2}, {"name": "b"}, 3]}) == {
        "a": 1
    }
