"""Secrets as the store: nobody's change is lost, answers that are lost are found again, and changes are noticed."""

from __future__ import annotations

import asyncio
import base64
import secrets

import pytest

from certmgr.kubernetes.secret_store import SecretStore
from certmgr.store import AUTHORITY_DOCUMENT, MAX_DOCUMENT, StoreConflict, StoreUnavailable
from kube.client import connect
from mesh.errors import UserError
from tests.kube.places import Where
from tests.kube.rig import beside, run, until


def test_a_document_is_kept_changed_and_forgotten_under_its_version(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            store = SecretStore(place.cluster, place.namespace)
            assert await store.load(AUTHORITY_DOCUMENT) is None
            first = await store.save(AUTHORITY_DOCUMENT, b"one", None)
            stored = await store.load(AUTHORITY_DOCUMENT)
            assert stored is not None
            assert (stored.document, stored.version) == (b"one", first)
            with pytest.raises(StoreConflict):
                await store.save(AUTHORITY_DOCUMENT, b"two", None)
            second = await store.save(AUTHORITY_DOCUMENT, b"two", first)
            with pytest.raises(StoreConflict):
                await store.save(AUTHORITY_DOCUMENT, b"three", first)
            third = await store.save(AUTHORITY_DOCUMENT, b"one", second)
            assert len({first, second, third}) == 3  # a change and its undoing are two
            await store.save("peers-pod-1-0", b"", None)
            assert list(await store.names()) == ["authority", "peers-pod-1-0"]

            with pytest.raises(StoreConflict):
                await store.delete(AUTHORITY_DOCUMENT, second)
            await store.delete(AUTHORITY_DOCUMENT, third)
            await store.delete(AUTHORITY_DOCUMENT, third)  # gone already
            assert await store.load(AUTHORITY_DOCUMENT) is None
            with pytest.raises(StoreConflict):
                await store.save(AUTHORITY_DOCUMENT, b"four", third)

    run(main())


def test_the_secret_says_whose_it_is(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            await SecretStore(place.cluster, place.namespace).save("authority", b"{}", None)
            secret = await place.find("secrets", place.namespace, "qbitel-authority")
            assert secret["type"] == "Opaque"
            assert secret["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "qbitel"
            assert base64.b64decode(secret["data"]["document"]) == b"{}"

    run(main())


def test_two_writers_lose_none_of_their_changes(where: Where) -> None:
    async def main() -> None:
        async with where() as place, connect(place.kubeconfig) as other:
            stores = [SecretStore(cluster, place.namespace) for cluster in (place.cluster, other)]
            await stores[0].save("authority", b"0", None)
            conflicts = 0

            async def count_up(store: SecretStore, times: int) -> None:
                nonlocal conflicts
                while times:
                    stored = await store.load("authority")
                    assert stored is not None
                    try:
                        await store.save("authority", b"%d" % (int(stored.document) + 1), stored.version)
                        times -= 1
                    except StoreConflict:
                        conflicts += 1

            await asyncio.gather(*(count_up(store, 15) for store in stores))
            stored = await stores[0].load("authority")
            assert stored is not None
            assert stored.document == b"30"
            assert conflicts

    run(main())


# aiohttp warns of what it sends at once; 1.4 MB are a millisecond, and nothing in production comes near.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_the_largest_document_fits_and_a_larger_one_is_refused_here(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            store = SecretStore(place.cluster, place.namespace)
            document = secrets.token_bytes(MAX_DOCUMENT)
            version = await store.save("peers-large", document, None)
            stored = await store.load("peers-large")
            assert stored is not None
            assert stored.document == document
            with pytest.raises(UserError, match=f"a store keeps {MAX_DOCUMENT}"):
                await store.save("peers-large", document + b"!", version)

    run(main())


def test_a_change_is_noticed_by_another_store(where: Where) -> None:
    async def main() -> None:
        async with where() as place, connect(place.kubeconfig) as other:
            store, watcher = SecretStore(place.cluster, place.namespace), SecretStore(other, place.namespace)
            version: str | None = None
            for document in (b"one", b"two"):
                waiting = asyncio.create_task(watcher.changed("authority", version))
                quiet = asyncio.create_task(watcher.changed("peers-quiet", None))
                await asyncio.sleep(0)
                version = await store.save("authority", document, version)
                await waiting
                assert not quiet.done()
                quiet.cancel()
            # What changed before somebody asks is told at once, and so is that it was deleted.
            await watcher.changed("authority", "0")
            waiting = asyncio.create_task(watcher.changed("authority", version))
            await store.delete("authority", version or "")
            await waiting

    run(main())


def test_what_changes_is_watched_without_what_is_in_it(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            store = SecretStore(place.cluster, place.namespace)
            version = await store.save("authority", b"private", None)
            seen: list[object] = []
            watch = place.cluster.watch

            async def spied(*arguments: str, **options: str) -> None:
                async for event in watch(*arguments, **options):
                    seen.append(event)
                    yield event

            place.cluster.watch = spied  # type: ignore[method-assign, assignment]
            waiting = asyncio.create_task(store.changed("authority", version))
            await until(lambda: any("watch=true" in request for request in place.stand_in.requests))
            await store.save("authority", b"private too", version)
            await waiting
            assert seen
            assert "'data':" not in str(seen)

    run(main())


def test_changes_are_noticed_after_an_outage_and_after_a_forgotten_history(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            server, store = place.stand_in, SecretStore(place.cluster, place.namespace)
            version = await store.save("authority", b"one", None)
            async with beside(store.changed("authority", version)) as (waiting,):
                await until(lambda: any("watch=true" in request for request in server.requests))
                server.put("secrets", place.namespace, "another")
                server.forget()
                server.wake_watches()
                await until(lambda: sum("watch=true" in request for request in server.requests) == 2)
                await server.stop()
                server.requests.clear()
                await server.start()
                await until(lambda: any("watch=true" in request for request in server.requests))
                assert not waiting.done()
                await store.save("authority", b"two", version)
                await waiting

    run(main())


@pytest.mark.parametrize("expected", [True, False], ids=["replaced", "created"])
def test_a_save_whose_answer_is_lost_is_found_to_stand(fake: Where, expected: bool) -> None:
    async def main() -> None:
        async with fake() as place:
            store = SecretStore(place.cluster, place.namespace)
            version = await store.save("authority", b"one", None) if expected else None
            place.stand_in.faults = ["lose the answer"]
            saved = await store.save("authority", b"two", version)
            stored = await store.load("authority")
            assert stored is not None
            assert (stored.document, stored.version) == (b"two", saved)

    run(main())


def test_a_save_that_failed_leaves_the_old_document_and_says_so(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            store = SecretStore(place.cluster, place.namespace)
            version = await store.save("authority", b"one", None)
            place.stand_in.faults = [500]
            with pytest.raises(StoreUnavailable, match="answers 500"):
                await store.save("authority", b"two", version)
            stored = await store.load("authority")
            assert stored is not None
            assert stored.document == b"one"

    run(main())


@pytest.mark.parametrize(
    ("status", "words"),
    [(403, "no access to the Secrets of qbitel-test"), (410, "as the test wants it"), (503, "answers 503")],
)
def test_what_may_mend_itself_is_unavailable(fake: Where, status: int, words: str) -> None:
    async def main() -> None:
        async with fake() as place:
            store = SecretStore(place.cluster, place.namespace)
            for action in (store.load("authority"), store.names(), store.delete("authority", "1")):
                place.stand_in.faults = [status]
                with pytest.raises(StoreUnavailable, match=words):
                    await action

    run(main())


def test_what_somebody_must_mend_says_what_and_shows_nothing_of_it(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            store = SecretStore(place.cluster, place.namespace)
            for data in ({}, None, {"document": "%%%secret%%%"}, {"other": "c2VjcmV0"}):
                place.stand_in.put("secrets", place.namespace, "qbitel-authority", data=data)
                with pytest.raises(UserError, match="qbitel-authority in qbitel-test holds no document") as refused:
                    await store.load("authority")
                assert "secret%" not in str(refused.value)
            place.stand_in.faults = [422]
            with pytest.raises(UserError, match="refuses the Secret qbitel-authority: as the test wants it"):
                await store.save("authority", b"", "1")

    run(main())


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "..", "-a", "a_b", "x" * 247])
def test_what_cannot_name_a_secret_is_a_mistake_of_the_caller(fake: Where, name: str) -> None:
    async def main() -> None:
        async with fake() as place:
            with pytest.raises(ValueError, match="no name of a document"):
                await SecretStore(place.cluster, place.namespace).load(name)

    run(main())


def test_a_namespace_that_is_missing_is_somebody_s_to_make(real: Where) -> None:
    async def main() -> None:
        async with real() as place:
            with pytest.raises(UserError, match="no namespace 'qbitel-test-no-such' in the cluster"):
                await SecretStore(place.cluster, "qbitel-test-no-such").save("authority", b"", None)

    run(main())
