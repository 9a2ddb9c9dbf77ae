"""Requests to an API server: what comes back, what goes wrong, and how it is said."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from kube.client import GONE, ApiRefused, ApiUnavailable, connect, resource
from mesh.errors import UserError
from tests.kube.places import Where
from tests.kube.rig import kubeconfig_file, run


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


def test_paths_name_namespaces_and_objects_and_escape_what_is_in_them() -> None:
    assert resource("namespaces", name="shop") == "/api/v1/namespaces/shop"
    assert resource("secrets", namespace="shop", name="a/b") == "/api/v1/namespaces/shop/secrets/a%2Fb"
    assert resource("leases", api="apis/x/v1") == "/apis/x/v1/leases"


def test_an_object_is_made_read_changed_and_deleted_and_each_change_names_what_it_is_made_from(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            folder = resource("configmaps", namespace=place.namespace)
            path = resource("configmaps", namespace=place.namespace, name="one")
            made = await place.cluster.create(folder, config_map(place.namespace, "one", a="1"))
            with pytest.raises(ApiRefused, match="already exists") as refused:
                await place.cluster.create(folder, config_map(place.namespace, "one"))
            assert (refused.value.status, refused.value.reason) == (409, "AlreadyExists")

            version = made["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version}, "data": {"a": None, "b": "2"}}
            patched = await place.cluster.patch(path, body)
            assert patched["data"] == {"b": "2"}
            with pytest.raises(ApiRefused) as refused:
                await place.cluster.patch(path, body)
            assert refused.value.status == 409
            stale = config_map(place.namespace, "one")
            stale["metadata"]["resourceVersion"] = version
            with pytest.raises(ApiRefused) as refused:
                await place.cluster.replace(path, stale)
            assert refused.value.status == 409

            with pytest.raises(ApiRefused) as refused:
                await place.cluster.delete(path, {"resourceVersion": version})
            assert refused.value.status == 409
            assert (await place.cluster.get(path))["data"] == {"b": "2"}
            await place.cluster.delete(path, {"uid": made["metadata"]["uid"]})
            with pytest.raises(ApiRefused) as refused:
                await place.cluster.get(path)
            assert refused.value.status == 404

    run(main())


def test_a_watch_tells_what_happens_after_a_list_and_only_what_is_selected(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            folder = resource("configmaps", namespace=place.namespace)
            selector = {"fieldSelector": "metadata.name=one"}
            found, version = await place.cluster.list(folder, selector)
            assert found == []
            for name in ("two", "one"):
                await place.cluster.create(folder, config_map(place.namespace, name))
            watch = place.cluster.watch(folder, version, selector)
            async with contextlib.aclosing(watch):
                kind, seen = await anext(watch)
                assert (kind, seen["metadata"]["name"]) == ("ADDED", "one")
                await place.cluster.delete(f"{folder}/one", {})
                kind, seen = await anext(watch)
                assert (kind, seen["metadata"]["name"]) == ("DELETED", "one")

    run(main())


def test_a_list_is_put_together_from_its_pages(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            place.stand_in.page_limit = 3
            for number in range(8):
                place.stand_in.put("configmaps", "shop", f"number-{number}")
            found, _ = await place.cluster.list(resource("configmaps"))

            assert [each["metadata"]["name"] for each in found] == [f"number-{number}" for number in range(8)]
            assert len(place.stand_in.requests) == 3

    run(main())


def test_a_version_that_is_forgotten_ends_a_watch_as_gone(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            place.stand_in.put("configmaps", "shop", "one")
            place.stand_in.forget()
            with pytest.raises(ApiRefused) as refused:
                await anext(place.cluster.watch(resource("configmaps"), "1"))

            assert refused.value.status == GONE

    run(main())


def test_a_real_server_says_gone_of_a_version_from_the_beginning_of_time(real: Where) -> None:
    """It keeps five minutes of history; version 1 is older on any cluster that has run for longer, or was compacted."""

    async def main() -> None:
        async with real() as place:
            try:
                async with asyncio.timeout(5):
                    await anext(place.cluster.watch(resource("configmaps"), "1"))
            except ApiRefused as error:
                assert error.status == GONE
            else:
                pytest.skip("this API server still knows its first version")

    run(main())


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_or_failing_server_is_unavailable_for_as_long_as_it_says(fake: Where, status: int) -> None:
    async def main() -> None:
        async with fake() as place:
            place.stand_in.faults = [status]
            with pytest.raises(ApiUnavailable, match=f"answers {status}: as the test wants it") as unavailable:
                await place.cluster.get("/api/v1/configmaps/one")
            assert unavailable.value.retry_after == 7

    run(main())


def test_a_server_that_is_not_there_breaks_off_or_does_not_answer_is_unavailable(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            place.stand_in.faults = ["lose the answer"]
            with pytest.raises(ApiUnavailable, match="cannot be reached"):
                await place.cluster.create("/api/v1/configmaps", config_map("", "one"))
            place.stand_in.hold = asyncio.Event()
            with pytest.raises(ApiUnavailable, match="cannot be reached"):
                await place.cluster.get("/api/v1/configmaps/one", seconds=0.2)
            place.stand_in.hold.set()
            await place.stand_in.stop()
            with pytest.raises(ApiUnavailable, match="cannot be reached"):
                await place.cluster.get("/api/v1/configmaps/one")

    run(main())


def test_a_watch_of_a_server_that_goes_away_ends_as_unavailable(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            place.stand_in.put("configmaps", "shop", "one")
            watch = place.cluster.watch(resource("configmaps"), "1")
            await anext(watch)
            await place.stand_in.stop()
            with pytest.raises(ApiUnavailable):
                await anext(watch)

    run(main())


@pytest.mark.parametrize("answer", ["<html>", "[]", "null", '"x"', "1", "", "\x00", '{"a":'])
def test_what_is_no_object_is_no_api_server_s_answer(tmp_path: Path, answer: str) -> None:
    async def page(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n{answer}".encode())
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(page, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with connect(kubeconfig_file(tmp_path, port)) as cluster:
                for asked in (
                    cluster.get("/api/v1/configmaps/one"),
                    cluster.list("/api/v1/configmaps"),
                    *([anext(cluster.watch("/api/v1/configmaps", "1"))] if answer else []),  # it may end at once
                ):
                    with pytest.raises(ApiUnavailable, match="is none"):
                        await asked

    run(main())


def test_secrets_are_in_no_log_even_at_debug(fake: Where, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        async with fake() as place:
            body = {"metadata": {"name": "one", "namespace": "shop"}, "data": {"key": "cHJpdmF0ZQ=="}}
            await place.cluster.create(resource("secrets", namespace="shop"), body)
            await place.cluster.get(resource("secrets", namespace="shop", name="one"))
            await place.cluster.list(resource("secrets"))

    run(main())
    assert "cHJpdmF0ZQ" not in caplog.text
    assert "secret-of-the-tester" not in caplog.text


def test_without_a_cluster_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    async def opened(kubeconfig: str | None) -> None:
        async with connect(kubeconfig):
            pass

    with pytest.raises(UserError, match=r"no pod with a service account .*--kubeconfig"):
        run(opened(None))
    with pytest.raises(UserError, match="does not exist; give a kubeconfig file"):
        run(opened(str(tmp_path / "absent")))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", json.dumps({"users": [{"user": {"token": "very-secret"}}], "clusters": [], "contexts": []})],
)
def test_a_broken_kubeconfig_is_one_line_without_what_is_in_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)

    async def opened() -> None:
        async with connect(str(path)):
            pass

    with pytest.raises(UserError, match="cannot be used as a kubeconfig") as refused:
        run(opened())
    assert "very-secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_server_s_clock_is_read_to_the_second(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            before = datetime.datetime.now(datetime.UTC)
            said = await place.cluster.date()
            assert abs(said - before) < datetime.timedelta(minutes=5)

    run(main())


def test_what_is_no_object_comes_with_its_status_and_is_bounded(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            place.stand_in.put("configmaps", "shop", "one", data={"a": "b" * 5000})
            path = resource("configmaps", namespace="shop", name="one")
            status, text = await place.cluster.text(path, most=10_000)
            assert (status, "b" * 5000 in text) == (200, True)
            with pytest.raises(ApiUnavailable, match="longer than 1000 bytes"):
                await place.cluster.text(path, most=1000)
            status, text = await place.cluster.text(resource("configmaps", namespace="shop", name="two"), most=1000)
            assert (status, "not found" in text) == (404, True)

    run(main())


def test_a_context_chooses_and_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        kubeconfig = kubeconfig_file(tmp_path, 1)
        async with connect(kubeconfig, context="tests"):
            pass
        with pytest.raises(UserError, match="with the context other"):
            async with connect(kubeconfig, context="other"):
                pass

    run(main())
