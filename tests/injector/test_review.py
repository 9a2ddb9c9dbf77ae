"""AdmissionReviews in, AdmissionReviews out."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.review import Answer, answer, json_patch, refused_request
from tests.injector.rig import inject, injector, pod

UID = "705ab4f5-6393-11e8-b7cc-42010a800002"


def review(given: Any, **request: Any) -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": UID,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE",
            "namespace": "shop",
            "object": given,
            **request,
        },
    }


def asked(body: Any, label: str | None = "enabled") -> Answer:
    return answer(body if isinstance(body, bytes) else json.dumps(body).encode(), injector(), label)


def response(given: Answer) -> dict[str, Any]:
    value = json.loads(given.body)
    assert (given.status, value["apiVersion"], value["kind"]) == (200, "admission.k8s.io/v1", "AdmissionReview")
    assert value["response"]["uid"] == UID
    found: dict[str, Any] = value["response"]
    return found


def patched(given: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """RFC 6902 §4.1, as far as the patch goes: "add" of members of the root."""
    value = copy.deepcopy(given)
    for operation in patch:
        assert operation["op"] == "add"
        value[operation["path"].removeprefix("/")] = operation["value"]
    return value


@pytest.mark.parametrize("given", [pod(), pod(metadata={}), {"spec": pod()["spec"]}])
def test_a_pod_of_the_mesh_is_allowed_with_a_patch_that_gives_it_the_sidecar(given: dict[str, Any]) -> None:
    found = response(asked(review(given)))

    patch = json.loads(base64.b64decode(found["patch"]))
    assert (found["allowed"], found["patchType"]) == (True, "JSONPatch")
    assert patched(given, patch) == inject(given).pod


def test_a_pod_that_has_it_already_is_allowed_as_it_is() -> None:
    found = response(asked(review(inject(pod()).pod)))

    assert found == {"uid": UID, "allowed": True}


def test_a_pod_that_cannot_have_one_is_allowed_with_a_warning() -> None:
    found = response(asked(review(pod(hostNetwork=True))))

    assert found["allowed"]
    assert "patch" not in found
    assert found["warnings"][0].startswith("qbitel: no sidecar: it is in the host's network")


def test_a_pod_that_must_not_run_is_refused_with_the_reason() -> None:
    found = response(asked(review(pod(securityContext={"runAsUser": 2102}))))

    assert not found["allowed"]
    assert found["status"]["message"].startswith("its container web runs as UID 2102")


def test_outside_of_labelled_namespaces_the_pod_s_own_label_decides() -> None:
    assert "patch" not in response(asked(review(pod()), label=None))
    wanted = pod(metadata={"labels": {"qbitel.io/inject": "true"}})
    assert "patch" in response(asked(review(wanted), label=None))


@pytest.mark.parametrize("given", [None, 1, [], {}, {"spec": None}, {"spec": {"containers": "x"}}, {"metadata": 1}])
def test_an_object_that_is_no_pod_is_refused_and_never_let_through(given: Any) -> None:
    assert not response(asked(review(given)))["allowed"]


@pytest.mark.parametrize(
    "request_fields",
    [
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"kind": None},
        {"subResource": "ephemeralcontainers"},
    ],
)
def test_what_is_no_creation_of_a_pod_is_refused(request_fields: dict[str, Any]) -> None:
    assert not response(asked(review(pod(), **request_fields)))["allowed"]


@pytest.mark.parametrize("operation", ["UPDATE", "DELETE", "CONNECT"])
def test_a_pod_that_exists_is_left_as_it_is(operation: str) -> None:
    assert response(asked(review(pod(), operation=operation))) == {"uid": UID, "allowed": True}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"NaN",
        b"[" * 100_000,
        b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "x"}}',
        b'{"kind": "Pod", "apiVersion": "v1"}',
        b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}',
        b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {"uid": ""}}',
        b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {"uid": 1}}',
    ],
)
def test_garbage_gets_an_error_in_kubernetes_own_form(body: bytes) -> None:
    given = asked(body)

    value = json.loads(given.body)
    assert (given.status, value["kind"], value["status"], value["code"]) == (400, "Status", "Failure", 400)


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 500])
def test_every_error_has_its_reason_and_a_bounded_message(status: int) -> None:
    value = json.loads(refused_request(status, "x" * 10_000).body)

    assert value["code"] == status
    assert value["reason"].isalpha()
    assert len(value["message"]) == 1024


def test_warnings_are_as_many_and_as_long_as_clients_show() -> None:
    many = {f"qbitel.io/{'x' * 200}{number}": "1" for number in range(50)}

    warnings = response(asked(review(pod(metadata={"annotations": many}))))["warnings"]

    assert len(warnings) == 16
    assert all(len(warning) <= 256 and warning.isprintable() for warning in warnings)


WHOLE = json.dumps(review(pod())).encode()


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_review_that_is_cut_or_damaged_never_lets_a_pod_through_bare(at: int, byte: int) -> None:
    for body in (WHOLE[:at], WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]):
        given = asked(body)
        value = json.loads(given.body)
        if given.status != 200:
            assert value["kind"] == "Status"
        elif value["response"]["allowed"] and "patch" not in value["response"]:
            # Damaged into another operation, another namespace, a pod that says no or that cannot have one.
            assert given.reason != "its namespace has the label qbitel-injection=enabled"


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
                        ["metadata", "spec", "containers", "annotations", "name", "livenessProbe", "qbitel.io/inject"]),
                        inner, max_size=3), max_leaves=20))  # fmt: skip
def test_whatever_stands_for_a_pod_gets_an_answer(given: Any) -> None:
    found = response(asked(review(given)))

    assert found["allowed"] is ("patch" in found or "warnings" in found or "status" not in found)


def test_the_patch_needs_no_member_to_be_there() -> None:
    assert [operation["path"] for operation in json_patch(inject(pod()).pod)] == ["/metadata", "/spec"]
