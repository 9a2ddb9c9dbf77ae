"""Tokens judged by the API server: what is believed, what is kept, and what a server that is down costs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import json
import logging
import time
from typing import Any

import pytest

from certmgr.kubernetes import token_review
from certmgr.kubernetes.token_review import Claims, TokenReviewer, judged
from certmgr.proofs import MAX_TOKEN_SIZE, Method, ProvenIdentity, Reason, Refused
from kube.backoff import Backoff
from kube.client import resource
from tests.kube.places import Where
from tests.kube.rig import Place, run, until, utc_now

NOW = datetime.datetime(2030, 5, 17, 12, 0, tzinfo=datetime.UTC)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def token(name: str = "one", *, expires: Any = None, audience: Any = ("qbitel",)) -> str:
    """In shape a JWT; nobody has signed it."""
    claims = {"sub": name, "aud": audience, "exp": NOW.timestamp() + 3600 if expires is None else expires}
    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2lnbmVk"


def status(**changes: Any) -> dict[str, Any]:
    """What a TokenReview says of a pod of shop/web."""
    user = {
        "username": "system:serviceaccount:shop:web",
        "uid": "u",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/pod-name": ["web-1"], "authentication.kubernetes.io/pod-uid": ["p-1"]},
    }
    user.update(changes.pop("user", {}))
    return {"authenticated": True, "audiences": ["qbitel"], "user": user, **changes}


class Clock:
    def __init__(self) -> None:
        self.time = 50.0

    def __call__(self) -> float:
        return self.time


def reviewer(place: Place, clock: Any = time.monotonic) -> TokenReviewer:
    retries = Backoff(1.0, 8.0, lambda _low, high: high)
    return TokenReviewer(place.cluster, "cluster.local", now=lambda: NOW, monotonic=clock, retries=retries)


def reviews(place: Place) -> int:
    return len([request for request in place.stand_in.requests if "tokenreviews" in request])


async def refusal(verifier: TokenReviewer, offered: str) -> Refused:
    with pytest.raises(Refused) as refused:
        await verifier.identify(offered)
    return refused.value


# What is said of a token


GOOD_CLAIMS = Claims(NOW.timestamp() + 60, ("qbitel",))


def verdict(found: dict[str, Any], claims: Claims = GOOD_CLAIMS) -> Any:
    return judged(found, claims, "cluster.local", NOW)


def test_a_good_token_proves_its_service_account_and_names_the_pod() -> None:
    proven = verdict(status())

    assert isinstance(proven, ProvenIdentity)
    assert str(proven.spiffe_id) == "spiffe://cluster.local/ns/shop/sa/web"
    assert (proven.method, proven.instance, proven.dns_names) == (Method.TOKEN, "p-1", ())


def test_a_token_that_is_bound_to_no_pod_names_none() -> None:
    assert verdict(status(user={"extra": None})).instance == ""


@pytest.mark.parametrize("name", ["web.v2", "a" * 253])
def test_service_accounts_may_have_the_name_of_a_subdomain(name: str) -> None:
    name = name if "." in name else ".".join([name[:60]] * 4)
    assert verdict(status(user={"username": f"system:serviceaccount:shop:{name}"})).spiffe_id.segments[-1] == name


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({}, Reason.TOKEN_REFUSED),
        ({"authenticated": False}, Reason.TOKEN_REFUSED),
        ({"authenticated": "true"}, Reason.TOKEN_REFUSED),
        (status(authenticated=False), Reason.TOKEN_REFUSED),
        (status(audiences=None), Reason.TOKEN_AUDIENCE),
        (status(audiences=["https://kubernetes.default.svc"]), Reason.TOKEN_AUDIENCE),
        (status(user={"username": "system:node:qbitel"}), Reason.TOKEN_REFUSED),
        (status(user={"username": "jane"}), Reason.TOKEN_REFUSED),
        (status(user={"username": None}), Reason.TOKEN_REFUSED),
        # A name that looks like a service account's, from an authenticator that is not the API server's own.
        (status(user={"groups": ["system:authenticated"]}), Reason.TOKEN_REFUSED),
        (status(user={"groups": ["system:serviceaccounts", "system:serviceaccounts:other"]}), Reason.TOKEN_REFUSED),
        (status(user={"username": "system:serviceaccount:shop:"}), Reason.TOKEN_REFUSED),
        (status(user={"username": "system:serviceaccount:shop:a/../b"}), Reason.TOKEN_REFUSED),
        (status(user={"username": "system:serviceaccount:shop:web:x"}), Reason.TOKEN_REFUSED),
        ({"authenticated": True, "audiences": ["qbitel"]}, Reason.TOKEN_REFUSED),
    ],
)
def test_whatever_else_the_api_server_says_proves_nobody(found: dict[str, Any], reason: Reason) -> None:
    assert verdict(found).reason is reason


def test_a_refused_token_s_own_claims_only_make_the_reason_better() -> None:
    refused = {"authenticated": False}

    assert verdict(refused, Claims(NOW.timestamp() - 1, ("qbitel",))).reason is Reason.TOKEN_EXPIRED
    assert verdict(refused, Claims(NOW.timestamp() + 1, ("other",))).reason is Reason.TOKEN_AUDIENCE
    assert verdict(refused, Claims(NOW.timestamp() + 1, None)).reason is Reason.TOKEN_REFUSED
    # … and never a good one of it.
    assert isinstance(verdict(status(), Claims(NOW.timestamp() - 1, ("other",))), ProvenIdentity)


@pytest.mark.parametrize(
    "offered",
    ["x", "a.b", "a.b.c.d", "a..c", "a.b.c\n", " a.b.c", "a.b.c=", "ä.b.c", "a.b." + "c" * MAX_TOKEN_SIZE],
)
def test_what_has_not_the_shape_of_a_token_is_refused_without_asking(fake: Where, offered: str) -> None:
    async def main() -> None:
        async with fake() as place:
            assert (await refusal(reviewer(place), offered)).reason is Reason.TOKEN_MALFORMED
            assert reviews(place) == 0

    run(main())


@pytest.mark.parametrize(
    "payload",
    [
        "x",
        *map(part, ([], "text", {"exp": "soon", "aud": 7}, {"exp": True}, {"aud": "qbitel"})),
        *map(part, ({"exp": 10**400}, {"exp": -(10**400)})),
        base64.urlsafe_b64encode(b"[" * 6000).decode().rstrip("="),
    ],
)
def test_whatever_stands_in_a_token_its_refusal_is_a_refusal(fake: Where, payload: str) -> None:
    async def main() -> None:
        async with fake() as place:
            assert (await refusal(reviewer(place), f"e30.{payload}.c2ln")).reason is Reason.TOKEN_REFUSED

    run(main())


# What is kept


def test_an_answer_is_kept_for_seconds_and_no_longer_than_the_token_lives(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            place.stand_in.review = lambda _token: status()
            clock = Clock()
            verifier = reviewer(place, clock)
            for _ in range(3):
                await verifier.identify(token())
            assert reviews(place) == 1
            clock.time += 29
            await verifier.identify(token())
            assert reviews(place) == 1
            clock.time += 1
            await verifier.identify(token())
            assert reviews(place) == 2

            short = token("short", expires=NOW.timestamp() + 5)
            await verifier.identify(short)
            clock.time += 4
            await verifier.identify(short)
            assert reviews(place) == 3
            clock.time += 1
            place.stand_in.review = lambda _token: {"authenticated": False}
            assert (await refusal(verifier, short)).reason is Reason.TOKEN_REFUSED

    run(main())


def test_a_refusal_is_kept_for_less(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            clock = Clock()
            verifier = reviewer(place, clock)
            for _ in range(3):
                assert (await refusal(verifier, token(audience="other"))).reason is Reason.TOKEN_AUDIENCE
            assert reviews(place) == 1
            clock.time += 5
            place.stand_in.review = lambda _token: status()
            await verifier.identify(token(audience="other"))
            assert reviews(place) == 2

    run(main())


def test_what_is_kept_is_bounded_and_what_was_used_last_stays(fake: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_review, "_MAX_GOOD", 3)

    async def main() -> None:
        async with fake() as place:
            place.stand_in.review = lambda _token: status()
            verifier = reviewer(place, Clock())
            for name in ("a", "b", "c", "a", "d"):
                await verifier.identify(token(name))
            assert reviews(place) == 4
            await verifier.identify(token("a"))
            assert reviews(place) == 4
            await verifier.identify(token("b"))
            assert reviews(place) == 5

    run(main())


def test_of_many_requests_with_one_token_one_asks_also_when_that_one_goes_away(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            place.stand_in.review = lambda _token: status()
            place.stand_in.hold = asyncio.Event()
            verifier = reviewer(place)
            first, *others = (asyncio.create_task(verifier.identify(token())) for _ in range(20))
            await until(lambda: reviews(place) == 1)
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await first
            place.stand_in.hold.set()
            assert len({proven.instance for proven in await asyncio.gather(*others)}) == 1
            assert reviews(place) == 1

    run(main())


def test_so_many_reviews_are_under_way_and_so_many_wait_and_no_more(
    fake: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_review, "_MAX_WAITING", 40)

    async def main() -> None:
        async with fake() as place:
            place.stand_in.review = lambda _token: status()
            place.stand_in.hold = asyncio.Event()
            verifier = reviewer(place)
            waiting = [asyncio.create_task(verifier.identify(token(str(number)))) for number in range(40)]
            await until(lambda: reviews(place) == 32)
            refused = await refusal(verifier, token("one too many"))
            assert (refused.reason, refused.retry_after) == (Reason.VERIFIER_UNAVAILABLE, 1)
            await asyncio.sleep(0)
            assert reviews(place) == 32
            place.stand_in.hold.set()
            await asyncio.gather(*waiting)
            assert reviews(place) == 40

    run(main())


# What an API server that is down costs


@pytest.mark.parametrize("fault", [500, 503, 403, 401, "lose the answer"])
def test_a_failing_api_server_is_asked_by_one_at_a_time_and_less_and_less(fake: Where, fault: int | str) -> None:
    async def main() -> None:
        async with fake() as place:
            server, clock = place.stand_in, Clock()
            server.review = lambda _token: status()
            verifier = reviewer(place, clock)
            server.faults = [fault]
            refused = await refusal(verifier, token())
            assert refused.reason is Reason.VERIFIER_UNAVAILABLE
            assert refused.retry_after == (7 if fault in (500, 503) else 1)  # the server's own wish, if it has one
            clock.time += 0.5
            assert (await refusal(verifier, token("other"))).reason is Reason.VERIFIER_UNAVAILABLE
            assert reviews(place) == 1  # at once, without asking
            clock.time += 8
            server.hold, server.faults = asyncio.Event(), [fault]
            probe = asyncio.create_task(verifier.identify(token("probe")))
            await until(lambda: reviews(place) == 2)
            assert (await refusal(verifier, token("other"))).reason is Reason.VERIFIER_UNAVAILABLE
            server.hold.set()
            with pytest.raises(Refused):
                await probe
            assert reviews(place) == 2
            clock.time += 1.5
            assert (await refusal(verifier, token())).retry_after in (1, 6)  # twice as long as before, or as it wishes
            clock.time += 8
            await verifier.identify(token())
            assert reviews(place) == 3
            await asyncio.gather(*(verifier.identify(token(str(number))) for number in range(5)))

    run(main())


def test_those_that_fail_together_count_as_one_failure(fake: Where, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with fake() as place:
            clock = Clock()
            verifier = reviewer(place, clock)
            place.stand_in.hold = asyncio.Event()
            waiting = [asyncio.create_task(verifier.identify(token(str(number)))) for number in range(60)]
            await until(lambda: reviews(place) == 32)
            place.stand_in.faults = [403] * 60
            place.stand_in.hold.set()
            for outcome in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(outcome, Refused)
                assert outcome.retry_after == 1
            assert reviews(place) == 32  # those that waited for their turn did not ask any more
            place.stand_in.faults.clear()
            place.stand_in.review = lambda _token: status()
            clock.time += 1
            await verifier.identify(token())

    run(main())
    assert caplog.text.count("tokens cannot be reviewed: as the test wants it") == 1
    assert caplog.text.count("tokens are reviewed again") == 1
    assert token("1") not in caplog.text


# A real API server


async def requested(place: Place, name: str, audience: str, bound: dict[str, Any] | None = None) -> str:
    path = f"{resource('serviceaccounts', namespace=place.namespace, name=name)}/token"
    spec = {"audiences": [audience], "expirationSeconds": 600, **({"boundObjectRef": bound} if bound else {})}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer: str = (await place.cluster.create(path, body))["status"]["token"]
    return answer


def test_the_api_server_s_own_tokens_prove_their_service_account_until_it_is_deleted(real: Where) -> None:
    async def main() -> None:
        async with real() as place:
            clock = Clock()
            verifier = TokenReviewer(place.cluster, "example.org", now=utc_now, monotonic=clock)
            accounts = resource("serviceaccounts", namespace=place.namespace)
            await place.cluster.create(accounts, {"metadata": {"name": "web"}})
            good = await requested(place, "web", "qbitel")
            proven = await verifier.identify(good)
            assert str(proven.spiffe_id) == f"spiffe://example.org/ns/{place.namespace}/sa/web"
            assert (proven.method, proven.instance) == (Method.TOKEN, "")

            other = await requested(place, "web", "https://kubernetes.default.svc")
            assert (await refusal(verifier, other)).reason is Reason.TOKEN_AUDIENCE
            head, body, signature = good.split(".")
            forged = f"{head}.{body}.{signature[::-1]}"
            assert (await refusal(verifier, forged)).reason is Reason.TOKEN_REFUSED
            assert (await refusal(verifier, token())).reason is Reason.TOKEN_REFUSED
            old = token(expires=1_600_000_000)
            assert (await refusal(verifier, old)).reason is Reason.TOKEN_EXPIRED

            await place.cluster.delete(f"{accounts}/web", {})
            assert (await verifier.identify(good)).spiffe_id == proven.spiffe_id  # as long as the answer is kept
            clock.time += 30
            # API servers keep answers themselves, for ten seconds by default.
            while not isinstance(outcome := await answered(verifier, good), Refused):
                clock.time += 30
                await asyncio.sleep(0.2)
            assert outcome.reason is Reason.TOKEN_REFUSED

    async def answered(verifier: TokenReviewer, offered: str) -> object:
        try:
            return await verifier.identify(offered)
        except Refused as refused:
            return refused

    run(main())


def test_a_token_that_is_bound_to_a_pod_names_it(real: Where) -> None:
    async def main() -> None:
        async with real() as place:
            accounts = resource("serviceaccounts", namespace=place.namespace)
            await place.cluster.create(accounts, {"metadata": {"name": "web"}})
            # It need not run: that it is there is enough for a token to be bound to it.
            container = {"name": "web", "image": "registry.invalid/none"}
            spec = {"serviceAccountName": "web", "containers": [container], "automountServiceAccountToken": False}
            pod = await place.cluster.create(
                resource("pods", namespace=place.namespace), {"metadata": {"name": "web-1"}, "spec": spec}
            )
            uid = pod["metadata"]["uid"]
            bound = {"kind": "Pod", "apiVersion": "v1", "name": "web-1", "uid": uid}
            offered = await requested(place, "web", "qbitel", bound)
            verifier = TokenReviewer(place.cluster, "cluster.local", now=utc_now)

            assert (await verifier.identify(offered)).instance == uid

    run(main())
