"""The webhook's certificate in a cluster: made, renewed in the right order, healed, and others' left alone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cryptography import x509

from certmgr.kubernetes import webhook_certificates
from certmgr.kubernetes.webhook_certificates import WebhookCertificates, present_of, registration_of
from certmgr.store import StoreUnavailable
from certmgr.webhook_certificate import OVERLAP, VALIDITY, issue, names_of, pem, read
from injector.webhook_configuration import IstioSidecarInjector
from kube import reconciler
from kube.client import ApiRefused, resource
from mesh import names
from tests.certmgr.kubernetes.authority import Calendar, Notebook
from tests.kube.places import Where
from tests.kube.rig import Place, beside, run, utc_now

ADMISSION = "apis/admissionregistration.k8s.io/v1"
AUTHORITY: Any = None  # the chore asks nothing of the mesh's own authority


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(reconciler, "_REVIEW_SECONDS", 0.05)
    monkeypatch.setattr(webhook_certificates, "TAKE_UP_SECONDS", 0.0)


@pytest.fixture
def take_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """API servers are given their time, by a clock that is moved by hand."""
    monkeypatch.setattr(webhook_certificates, "TAKE_UP_SECONDS", 20.0)


def webhook_of(place: Place) -> str:
    """The webhook's name in this place: configurations belong to the whole cluster."""
    return f"{names.WEBHOOK_NAME}-{place.namespace}"


def configuration_path(place: Place) -> str:
    return resource("mutatingwebhookconfigurations", name=webhook_of(place), api=ADMISSION)


@contextlib.asynccontextmanager
async def registered(place: Place, service_namespace: str | None = None) -> AsyncIterator[str]:
    """The webhook's configuration, without an authority in it and for no pod at all; its path."""
    made = IstioSidecarInjector(service_namespace or place.namespace, webhook_of(place)).create_webhook_configuration()
    for webhook in made["webhooks"]:
        webhook["objectSelector"] = {"matchLabels": {"qbitel-test": place.namespace}}
    await place.cluster.create(resource("mutatingwebhookconfigurations", api=ADMISSION), made)
    try:
        yield configuration_path(place)
    finally:
        with contextlib.suppress(ApiRefused):
            await place.cluster.delete(configuration_path(place), {})


class Watch:
    """A clock in seconds that is moved by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def passes(self) -> bool:
        self.time += 1.0
        return True


def chore(place: Place, now: Callable[[], datetime.datetime] = utc_now, **options: Any) -> WebhookCertificates:
    settings: dict[str, Any] = {"journal": Notebook(), **options}
    return WebhookCertificates(
        place.cluster,
        settings.pop("is_leader", lambda: True),
        namespace=place.namespace,
        now=now,
        webhook_name=webhook_of(place),
        **settings,
    )


async def secret_where(place: Place, wanted: Callable[[Any], Any]) -> Any:
    while True:
        found = await place.find("secrets", place.namespace, names.WEBHOOK_SECRET)
        if found and wanted(found):
            return found
        await asyncio.sleep(0.02)


def files_of(secret: Any) -> dict[str, bytes]:
    return {name: base64.b64decode(value) for name, value in secret["data"].items()}


def certificate_of(secret: Any) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files_of(secret)["tls.crt"])


def bundles_of(configuration: Any) -> list[bytes]:
    return [base64.b64decode(one["clientConfig"].get("caBundle") or "") for one in configuration["webhooks"]]


async def trusting(place: Place, roots: bytes) -> Any:
    """Wait until every webhook of the configuration has this caBundle."""
    while True:
        found = await place.cluster.get(configuration_path(place))
        if set(bundles_of(found)) == {roots}:
            return found
        await asyncio.sleep(0.02)


async def good(place: Place, now: datetime.datetime | None = None) -> Any:
    """Wait for a Secret that the API server would take, and that it trusts; return it."""
    name = names_of(webhook_of(place), place.namespace)[0]

    def is_good(secret: Any) -> bool:
        found = read(files_of(secret)) if secret.get("data") else None
        return found is not None and found.is_good(name, now or utc_now())

    secret = await secret_where(place, is_good)
    await trusting(place, files_of(secret)["ca.crt"])
    return secret


def test_the_certificate_is_made_and_the_api_server_is_told_whom_to_trust(where: Where) -> None:
    journal = Notebook()

    async def main() -> None:
        async with where() as place, beside(chore(place, journal=journal).run(AUTHORITY)):
            # Before there is a configuration: the Secret does not wait for it.
            secret = await secret_where(place, lambda found: len(found["data"]) == 3)
            assert secret["type"] == "kubernetes.io/tls"
            assert secret["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "qbitel"}
            async with registered(place):
                assert (await good(place))["metadata"]["uid"] == secret["metadata"]["uid"]
        (entry,) = journal.entries
        assert entry["event"] == "webhook certificate"
        assert entry["names"][0] == f"{webhook_of(place)}.{place.namespace}.svc"
        assert "PRIVATE" not in str(entry)

    run(main())


def test_an_authority_that_was_emptied_or_replaced_in_the_configuration_is_put_back(where: Where) -> None:
    async def main() -> None:
        async with where() as place, registered(place) as path, beside(chore(place).run(AUTHORITY)):
            secret = await good(place)
            for spoilt in ("", base64.b64encode(issue(("a",), utc_now()).files([])["tls.crt"]).decode(), None):
                found = await place.cluster.get(path)
                found["webhooks"][0]["clientConfig"]["caBundle"] = spoilt
                await place.cluster.patch(path, {"webhooks": found["webhooks"]})
                healed = await trusting(place, files_of(secret)["ca.crt"])
                # Everything else of the webhooks stays what it was.
                for one in (*found["webhooks"], *healed["webhooks"]):
                    one["clientConfig"].pop("caBundle", None)
                assert healed["webhooks"] == found["webhooks"]
            await place.cluster.delete(path, {})
            async with registered(place):
                assert (await good(place))["data"] == secret["data"]

    run(main())


def test_a_secret_that_was_deleted_or_damaged_is_made_anew_while_the_old_certificate_stays_trusted(
    where: Where,
) -> None:
    async def main() -> None:
        async with where() as place, registered(place), beside(chore(place).run(AUTHORITY)):
            secret = await good(place)
            path = resource("secrets", namespace=place.namespace, name=names.WEBHOOK_SECRET)
            for damage in (
                {"data": {"tls.crt": ""}},
                {"data": {"tls.key": "ZWRpdGVk"}},
                {"data": {"ca.crt": None}},
                None,
            ):
                before = certificate_of(secret)
                roots = files_of(secret)["ca.crt"]
                if damage is None:
                    await place.cluster.delete(path, {})
                else:
                    await place.cluster.patch(path, damage)
                await secret_where(place, lambda found, before=before: (
                    read(files_of(found)) is not None and certificate_of(found) != before
                ))  # fmt: skip
                secret = await good(place)
                # Injectors that run go on with the old one until the kubelet brings them the new one.
                assert roots.split(b"-----BEGIN")[1] in files_of(secret)["ca.crt"]

    run(main())


def test_others_annotations_of_the_secret_stay_and_an_immutable_one_is_made_anew(where: Where) -> None:
    async def main() -> None:
        async with where() as place, registered(place), beside(chore(place).run(AUTHORITY)):
            secret = await good(place)
            path = resource("secrets", namespace=place.namespace, name=names.WEBHOOK_SECRET)
            note = {"metadata": {"annotations": {"their": "note"}}}
            await place.cluster.patch(path, {**note, "data": {"tls.crt": ""}})
            secret = await good(place)
            assert secret["metadata"]["annotations"]["their"] == "note"

            await place.cluster.patch(path, {"data": {"tls.crt": "bm9uZQ=="}, "immutable": True})
            fresh = await good(place)
            assert fresh["metadata"]["uid"] != secret["metadata"]["uid"]

    run(main())


def test_the_next_certificate_is_served_only_when_the_api_server_has_had_time_to_trust_its_authority(
    where: Where, take_up: None
) -> None:
    calendar, watch = Calendar(), Watch()

    async def main() -> None:
        async with where() as place, registered(place) as path:
            parts: dict[str, Any] = {"now": calendar, "clock": watch}
            async with beside(chore(place, **parts).run(AUTHORITY)):
                secret = await good(place)
                (before,) = x509.load_pem_x509_certificates(files_of(secret)["ca.crt"])
                calendar.move(seconds=VALIDITY.total_seconds() / 2)
                while len(x509.load_pem_x509_certificates(bundles_of(await place.cluster.get(path))[0])) == 1:
                    await asyncio.sleep(0.02)
                bundle = bundles_of(await place.cluster.get(path))[0]
                following, still = x509.load_pem_x509_certificates(bundle)
                assert still == before

                async def stays() -> None:
                    for _ in range(20):
                        await asyncio.sleep(0.02)
                        found = await place.find("secrets", place.namespace, names.WEBHOOK_SECRET)
                        assert found["data"] == secret["data"]
                        assert bundles_of(await place.cluster.get(path)) == [bundle, bundle]

                await stays()
                watch.time += 19.0
                await stays()
                renewed = await secret_where(place, lambda found: watch.passes() and found["data"] != secret["data"])
                assert certificate_of(renewed).issuer == following.subject
                assert files_of(renewed)["ca.crt"] == bundle
                # When the old one can be in nobody's hands any more, its authority goes.
                calendar.move(seconds=OVERLAP.total_seconds() + 1)
                await trusting(place, pem([following]))
                await secret_where(place, lambda found: files_of(found)["ca.crt"] == pem([following]))

    run(main())


def test_the_time_to_take_it_up_begins_again_when_somebody_takes_the_authority_away(fake: Where, take_up: None) -> None:
    calendar, watch = Calendar(), Watch()

    async def main() -> None:
        parts: dict[str, Any] = {"now": calendar, "clock": watch}
        async with fake() as place, registered(place) as path, beside(chore(place, **parts).run(AUTHORITY)):
            secret = await good(place)
            calendar.move(seconds=VALIDITY.total_seconds() / 2)
            while len(bundles_of(await place.cluster.get(path))[0]) < 1000:
                await asyncio.sleep(0.02)
            bundle = bundles_of(await place.cluster.get(path))[0]
            found = await place.cluster.get(path)
            watch.time += 19.0
            found["webhooks"][1]["clientConfig"]["caBundle"] = ""
            await place.cluster.patch(path, {"webhooks": found["webhooks"]})
            await trusting(place, bundle)
            watch.time += 19.0
            for _ in range(10):
                await asyncio.sleep(0.02)
                assert (await place.find("secrets", place.namespace, names.WEBHOOK_SECRET)) == secret
            await secret_where(place, lambda found: watch.passes() and found["data"] != secret["data"])

    run(main())


def test_a_new_leader_goes_on_with_what_stands_and_finishes_a_renewal_that_was_left_half_done(
    where: Where, take_up: None
) -> None:
    calendar, watch = Calendar(), Watch()

    async def main() -> None:
        async with where() as place, registered(place) as path:
            async with beside(chore(place, calendar).run(AUTHORITY)):
                secret = await good(place)
            async with beside(chore(place, calendar, clock=watch).run(AUTHORITY)):
                calendar.move(seconds=VALIDITY.total_seconds() / 2)
                while len(bundles_of(await place.cluster.get(path))[0]) < 1000:
                    await asyncio.sleep(0.02)
                assert (await place.find("secrets", place.namespace, names.WEBHOOK_SECRET))["data"] == secret["data"]
            async with beside(chore(place, calendar, clock=watch).run(AUTHORITY)):
                renewed = await secret_where(place, lambda found: watch.passes() and found["data"] != secret["data"])
                await trusting(place, files_of(renewed)["ca.crt"])

    run(main())


def test_only_the_leader_makes_anything(fake: Where) -> None:
    leads = False

    async def main() -> None:
        nonlocal leads
        async with (
            fake() as place,
            registered(place) as path,
            beside(chore(place, is_leader=lambda: leads).run(AUTHORITY)),
        ):
            selected = f"fieldSelector=metadata.name%3D{webhook_of(place)}"
            watching = f"GET /{ADMISSION}/mutatingwebhookconfigurations?{selected}&watch"
            while not any(request.startswith(watching) for request in place.stand_in.requests):
                await asyncio.sleep(0.01)
            assert await place.find("secrets", place.namespace, names.WEBHOOK_SECRET) is None
            assert bundles_of(await place.cluster.get(path)) == [b"", b""]
            leads = True
            await good(place)

    run(main())


def test_a_secret_of_that_name_that_is_not_ours_keeps_its_configuration_to_itself(
    where: Where, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def main() -> None:
        async with where() as place, registered(place) as path:
            secrets = resource("secrets", namespace=place.namespace)
            body = {"metadata": {"name": names.WEBHOOK_SECRET}, "data": {"tls.crt": "dGhlaXJz"}}
            await place.cluster.create(
                secrets, {**body, "metadata": {**body["metadata"], "namespace": place.namespace}}
            )
            async with beside(chore(place).run(AUTHORITY)):
                while "is not ours" not in caplog.text:
                    await asyncio.sleep(0.02)
                found = await place.cluster.get(f"{secrets}/{names.WEBHOOK_SECRET}")
                assert found["data"] == {"tls.crt": "dGhlaXJz"}
                assert bundles_of(await place.cluster.get(path)) == [b"", b""]
                # When its owner gives the name up, ours takes its place.
                await place.cluster.delete(f"{secrets}/{names.WEBHOOK_SECRET}", {})
                await good(place)

    run(main())
    assert caplog.text.count("is not ours") == 1


def test_a_webhook_that_leads_into_another_namespace_is_left_alone(where: Where) -> None:
    async def main() -> None:
        async with where() as place, registered(place, "elsewhere") as path:
            found = await place.cluster.get(path)
            found["webhooks"][1]["clientConfig"]["service"]["namespace"] = place.namespace
            await place.cluster.patch(path, {"webhooks": found["webhooks"]})
            async with beside(chore(place).run(AUTHORITY)):
                secret = await secret_where(place, lambda found: len(found["data"]) == 3)
                roots = files_of(secret)["ca.crt"]
                while bundles_of(await place.cluster.get(path))[1] != roots:
                    await asyncio.sleep(0.02)
                assert bundles_of(await place.cluster.get(path)) == [b"", roots]

    run(main())


def test_what_cannot_be_written_down_is_not_handed_out(fake: Where) -> None:
    class Full(Notebook):
        async def append(self, entry: Any) -> None:
            if len(self.entries) < 1:
                self.entries.append(None)
                raise StoreUnavailable("no space left on device")
            await super().append(entry)

    journal = Full()

    async def main() -> None:
        async with fake() as place, registered(place), beside(chore(place, journal=journal).run(AUTHORITY)):
            while not journal.entries:
                await asyncio.sleep(0.01)
            assert await place.find("secrets", place.namespace, names.WEBHOOK_SECRET) is None
            await good(place)  # it is tried again

    run(main())
    assert len(journal.entries) == 2


def test_an_api_server_that_goes_away_and_forgets_is_no_end_of_it(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place, registered(place), beside(chore(place).run(AUTHORITY)):
            await good(place)
            server = place.stand_in
            await server.stop()
            server.remove("secrets", place.namespace, names.WEBHOOK_SECRET)
            server.forget()
            await server.start()
            await good(place)

    run(main())


@pytest.mark.parametrize(
    "data", [None, {}, {"tls.crt": None}, {"tls.crt": "%"}, {"tls.crt": "é"}, {"tls.crt": "A"}, {"ca.crt": ""}]
)
def test_whatever_stands_in_the_secret_is_no_error(data: Any) -> None:
    metadata = {"resourceVersion": "7", "uid": "u"}
    found = present_of({"metadata": metadata, "data": data, "type": "kubernetes.io/tls"})

    assert (found.held, found.is_ours, found.is_fixed) == (None, False, False)
    assert present_of({"metadata": metadata, "type": "Opaque"}).is_fixed
    assert "PRIVATE" not in repr(found)


def test_a_configuration_without_webhooks_is_none_to_tell() -> None:
    assert registration_of({"metadata": {"resourceVersion": "7"}}).webhooks == ()
    assert registration_of({"metadata": {"resourceVersion": "7"}, "webhooks": None}).webhooks == ()
