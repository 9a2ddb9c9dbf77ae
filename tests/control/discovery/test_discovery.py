"""Policies and peers reach the ConfigMaps of the mesh: of the stand-in, and of a real API server where there is one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")

from control.discovery import discovery as module
from control.discovery import istio_kinds
from control.discovery.discovery import Discovery
from control.discovery.metrics import Metrics
from control.discovery.peers_text import MeshSettings
from control.discovery.published import MAX_BYTES, PROBLEM_ANNOTATION
from kube import reconciler
from kube.client import Cluster, resource
from mesh import names
from mesh.documents import read_documents
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from proxy.peers.document import read_peers
from proxy.peers.rules import Rules, entries_with
from proxy.peers.table import PeerTable
from proxy.routes import Mode
from tests.control.discovery.objects import allow, namespace, pod, service
from tests.kube.places import Where, fake, real, where
from tests.kube.rig import Place, beside, run, until
from tests.kube.stand_in_server import StandInServer

__all__ = ["fake", "real", "where"]

ROOT = "qbitel-test-root"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(reconciler, "_REVIEW_SECONDS", 0.5)


def discovery(cluster: Cluster, home: str, **more: Any) -> Discovery:
    settings = MeshSettings(trust_domain="cluster.local", control_namespace=home)
    more = {"peers_seconds": 0.0, "metrics": Metrics(), "is_leader": lambda: True, **more}
    return Discovery(cluster, settings=settings, root_namespace=home, **more)


def path_of(of: str) -> str:
    return resource("configmaps", namespace=of, name=names.MESH_CONFIG_MAP)


async def published(place: Place, of: str, when: Callable[[Any], bool] = lambda _found: True) -> Any:
    """Wait until the ConfigMap of a namespace is there and `when` holds of it."""
    while True:
        found = await place.find("configmaps", of, names.MESH_CONFIG_MAP)
        if found and when(found):
            return found
        await asyncio.sleep(0.02)


def policies(config_map: Any) -> list[str] | None:
    """The policies in it, as a sidecar reads them; None where it has none."""
    text = (config_map.get("data") or {}).get(names.POLICIES_KEY)
    if text is None:
        return None
    documents, problems = read_documents(text.encode(), "policies.yaml")
    resources = ResourceSet.of(documents, root_namespace=ROOT)
    assert [*problems, *resources.errors] == []
    return [str(one.metadata) for one in (*resources.peer_authentications, *resources.authorization_policies)]


def mode_at(config_map: Any, address: str, port: int = 80) -> Mode | None:
    """How a sidecar reaches an address."""
    entry = PeerTable(read_peers(config_map["data"][names.PEERS_KEY].encode(), "peers").entries).by_address(
        address, port
    )
    return None if entry is None else entry.mode


def problem(config_map: Any) -> str:
    text: str = (config_map["metadata"].get("annotations") or {}).get(PROBLEM_ANNOTATION, "")
    return text


POLICY = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: %s}
spec: {mtls: {mode: %s}}
"""


async def write_policy(place: Place, of: str, name: str, mode: str = "STRICT") -> None:
    """Put a ConfigMap with one policy, or change it."""
    data = {"policy.yaml": POLICY % (name, mode)}
    if await place.find("configmaps", of, name):
        await place.cluster.patch(resource("configmaps", namespace=of, name=name), {"data": data})
        return
    metadata = {"name": name, "namespace": of, "labels": {names.POLICY_LABEL: "true"}}
    await place.cluster.create(resource("configmaps", namespace=of), {"metadata": metadata, "data": data})


def test_policies_of_config_maps_reach_their_namespace_and_those_of_the_root_reach_all(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            home = await place.new_namespace()
            shop = await place.new_namespace(qbitel_injection="enabled")
            bank = await place.new_namespace(qbitel_injection="enabled")
            outside = await place.new_namespace(qbitel_injection="disabled")
            await write_policy(place, home, "everybody")
            await write_policy(place, shop, "mine")
            async with beside(discovery(place.cluster, home).run()):
                everybody, mine = f"PeerAuthentication {home}/everybody", f"PeerAuthentication {shop}/mine"
                found = await published(place, shop, lambda found: policies(found) == [mine, everybody])
                assert found["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "qbitel"
                assert problem(found) == ""
                await published(place, bank, lambda found: policies(found) == [everybody])
                await published(place, home, lambda found: policies(found) == [everybody])
                assert await place.find("configmaps", outside, names.MESH_CONFIG_MAP) is None

                later = await place.new_namespace(qbitel_injection="enabled")
                await published(place, later, lambda found: policies(found) == [everybody])
                await place.cluster.delete(resource("configmaps", namespace=shop, name="mine"), {})
                await published(place, shop, lambda found: policies(found) == [everybody])

    run(main())


def test_what_is_deleted_edited_added_or_made_immutable_is_put_right(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            home = await place.new_namespace()
            shop = await place.new_namespace(qbitel_injection="enabled")
            async with beside(discovery(place.cluster, home).run()):
                whole = (await published(place, shop, lambda found: policies(found) == []))["data"]

                def is_whole(found: Any) -> bool:
                    return bool(found["data"] == whole) and not found.get("binaryData")

                for change in ({names.POLICIES_KEY: "edited"}, {names.PEERS_KEY: None}, {"stray.yaml": "x"}):
                    await place.cluster.patch(path_of(shop), {"data": change})
                    await published(place, shop, is_whole)
                before = await published(place, shop, is_whole)
                await place.cluster.delete(path_of(shop), {})
                found = await published(place, shop, is_whole)
                assert found["metadata"]["uid"] != before["metadata"]["uid"]
                await place.cluster.patch(path_of(shop), {"data": {"a": "b"}, "immutable": True})
                assert (await published(place, shop, is_whole))["metadata"]["uid"] != found["metadata"]["uid"]

    run(main())


def test_a_config_map_of_somebody_else_stays_as_it_is(where: Where, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with where() as place:
            home = await place.new_namespace()
            shop = await place.new_namespace(qbitel_injection="enabled")
            body = {"metadata": {"name": names.MESH_CONFIG_MAP, "namespace": shop}, "data": {"a": "b"}}
            await place.cluster.create(resource("configmaps", namespace=shop), body)
            async with beside(discovery(place.cluster, home).run()):
                await published(place, home)
                await until(lambda: "is not ours" in caplog.text)
                assert (await published(place, shop))["data"] == {"a": "b"}

    run(main())


def test_a_namespace_with_a_policy_that_cannot_be_read_keeps_its_last_good_ones_and_others_go_on(where: Where) -> None:
    metrics = Metrics()

    async def main() -> None:
        async with where() as place:
            home = await place.new_namespace()
            shop = await place.new_namespace(qbitel_injection="enabled")
            bank = await place.new_namespace(qbitel_injection="enabled")
            await write_policy(place, shop, "first")
            async with beside(discovery(place.cluster, home, metrics=metrics).run()):
                first = f"PeerAuthentication {shop}/first"
                await published(place, shop, lambda found: policies(found) == [first])
                await write_policy(place, shop, "second", "NONSENSE")
                found = await published(place, shop, problem)
                assert "PeerAuthentication" in problem(found)
                assert policies(found) == [first]
                assert metrics.registry.get_sample_value("qbitel_discovery_errors", {"namespace": shop}) == 1

                # What the root says gets through all the same, and so do other namespaces.
                await write_policy(place, home, "everybody")
                await write_policy(place, bank, "theirs")
                everybody = f"PeerAuthentication {home}/everybody"
                await published(place, bank, lambda found: len(policies(found) or ()) == 2)
                found = await published(place, shop, lambda found: policies(found) == [first, everybody])
                assert problem(found)

            # Another replica knows no more than what was published.
            async with beside(discovery(place.cluster, home, metrics=metrics).run()):
                await place.cluster.patch(path_of(shop), {"data": {names.PEERS_KEY: "edited"}})
                found = await published(place, shop, lambda found: found["data"][names.PEERS_KEY] != "edited")
                assert policies(found) == [first, everybody]
                await write_policy(place, shop, "second")
                found = await published(place, shop, lambda found: not problem(found))
                assert len(policies(found) or ()) == 3
                await until(
                    lambda: metrics.registry.get_sample_value("qbitel_discovery_errors", {"namespace": shop}) is None
                )

    run(main())


def test_where_no_policies_were_ever_good_pods_wait_and_the_config_map_says_why(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            home = await place.new_namespace()
            shop = await place.new_namespace(qbitel_injection="enabled")
            await write_policy(place, shop, "first", "NONSENSE")
            async with beside(discovery(place.cluster, home).run()):
                found = await published(place, shop, problem)
                assert policies(found) is None
                await write_policy(place, shop, "first")
                await published(place, shop, lambda found: policies(found) and not problem(found))

    run(main())


def test_while_the_root_s_policies_were_never_good_nobody_s_are_published(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            home = await place.new_namespace()
            shop = await place.new_namespace(qbitel_injection="enabled")
            await write_policy(place, home, "everybody", "NONSENSE")
            await write_policy(place, shop, "mine")
            async with beside(discovery(place.cluster, home).run()):
                found = await published(place, shop, problem)
                assert policies(found) is None
                await write_policy(place, home, "everybody")
                await published(place, shop, lambda found: len(policies(found) or ()) == 2)

    run(main())


def test_documents_that_a_config_map_cannot_hold_are_not_written_and_it_says_so(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            home, shop = await place.new_namespace(), await place.new_namespace(qbitel_injection="enabled")
            async with beside(discovery(place.cluster, home).run()):
                before = await published(place, shop, lambda found: policies(found) == [])
                for number in range(5):
                    rule = {"from": [{"source": {"principals": [f"{number}/{each:060}" for each in range(3500)]}}]}
                    spec = {"action": "ALLOW", "rules": [rule]}
                    text = json.dumps(
                        {
                            "apiVersion": "security.istio.io/v1",
                            "kind": "AuthorizationPolicy",
                            "metadata": {"name": f"p{number}"},
                            "spec": spec,
                        }
                    )
                    metadata = {"name": f"p{number}", "namespace": shop, "labels": {names.POLICY_LABEL: "true"}}
                    await place.cluster.create(
                        resource("configmaps", namespace=shop), {"metadata": metadata, "data": {"a": text}}
                    )
                found = await published(place, shop, lambda found: f"holds {MAX_BYTES}" in problem(found))
                assert sum(map(len, found["data"].values())) <= MAX_BYTES
                assert found["data"][names.PEERS_KEY] == before["data"][names.PEERS_KEY]

    run(main())


# Istio's kinds


def define(server: StandInServer, plural: str, group: str, *versions: str) -> None:
    """Install a CRD of Istio's."""
    spec = {"versions": [{"name": version, "served": True} for version in versions]}
    server.put("customresourcedefinitions", "", f"{plural}.{group}", spec=spec)


def test_istio_s_resources_are_followed_from_when_their_crds_are_there(
    fake: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(istio_kinds, "_LOOK_SECONDS", 0.05)

    async def main() -> None:
        async with fake() as place:
            server = place.stand_in
            home, shop = await place.new_namespace(), await place.new_namespace(qbitel_injection="enabled")
            async with beside(discovery(place.cluster, home).run()):
                await published(place, shop, lambda found: policies(found) == [])
                define(server, "authorizationpolicies", "security.istio.io", "v1alpha9", "v1beta1", "v1")
                server.put("authorizationpolicies", shop, "web", spec=allow("api"))
                web = f"AuthorizationPolicy {shop}/web"
                found = await published(place, shop, lambda found: policies(found) == [web])
                assert "security.istio.io/v1" in found["data"][names.POLICIES_KEY]
                server.put("authorizationpolicies", shop, "web", spec={"action": "MAYBE"})
                assert policies(await published(place, shop, problem)) == [web]
                server.remove("authorizationpolicies", shop, "web")
                await published(place, shop, lambda found: policies(found) == [] and not problem(found))

    run(main())


def test_a_kind_that_is_gone_for_a_moment_takes_no_policy_with_it(fake: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API server that has only just started knows no custom resource yet."""
    monkeypatch.setattr(istio_kinds, "_LOOK_SECONDS", 0.05)

    async def main() -> None:
        async with fake() as place:
            server = place.stand_in
            home, shop = await place.new_namespace(), await place.new_namespace(qbitel_injection="enabled")
            define(server, "authorizationpolicies", "security.istio.io", "v1beta1")
            server.put("authorizationpolicies", shop, "web", spec=allow("api"))
            async with beside(discovery(place.cluster, home).run()):
                web = f"AuthorizationPolicy {shop}/web"
                found = await published(place, shop, lambda found: policies(found) == [web])
                server.faults = [404] * 20
                server.forget()
                server.wake_watches()
                await until(lambda: not server.faults)
                await write_policy(place, shop, "more")
                found = await published(place, shop, lambda found: len(policies(found) or ()) == 2)
                assert web in (policies(found) or ())

    run(main())


def test_a_crd_that_is_deleted_takes_its_policies_with_it(fake: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(istio_kinds, "_LOOK_SECONDS", 0.05)

    async def main() -> None:
        async with fake() as place:
            server = place.stand_in
            home, shop = await place.new_namespace(), await place.new_namespace(qbitel_injection="enabled")
            define(server, "authorizationpolicies", "security.istio.io", "v1")
            server.put("authorizationpolicies", shop, "web", spec=allow("api"))
            async with beside(discovery(place.cluster, home).run()):
                await published(place, shop, lambda found: bool(policies(found)))
                server.remove("customresourcedefinitions", "", "authorizationpolicies.security.istio.io")
                await published(place, shop, lambda found: policies(found) == [])

    run(main())


def test_the_services_of_a_namespace_come_with_a_destination_rule(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            server = place.stand_in
            home, shop = await place.new_namespace(), await place.new_namespace(qbitel_injection="enabled")
            define(server, "destinationrules", "networking.istio.io", "v1")
            spec = {"host": "web", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 3}}}}
            server.put("destinationrules", shop, "web", spec=spec)
            put(server, "services", service(shop, "web"))
            put(server, "services", service("other", "web", "10.96.0.11"))
            async with beside(discovery(place.cluster, home).run()):
                found = await published(place, shop, policies_have("Service"))
                assert found["data"][names.POLICIES_KEY].count('"Service"') == 1

    run(main())


def policies_have(word: str) -> Callable[[Any], bool]:
    return lambda found: f'"{word}"' in found["data"].get(names.POLICIES_KEY, "")


# Peers


def put(server: StandInServer, plural: str, body: dict[str, Any]) -> None:
    metadata = body["metadata"]
    rest = {key: value for key, value in body.items() if key not in ("metadata", "apiVersion", "kind")}
    server.put(plural, metadata.get("namespace", ""), metadata["name"], metadata=metadata, **rest)


@contextlib.asynccontextmanager
async def shop_in_mesh(fake: Where) -> AsyncIterator[tuple[Place, str]]:
    """A Service of `shop` with one pod that has a sidecar, and its ConfigMap."""
    async with fake() as place:
        home = await place.new_namespace()
        put(place.stand_in, "namespaces", namespace("shop"))
        put(place.stand_in, "services", service("shop", "web", "10.96.0.10"))
        put(place.stand_in, "pods", pod("shop", "web-1"))
        yield place, home


def test_a_service_requires_the_mesh_and_goes_on_while_its_pods_are_away(fake: Where) -> None:
    async def main() -> None:
        async with shop_in_mesh(fake) as (place, home):
            server = place.stand_in
            async with beside(discovery(place.cluster, home).run()):
                await published(place, home, lambda found: mode_at(found, "10.96.0.10") is Mode.REQUIRE)
                await published(place, "shop", lambda found: mode_at(found, "10.96.0.10") is Mode.REQUIRE)
                server.remove("pods", "shop", "web-1")
                put(server, "services", service("shop", "api", "10.96.0.11", selector={"app": "api"}))
                put(server, "pods", pod("shop", "api-1", labels={"app": "api"}))
                found = await published(place, home, lambda found: mode_at(found, "10.96.0.11") is Mode.REQUIRE)
                assert mode_at(found, "10.96.0.10") is Mode.REQUIRE
            # Nor does a replica that never saw its pods forget it.
            put(server, "pods", pod("shop", "web-2", sidecar=False))
            async with beside(discovery(place.cluster, home).run()):
                put(server, "services", service("shop", "db", "10.96.0.12", selector={"app": "api"}))
                found = await published(place, home, lambda found: mode_at(found, "10.96.0.12") is Mode.REQUIRE)
                assert mode_at(found, "10.96.0.10") is Mode.REQUIRE
                put(server, "pods", pod("shop", "web-2", sidecar=False, annotations={"qbitel.io/inject": "false"}))
                await published(place, home, lambda found: mode_at(found, "10.96.0.10") is None)

    run(main())


def limit_at(config_map: Any, of: str, address: str) -> tuple[int | None, str]:
    """How many connections a client's sidecar in a namespace opens there, and whose word that is."""
    data = config_map["data"]
    found = read_peers(data[names.PEERS_KEY].encode(), "peers")
    policies, _ = read_documents(data[names.POLICIES_KEY].encode(), "policies")
    resources = ResourceSet.of(policies, root_namespace=ROOT)
    rules = Rules(resources.destination_rules, Workload(of, {}, "web"), "cluster.local", ROOT, frozenset({"qbitel"}))
    entry = PeerTable(entries_with(found.entries, found.rules, rules)).by_address(address, 80)
    return (None, "") if entry is None else (entry.max_connections, entry.rule)


def limits(host: str, most: int) -> dict[str, Any]:
    return {"host": host, "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": most}}}}


def test_a_destination_rule_reaches_the_clients_of_a_service_wherever_they_are(fake: Where) -> None:
    async def main() -> None:
        async with shop_in_mesh(fake) as (place, home):
            server = place.stand_in
            bank = await place.new_namespace(qbitel_injection="enabled")
            define(server, "destinationrules", "networking.istio.io", "v1")
            web, outside = "10.96.0.10", "10.96.0.20"
            put(server, "services", service("legacy", "db", outside, selector={"app": "db"}))
            put(server, "namespaces", namespace("legacy", None))
            async with beside(discovery(place.cluster, home).run()):
                before = await published(place, bank, lambda found: mode_at(found, web) is Mode.REQUIRE)
                server.put("destinationrules", "shop", "theirs", spec=limits("web", 5))
                theirs = "DestinationRule shop/theirs"
                for of in (bank, "shop"):
                    found = await published(place, of, lambda found, of=of: limit_at(found, of, web) == (5, theirs))
                    assert mode_at(found, web) is Mode.REQUIRE
                # A client's own namespace goes before the Service's, and is nobody else's business.
                server.put("destinationrules", bank, "mine", spec=limits("web.shop.svc.cluster.local", 2))
                mine = f"DestinationRule {bank}/mine"
                await published(place, bank, lambda found: limit_at(found, bank, web) == (2, mine))
                found = await published(place, "shop")
                assert "mine" not in str(found["data"])
                # What is outside of the mesh can be limited, too.
                server.put("destinationrules", "legacy", "db", spec=limits("db", 1))
                db = "DestinationRule legacy/db"
                await published(place, bank, lambda found: limit_at(found, bank, outside) == (1, db))
                # And back: what requires the mesh was read from what was published.
                for of, name in (("shop", "theirs"), (bank, "mine"), ("legacy", "db")):
                    server.remove("destinationrules", of, name)
                await published(place, bank, lambda found: found["data"] == before["data"])

    run(main())


def test_rules_that_leave_no_room_for_policies_are_left_out_and_it_is_said(
    fake: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with shop_in_mesh(fake) as (place, home):
            server = place.stand_in
            bank = await place.new_namespace(qbitel_injection="enabled")
            define(server, "destinationrules", "networking.istio.io", "v1")
            await write_policy(place, bank, "mine")
            async with beside(discovery(place.cluster, home).run()):
                plain = await published(place, bank, lambda found: mode_at(found, "10.96.0.10") is Mode.REQUIRE)
                monkeypatch.setattr(module, "MAX_BYTES", sum(map(len, plain["data"].values())) + 50)
                server.put("destinationrules", "shop", "theirs", spec=limits("web", 5))
                found = await published(place, bank, problem)
                assert "its clients follow no DestinationRules" in problem(found)
                assert found["data"] == plain["data"]
                monkeypatch.setattr(module, "MAX_BYTES", MAX_BYTES)
                found = await published(place, bank, lambda found: not problem(found))
                assert limit_at(found, bank, "10.96.0.10") == (5, "DestinationRule shop/theirs")

    run(main())


def test_a_namespace_whose_pods_ask_by_themselves_gets_its_config_map(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            home = await place.new_namespace()
            put(place.stand_in, "namespaces", namespace("alone", None))
            async with beside(discovery(place.cluster, home).run()):
                await published(place, home)
                assert await place.find("configmaps", "alone", names.MESH_CONFIG_MAP) is None
                put(place.stand_in, "pods", pod("alone", "web-1", phase="Pending"))
                await published(place, "alone", lambda found: policies(found) == [])

    run(main())


def test_services_that_come_one_by_one_are_written_together(fake: Where) -> None:
    now = 0.0

    async def main() -> None:
        nonlocal now
        async with shop_in_mesh(fake) as (place, home):
            server = place.stand_in
            metrics = Metrics()
            made = discovery(place.cluster, home, peers_seconds=30.0, clock=lambda: now, metrics=metrics)
            async with beside(made.run()):
                await published(place, "shop", lambda found: mode_at(found, "10.96.0.10") is Mode.REQUIRE)
                server.requests.clear()
                for number in (11, 12, 13):
                    put(server, "services", service("shop", f"later-{number}", f"10.96.0.{number}"))
                    addresses = number - 9
                    await until(
                        lambda wanted=addresses: (
                            metrics.registry.get_sample_value("qbitel_discovery_required_addresses") == wanted
                        )
                    )
                now = 31.0
                put(server, "services", service("shop", "last", "10.96.0.14"))
                found = await published(place, "shop", lambda found: mode_at(found, "10.96.0.14") is Mode.REQUIRE)
                assert mode_at(found, "10.96.0.11") is Mode.REQUIRE
                written = [one for one in server.requests if one.startswith("PATCH") and "/namespaces/shop/" in one]
                assert len(written) == 1

    run(main())


def test_without_a_change_nothing_is_written(fake: Where) -> None:
    async def main() -> None:
        async with shop_in_mesh(fake) as (place, home):
            server = place.stand_in
            async with beside(discovery(place.cluster, home).run()):
                await published(place, "shop", lambda found: mode_at(found, "10.96.0.10") is Mode.REQUIRE)
            server.requests.clear()
            metrics = Metrics()
            async with beside(discovery(place.cluster, home, metrics=metrics).run()):
                value = metrics.registry.get_sample_value
                await until(lambda: value("qbitel_discovery_namespaces") == 2)
                put(server, "pods", pod("shop", "web-1", phase="Pending"))
                put(server, "pods", pod("shop", "web-2"))
                await until(lambda: value("qbitel_discovery_planning_seconds") != 0)
            assert [request for request in server.requests if not request.startswith("GET")] == []

    run(main())


def test_who_does_not_lead_writes_nothing(fake: Where) -> None:
    leads = False

    async def main() -> None:
        nonlocal leads
        async with shop_in_mesh(fake) as (place, home):
            made = discovery(place.cluster, home, is_leader=lambda: leads)
            async with beside(made.run()):
                await until(lambda: made.obstacle == "")
                await asyncio.sleep(0)
                assert [one for one in place.stand_in.requests if one.startswith("POST") and "configmaps" in one] == []
                leads = True
                await published(place, "shop", lambda found: policies(found) == [])

    run(main())


def test_until_everything_is_known_it_is_not_ready_and_writes_nothing(
    fake: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(istio_kinds, "_LOOK_SECONDS", 0.05)

    async def main() -> None:
        async with shop_in_mesh(fake) as (place, home):
            server = place.stand_in
            server.faults = [403] * 8
            made = discovery(place.cluster, home)
            assert "pods" in made.obstacle
            async with beside(made.run()):
                await until(lambda: not server.faults)
                await published(place, "shop", lambda found: policies(found) == [])
                assert made.obstacle == ""

    run(main())
