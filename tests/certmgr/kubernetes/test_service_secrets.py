"""Secrets for annotated service accounts, with a real authority: made, rotated, healed, and others' left alone."""

from __future__ import annotations

import asyncio
import base64
import datetime
import logging
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certmgr import rotation
from certmgr.authority import spiffe_id_of
from certmgr.founding import make_generation
from certmgr.kem import kem_public_key
from certmgr.kubernetes import service_secrets
from certmgr.kubernetes.held_secrets import PROPAGATION
from certmgr.kubernetes.service_secrets import ServiceSecrets, instance_of
from certmgr.peers import check_instance
from certmgr.revocation import revoke
from certmgr.service import AuthorityService
from certmgr.state import Phase
from kube import reconciler
from kube.client import resource
from pqtls import PROFILES, TrustAnchors
from pqtls.certificates import Purpose, validate_chain
from tests.certmgr.kubernetes.authority import Calendar, opened
from tests.kube.places import Where
from tests.kube.rig import Place, beside, run, utc_now


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(reconciler, "_REVIEW_SECONDS", 0.05)


async def annotate(place: Place, namespace: str, name: str, **annotations: str | None) -> Any:
    """Make a service account, or change its annotations."""
    wanted = {f"qbitel.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    accounts = resource("serviceaccounts", namespace=namespace)
    if await place.find("serviceaccounts", namespace, name):
        return await place.cluster.patch(f"{accounts}/{name}", {"metadata": {"annotations": wanted}})
    return await place.cluster.create(
        accounts, {"metadata": {"namespace": namespace, "name": name, "annotations": wanted}}
    )


async def secret_where(place: Place, namespace: str, name: str, wanted: Callable[[Any], Any]) -> Any:
    """Wait for a Secret of which `wanted` is true."""
    while True:
        found = await place.find("secrets", namespace, name)
        if found and wanted(found):
            return found
        await asyncio.sleep(0.02)


def whole(secret: Any) -> bool:
    return bool(secret.get("data")) and len(secret["data"]) == 5


def file_of(secret: Any, name: str) -> bytes:
    return base64.b64decode(secret["data"][name])


def leaf_of(secret: Any) -> x509.Certificate:
    return x509.load_pem_x509_certificates(file_of(secret, "tls.crt"))[0]


def chore(place: Place, now: Any = utc_now) -> ServiceSecrets:
    return ServiceSecrets(place.cluster, lambda: True, now=now)


def accepted(service: AuthorityService, secret: Any, now: datetime.datetime) -> str:
    """The identity that a peer with the Secret's own roots finds in its chain."""
    trust = TrustAnchors.from_pem(file_of(secret, "ca.crt"))
    chain = x509.load_pem_x509_certificates(file_of(secret, "tls.crt"))
    ders = tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in chain)
    return validate_chain(ders, trust, Purpose.SERVER, now, PROFILES["qbitel"].signature_schemes).identity


def test_an_annotated_service_account_gets_a_secret_that_a_workload_can_use(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            service = await opened(place, utc_now)
            account = await annotate(
                place, place.namespace, "web", certificate_secret="web-tls", dns_names=f"web.{place.namespace}.svc"
            )
            async with beside(chore(place).run(service)):
                secret = await secret_where(place, place.namespace, "web-tls", whole)
            identity = f"spiffe://cluster.local/ns/{place.namespace}/sa/web"
            assert secret["type"] == "kubernetes.io/tls"
            assert accepted(service, secret, utc_now()) == identity
            names = leaf_of(secret).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.DNSName) == [f"web.{place.namespace}.svc"]
            life = leaf_of(secret).not_valid_after_utc - leaf_of(secret).not_valid_before_utc
            assert life >= datetime.timedelta(days=90)
            key = serialization.load_pem_private_key(file_of(secret, "tls.key"), None)
            assert key.public_key() == leaf_of(secret).public_key()
            kem = x509.load_pem_x509_certificate(file_of(secret, "kem.crt"))
            kem_key: Any = serialization.load_pem_private_key(file_of(secret, "kem.key"), None)
            assert kem_key.public_key() == kem_public_key(kem)
            assert str(spiffe_id_of(kem)) == identity
            assert file_of(secret, "ca.crt") == service.bundle().files["ca.crt"]
            (owner,) = secret["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["uid"]) == ("ServiceAccount", account["metadata"]["uid"])
            peer = await service.ledger.find(identity, f"secret:{place.namespace}/web-tls", "")
            assert peer is not None

    run(main())


def test_it_is_made_anew_when_it_is_edited_deleted_or_something_else_is_wished_for(where: Where) -> None:
    async def main() -> None:
        async with where() as place:
            service = await opened(place, utc_now)
            namespace = place.namespace
            path = resource("secrets", namespace=namespace, name="web-tls")
            await annotate(place, namespace, "web", certificate_secret="web-tls")
            async with beside(chore(place).run(service)):
                first = await secret_where(place, namespace, "web-tls", whole)

                def another(than: Any) -> Callable[[Any], bool]:
                    return lambda found: whole(found) and leaf_of(found) != leaf_of(than)

                await place.cluster.patch(path, {"data": {"tls.key": "QUFB", "theirs": "QUFB"}})
                second = await secret_where(place, namespace, "web-tls", lambda found: leaf_of(found) != leaf_of(first))
                assert file_of(second, "theirs") == b"AAA"
                await place.cluster.delete(path, {})
                third = await secret_where(place, namespace, "web-tls", another(second))
                await annotate(place, namespace, "web", dns_names=f"web.{namespace}.svc")
                await secret_where(place, namespace, "web-tls", another(third))

    run(main())


def test_a_secret_of_that_name_that_is_not_ours_is_never_touched(
    where: Where, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with where() as place:
            service = await opened(place, utc_now)
            namespace = place.namespace
            body = {"metadata": {"name": "theirs", "namespace": namespace}, "data": {"tls.crt": "QUFB"}}
            theirs = await place.cluster.create(resource("secrets", namespace=namespace), body)
            await annotate(place, namespace, "a-first", certificate_secret="theirs")
            await annotate(place, namespace, "web", certificate_secret="web-tls")
            async with beside(chore(place).run(service)):
                await secret_where(place, namespace, "web-tls", whole)
                # Steps are taken in order of names: theirs came first, and nothing was certified for it.
                assert await place.find("secrets", namespace, "theirs") == theirs
                assert (
                    await service.ledger.find(
                        f"spiffe://cluster.local/ns/{namespace}/sa/a-first", f"secret:{namespace}/theirs", ""
                    )
                    is None
                )
            assert caplog.text.count("was not made by us") == 1

    run(main())


def test_nothing_is_certified_for_a_secret_that_cannot_be_written(
    where: Where, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with where() as place:
            calendar = Calendar()
            service = await opened(place, calendar)
            namespace = place.namespace
            journal: Any = service.parts.journal
            await annotate(place, namespace, "web", certificate_secret="tls")
            async with beside(chore(place, calendar).run(service)):
                first = await secret_where(place, namespace, "tls", whole)
                path = resource("secrets", namespace=namespace, name="tls")
                await place.cluster.patch(path, {"immutable": True})
                issued = len(journal.entries)
                calendar.move(days=61)
                await annotate(place, namespace, "zoo", certificate_secret="zoo")
                await secret_where(place, namespace, "zoo", whole)
                while "tls: renew its certificates failed" not in caplog.text:
                    await asyncio.sleep(0.02)
                assert leaf_of(await place.find("secrets", namespace, "tls")) == leaf_of(first)
            # In a real cluster, namespaces of other tests may still be on their way out.
            later = [entry["instance"] for entry in journal.entries[issued:]]
            assert [one for one in later if f":{namespace}/" in one] == [f"secret:{namespace}/zoo"] * 2

    run(main())


def test_a_namespace_whose_quota_is_used_up_costs_no_certificates(
    real: Where, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with real() as place:
            service = await opened(place, utc_now)
            full = await place.new_namespace()
            quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/secrets": "0"}}}
            await place.cluster.create(resource("resourcequotas", namespace=full), quota)
            while not (await place.find("resourcequotas", full, "none")).get("status", {}).get("hard"):
                await asyncio.sleep(0.05)
            await annotate(place, full, "web", certificate_secret="tls")
            async with beside(chore(place).run(service)):
                while "exceeded quota" not in caplog.text:
                    await asyncio.sleep(0.02)
            journal: Any = service.parts.journal
            assert not [entry for entry in journal.entries if full in entry["instance"]]

    run(main())


def test_of_two_that_want_one_secret_whoever_has_it_keeps_it(fake: Where, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with fake() as place:
            service = await opened(place, utc_now)
            await annotate(place, "shop", "web", certificate_secret="tls")
            async with beside(chore(place).run(service)):
                first = await secret_where(place, "shop", "tls", whole)
                await annotate(place, "shop", "api", certificate_secret="tls")
                await annotate(place, "shop", "zoo", certificate_secret="zoo")
                await secret_where(place, "shop", "zoo", whole)
                assert leaf_of(await place.find("secrets", "shop", "tls")) == leaf_of(first)
                # It goes on to the other when the first no longer wants it.
                await annotate(place, "shop", "web", certificate_secret=None)
                await secret_where(
                    place, "shop", "tls", lambda found: spiffe_id_of(leaf_of(found)).segments[-1] == "api"
                )

    run(main())
    assert caplog.text.count("shop/tls: more than one service account wants this Secret") == 1


def test_it_is_rotated_inside_the_threshold_and_when_it_is_revoked(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            calendar = Calendar()
            service = await opened(place, calendar)
            await annotate(place, "shop", "web", certificate_secret="tls")
            async with beside(chore(place, calendar).run(service)):
                first = await secret_where(place, "shop", "tls", whole)
                calendar.move(days=61)
                second = await secret_where(place, "shop", "tls", lambda found: leaf_of(found) != leaf_of(first))
                assert leaf_of(second).not_valid_after_utc > leaf_of(first).not_valid_after_utc
                await service.change(lambda state: revoke(state, leaf_of(second), calendar()))
                third = await secret_where(place, "shop", "tls", lambda found: leaf_of(found) != leaf_of(second))
                assert not service.is_revoked(leaf_of(third))

    run(main())


def test_a_secret_goes_through_the_rotation_of_the_root_without_a_moment_that_breaks_it(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            calendar = Calendar()
            service = await opened(place, calendar)
            await annotate(place, "shop", "web", certificate_secret="tls")
            identity = "spiffe://cluster.local/ns/shop/sa/web"
            async with beside(chore(place, calendar).run(service)):
                first = await secret_where(place, "shop", "tls", whole)
                new = make_generation("CN=Next root", calendar())
                await service.change(lambda state: rotation.start(state, new, calendar()))
                both = await secret_where(
                    place, "shop", "tls", lambda found: file_of(found, "ca.crt") == service.bundle().files["ca.crt"]
                )
                assert leaf_of(both) == leaf_of(first)
                calendar.move(minutes=2)

                async def advance() -> None:
                    peers = await service.ledger.everyone()
                    now = calendar()
                    await service.change(lambda state: rotation.advance(state, peers, now))

                async def advance_when_it_may_be() -> None:
                    while True:
                        try:
                            return await advance()
                        except rotation.StepRefused:
                            await asyncio.sleep(0.02)

                # A kubelet may not have brought the roots to the pods yet: it counts as one that knows them not.
                with pytest.raises(rotation.StepRefused, match="shop/sa/web"):
                    await advance()
                calendar.move(minutes=PROPAGATION.total_seconds() / 60)
                await advance_when_it_may_be()
                assert service.state.phase is Phase.SIGNING
                last = await secret_where(place, "shop", "tls", lambda found: leaf_of(found) != leaf_of(first))
                # Peers that trust the old root alone do not exist any more; those that trust both accept either.
                for secret in (first, last):
                    assert (
                        accepted(
                            service,
                            {**secret, "data": {**secret["data"], "ca.crt": last["data"]["ca.crt"]}},
                            calendar(),
                        )
                        == identity
                    )
                calendar.move(minutes=10)
                await advance_when_it_may_be()
                assert service.state.phase is Phase.STABLE
                await secret_where(
                    place, "shop", "tls", lambda found: file_of(found, "ca.crt") == service.bundle().files["ca.crt"]
                )

    run(main())


def test_two_replicas_with_one_leader_make_one_certificate(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            service = await opened(place, utc_now)
            follower = ServiceSecrets(place.cluster, lambda: False, now=utc_now)
            await annotate(place, "shop", "web", certificate_secret="tls")
            async with beside(chore(place).run(service), follower.run(service)):
                await secret_where(place, "shop", "tls", whole)
                await annotate(place, "shop", "zoo", certificate_secret="zoo")
                await secret_where(place, "shop", "zoo", whole)
            journal: Any = service.parts.journal
            issued = [entry["identity"] for entry in journal.entries if entry["event"] == "issued"]
            # Two certificates each, for identity and for sealing.
            assert sorted(identity.rpartition("/")[2] for identity in issued) == ["web", "web", "zoo", "zoo"]

    run(main())


def test_a_wish_that_may_not_be_had_keeps_no_other_from_being_granted(
    fake: Where, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def main() -> None:
        async with fake() as place:
            service = await opened(place, utc_now)
            await annotate(place, "shop", "greedy", certificate_secret="greedy", dns_names="bank.other.svc")
            await annotate(place, "shop", "web", certificate_secret="tls")
            async with beside(chore(place).run(service)):
                await secret_where(place, "shop", "tls", whole)
            assert await place.find("secrets", "shop", "greedy") is None

    run(main())
    assert "'bank.other.svc' in qbitel.io/dns-names is not of its own namespace" in caplog.text


@pytest.mark.parametrize("name", ["web-tls", "a" * 56, "a" * 57, "a" * 253])
def test_an_instance_s_name_fits_whatever_the_secret_is_called(name: str) -> None:
    instance = check_instance(instance_of(("n" * 63, name)))

    assert instance.startswith("secret:" + "n" * 63 + "/")
    assert instance != instance_of(("n" * 63, name[:-1] + "b"))


def test_what_is_in_order_is_not_judged_again_before_something_changes_or_its_time_comes(
    fake: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    judge = service_secrets.task_for

    def counted(wish: Any, *facts: Any, **more: Any) -> Any:
        judged.append(wish.secret)
        return judge(wish, *facts, **more)

    monkeypatch.setattr(service_secrets, "task_for", counted)

    async def main() -> None:
        async with fake() as place:
            calendar = Calendar()
            service = await opened(place, calendar)
            for name in ("web", "zoo"):
                await annotate(place, "shop", name, certificate_secret=name)
            made = chore(place, calendar)
            async with beside(made.run(service)):
                for name in ("web", "zoo"):
                    await secret_where(place, "shop", name, whole)
                while len(made._settled) < 2:
                    await asyncio.sleep(0.01)
                judged.clear()
                for _ in range(20):
                    await made._plan()
                assert judged == []
                await annotate(place, "shop", "web", dns_names="web.shop.svc")
                while "web" not in judged:
                    await asyncio.sleep(0.01)
                assert "zoo" not in judged
                calendar.move(minutes=PROPAGATION.total_seconds() / 60 + 1)
                while "zoo" not in judged:
                    await asyncio.sleep(0.01)
                while len(made._settled) < 2:
                    await asyncio.sleep(0.01)
                zoo = await place.find("secrets", "shop", "zoo")
                await service.change(lambda state: revoke(state, leaf_of(zoo), calendar()))
                await secret_where(place, "shop", "zoo", lambda found: leaf_of(found) != leaf_of(zoo))

    run(main())
