"""A mirror of objects that stays true, whatever happens to the connection and to the server's memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kube.backoff import Backoff
from kube.client import resource
from kube.mirror import Mirror
from kube.objects import Object
from tests.kube.places import Where
from tests.kube.rig import Place, beside, run, until


def read(found: Object) -> str | None:
    """The value of a ConfigMap; None for one that is not wanted."""
    value: str = (found.get("data") or {}).get("value", "")
    return value or None


def mirror_of(place: Place, changes: list[None] | None = None) -> Mirror[str]:
    told = [] if changes is None else changes
    path = resource("configmaps", namespace=place.namespace)
    return Mirror(place.cluster, path, read, lambda: told.append(None), retries=Backoff(0.01, 0.05))


async def put(place: Place, name: str, value: str) -> Object:
    folder = resource("configmaps", namespace=place.namespace)
    body: dict[str, Any] = {"metadata": {"name": name, "namespace": place.namespace}, "data": {"value": value}}
    if await place.find("configmaps", place.namespace, name):
        return await place.cluster.patch(f"{folder}/{name}", body)
    return await place.cluster.create(folder, body)


def values(mirror: Mirror[str]) -> dict[str, str]:
    return {name: value for (_, name), value in mirror.items.items() if name.startswith("test-")}


def test_what_is_made_changed_and_deleted_is_followed(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            await put(place, "test-before", "1")
            mirror = mirror_of(place)
            assert not mirror.ready
            async with beside(mirror.run()):
                await until(lambda: mirror.ready)
                assert values(mirror) == {"test-before": "1"}
                await put(place, "test-after", "2")
                await until(lambda: values(mirror) == {"test-before": "1", "test-after": "2"})
                await put(place, "test-before", "3")
                await until(lambda: values(mirror) == {"test-before": "3", "test-after": "2"})
                await put(place, "test-after", "")  # read makes nothing of it
                await until(lambda: values(mirror) == {"test-before": "3"})
                await place.cluster.delete(resource("configmaps", namespace=place.namespace, name="test-before"), {})
                await until(lambda: values(mirror) == {})

    run(main())


def test_after_an_outage_the_watch_goes_on_where_it_was_without_listing_again(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            server = place.stand_in
            mirror = mirror_of(place)
            async with beside(mirror.run()):
                await until(lambda: mirror.ready)
                await put(place, "test-one", "1")
                await until(lambda: values(mirror))
                version = server.objects["configmaps", place.namespace, "test-one"]["metadata"]["resourceVersion"]
                await server.stop()
                server.put("configmaps", place.namespace, "test-two", data={"value": "2"})
                server.remove("configmaps", place.namespace, "test-one")
                server.requests.clear()
                await server.start()
                await until(lambda: values(mirror) == {"test-two": "2"})

            assert all("watch=true" in request for request in server.requests)
            assert f"resourceVersion={version}" in server.requests[0]

    run(main())


def test_when_the_version_is_forgotten_all_is_listed_again_and_what_was_deleted_meanwhile_goes(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            server = place.stand_in
            await put(place, "test-old", "1")
            mirror = mirror_of(place)
            async with beside(mirror.run()):
                await until(lambda: values(mirror) == {"test-old": "1"})
                await server.stop()
                server.remove("configmaps", place.namespace, "test-old")
                server.put("configmaps", place.namespace, "test-new", data={"value": "2"})
                server.forget()
                await server.start()
                await until(lambda: values(mirror) == {"test-new": "2"})
                # … and it goes on from there.
                await put(place, "test-new", "3")
                await until(lambda: values(mirror) == {"test-new": "3"})

    run(main())


def test_a_watch_that_is_told_gone_under_way_lists_again(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            server = place.stand_in
            mirror = mirror_of(place)
            async with beside(mirror.run()):
                await until(lambda: any("watch=true" in request for request in server.requests))
                server.put("configmaps", "elsewhere", "test-one")  # not ours: our version stays behind
                server.forget()
                server.wake_watches()
                await until(lambda: sum("watch=true" not in request for request in server.requests) == 2)
                await put(place, "test-two", "2")
                await until(lambda: values(mirror) == {"test-two": "2"})

    run(main())


def test_a_server_that_never_knows_our_version_again_is_listed_anew(fake: Where) -> None:
    """An etcd that was restored from a backup is behind us: the API server then answers 504 for ever."""

    async def main() -> None:
        async with fake() as place:
            server = place.stand_in
            mirror = mirror_of(place)
            async with beside(mirror.run()):
                await until(lambda: any("watch=true" in request for request in server.requests))
                await server.stop()
                server.requests.clear()
                server.faults = [504] * 5
                await server.start()
                await until(lambda: any("watch=true" not in request for request in server.requests))

    run(main())


@pytest.mark.parametrize("status", [401, 403, 500])
def test_an_api_server_that_refuses_for_a_while_is_asked_again(fake: Where, status: int) -> None:
    async def main() -> None:
        async with fake() as place:
            place.stand_in.faults = [status] * 3
            await put_directly(place)
            mirror = mirror_of(place)
            async with beside(mirror.run()):
                await until(lambda: values(mirror) == {"test-one": "1"})

    async def put_directly(place: Place) -> None:
        place.stand_in.put("configmaps", place.namespace, "test-one", data={"value": "1"})

    run(main())


def test_an_own_write_is_known_at_once_and_older_news_do_not_undo_it(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            server, changes = place.stand_in, []
            mirror = mirror_of(place, changes)
            async with beside(mirror.run()):
                await until(lambda: mirror.ready)
                # Three versions, of which the news come late; the last one is ours.
                held, server._news = server._news, asyncio.Event()  # watches sleep on
                server.put("configmaps", place.namespace, "test-one", data={"value": "1"})
                server.put("configmaps", place.namespace, "test-one", data={"value": "2"})
                mirror.wrote(server.put("configmaps", place.namespace, "test-one", data={"value": "3"}))
                assert values(mirror) == {"test-one": "3"}
                seen = []
                changes.clear()
                held.set()
                server.put("configmaps", place.namespace, "test-end", data={"value": "end"})
                while "test-end" not in values(mirror):
                    seen.append(values(mirror)["test-one"])
                    await asyncio.sleep(0)
                assert set(seen) == {"3"}
                assert len(changes) == 1  # of what was not known yet
                await put(place, "test-one", "4")
                await until(lambda: values(mirror)["test-one"] == "4")

    run(main())


def test_news_that_come_before_the_answer_to_the_write_itself_are_not_undone(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            mirror = mirror_of(place)
            async with beside(mirror.run()):
                await until(lambda: mirror.ready)
                written = await put(place, "test-one", "1")
                await until(lambda: values(mirror) == {"test-one": "1"})
                place.stand_in.remove("configmaps", place.namespace, "test-one")
                await until(lambda: values(mirror) == {})
                mirror.wrote(written)
                assert values(mirror) == {}

    run(main())


def test_a_write_of_ours_that_a_list_on_its_way_has_missed_is_not_forgotten(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            server = place.stand_in
            await put(place, "test-old", "1")
            server.page_limit = 1
            mirror = mirror_of(place)
            seen: list[dict[str, str]] = []
            mirror._on_change = lambda: seen.append(values(mirror))
            arrived, gate = asyncio.Event(), asyncio.Event()
            pages = place.cluster.pages

            async def slow_pages(*arguments: Any, **options: Any) -> Any:
                async for page in pages(*arguments, **options):
                    arrived.set()
                    await gate.wait()
                    yield page

            place.cluster.pages = slow_pages  # type: ignore[method-assign]
            async with beside(mirror.run()):
                await arrived.wait()  # the list is of this moment
                mirror.wrote(await put(place, "test-new", "2"))
                gate.set()
                await until(lambda: mirror.ready)
            assert seen[0] == {"test-old": "1", "test-new": "2"}

    run(main())


def test_what_has_not_changed_is_not_read_again_when_everything_is_listed_again(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            server = place.stand_in
            for number in range(5):
                await put(place, f"test-{number}", str(number))
            server.page_limit = 2  # a list of several pages
            mirror = mirror_of(place)
            reads: list[str] = []

            def counted(found: Object) -> str | None:
                reads.append(found["metadata"]["name"])
                return read(found)

            mirror._read = counted
            async with beside(mirror.run()):
                await until(lambda: mirror.ready)
                assert sorted(reads) == [f"test-{number}" for number in range(5)]
                reads.clear()
                await server.stop()
                server.put("configmaps", place.namespace, "test-3", data={"value": "new"})
                server.remove("configmaps", place.namespace, "test-4")
                server.forget()
                await server.start()
                await until(lambda: values(mirror) == {"test-0": "0", "test-1": "1", "test-2": "2", "test-3": "new"})
            assert reads == ["test-3"]

    run(main())


def test_an_event_that_makes_no_difference_wakes_nobody(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            changes: list[None] = []
            mirror = mirror_of(place, changes)
            await put(place, "test-one", "1")
            async with beside(mirror.run()):
                await until(lambda: mirror.ready)
                before = len(changes)
                await put(place, "test-unwanted", "")
                await put(place, "test-one", "1")
                await put(place, "test-two", "2")
                await until(lambda: "test-two" in values(mirror))
            assert len(changes) == before + 1

    run(main())
