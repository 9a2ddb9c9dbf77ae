"""How a cluster is asked, and what is made of an answer that is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")

from cli.checks.asking import Asking, as_fact, together
from cli.checks.facts import Right
from cli.checks.findings import Unknown
from kube.client import ApiRefused, ApiUnavailable, Cluster, resource
from tests.kube.places import Where, fake
from tests.kube.rig import Place, run

__all__ = ["fake"]


def ask(fake: Where, question: Callable[[Place], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with fake() as place:
            return await question(place)

    return run(main())


def test_what_is_there_is_listed_and_what_is_not_is_none(fake: Where) -> None:
    async def question(place: Place) -> None:
        place.stand_in.put("services", "shop", "web", spec={})
        asking = Asking(place.cluster)
        found = (await asking.listed(resource("services", namespace="shop"))).value
        assert [one["metadata"]["name"] for one in found] == ["web"]
        path = resource("services", namespace="shop", name="web")
        assert (await asking.present(path)) is not None
        assert await asking.present(f"{path}-none") is None

    ask(fake, question)


def test_a_failure_is_no_absence(fake: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden(_self: Any, _path: str, **_options: Any) -> Any:
        raise ApiRefused(403, "Forbidden", "not yours")

    async def question(place: Place) -> None:
        monkeypatch.setattr(Cluster, "get", forbidden)
        with pytest.raises(ApiRefused, match="not yours"):
            await Asking(place.cluster).present("/api/v1/pods/a")

    ask(fake, question)


def test_pages_are_read_until_there_is_enough_and_without_their_history(fake: Where) -> None:
    async def question(place: Place) -> None:
        for number in range(250):
            fields = [{"manager": "kubectl"}]
            place.stand_in.put("pods", "shop", f"pod-{number}", metadata={"managedFields": fields}, spec={})
        path = resource("pods", namespace="shop")
        found = await Asking(place.cluster).bounded(path, most=50)
        assert 50 <= len(found) < 250
        assert {str(one["metadata"]["managedFields"]) for one in found} == {"None"}
        assert len(await Asking(place.cluster).bounded(path, most=1000)) == 250

    ask(fake, question)


@pytest.mark.parametrize("allowed", [True, False, None])
def test_a_right_is_what_the_api_server_says_and_otherwise_none(
    fake: Where, monkeypatch: pytest.MonkeyPatch, allowed: bool | None
) -> None:
    asked: list[Any] = []

    async def create(_self: Any, path: str, body: Any, **_options: Any) -> Any:
        asked.append((path, body["spec"]["resourceAttributes"]))
        return {} if allowed is None else {"status": {"allowed": allowed}}

    async def question(place: Place) -> bool:
        monkeypatch.setattr(Cluster, "create", create)
        return await Asking(place.cluster).may(Right("create", "pods", "apps", "shop"))

    assert ask(fake, question) is (allowed is True)
    ((path, attributes),) = asked
    assert path.endswith("/selfsubjectaccessreviews")
    assert attributes["verb"] == "create"
    assert attributes["namespace"] == "shop"


@pytest.mark.parametrize(
    "raised", [Unknown("a reason"), ApiRefused(403, "Forbidden", "a reason"), ApiUnavailable("a reason")]
)
def test_what_cannot_be_found_out_is_a_fact_with_its_reason_and_keeps_nothing_else_from_being_known(
    raised: Exception,
) -> None:
    async def fails() -> int:
        raise raised

    async def works() -> int:
        return 7

    async def main() -> dict[str, Any]:
        return await together(failed=as_fact(fails()), found=as_fact(works()))

    facts = run(main())
    assert "a reason" in facts["failed"].reason
    assert facts["found"].value == 7


def test_a_bug_is_none_of_the_cluster_s() -> None:
    async def fails() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(together(one=as_fact(fails())))
