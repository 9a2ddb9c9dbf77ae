"""A pod for trial: judged by the cluster, and never there."""

from __future__ import annotations

import pytest

from cli.checks.trial import try_pod
from kube.client import ApiRefused, resource
from tests.kube.places import Where
from tests.kube.rig import run


def test_a_pod_for_trial_comes_back_and_never_is(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            # A namespace that is new has its service account in a moment.
            while (trial := await try_pod(place.cluster, place.namespace)).pod is None:
                assert "service account" in trial.refusal or "serviceaccount" in trial.refusal, trial
            assert trial.pod["spec"]["containers"][0]["name"] == "check"
            found, _ = await place.cluster.list(resource("pods", namespace=place.namespace))
            assert found == []

    run(main())


@pytest.mark.parametrize("status", [400, 500])
def test_who_refuses_it_is_told_in_his_own_words(fake: Where, status: int) -> None:
    async def main() -> None:
        async with fake() as place:
            place.stand_in.faults = [status]
            trial = await try_pod(place.cluster, "shop")
            assert (trial.pod, "as the test wants it" in trial.refusal) == (None, True)

    run(main())


def test_a_right_that_is_missing_is_no_word_about_the_webhook(fake: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with fake() as place:

            async def forbidden(*_arguments: object, **_options: object) -> None:
                raise ApiRefused(403, "Forbidden", 'pods is forbidden: User "a" cannot create resource "pods"')

            monkeypatch.setattr(place.cluster, "create", forbidden)
            with pytest.raises(ApiRefused):
                await try_pod(place.cluster, "shop")

    run(main())
