"""What operators do while traffic flows: roll-outs and renewals. Not one request may fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster import cluster
from tests.cluster.conftest import Shop
from tests.cluster.workloads import (
    HTTP_PORT,
    KEPT,
    OK,
    Load,
    Running,
    Workload,
    caller,
    failures,
    flow,
    nginx,
    start,
    summed,
)

# As any server behind a Service needs it: until the last node has heard that it leaves, it serves.
_LEAVE_SLOWLY = {"preStop": {"exec": {"command": ["sleep", "8"]}}}


@pytest.fixture
def web(namespace: str) -> Running:
    """A web server of two replicas."""
    ready = {"httpGet": {"path": "/", "port": HTTP_PORT}, "periodSeconds": 1}
    workload = Workload(
        name="web",
        command=nginx(),
        port=HTTP_PORT,
        replicas=2,
        container={"lifecycle": _LEAVE_SLOWLY, "readinessProbe": ready},
        pod={"terminationGracePeriodSeconds": 40},
    )
    return start(namespace, workload)[0]


@pytest.fixture
def load(namespace: str, web: Running) -> Load:
    """Somebody who calls it, and has been answered."""
    (running,) = start(namespace, caller(web.url))
    return Load(running).settled(OK)


def test_a_rolling_restart_fails_no_request(
    namespace: str, web: Running, load: Load, saw: Callable[[str], None]
) -> None:
    before = {pod["metadata"]["name"] for pod in web.pods()}

    cluster.kubectl("rollout", "restart", "deployment/web", "-n", namespace)
    cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=300s", seconds=330)
    after = {pod["metadata"]["name"] for pod in web.pods()}
    lines = load.at_least(len(load.lines()) + 10)

    assert not before & after
    assert failures(lines, OK) == []
    saw(f"{len(lines)} requests, each over a connection of its own, while both replicas were replaced; none failed")


def test_a_rolling_restart_of_the_callers_fails_no_request_of_others(
    namespace: str, web: Running, load: Load, saw: Callable[[str], None]
) -> None:
    (other,) = start(namespace, caller(web.url, "other"))

    cluster.kubectl("rollout", "restart", "deployment/other", "-n", namespace)
    cluster.kubectl("rollout", "status", "deployment/other", "-n", namespace, "--timeout=300s", seconds=330)
    fresh = Load(Running(other.workload, namespace)).at_least(10)
    lines = load.at_least(len(load.lines()) + 10)

    assert failures(lines, OK) == []
    assert failures(fresh, OK) == []
    saw(f"{len(lines)} requests of who stayed, {len(fresh)} of who came new, from its first one on; none failed")


def test_renewed_certificates_fail_no_request_and_break_no_connection(
    shop: Shop, namespace: str, web: Running, load: Load, saw: Callable[[str], None]
) -> None:
    (kept,) = start(namespace, flow(web.url))
    steady = Load(kept).settled(KEPT)
    rounds = 3

    for _ in range(rounds):
        expected = {pod: renewals(namespace, pod) + 1 for pod in pods_of(web, load.running, kept)}
        for pod in expected:
            # What a sidecar takes for the order to renew now.
            cluster.kubectl("exec", "-n", namespace, pod, "-c", "qbitel-proxy", "--", "sh", "-c", "kill -HUP 1")
        cluster.until(
            "every sidecar has renewed",
            lambda expected=expected: all(renewals(namespace, pod) >= count for pod, count in expected.items()),
            otherwise=lambda: cluster.diagnosis(namespace),
        )
        load.at_least(len(load.lines()) + 10)
    lines, same = load.lines(), steady.at_least(len(steady.lines()) + 10)

    assert failures(lines, OK) == []
    assert failures(same, KEPT) == []
    saw(
        f"{rounds} renewals of each of four sidecars: {len(lines)} requests anew and {len(same)} over one connection, "
        "none failed"
    )


def pods_of(*workloads: Running) -> list[str]:
    return [pod["metadata"]["name"] for one in workloads for pod in one.pods()]


def renewals(namespace: str, pod: str) -> float:
    """How many certificates a sidecar has got."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}:15090/proxy/metrics"
    return summed(cluster.kubectl("get", "--raw", path), "qbitel_cert_rotations_total", {"result": "ok"})
