"""The rights that docs/operations.md tells an administrator to grant to discovery: enough, and not one too many."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")

from control.discovery import istio_kinds
from kube import reconciler
from kube.client import ApiRefused, Cluster, connect, resource
from mesh import names
from tests.certmgr.kubernetes.documented import documented, kubeconfig_of, moved, path_of, rules
from tests.certmgr.kubernetes.test_rights import Uses
from tests.control.discovery.test_discovery import path_of as config_map_of
from tests.control.discovery.test_discovery import published, write_policy
from tests.control.discovery.test_server import answer, running
from tests.kube.places import Where, real
from tests.kube.rig import Place, run

__all__ = ["real"]


@contextlib.asynccontextmanager
async def granted(place: Place) -> AsyncIterator[str]:
    """Apply what is documented; yield a kubeconfig of the account that has just that."""
    objects = moved(documented("discovery"), place.namespace)
    try:
        for each in objects:
            await place.cluster.create(path_of(each), each)
        kubeconfig = await kubeconfig_of(place, names.DISCOVERY_SERVICE)
        await in_force(kubeconfig)
        yield kubeconfig
    finally:
        for each in objects:
            if each["kind"].startswith("Cluster"):  # what is in the namespace goes with it
                with contextlib.suppress(ApiRefused):
                    await place.cluster.delete(f"{path_of(each)}/{each['metadata']['name']}", {})


async def in_force(kubeconfig: str) -> None:
    """Return when the API server has taken up the rights that were granted a moment ago."""
    async with connect(kubeconfig) as cluster:
        while True:
            try:
                await cluster.list(resource("pods"))
                break
            except ApiRefused as error:
                assert error.status == 403
                await asyncio.sleep(0.05)


async def has_istio(cluster: Cluster) -> bool:
    """Whether the cluster has all of the kinds that are followed."""
    crds, _ = await cluster.list(resource("customresourcedefinitions", api="apis/apiextensions.k8s.io/v1"))
    return {kind.crd for kind in istio_kinds.KINDS} <= {crd["metadata"]["name"] for crd in crds}


def test_what_is_documented_is_all_that_discovery_needs_and_all_of_it_is_used(
    real: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_LOOK_SECONDS", 0.05)

    async def main() -> tuple[Uses, bool]:
        async with real() as place, granted(place) as kubeconfig:
            with_istio = await has_istio(place.cluster)
            uses = Uses(place, monkeypatch)
            shop = await place.new_namespace(qbitel_injection="enabled")
            await write_policy(place, shop, "mine")
            account = Place(place.cluster, place.namespace, kubeconfig, place.folder)
            async with running(account, place.namespace) as (health, _):
                while (await answer(health, "/healthz/ready"))[0] != 200:
                    await asyncio.sleep(0.05)
                whole = (
                    await published(place, shop, lambda found: "mine" in found["data"].get(names.POLICIES_KEY, ""))
                )["data"]
                await place.cluster.patch(config_map_of(shop), {"data": {names.PEERS_KEY: "edited"}})
                before = await published(place, shop, lambda found: found["data"] == whole)
                await place.cluster.patch(config_map_of(shop), {"data": {"stray": "x"}, "immutable": True})
                await published(
                    place,
                    shop,
                    lambda found: found["data"] == whole and found["metadata"]["uid"] != before["metadata"]["uid"],
                )
                wanted: set[Any] = set(rules(documented("discovery")))
                while with_istio and not wanted <= uses.made:
                    await asyncio.sleep(0.05)
        return uses, with_istio

    uses, with_istio = run(main())
    assert uses.forbidden == []
    if not with_istio:
        pytest.skip("the cluster has no CRDs of Istio, whose rights are therefore not used")
    # Its own namespace has a ConfigMap, too, and is none of the Role's business.
    made = {("ClusterRole" if plural == "configmaps" else role, plural, verb) for role, plural, verb in uses.made}
    assert made == set(rules(documented("discovery")))


def test_nothing_but_its_own_config_map_may_be_written_and_no_secret_be_read(real: Where) -> None:
    async def main() -> None:
        async with real() as place, granted(place) as kubeconfig, connect(kubeconfig) as cluster:
            other = await place.new_namespace()
            body = {"metadata": {"name": "theirs", "namespace": other}}
            await place.cluster.create(resource("configmaps", namespace=other), body)
            for refused in (
                cluster.patch(resource("configmaps", namespace=other, name="theirs"), {"data": {"a": "b"}}),
                cluster.delete(resource("configmaps", namespace=other, name="theirs"), {}),
                cluster.list(resource("secrets")),
                cluster.list(resource("secrets", namespace=place.namespace)),
                cluster.get(resource("leases", namespace=place.namespace, name="x", api="apis/coordination.k8s.io/v1")),
                cluster.get(resource("customresourcedefinitions", name="x.y", api="apis/apiextensions.k8s.io/v1")),
            ):
                with pytest.raises(ApiRefused) as error:
                    await refused
                assert error.value.status == 403

    run(main())
