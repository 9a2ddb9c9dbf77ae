"""The trust bundle in namespaces: published, healed, kept up to date, and nobody else's touched."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from certmgr.kubernetes.trust_config_maps import TrustConfigMaps, content_hash, present_of
from certmgr.revocation import revoke
from kube import reconciler
from kube.client import resource
from mesh import names
from tests.certmgr.kubernetes.authority import opened
from tests.kube.places import Where
from tests.kube.rig import Place, beside, run, utc_now

ALWAYS = {"is_leader": lambda: True}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "_LOOK_SECONDS", 0.05)


def path_of(namespace: str) -> str:
    return resource("configmaps", namespace=namespace, name=names.ROOTS_CONFIG_MAP)


async def published(place: Place, namespace: str, data: dict[str, str]) -> Any:
    """Wait until the ConfigMap holds exactly `data`."""

    while True:
        found = await place.find("configmaps", namespace, names.ROOTS_CONFIG_MAP)
        if found and (found.get("data"), found.get("binaryData")) == (data, None):
            return found
        await asyncio.sleep(0.02)


def files_of(service: Any) -> dict[str, str]:
    return {name: content.decode() for name, content in service.bundle().files.items()}


def test_where_pods_have_sidecars_without_their_namespace_asking_the_bundle_is_there_too(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            service = await opened(place, utc_now)
            namespace = await place.new_namespace()
            async with beside(TrustConfigMaps(place.cluster, **ALWAYS).run(service)):
                labels = {"app.kubernetes.io/managed-by": "qbitel"}
                body = {"metadata": {"name": names.MESH_CONFIG_MAP, "namespace": namespace, "labels": labels}}
                await place.cluster.create(resource("configmaps", namespace=namespace), body)
                await published(place, namespace, files_of(service))

    run(main())


def test_every_namespace_of_the_mesh_gets_the_bundle_and_follows_it(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            service = await opened(place, utc_now)
            before = await place.new_namespace(qbitel_injection="enabled")
            outside = await place.new_namespace(qbitel_injection="disabled")
            async with beside(TrustConfigMaps(place.cluster, **ALWAYS).run(service)):
                found = await published(place, before, files_of(service))
                assert set(found["data"]) == {names.ROOTS_FILE, names.INTERMEDIATES_FILE, names.REVOCATION_FILE}
                assert "BEGIN CERTIFICATE" in found["data"][names.ROOTS_FILE]
                assert found["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "qbitel"
                after = await place.new_namespace(qbitel_injection="enabled")
                await published(place, after, files_of(service))

                old = files_of(service)
                await service.change(
                    lambda state: revoke(state, 7, utc_now(), identity="spiffe://cluster.local/ns/shop/sa/web")
                )
                assert files_of(service) != old
                for namespace in (before, after):
                    await published(place, namespace, files_of(service))
                assert await place.find("configmaps", outside, names.ROOTS_CONFIG_MAP) is None

                # Pods that run there mount it; it is kept up to date, though no longer made again.
                body = {"metadata": {"labels": {names.NAMESPACE_LABEL: None}}}
                await place.cluster.patch(resource("namespaces", name=before), body)
                await service.change(
                    lambda state: revoke(state, 8, utc_now(), identity="spiffe://cluster.local/ns/shop/sa/web")
                )
                await published(place, before, files_of(service))

    run(main())


def test_what_is_deleted_edited_or_added_is_put_right(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            service = await opened(place, utc_now)
            namespace = await place.new_namespace(qbitel_injection="enabled")
            async with beside(TrustConfigMaps(place.cluster, **ALWAYS).run(service)):
                data = files_of(service)
                await published(place, namespace, data)
                await place.cluster.delete(path_of(namespace), {})
                await published(place, namespace, data)
                for edit in (
                    {"data": {names.ROOTS_FILE: "another root"}},
                    {"data": {names.REVOCATION_FILE: None}},
                    {"data": {"stray": "file"}},
                    {"binaryData": {"stray": "AAAA"}},
                ):
                    await place.cluster.patch(path_of(namespace), edit)
                    await published(place, namespace, data)
                # What others write beside it is left.
                await place.cluster.patch(path_of(namespace), {"metadata": {"annotations": {"their": "note"}}})
                await place.cluster.patch(path_of(namespace), {"data": {"stray": "file"}})
                found = await published(place, namespace, data)
                assert found["metadata"]["annotations"]["their"] == "note"

                await place.cluster.patch(path_of(namespace), {"data": {"stray": "file"}, "immutable": True})
                found = await published(place, namespace, data)
                assert not found.get("immutable")

    run(main())


def test_one_of_that_name_that_is_not_ours_is_left_alone_and_told_once(
    where: Where, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    seen = []

    async def main() -> None:
        async with where() as place:
            service = await opened(place, utc_now)
            theirs = await place.new_namespace(qbitel_injection="enabled")
            seen.append(theirs)
            body = {"metadata": {"name": names.ROOTS_CONFIG_MAP, "namespace": theirs}, "data": {"ca.crt": "theirs"}}
            await place.cluster.create(resource("configmaps", namespace=theirs), body)
            ours = await place.new_namespace(qbitel_injection="enabled")
            async with beside(TrustConfigMaps(place.cluster, **ALWAYS).run(service)):
                await published(place, ours, files_of(service))
                await service.change(
                    lambda state: revoke(state, 7, utc_now(), identity="spiffe://cluster.local/ns/shop/sa/web")
                )
                await published(place, ours, files_of(service))
                assert (await place.cluster.get(path_of(theirs)))["data"] == {"ca.crt": "theirs"}
                # When its owner gives the name up, ours takes its place.
                await place.cluster.delete(path_of(theirs), {})
                await published(place, theirs, files_of(service))

    run(main())
    assert caplog.text.count(f"{seen[0]}: the ConfigMap qbitel-ca-root is not ours") == 1


def test_only_the_leader_writes_and_a_new_one_takes_up_what_is_left(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            service = await opened(place, utc_now)
            namespace = await place.new_namespace(qbitel_injection="enabled")
            leads = False
            async with beside(TrustConfigMaps(place.cluster, lambda: leads).run(service)):
                await service.change(
                    lambda state: revoke(state, 7, utc_now(), identity="spiffe://cluster.local/ns/shop/sa/web")
                )
                watching = "GET /api/v1/configmaps?fieldSelector=metadata.name%3Dqbitel-ca-root&watch=true"

                while not any(request.startswith(watching) for request in place.stand_in.requests):
                    await asyncio.sleep(0.01)
                assert await place.find("configmaps", namespace, names.ROOTS_CONFIG_MAP) is None
                leads = True
                await published(place, namespace, files_of(service))

    run(main())


def test_an_api_server_that_goes_away_and_forgets_is_no_end_of_publishing(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            server = place.stand_in
            service = await opened(place, utc_now)
            one = await place.new_namespace(qbitel_injection="enabled")
            async with beside(TrustConfigMaps(place.cluster, **ALWAYS).run(service)):
                await published(place, one, files_of(service))
                await server.stop()
                server.remove("configmaps", one, names.ROOTS_CONFIG_MAP)
                server.put("namespaces", "", "late", metadata={"labels": {names.NAMESPACE_LABEL: "enabled"}})
                server.forget()
                await server.start()
                for namespace in (one, "late"):
                    await published(place, namespace, files_of(service))

    run(main())


def test_nothing_is_made_in_a_namespace_that_is_being_deleted(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            service = await opened(place, utc_now)
            labels = {names.NAMESPACE_LABEL: "enabled"}
            place.stand_in.put("namespaces", "", "going", metadata={"labels": labels, "deletionTimestamp": "2026"})
            place.stand_in.put("namespaces", "", "staying", metadata={"labels": labels})
            async with beside(TrustConfigMaps(place.cluster, **ALWAYS).run(service)):
                await published(place, "staying", files_of(service))
            assert await place.find("configmaps", "going", names.ROOTS_CONFIG_MAP) is None

    run(main())


def test_a_config_map_is_known_by_what_it_holds() -> None:
    metadata = {"resourceVersion": "7", "uid": "u", "labels": {"app.kubernetes.io/managed-by": "qbitel"}}
    present = present_of({"metadata": metadata, "data": {"b": "2", "a": "1"}})

    assert present.is_ours
    assert present.content == content_hash({"a": "1", "b": "2"}) != content_hash({"a": "1", "b": "3"})
    assert not present_of({"metadata": {**metadata, "labels": None}}).is_ours
    assert not present_of({"metadata": {**metadata, "labels": {"app.kubernetes.io/managed-by": "helm"}}}).is_ours
