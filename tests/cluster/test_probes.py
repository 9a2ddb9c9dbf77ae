"""Probes of every kind, asked by the node's kubelet, which has no sidecar."""

from __future__ import annotations

from collections.abc import Callable

from tests.cluster import cluster
from tests.cluster.cluster import Object
from tests.cluster.workloads import HTTP_PORT, Workload, nginx, start

_OFTEN = {"periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 60}
_HTTP = {"httpGet": {"path": "/healthy", "port": HTTP_PORT}, **_OFTEN}
_TCP = {"tcpSocket": {"port": HTTP_PORT}, **_OFTEN}
_EXEC = {"exec": {"command": ["curl", "-sf", f"http://127.0.0.1:{HTTP_PORT}/"]}, **_OFTEN}


def web(name: str, **probes: Object) -> Workload:
    return Workload(name=name, command=nginx(), port=HTTP_PORT, container=probes)


def test_probes_of_every_kind_pass_under_strict(namespace: str, saw: Callable[[str], None]) -> None:
    kinds = {"http": _HTTP, "tcp": _TCP, "exec": _EXEC}

    running = start(
        namespace,
        *(web(name, startupProbe=one, readinessProbe=one, livenessProbe=one) for name, one in kinds.items()),
    )

    for one in running:
        (pod,) = one.pods()
        app = next(container for container in pod["spec"]["containers"] if container["name"] == "app")
        asked = app["readinessProbe"].get("httpGet", {}).get("port")
        assert (asked == 15021) is (one.workload.name != "exec")
        assert [status["restartCount"] for status in pod["status"]["containerStatuses"]] == [0, 0]
    saw("startup, readiness and liveness by httpGet, tcpSocket and exec: three pods ready, nothing restarted")


def test_a_failing_application_s_probes_fail(namespace: str, saw: Callable[[str], None]) -> None:
    broken = {"httpGet": {"path": "/broken", "port": HTTP_PORT}, "periodSeconds": 1, "failureThreshold": 2}
    nobody = {"tcpSocket": {"port": HTTP_PORT + 1}, "periodSeconds": 1, "failureThreshold": 2}
    unready, restarted = web("unready", readinessProbe=broken), web("restarted", livenessProbe=nobody)
    cluster.apply(*unready.objects(), *restarted.objects(), namespace=namespace)

    said = cluster.until(
        "the kubelet tells of the application's own status",
        lambda: next((event["message"] for event in _failed_probes(namespace) if "500" in event["message"]), None),
        otherwise=lambda: cluster.diagnosis(namespace),
    )
    restarts = cluster.until(
        "the application that nobody reaches is restarted",
        lambda: sum(map(_restarts, cluster.listed("pods", namespace, restarted.selector))),
        otherwise=lambda: cluster.diagnosis(namespace),
    )

    (pod,) = cluster.listed("pods", namespace, unready.selector)
    assert not cluster.is_ready(pod)
    saw(f"unready: {said}; restarted: {restarts} times")


def _failed_probes(namespace: str) -> list[Object]:
    return [event for event in cluster.listed("events", namespace) if event["reason"] == "Unhealthy"]


def _restarts(pod: Object) -> int:
    return sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []) if one["name"] == "app")
