"""What is found out of a cluster, and what becomes of what cannot be."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cli.checks import gathering, table
from cli.checks.facts import ClusterFacts
from cli.checks.findings import Group, Status, Unknown
from cli.checks.gathering import Wanted, facts_of
from mesh import names
from tests.cli.checks.rig import HOME, files, pod, serving, webhook_configuration
from tests.kube.places import Where
from tests.kube.rig import Place, run, utc_now

EVERYTHING = frozenset(Group)


def furnish(place: Place) -> None:
    """The stand-in gets a small mesh."""
    put = place.stand_in.put
    for name, labels in ((HOME, {}), ("shop", {names.NAMESPACE_LABEL: "enabled"}), ("default", {})):
        put("namespaces", "", name, metadata={"labels": labels})
    put("mutatingwebhookconfigurations", "", names.WEBHOOK_NAME, webhooks=webhook_configuration()["webhooks"])
    data = {"tls.crt": _base64(serving().certificate), "ca.crt": _base64(serving().authority), "tls.key": "c2VjcmV0"}
    put("secrets", HOME, names.WEBHOOK_SECRET, data=data)
    managed = {"labels": {"app.kubernetes.io/managed-by": "qbitel"}}
    put("configmaps", "shop", names.ROOTS_CONFIG_MAP, metadata=managed, data=files())
    put("configmaps", "shop", names.MESH_CONFIG_MAP, metadata=managed, data={names.POLICIES_KEY: "", "peers.yaml": ""})
    found = pod()
    put("pods", "shop", "web-1", metadata=found["metadata"], spec=found["spec"], status=found["status"])
    put("statefulsets", HOME, names.AUTHORITY_SERVICE, spec={}, status={})


def _base64(content: bytes) -> str:
    import base64

    return base64.b64encode(content).decode()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the stand-in has not: versions and groups of an API server, and pods that answer."""

    real = gathering.Cluster.get

    async def get(self: Any, path: str, **options: Any) -> Any:
        known = {
            "/version": {"gitVersion": "v1.31.0"},
            "/apis": {"groups": [{"versions": [{"groupVersion": "apps/v1"}]}]},
            "/api/v1": {"resources": [{"name": "serviceaccounts/token"}]},
        }
        return known[path] if path in known else await real(self, path, **options)

    async def text(_self: Any, _path: str, **_options: Any) -> tuple[int, str]:
        return 200, "qbitel_cert_expiry_seconds 77\n"

    monkeypatch.setattr(gathering.Cluster, "get", get)
    monkeypatch.setattr(gathering.Cluster, "text", text)


def gathered(fake: Where, **wanted: Any) -> tuple[ClusterFacts, list[str]]:
    async def main() -> tuple[ClusterFacts, list[str]]:
        async with fake() as place:
            furnish(place)
            before = dict(place.stand_in.objects)
            facts = await facts_of(place.cluster, Wanted(EVERYTHING, **wanted), utc_now)
            assert place.stand_in.objects == before, "something was changed"
            return facts, place.stand_in.requests

    result: tuple[ClusterFacts, list[str]] = run(main())
    return result


@pytest.mark.usefixtures("answers")
def test_a_mesh_is_found_out_and_nothing_of_it_is_changed(fake: Where) -> None:
    facts, requests = gathered(fake)
    assert facts.mesh_namespaces == ("shop",)
    assert "v1/serviceaccounts/token" in facts.served.value
    assert facts.serving.value == serving()
    assert dict(facts.bundles.value["shop"].files) == files()
    assert facts.mesh_maps.value["shop"].texts == {names.POLICIES_KEY: "", "peers.yaml": ""}
    assert facts.scrapes.value["shop/web-1"].total("qbitel_cert_expiry_seconds") == 77
    assert [one["kind"] for one in facts.workloads.value] == ["StatefulSet"]
    assert (facts.inside.value.namespace, facts.outside.value.namespace) == ("shop", "default")
    writing = [one for one in requests if not one.startswith("GET") and "accessreviews" not in one]
    assert all("dryRun=All" in one for one in writing)


@pytest.mark.usefixtures("answers")
def test_the_webhook_s_key_is_not_kept(fake: Where) -> None:
    facts, _ = gathered(fake)
    assert "c2VjcmV0" not in repr(facts)
    assert "secret" not in repr(facts.serving)


@pytest.mark.usefixtures("answers")
def test_one_namespace_is_looked_at_where_one_is_asked_for(fake: Where) -> None:
    facts, requests = gathered(fake, asked=frozenset({"shop"}))
    assert set(facts.bundles.value) == {"shop"}
    assert not [one for one in requests if one.startswith("GET /api/v1/pods")]


def test_an_api_server_that_fails_is_said_once_and_everything_else_is_skipped(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            place.stand_in.faults = [503]
            facts = await facts_of(place.cluster, Wanted(EVERYTHING), utc_now)
            assert "503" in facts.unreachable
            found = {check.name: check.run(facts).status for check in table.CLUSTER}
            assert found.pop(table.REQUIRED[0]) is Status.FAILURE
            assert set(found.values()) == {Status.SKIPPED}

    run(main())


@pytest.mark.usefixtures("answers")
def test_a_right_that_is_missing_skips_what_needs_it_and_nothing_else(
    fake: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = gathering.Cluster.list

    async def forbidden(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        if path.endswith("/nodes"):
            raise gathering.ApiRefused(403, "Forbidden", "nodes is forbidden")
        return await real(self, path, *arguments, **options)

    monkeypatch.setattr(gathering.Cluster, "list", forbidden)
    facts, _ = gathered(fake)
    with pytest.raises(Unknown, match="nodes is forbidden"):
        _ = facts.nodes.value
    assert facts.mesh_namespaces == ("shop",)


@pytest.mark.usefixtures("answers")
def test_more_pods_than_the_bound_are_not_read(fake: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MOST_PODS", 150)

    async def main() -> None:
        async with fake() as place:
            furnish(place)
            for number in range(400):
                place.stand_in.put("pods", "shop", f"bare-{number}", spec={"containers": []})
            facts = await facts_of(place.cluster, Wanted({Group.DATA}), utc_now)
            assert len(facts.pods.value) == 150
            assert len([one for one in place.stand_in.requests if one.startswith("GET") and "/shop/pods?" in one]) == 2

    run(main())


def test_a_real_cluster_is_found_out_within_seconds_and_unchanged(real: Where) -> None:
    async def main() -> None:
        async with real() as place:
            await place.new_namespace(qbitel_injection="enabled")
            began = time.monotonic()
            facts = await facts_of(place.cluster, Wanted(EVERYTHING), utc_now)
            print(f"found out in {time.monotonic() - began:.2f} s")
            assert facts.unreachable == ""
            found = {check.name: check.run(facts) for check in table.CLUSTER}
            assert {found[name].status for name in ("api-reachable", "clock", "tokens", "admission")} == {Status.PASS}
            assert {found[name].status for name in ("rights-cluster", "rights-namespace")} == {Status.PASS}

    run(main())
