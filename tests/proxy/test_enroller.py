"""The life of an enrolled worker, hours of it, in simulated time: what is asked when, what is kept, what is said."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
import logging

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mesh.anchors import anchors_of
from pqtls import PROFILES
from proxy.answers import AuthorityFailed, Failure, Issued, News, Published
from proxy.config import Endpoint, EnrolmentConfig, TrustFiles
from proxy.credentials import TlsSettings, TrustPem
from proxy.enrolled_credentials import EnrolledCredentials
from proxy.enroller import Enroller
from proxy.identity import IdentityRule
from tests.proxy.little_authority import Generation, LittleAuthority, utc_now
from tests.proxy.virtual_time import VirtualTime

HOUR = datetime.timedelta(hours=1)
MINUTE = datetime.timedelta(minutes=1)
DOMAIN = frozenset({"cluster.local"})


class Client:
    """The authority without its sockets. While `failing` is set, each request fails with it."""

    def __init__(self, time: VirtualTime) -> None:
        self.time = time
        self.authority = LittleAuthority(time.now)
        self.failing: AuthorityFailed | None = None
        self.name = "web"
        self.asked: list[tuple[datetime.datetime, str]] = []
        self.anchors: list[str] = []
        self.tries: list[datetime.datetime] = []
        self.acknowledged: list[str] = []
        self.polled_as: list[bool] = []
        self.closed = 0
        self.holds = 30.0  # seconds that an answer waits for news
        self.refuses_certificates = False
        self.answer_with: bytes | None = None
        self.news = asyncio.Event()

    async def request_certificate(self, csr, *, instance, anchors, now, credential=None, authorization=""):
        self.tries.append(self.time.now())
        self._fail()
        if credential is not None and self.refuses_certificates:
            raise AuthorityFailed(Failure.REFUSED, "revoked: not this one", of_certificate=True)
        self.asked.append((self.time.now(), authorization or credential.identity))
        self.anchors.append(anchors)
        leaf = self.authority.sign(x509.load_pem_x509_csr(csr).public_key(), self.name)
        chain = leaf.public_bytes(Encoding.PEM) + self.authority.signer.intermediate.certificate_pem
        return Issued(self.answer_with or chain, self.authority.signer.name, self.published())

    async def acknowledge(self, anchors, *, instance, credential):
        self._fail()
        self.acknowledged.append(anchors)

    def published(self) -> Published:
        bundle = self.authority.bundle()
        pem = {name: content.encode() for name, content in bundle["files"].items()}
        trust = TrustPem(pem["ca.crt"], pem["intermediates.crt"], pem.get("crl.pem", b""))
        return Published(trust, bundle["etag"], bundle["generation"], bundle["round"])

    async def next_bundle(self, etag, credential) -> News:
        self.polled_as.append(credential is not None)
        self._fail()
        if self.authority.etag == etag:
            self.news.clear()
            waits = [asyncio.ensure_future(self.news.wait()), asyncio.ensure_future(self.time.sleep(self.holds))]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        self._fail()
        return News(None if self.authority.etag == etag else self.published())

    async def close(self) -> None:
        self.closed += 1

    def _fail(self) -> None:
        if self.failing is not None:
            raise self.failing


class Counts:
    def __init__(self) -> None:
        self.rotations: list[str] = []
        self.is_reachable: bool | None = None
        self.last_success: datetime.datetime | None = None

    def rotation(self, result):
        self.rotations.append(result)

    def succeeded_at(self, now):
        self.last_success = now

    def reachable(self, yes):
        self.is_reachable = yes


class Life:
    """One enroller with all that it touches. `spent` lets time pass while it runs."""

    def __init__(self, folder) -> None:
        self.time = VirtualTime(utc_now())
        self.start = self.time.now()
        self.client = Client(self.time)
        self.counts = Counts()
        (folder / "token").write_text("web-token")
        config = EnrolmentConfig(
            authority=Endpoint("authority.example", 15012),
            roots=TrustFiles.in_folder(self.client.authority.write_roots(folder)),
            token=folder / "token",
            instance="pod",
        )
        settings = TlsSettings(
            profiles=(PROFILES["qbitel"],), accept_identity=IdentityRule(DOMAIN, frozenset()), now=self.time.now
        )
        self.credentials = EnrolledCredentials(config, settings, DOMAIN)
        self.enroller = Enroller(
            config, "pod/0", self.credentials, self.client, self.counts,
            now=self.time.now, random=lambda: 0.5, sleep=self.time.sleep,
        )  # fmt: skip

    async def spend(self, span: datetime.timedelta) -> None:
        await self.time.pass_until(self.time.now() + span)

    @contextlib.asynccontextmanager
    async def lived(self):
        task = asyncio.create_task(self.enroller.run())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def live(run, tmp_path):
    """Run a coroutine function of a Life."""

    def go(story):
        async def main():
            async with Life(tmp_path).lived() as life:
                await story(life)

        run(main(), patience=120)

    return go


def unreachable() -> AuthorityFailed:
    return AuthorityFailed(Failure.UNREACHABLE, "the authority cannot be reached: Connection refused")


def test_it_enrols_by_token_and_renews_by_certificate_before_half_of_its_life(live):
    async def story(life):
        life.client.holds = 900.0
        await life.spend(MINUTE)
        assert life.enroller.enrolled.is_set()
        await life.spend(24 * HOUR)
        (first, by_token), (second, by_certificate), *_ = life.client.asked
        assert (by_token, by_certificate) == ("Bearer web-token", "spiffe://cluster.local/ns/default/sa/web")
        assert 9.6 * HOUR <= second - first <= 12 * HOUR
        assert life.counts.rotations == ["ok"] * len(life.client.asked)
        assert life.counts.is_reachable
        assert life.client.anchors[:2] == ["", life.client.authority.anchors]

    live(story)


def test_an_authority_that_is_away_for_twelve_hours_costs_nothing(live, caplog):
    caplog.set_level(logging.INFO)

    async def story(life):
        await life.spend(MINUTE)
        first = life.credentials.current.credential
        life.client.failing = unreachable()
        while life.time.now() - life.start < 12 * HOUR:
            await life.spend(MINUTE)
            assert life.enroller.is_usable
            assert life.credentials.current.credential is first
        assert not life.counts.is_reachable
        tries = life.client.tries[1:]
        assert tries, "it did not try while there was time"
        gaps = [(b - a) / MINUTE for a, b in itertools.pairwise(tries)]
        assert max(gaps) <= 5.1
        life.client.failing = None
        await life.spend(6 * MINUTE)
        assert life.credentials.current.credential is not first
        assert life.counts.rotations[-1] == "ok"
        assert life.counts.is_reachable

    live(story)
    said = [record.getMessage() for record in caplog.records]
    assert sum(line.startswith("no certificate came") for line in said) == 1
    assert said.count("certificates come again") == 1
    assert sum(line.startswith("revocations and roots are not followed") for line in said) == 1
    assert said.count("revocations and roots are followed again") == 1


def test_a_certificate_that_ends_is_kept_said_once_and_replaced_by_token(live, caplog):
    async def story(life):
        await life.spend(MINUTE)
        life.client.failing = unreachable()
        for _ in range(25):
            await life.spend(HOUR)
            life.enroller.tell_of_end()
        assert not life.enroller.is_usable
        assert life.credentials.current.credential is not None
        life.client.failing = None
        await life.spend(6 * MINUTE)
        life.enroller.tell_of_end()
        assert life.enroller.is_usable
        assert life.client.asked[-1][1] == "Bearer web-token", "an expired certificate proves nothing"

    live(story)
    assert caplog.text.count("our certificate ended at") == 1


def test_a_certificate_that_the_authority_does_not_take_is_followed_by_the_token(live, tmp_path):
    async def story(life):
        await life.spend(MINUTE)
        life.client.refuses_certificates = True
        life.enroller.renew_now()
        await life.spend(MINUTE)
        assert [proof for _, proof in life.client.asked] == ["Bearer web-token"] * 2
        (tmp_path / "token").unlink()
        life.enroller.renew_now()
        await life.spend(MINUTE)
        assert life.counts.rotations[-1] == "refused"
        assert life.enroller.is_usable

    live(story)


def test_another_generation_that_signs_brings_the_renewal_forward_within_minutes(live):
    async def story(life):
        await life.spend(HOUR)
        old, new = life.client.authority.generations[0], Generation("second")
        life.client.authority.generations = [old, new]
        life.client.authority.round += 1
        life.client.news.set()
        await life.spend(MINUTE)
        assert life.client.acknowledged[-1] == life.client.authority.anchors
        assert len(life.client.asked) == 1, "a root that is published alone is no reason to renew"
        life.client.authority.signer = new
        life.client.news.set()
        await life.spend(6 * MINUTE)
        assert len(life.client.asked) == 2
        life.client.authority.generations = [new]
        life.client.news.set()
        await life.spend(MINUTE)
        assert life.client.acknowledged[-1] == life.client.authority.anchors
        assert len(life.credentials.current.trust.roots) == 1
        assert len(life.client.asked) == 2

    live(story)


def test_roots_are_acknowledged_only_once_connections_use_them_and_until_it_is_heard(live):
    async def story(life):
        used_at_acknowledgement = []
        acknowledge = life.client.acknowledge

        async def noting(anchors, **more):
            used_at_acknowledgement.append((anchors, life.credentials.current.mesh_server.trust.roots))
            await acknowledge(anchors, **more)

        life.client.acknowledge = noting
        await life.spend(MINUTE)
        life.client.authority.generations = [life.client.authority.generations[0], Generation("second")]
        await life.spend(MINUTE)
        anchors, roots = used_at_acknowledgement[-1]
        assert anchors == life.client.authority.anchors
        assert len(roots) == 2
        assert life.client.acknowledged.count(anchors) == 1
        # Now one that is not heard: the news come all the same, and it is said again until it is.
        heard = len(life.client.acknowledged)
        life.client.acknowledge = refuse
        life.client.authority.generations = [*life.client.authority.generations, Generation("third")]
        await life.spend(MINUTE)
        assert len(life.credentials.current.trust.roots) == 3
        life.client.acknowledge = acknowledge
        await life.spend(6 * MINUTE)
        assert life.client.acknowledged[heard:] == [life.client.authority.anchors]

    async def refuse(*_args, **_more):
        raise unreachable()

    live(story)


def test_a_new_certificate_is_acknowledged_at_once_and_followed_with_though_news_are_waited_for(live):
    async def story(life):
        life.client.holds = 3600.0
        await life.spend(MINUTE)
        assert len(life.client.acknowledged) == len(life.client.polled_as) == 1
        life.enroller.renew_now()
        await life.spend(datetime.timedelta(seconds=5))
        assert len(life.client.asked) == len(life.client.acknowledged) == len(life.client.polled_as) == 2

    live(story)


def test_what_is_acknowledged_is_what_we_trust_and_not_what_the_authority_calls_it(live):
    async def story(life):
        await life.spend(MINUTE)
        trusted = life.credentials.current.trust
        (root,) = [one.public_bytes(Encoding.DER) for one in trusted.roots]
        assert life.client.acknowledged == [anchors_of(0, [root])]

    live(story)


def test_news_of_an_earlier_round_are_not_taken_and_asked_for_elsewhere(live, caplog):
    """A replica that has not heard of a rotation must not take the next root from us, which we have acknowledged."""

    async def story(life):
        authority = life.client.authority
        old, new = authority.generations[0], Generation("second")
        authority.generations, authority.round = [old, new], 4
        await life.spend(MINUTE)
        both = life.credentials.anchors
        assert life.client.acknowledged[-1] == both
        closed = life.client.closed
        authority.generations, authority.round = [old], 3
        life.client.news.set()
        await life.spend(MINUTE)
        assert life.client.closed > closed
        life.enroller.renew_now()
        await life.spend(MINUTE)
        assert life.counts.rotations[-1] == "invalid"
        assert life.credentials.anchors == both
        assert len(life.credentials.current.trust.roots) == 2
        authority.round = 5
        await life.spend(6 * MINUTE)
        assert len(life.credentials.current.trust.roots) == 1
        assert life.client.acknowledged[-1] == authority.anchors

    live(story)
    assert caplog.text.count("it is of round 3 of its roots, and round 4 is in use already") == 2  # news, certificate


def test_a_key_is_asked_a_certificate_for_until_one_comes_and_then_never_again(live):
    """A one-time token may have been spent for it: for a while the authority takes it again, from this key alone."""
    keys = []

    async def story(life):
        request_certificate = life.client.request_certificate

        async def noting(csr, **more):
            keys.append(x509.load_pem_x509_csr(csr).public_key())
            return await request_certificate(csr, **more)

        life.client.request_certificate = noting
        life.client.failing = unreachable()
        await life.spend(5 * MINUTE)
        lost = len(keys)
        assert lost > 2
        life.client.failing = None
        await life.spend(6 * MINUTE)
        assert len(keys) == lost + 1
        life.enroller.renew_now()
        await life.spend(MINUTE)
        assert len(set(map(raw, keys))) == 2

    def raw(key):
        return key.public_bytes_raw()

    live(story)
    assert raw(keys[-1]) != raw(keys[-2]) == raw(keys[0])


def test_a_revocation_is_in_use_within_seconds_and_our_own_is_followed_by_a_new_certificate(live):
    async def story(life):
        await life.spend(MINUTE)
        own = life.credentials.current.credential
        life.client.authority.revoked.append(life.client.authority.generations[0].root.certificate)
        life.client.news.set()
        await life.spend(datetime.timedelta(seconds=3))
        assert len(life.credentials.current.trust.revoked) == 1
        assert life.credentials.current.credential is own
        life.client.authority.revoked.append(x509.load_der_x509_certificate(own.chain[0]))
        life.client.news.set()
        await life.spend(datetime.timedelta(seconds=5))
        assert life.credentials.current.credential is not own

    live(story)


@pytest.mark.parametrize(
    "broken",
    [
        lambda life: setattr(life.client, "answer_with", b"nonsense"),
        lambda life: setattr(life.client, "name", "api"),
        lambda life: setattr(life.client.authority, "validity", datetime.timedelta(minutes=-1)),
        lambda life: setattr(life.client.authority, "publishes_lists", False),
        lambda life: setattr(life.client.authority, "signer", Generation("unknown")),
    ],
)
def test_a_broken_authority_costs_nothing_of_what_we_have(live, caplog, broken):
    async def story(life):
        await life.spend(MINUTE)
        good = life.credentials.current
        broken(life)
        life.enroller.renew_now()
        await life.spend(30 * MINUTE)
        assert life.credentials.current.credential is good.credential
        assert life.credentials.current.trust.revoked == good.trust.revoked
        assert life.counts.rotations[-1] == "invalid"
        assert 3 < len(life.client.tries) < 60, "it must go on, and not in a hurry"

    live(story)
    assert sum(record.getMessage().startswith("no certificate came") for record in caplog.records) == 1
    assert "PRIVATE" not in caplog.text


def test_a_token_that_comes_late_is_read_when_it_is_there(live, tmp_path, caplog):
    async def story(life):
        (tmp_path / "token").unlink()
        await life.spend(MINUTE)
        assert not life.enroller.enrolled.is_set()
        assert life.client.asked == []
        (tmp_path / "token").write_text("later")
        await life.spend(5 * MINUTE)
        assert [proof for _, proof in life.client.asked] == ["Bearer later"]

    live(story)
    assert "project a service-account token there" in caplog.text


def test_a_machine_that_slept_for_days_renews_when_it_wakes_and_one_whose_clock_goes_back_too(live):
    async def story(life):
        await life.spend(MINUTE)
        life.time.set_clock(life.time.now() + 72 * HOUR)
        await life.spend(datetime.timedelta(seconds=20))
        assert len(life.client.asked) == 2
        life.time.set_clock(life.time.now() - 10 * HOUR)
        await life.spend(datetime.timedelta(seconds=20))
        assert len(life.client.asked) == 3
        await life.spend(HOUR)
        assert len(life.client.asked) == 3

    live(story)


def test_an_authority_that_answers_at_once_and_always_is_not_asked_in_a_circle(live):
    async def story(life):
        published = life.client.published()

        async def eager(etag, credential):
            life.client.polled_as.append(True)
            return News(published, pause=0.0)

        life.client.next_bundle = eager
        await life.spend(10 * MINUTE)
        assert len(life.client.polled_as) <= 601

    live(story)


def test_what_the_authority_asks_to_wait_is_waited(live):
    async def story(life):
        await life.spend(MINUTE)
        life.client.failing = AuthorityFailed(Failure.UNREACHABLE, "too_many: later", retry_after=600.0)
        life.enroller.renew_now()
        await life.spend(30 * MINUTE)
        assert len(life.client.tries) - 1 in (3, 4)

    live(story)


def test_news_are_asked_for_as_nobody_where_our_certificate_is_not_taken(live):
    async def story(life):
        await life.spend(MINUTE)
        assert life.client.polled_as[-1]
        life.client.failing = AuthorityFailed(Failure.REFUSED, "certificate_unknown", of_certificate=True)
        await life.spend(MINUTE)
        life.client.failing = None
        await life.spend(5 * MINUTE)
        assert not life.client.polled_as[-1]
        life.enroller.renew_now()
        await life.spend(2 * MINUTE)
        assert life.client.polled_as[-1]

    live(story)
