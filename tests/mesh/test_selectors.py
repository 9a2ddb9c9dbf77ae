"""Which workloads a resource is about."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.selectors import Selector, TargetRef, Workload, by_namespace
from tests.support.policies import document, faults, policies

WEB = Workload("shop", {"app": "web", "tier": "front"}, "web")


@pytest.mark.parametrize(
    ("labels", "namespace", "selects"),
    [
        ({}, "shop", True),
        ({"app": "web"}, "shop", True),
        ({"app": "web", "tier": "front"}, "shop", True),
        ({"app": "web", "tier": "back"}, "shop", False),
        ({"app": ""}, "shop", False),
        ({"zone": ""}, "shop", False),
        ({"app": "web"}, "other", False),
        ({"app": "web"}, "istio-system", True),
        ({}, "istio-system", True),
    ],
)
def test_every_label_must_be_there_and_the_namespace_be_its_own_or_the_root(
    labels: dict[str, str], namespace: str, selects: bool
) -> None:
    assert Selector(labels).selects(WEB, namespace) is selects


def test_another_root_namespace_takes_istio_s_place() -> None:
    assert Selector({}).selects(WEB, "root", "root")
    assert not Selector({}).selects(WEB, "istio-system", "root")


def test_with_target_refs_no_sidecar_is_meant() -> None:
    selector = Selector({}, (TargetRef("Service", "web"),))

    assert not selector.selects(WEB, "shop")
    assert not selector.everything
    assert Selector({}).everything


def test_a_workload_shows_itself_by_its_name_or_its_account() -> None:
    assert str(WEB) == "shop/web"
    assert str(Workload("shop", {}, "sa", "web-7d4")) == "shop/web-7d4"


@pytest.mark.parametrize(
    ("scope", "fault"),
    [
        (
            {"selector": {"matchLabels": {"app": "w*"}}},
            "spec.selector.matchLabels.app: 'w*': a selector knows no wildcards",
        ),
        (
            {"selector": {"matchLabels": {"a*": "w"}}},
            "spec.selector.matchLabels['a*']: 'a*': a selector knows no wildcards",
        ),
        ({"selector": {"matchLabels": {"": "w"}}}, "spec.selector.matchLabels['']: must not be empty"),
        (
            {"selector": {"matchLabels": {"app": "w" * 64}}},
            "spec.selector.matchLabels.app: 64 characters are more than the 63 that are allowed",
        ),
        (
            {"selector": {"matchLabels": {"app": 1}}},
            'spec.selector.matchLabels.app: 1 stands where text is wanted; write "1"',
        ),
        ({"selector": {"labels": {}}}, "spec.selector.labels: is no field of this resource"),
        (
            {"targetRefs": [{"kind": "Pod", "name": "x"}]},
            "spec.targetRefs[0].kind: a policy is attached to a Service, a ServiceEntry, a Gateway or a GatewayClass",
        ),
        ({"targetRef": {"kind": "Service"}}, "spec.targetRef.name: is missing"),
        (
            {"targetRefs": [{"kind": "Service", "name": "x", "namespace": "y"}]},
            "spec.targetRefs[0].namespace: 1 characters are more than the 0 that are allowed",
        ),
        (
            {"selector": {}, "targetRefs": [{"kind": "Service", "name": "x"}]},
            "spec.targetRefs: only one of selector, targetRef, targetRefs can be set",
        ),
    ],
)
def test_a_scope_that_is_written_wrongly_is_refused(scope: dict[str, Any], fault: str) -> None:
    assert faults("AuthorizationPolicy", scope) == [fault]


@pytest.mark.parametrize(
    ("scope", "warning"),
    [
        ({"selector": {}}, "spec.selector: has no labels: every workload of the namespace is meant"),
        ({"selector": {"matchLabels": {}}}, "spec.selector: has no labels: every workload of the namespace is meant"),
        (
            {"targetRef": {"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "x"}},
            "spec.targetRef: is for waypoints and gateways: sidecars leave this policy out, as Istio's do",
        ),
        (
            {"targetRefs": [{"kind": "Service", "group": "core", "name": "x"}]},
            "spec.targetRefs: is for waypoints and gateways: sidecars leave this policy out, as Istio's do",
        ),
    ],
)
def test_a_scope_that_may_surprise_is_warned_of(scope: dict[str, Any], warning: str) -> None:
    assert faults("AuthorizationPolicy", scope, "warning") == [warning]


def test_what_is_selected_is_read() -> None:
    (labels,) = policies(document("AuthorizationPolicy", {"selector": {"matchLabels": {"app": "web"}}}))
    (refs,) = policies(
        document(
            "AuthorizationPolicy",
            {"targetRefs": [{"kind": "ServiceEntry", "group": "networking.istio.io", "name": "x"}]},
        )
    )

    assert labels.selector == Selector({"app": "web"})
    assert refs.selector == Selector({}, (TargetRef("ServiceEntry", "x", "networking.istio.io"),))


def test_what_is_filed_under_its_namespace_keeps_its_order() -> None:
    assert by_namespace([("b", 1), ("a", 2), ("b", 3)]) == {"b": [1, 3], "a": [2]}
    assert by_namespace([]) == {}
