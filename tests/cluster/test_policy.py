"""Istio's AuthorizationPolicy, by its own kind and as text, decides for pods that run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tests.cluster import cluster
from tests.cluster.cluster import Object
from tests.cluster.workloads import HTTP_PORT, Running, Workload, curl, meet, nginx, start

_KIND = "authorizationpolicies.security.istio.io"


def only(account: str, namespace: str) -> Object:
    """A policy that lets one service account in to the web server."""
    principal = f"cluster.local/ns/{namespace}/sa/{account}"
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "action": "ALLOW",
            "rules": [{"from": [{"source": {"principals": [principal]}}]}],
        },
    }


def as_text(policy: Object) -> Object:
    """The same for a cluster that does not know the kind."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "policies", "labels": {"qbitel.io/policy": "true"}},
        "data": {"web.yaml": json.dumps(policy)},
    }


@pytest.mark.parametrize("form", ["resource", "text"])
def test_an_authorization_policy_decides_and_may_change(namespace: str, form: str, saw: Callable[[str], None]) -> None:
    if form == "resource" and not cluster.has_kind(_KIND):
        pytest.skip(f"the cluster does not know {_KIND}")
    web, first, second = start(
        namespace,
        Workload(name="web", command=nginx(), port=HTTP_PORT),
        Workload(name="first"),
        Workload(name="second"),
    )
    for one in (first, second):
        meet(one, web.url)
    form_of = as_text if form == "text" else lambda policy: policy

    cluster.apply(form_of(only("first", namespace)), namespace=namespace)
    # By the other form nobody touches the pod, which shows how long that takes.
    first_time = _until_denied(second, web, touched=form == "text")
    assert "hello from web" in first.run(*curl(web.url))
    denied = [one for one in web.access_log() if one.get("reason") == "denied_by_policy"]
    assert denied[-1]["peer_identity"].endswith(f"/ns/{namespace}/sa/second")

    cluster.apply(form_of(only("second", namespace)), namespace=namespace)
    touched = _until_denied(first, web, touched=True)
    assert "hello from web" in second.run(*curl(web.url))
    decisions = {what: web.metrics("qbitel_policy_decisions_total", decision=what) for what in ("allow", "deny")}
    how = "by itself" if form == "resource" else "with the pod touched"
    saw(
        f"in force after {first_time:.0f} s {how}, changed after {touched:.0f} s with the pod touched; "
        f"{denied[-1]['peer_identity']} denied: {denied[-1]['message']}; decisions: {decisions}"
    )


def _until_denied(client: Running, web: Running, *, touched: bool) -> float:
    begun = time.monotonic()

    def look() -> bool:
        if client.try_to(*curl(web.url))[0] != 0:
            return True
        if touched:
            web.touch()
        return False

    cluster.until(f"{client.workload.name} is denied", look, otherwise=lambda: cluster.diagnosis(client.namespace))
    return time.monotonic() - begun
