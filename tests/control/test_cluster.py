"""Reading policies from an API server: a stand-in over real HTTP, and a real one where KUBECONFIG names one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")

from control.cluster import cluster_reading, read_cluster, usual_kubeconfig
from control.folder import CLUSTER, Reading
from mesh.errors import UserError
from mesh.inventory import Inventory
from tests.kube.rig import kubeconfig_file
from tests.kube.stand_in_server import StandInServer

PATIENCE = 60.0


class Server:
    """The stand-in on a loop of its own, so that the synchronous reading can be tried against it."""

    def __init__(self, folder: Path) -> None:
        self.stand_in = StandInServer()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._run(self.stand_in.start())
        self.kubeconfig = kubeconfig_file(folder, self.stand_in.port)

    def put(self, plural: str, namespace: str, name: str, **rest: Any) -> None:
        async def put() -> None:
            self.stand_in.put(plural, namespace, name, **rest)

        self._run(put())

    def stop(self) -> None:
        self._run(self.stand_in.stop())

    def close(self) -> None:
        self.stop()
        self._run(_end_the_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)


async def _end_the_rest() -> None:
    """Watches of clients that are gone: a loop that is closed over them complains in some later test."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.close()


def resources(reading: Reading) -> list[str]:
    return [document.resource for document in reading.documents]


def test_policies_and_what_they_are_about_are_read(server: Server) -> None:
    server.put("peerauthentications", "shop", "default", spec={"mtls": {"mode": "STRICT"}}, status={"seen": True})
    server.put("envoyfilters", "shop", "limit", spec={})
    server.put("services", "shop", "web", spec={"selector": {"app": "web"}, "ports": [{"port": 80}]})
    server.put(
        "deployments",
        "shop",
        "web",
        spec={"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"serviceAccountName": "web-account"}}},
    )
    server.put("secrets", "shop", "key")

    reading = read_cluster(server.kubeconfig)
    assert reading.problems == ()
    assert reading.sources == (CLUSTER,)
    assert resources(reading) == [
        *("PeerAuthentication shop/default", "EnvoyFilter shop/limit", "Service shop/web", "Deployment shop/web")
    ]
    first = reading.documents[0].value
    assert first == {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": "shop"},
        "spec": {"mtls": {"mode": "STRICT"}},
    }
    assert Inventory.of(reading.documents).find("shop", "web").workloads[0].service_account == "web-account"


def test_of_pods_those_are_read_that_nothing_else_makes(server: Server) -> None:
    server.put("pods", "shop", "alone", spec={})
    server.put("pods", "shop", "web-1", metadata={"ownerReferences": [{"kind": "ReplicaSet"}]}, spec={})

    assert resources(read_cluster(server.kubeconfig)) == ["Pod shop/alone"]


def test_pages_are_read_to_the_last(server: Server) -> None:
    server.stand_in.page_limit = 3
    for number in range(10):
        server.put("authorizationpolicies", "shop", f"p{number}", spec={})

    assert len(read_cluster(server.kubeconfig).documents) == 10


def test_one_namespace_is_read_with_the_root_namespace(server: Server) -> None:
    for namespace in ("shop", "other", "istio-system"):
        server.put("peerauthentications", namespace, "default", spec={})

    assert resources(read_cluster(server.kubeconfig, namespace="shop")) == [
        *("PeerAuthentication shop/default", "PeerAuthentication istio-system/default")
    ]
    assert not any("/api/v1/pods" in request for request in server.stand_in.requests)


def test_a_kind_that_may_not_be_read_is_an_error_and_one_that_does_not_exist_is_not(server: Server) -> None:
    # The requests come in the order of the kinds: PeerAuthentication, AuthorizationPolicy … and Service as the ninth.
    server.stand_in.faults = [404, 403]
    reading = read_cluster(server.kubeconfig)

    assert [str(problem) for problem in reading.problems] == [
        "cluster: AuthorizationPolicy: those of the cluster cannot be read: as the test wants it"
    ]
    assert reading.problems[0].severity == "error"
    server.stand_in.faults = [404] * 8 + [403]
    assert [problem.severity for problem in read_cluster(server.kubeconfig).problems] == ["warning"]


def test_a_cluster_that_cannot_be_used_is_told_in_one_line(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist; give a kubeconfig file"):
        read_cluster(str(tmp_path / "none"))
    (tmp_path / "broken").write_text("users: [{token: very-secret")
    with pytest.raises(UserError, match="cannot be used as a kubeconfig") as refused:
        read_cluster(str(tmp_path / "broken"))
    assert "very-secret" not in str(refused.value)
    server.stop()
    with pytest.raises(UserError, match="the API server cannot be reached"):
        read_cluster(server.kubeconfig)
    with pytest.raises(UserError, match="this is no pod with a service account"):
        read_cluster(None)


def test_within_a_loop_the_reading_is_awaited(server: Server) -> None:
    server.put("peerauthentications", "shop", "default", spec={})

    assert len(asyncio.run(cluster_reading(server.kubeconfig)).documents) == 1


def test_the_usual_kubeconfig_is_that_of_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert usual_kubeconfig("given", {"KUBECONFIG": "other"}) == "given"
    assert usual_kubeconfig(None, {"KUBECONFIG": "a:b"}) == "a:b"
    assert usual_kubeconfig(None, {}) is None
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").touch()
    assert usual_kubeconfig(None, {}) == str(tmp_path / ".kube" / "config")


@pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="KUBECONFIG names no cluster")
def test_a_real_api_server_is_read() -> None:
    reading = read_cluster(os.environ["KUBECONFIG"])

    assert [problem for problem in reading.problems if problem.severity == "error"] == []
    assert "Service default/kubernetes" in resources(reading)
