"""The whole of it: authorities whose outside is a cluster, through outages and with more than one replica."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from certmgr.authority import spiffe_id_of
from certmgr.kubernetes.parts import cluster_store
from certmgr.proofs import Reason, Refused
from certmgr.revocation import revoke
from certmgr.service import AuthorityService
from certmgr.store import StoreUnavailable
from kube import reconciler
from kube.client import resource
from mesh import names
from mesh.errors import UserError
from tests.certmgr.kubernetes.authority import issue, parts_of, serving
from tests.certmgr.kubernetes.test_token_review import requested, status, token
from tests.kube.places import Where
from tests.kube.rig import beside, run, until, utc_now


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "_LOOK_SECONDS", 0.05)


def test_the_parts_are_those_of_one_cluster_and_the_others_only_where_asked_for(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            async with parts_of(place, "pod-1") as parts:
                assert parts.replica == "pod-1"
                assert not parts.is_leader()
                assert len(parts.chores) == 2
            async with parts_of(place, "pod-1", service_secrets=True) as parts:
                assert len(parts.chores) == 3
            async with parts_of(place, "pod-1", service_secrets=True, webhook_name=names.WEBHOOK_NAME) as parts:
                assert len(parts.chores) == 4

    run(main())


def test_without_an_authority_in_the_cluster_nothing_is_served(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place, parts_of(place, "pod-1") as parts:
            with pytest.raises(UserError, match="there is no authority yet"):
                await AuthorityService.open(parts, now=utc_now)

    run(main())


def test_a_configuration_that_cannot_be_used_is_the_user_s_to_mend(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(UserError, match="does not exist; give a kubeconfig"):
            async with cluster_store(str(tmp_path / "absent")):
                pass

    run(main())


def test_two_replicas_serve_one_authority_and_one_of_them_leads(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            namespace = await place.new_namespace(qbitel_injection="enabled")
            async with serving(place, "pod-1") as one, serving(place, "pod-2") as two:
                await until(lambda: one.parts.is_leader() or two.parts.is_leader())
                assert not (one.parts.is_leader() and two.parts.is_leader())
                while await place.find("configmaps", namespace, names.ROOTS_CONFIG_MAP) is None:
                    await asyncio.sleep(0.02)
                # What is revoked by one is published by both.
                web = "spiffe://cluster.local/ns/shop/sa/web"
                await one.change(lambda state: revoke(state, 7, utc_now(), identity=web))
                await until(lambda: two.bundle().etag == one.bundle().etag)

    run(main())


def test_a_service_account_s_token_becomes_its_certificate(real: Where) -> None:
    async def main() -> None:
        async with real() as place:
            accounts = resource("serviceaccounts", namespace=place.namespace)
            await place.cluster.create(accounts, {"metadata": {"name": "web"}})
            async with serving(place, "pod-1") as service:
                issued = await issue(service, await requested(place, "web", names.TOKEN_AUDIENCE))
                assert str(spiffe_id_of(issued.certificate)).endswith(f"/ns/{place.namespace}/sa/web")
                assert await service.parts.store.names() == ["authority", "peers-pod-1"]

    run(main())


def test_while_the_api_server_is_away_nothing_is_issued_and_afterwards_all_goes_on_by_itself(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            server = place.stand_in
            server.review = lambda _token: status()
            namespace = await place.new_namespace(qbitel_injection="enabled")
            async with serving(place, "pod-1") as service:
                await issue(service, token("before"))
                await until(lambda: ("configmaps", namespace, names.ROOTS_CONFIG_MAP) in server.objects)
                await server.stop()
                with pytest.raises(Refused) as refused:
                    await issue(service, token("meanwhile"))
                assert (refused.value.reason, refused.value.reason.status) == (Reason.VERIFIER_UNAVAILABLE, 503)
                assert refused.value.retry_after
                # A token that was good a moment ago does not help: what cannot be written down does not happen.
                with pytest.raises(StoreUnavailable):
                    await issue(service, token("before"))
                assert service.bundle().files  # what is known is published on
                server.remove("configmaps", namespace, names.ROOTS_CONFIG_MAP)
                server.forget()
                await server.start()
                while True:
                    with contextlib.suppress(Refused, StoreUnavailable):
                        await issue(service, token("after"))
                        break
                    await asyncio.sleep(0.05)
                await until(lambda: ("configmaps", namespace, names.ROOTS_CONFIG_MAP) in server.objects)

    run(main())


def test_the_election_is_among_the_chores(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place, parts_of(place, "pod-1") as parts:
            assert not parts.is_leader()
            async with beside(parts.chores[0](None)):  # type: ignore[arg-type]
                await until(parts.is_leader)

    run(main())
