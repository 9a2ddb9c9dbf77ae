"""How a cluster is told of the webhook."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from injector.config import IGNORED_NAMESPACES
from injector.webhook_configuration import (
    LABELLED_NAMESPACE_PATH,
    LABELLED_POD_PATH,
    IstioSidecarInjector,
    namespaces_left_out,
)
from mesh.errors import UserError
from tests.support.kubernetes_schema import problems_of


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Kubernetes' meaning of matchExpressions with In and NotIn."""
    return all(
        (labels.get(one["key"]) in one["values"]) == (one["operator"] == "In") for one in selector["matchExpressions"]
    )


def called(namespace: dict[str, str], pod: dict[str, str], name: str = "shop") -> list[str]:
    """The paths that the API server calls for a pod with these labels."""
    configuration = IstioSidecarInjector().create_webhook_configuration()
    labels = {**namespace, "kubernetes.io/metadata.name": name}
    return [
        webhook["clientConfig"]["service"]["path"]
        for webhook in configuration["webhooks"]
        if matches(webhook["namespaceSelector"], labels) and matches(webhook["objectSelector"], pod)
    ]


ENABLED, DISABLED = {"qbitel-injection": "enabled"}, {"qbitel-injection": "disabled"}
NAME = "kubernetes.io/metadata.name"
YES, NO = {"qbitel.io/inject": "true"}, {"qbitel.io/inject": "false"}


@pytest.mark.parametrize(
    ("namespace", "pod", "paths"),
    [
        (ENABLED, {}, [LABELLED_NAMESPACE_PATH]),
        (ENABLED, YES, [LABELLED_NAMESPACE_PATH]),
        (ENABLED, NO, []),
        ({}, {}, []),
        ({}, YES, [LABELLED_POD_PATH]),
        (DISABLED, {}, []),
        (DISABLED, YES, [LABELLED_POD_PATH]),
    ],
)
def test_the_api_server_calls_for_pods_of_the_mesh_and_no_others(
    namespace: dict[str, str], pod: dict[str, str], paths: list[str]
) -> None:
    assert called(namespace, pod) == paths


@pytest.mark.parametrize(
    "name", ["kube-system", "kube-public", "kube-node-lease", "local-path-storage", "qbitel-system"]
)
def test_it_never_calls_for_pods_that_the_cluster_or_we_cannot_do_without(name: str) -> None:
    assert called(ENABLED, YES, name) == []


def test_a_namespace_that_is_excluded_is_left_out_as_those_are() -> None:
    configuration = IstioSidecarInjector(excluded_namespaces=["payroll"]).create_webhook_configuration()

    assert namespaces_left_out(configuration["webhooks"]) == IGNORED_NAMESPACES | {"payroll"}
    for webhook in configuration["webhooks"]:
        labels = {**ENABLED, "kubernetes.io/metadata.name": "payroll"}
        assert not matches(webhook["namespaceSelector"], labels)


@pytest.mark.parametrize(
    "webhooks",
    [
        [],
        [{}],
        [{"namespaceSelector": {"matchExpressions": [{"key": NAME, "operator": "In", "values": ["a"]}]}}],
        [{"namespaceSelector": {"matchExpressions": [{"key": NAME, "operator": "NotIn", "values": 7}]}}],
    ],
)
def test_webhooks_that_leave_nothing_out_name_nothing(webhooks: list[dict[str, Any]]) -> None:
    assert namespaces_left_out(webhooks) == frozenset()


def test_what_only_one_webhook_leaves_out_is_not_left_out() -> None:
    configuration = IstioSidecarInjector(excluded_namespaces=["payroll"]).create_webhook_configuration()
    configuration["webhooks"][0]["namespaceSelector"]["matchExpressions"].pop()

    assert namespaces_left_out(configuration["webhooks"]) == frozenset()


def test_a_pod_must_not_start_without_its_sidecar_and_nobody_waits_long() -> None:
    for webhook in IstioSidecarInjector().create_webhook_configuration()["webhooks"]:
        assert webhook["failurePolicy"] == "Fail"
        assert webhook["sideEffects"] == "None"
        assert webhook["reinvocationPolicy"] == "IfNeeded"
        assert webhook["timeoutSeconds"] == 5
        assert webhook["rules"] == [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["pods"],
                "scope": "Namespaced",
            }
        ]
        # A fully qualified name: at least three parts.
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+){2,}", webhook["name"])


def test_kubernetes_schema_takes_it() -> None:
    assert problems_of(IstioSidecarInjector().create_webhook_configuration(b"PEM")) == []


def test_the_bundle_is_the_pem_in_base64_and_absent_without_one() -> None:
    configuration = IstioSidecarInjector().create_webhook_configuration(b"PEM")
    clients = [webhook["clientConfig"] for webhook in configuration["webhooks"]]

    assert [base64.b64decode(client["caBundle"]) for client in clients] == [b"PEM", b"PEM"]
    assert "caBundle" not in IstioSidecarInjector().create_webhook_configuration()["webhooks"][0]["clientConfig"]


def test_namespace_and_names_are_those_that_were_given() -> None:
    configuration = IstioSidecarInjector("mesh", "injector").create_webhook_configuration()

    assert configuration["metadata"]["name"] == "injector"
    assert configuration["webhooks"][0]["clientConfig"]["service"]["namespace"] == "mesh"
    assert "mesh" in configuration["webhooks"][0]["namespaceSelector"]["matchExpressions"][1]["values"]


@pytest.mark.parametrize("name", ["", "A", "a.b", "-a", "a\n", "a" * 64])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(UserError):
        IstioSidecarInjector(namespace=name)
    with pytest.raises(UserError):
        IstioSidecarInjector(webhook_name=name)
    with pytest.raises(UserError):
        IstioSidecarInjector(excluded_namespaces=[name])
