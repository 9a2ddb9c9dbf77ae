"""Istio's kinds, where a cluster has them: which are followed, in which version, and what is said of the others."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")

from control.discovery import istio_kinds
from control.discovery.istio_kinds import KINDS, FollowedKind
from control.discovery.policies import FOLLOWED
from mesh.resources import _KINDS
from tests.kube.places import Where, fake, real
from tests.kube.rig import beside, run, until

__all__ = ["fake", "real"]

POLICIES = KINDS[1]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(istio_kinds, "_LOOK_SECONDS", 0.05)


def test_the_kinds_are_those_that_sidecars_follow_in_the_versions_that_we_read() -> None:
    assert {kind.name for kind in KINDS} == FOLLOWED
    for kind in KINDS:
        assert kind.versions == _KINDS[kind.group, kind.name].versions


def test_it_is_known_that_a_cluster_has_no_such_kind(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            kind = FollowedKind(place.cluster, POLICIES, lambda: None)
            assert not kind.ready
            async with beside(kind.run()):
                await until(lambda: kind.ready)
                assert kind.source.items == {}
                assert kind.name == "authorizationpolicies.security.istio.io"

    run(main())


def test_another_version_is_read_once_the_crd_serves_it(fake: Where, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with fake() as place:
            server = place.stand_in
            kind = FollowedKind(place.cluster, POLICIES, lambda: None)
            server.put("authorizationpolicies", "shop", "web", spec={})
            async with beside(kind.run()):
                for version in ("v1beta1", "v1"):
                    versions = [{"name": version, "served": True}, {"name": "v0", "served": False}]
                    server.put("customresourcedefinitions", "", POLICIES.crd, spec={"versions": versions})
                    await until(lambda version=version: kind.source.name.endswith(f"/{version}") and kind.ready)
                    assert list(kind.source.items) == [("shop", "web")]
                    (found,) = kind.source.items.values()
                    (policy,) = kind.source.read(found).policies
                    assert f'"security.istio.io/{version}"' in policy.line

    run(main())
    assert "following AuthorizationPolicy of security.istio.io/v1" in caplog.text


def test_a_crd_of_versions_that_we_do_not_read_is_said_aloud(fake: Where, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with fake() as place:
            versions = [{"name": "v7", "served": True}]
            place.stand_in.put("customresourcedefinitions", "", POLICIES.crd, spec={"versions": versions})
            kind = FollowedKind(place.cluster, POLICIES, lambda: None)
            async with beside(kind.run()):
                await until(lambda: kind.ready)

    run(main())
    assert "serves v7, and we read v1, v1beta1: its policies are NOT followed" in caplog.text


def test_whoever_may_not_ask_does_not_take_it_for_absent(fake: Where, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with fake() as place:
            kind = FollowedKind(place.cluster, POLICIES, lambda: None)
            place.stand_in.faults = [403] * 5
            async with beside(kind.run()):
                await until(lambda: "cannot be found out" in caplog.text)
                await until(lambda: len(place.stand_in.faults) == 1)
                assert not kind.ready
                await until(lambda: kind.ready)
        assert caplog.text.count("cannot be found out") == 1

    run(main())


def test_a_real_cluster_says_whether_it_has_the_kind(real: Where) -> None:
    async def main() -> None:
        async with real() as place:
            kinds = [FollowedKind(place.cluster, kind, lambda: None) for kind in KINDS]
            async with beside(*(kind.run() for kind in kinds)):
                await until(lambda: all(kind.ready for kind in kinds))

    run(main())
