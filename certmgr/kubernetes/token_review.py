"""Service-account tokens, judged by the API server that signed them (authentication.k8s.io/v1 TokenReview).

Nothing in a token is believed before the API server has said that it is good. Answers are kept for seconds, so that a
sidecar that comes again costs nothing; while the API server does not answer, one request at a time finds out whether
it is back, and everybody else is told at once to come later.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import hashlib
import json
import logging
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from certmgr.proofs import MAX_TOKEN_SIZE, Method, ProvenIdentity, Reason, Refused
from certmgr.secrets import check_label, check_subdomain
from kube.backoff import Backoff
from kube.client import ApiRefused, ApiUnavailable, Cluster, resource
from kube.objects import Object
from mesh.names import TOKEN_AUDIENCE
from mesh.spiffe import SpiffeId

_PATH: Final = resource("tokenreviews", api="apis/authentication.k8s.io/v1")
# A token ends when its pod is deleted; this much later we know at the latest. A sidecar that starts retries within it.
_GOOD_SECONDS: Final = 30.0
# What is refused once is refused again, but for clocks that differ by seconds.
_BAD_SECONDS: Final = 5.0
# Of 100 bytes and of 1 kB: some megabytes. Whoever comes beyond them pushes out who came first.
_MAX_GOOD: Final = 8192
_MAX_BAD: Final = 1024
# A review takes some 5 ms of the API server; it is ours to share with a whole cluster.
_MAX_UNDER_WAY: Final = 32
# What those are done with in some two seconds; who comes beyond them would only wait for a timeout.
_MAX_WAITING: Final = 1024
_FIRST_RETRY_SECONDS: Final = 0.5
_LONGEST_RETRY_SECONDS: Final = 15.0
_MAX_TIME: Final = 1e12  # seconds since 1970: 30,000 years
# RFC 7515 §7.1: three parts of base64url.
_JWS: Final = re.compile(r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\Z")
_SERVICE_ACCOUNT: Final = "system:serviceaccount:"
_GROUP: Final = "system:serviceaccounts"
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"

_log = logging.getLogger("qbitel.certmgr")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Bad:
    """Why a token was refused."""

    reason: Reason
    message: str


_Verdict = ProvenIdentity | _Bad


class TokenReviewer:
    """Judges tokens of TOKEN_AUDIENCE by TokenReview. A certmgr.proofs.TokenVerifier."""

    def __init__(
        self,
        cluster: Cluster,
        trust_domain: str,
        *,
        now: Callable[[], datetime.datetime],
        monotonic: Callable[[], float] = time.monotonic,
        retries: Backoff | None = None,
    ) -> None:
        self._cluster = cluster
        self._trust_domain = trust_domain
        self._now = now
        self._monotonic = monotonic
        self._good: _Kept[ProvenIdentity] = _Kept(_MAX_GOOD, monotonic)
        self._bad: _Kept[_Bad] = _Kept(_MAX_BAD, monotonic)
        self._under_way: dict[bytes, asyncio.Task[_Verdict]] = {}
        self._slots = asyncio.Semaphore(_MAX_UNDER_WAY)
        self._retries = retries or Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        self._closed_until = -math.inf
        self._probing = False

    async def identify(self, token: str) -> ProvenIdentity:
        """See TokenVerifier.identify. `instance` is the pod's UID; empty for a token that is bound to none."""
        if len(token) > MAX_TOKEN_SIZE or not _JWS.match(token):
            raise Refused(Reason.TOKEN_MALFORMED, "this is no service-account token: three parts of base64url (a JWT)")
        digest = hashlib.sha256(token.encode()).digest()
        verdict = self._good.get(digest) or self._bad.get(digest)
        if verdict is None:
            # Of several requests with one token, one asks; that it is cancelled must not fail the others.
            verdict = await asyncio.shield(self._under_way.get(digest) or self._begin(token, digest))
        if isinstance(verdict, _Bad):
            raise Refused(verdict.reason, verdict.message)
        return verdict

    def _begin(self, token: str, digest: bytes) -> asyncio.Task[_Verdict]:
        if len(self._under_way) >= _MAX_WAITING:
            raise _come_again("too many tokens wait for their review", 1.0)
        left = self._closed_until - self._monotonic()
        if left > 0 or self._probing:
            raise _come_again("the API server could not review tokens a moment ago", max(left, 1.0))
        self._probing = probe = self._retries.failures > 0
        task = asyncio.create_task(self._review_and_keep(token, digest, probe=probe))
        self._under_way[digest] = task
        task.add_done_callback(lambda done: self._ended(digest, done))
        return task

    def _ended(self, digest: bytes, task: asyncio.Task[_Verdict]) -> None:
        del self._under_way[digest]
        if not task.cancelled():
            task.exception()  # seen, even where everybody who waited for it was cancelled

    async def _review_and_keep(self, token: str, digest: bytes, *, probe: bool) -> _Verdict:
        try:
            async with self._slots:
                status = await self._review(token)
        finally:
            if probe:
                self._probing = False
        claims = _unverified_claims(token)
        verdict = judged(status, claims, self._trust_domain, self._now())
        if isinstance(verdict, _Bad):
            self._bad.keep(digest, verdict, _BAD_SECONDS)
        else:
            left = claims.expires - self._now().timestamp()
            self._good.keep(digest, verdict, min(_GOOD_SECONDS, left))
        return verdict

    async def _review(self, token: str) -> Object:
        left = self._closed_until - self._monotonic()
        if left > 0:  # it failed for others while this one waited for its turn
            raise _come_again("the API server could not review tokens a moment ago", left)
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [TOKEN_AUDIENCE]},
        }
        try:
            review = await self._cluster.create(_PATH, body)
        except (ApiUnavailable, ApiRefused) as error:
            raise self._failed(error) from None
        if self._retries.failures:
            _log.info("tokens are reviewed again")
            self._retries.succeeded()
        status: Object = review.get("status") or {}
        return status

    def _failed(self, error: ApiUnavailable | ApiRefused) -> Refused:
        """Remember the failure; those that were under way together count as one."""
        now = self._monotonic()
        if now >= self._closed_until:
            if not self._retries.failures:
                # ApiRefused: our own service account may not create TokenReviews, or its token has ended.
                _log.warning("tokens cannot be reviewed: %s", error)
            asked = error.retry_after if isinstance(error, ApiUnavailable) else 0.0
            self._closed_until = now + max(self._retries.failed(), asked)
        return _come_again("the API server cannot review tokens now", self._closed_until - now)


def judged(status: Object, claims: Claims, trust_domain: str, now: datetime.datetime) -> _Verdict:
    """Return what a TokenReview's `status` says; `claims` only make the reason of a refusal better."""
    if status.get("authenticated") is not True:
        if claims.expires <= now.timestamp():
            return _Bad(Reason.TOKEN_EXPIRED, "the token has expired; read the projected file again")
        if claims.audiences is not None and TOKEN_AUDIENCE not in claims.audiences:
            return _wrong_audience()
        return _Bad(Reason.TOKEN_REFUSED, "the API server does not accept the token: forged, or its pod is deleted")
    # An API server that knows no audiences leaves this out; then nobody has checked them (TokenReview v1).
    if TOKEN_AUDIENCE not in (status.get("audiences") or ()):
        return _wrong_audience()
    return _service_account(status.get("user") or {}, trust_domain)


def _service_account(user: Mapping[str, Any], trust_domain: str) -> _Verdict:
    username = str(user.get("username") or "")
    namespace, _, name = username.removeprefix(_SERVICE_ACCOUNT).partition(":")
    # The groups too: an authenticator of the cluster's owner may hand out any name of a user.
    groups = user.get("groups") or ()
    if not username.startswith(_SERVICE_ACCOUNT) or f"{_GROUP}:{namespace}" not in groups:
        return _Bad(Reason.TOKEN_REFUSED, "the token is good, but no service account's")
    try:
        spiffe_id = SpiffeId.for_service_account(
            check_label("namespace", namespace), check_subdomain("service account", name), trust_domain
        )
    except ValueError as error:
        return _Bad(Reason.TOKEN_REFUSED, f"the service account cannot be an identity: {error}")
    uids = (user.get("extra") or {}).get(_POD_UID) or [""]
    return ProvenIdentity(spiffe_id=spiffe_id, method=Method.TOKEN, instance=str(uids[0]))


def _wrong_audience() -> _Bad:
    return _Bad(
        Reason.TOKEN_AUDIENCE,
        f"the token is not for the audience {TOKEN_AUDIENCE!r}; project one with serviceAccountToken.audience",
    )


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says of itself, believed by nobody: its end (seconds since 1970) and its audiences, if readable."""

    expires: float
    audiences: tuple[str, ...] | None


def _unverified_claims(token: str) -> Claims:
    payload = token.split(".")[1]
    claims: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if not isinstance(claims, dict):
        return Claims(math.inf, None)
    expires, audiences = claims.get("exp"), claims.get("aud")
    if isinstance(audiences, str):
        audiences = [audiences]
    # A number of JSON may be too large for a float, and a truth is none.
    is_time = isinstance(expires, int | float) and not isinstance(expires, bool) and abs(expires) < _MAX_TIME
    return Claims(
        float(expires or 0) if is_time else math.inf,
        tuple(map(str, audiences)) if isinstance(audiences, list) else None,
    )


def _come_again(message: str, seconds: float) -> Refused:
    return Refused(Reason.VERIFIER_UNAVAILABLE, f"{message}; try again", retry_after=max(1, math.ceil(seconds)))


class _Kept(Generic[_T]):
    """At most `size` values, each for so many seconds; the one that was used longest ago goes first."""

    def __init__(self, size: int, monotonic: Callable[[], float]) -> None:
        self._size = size
        self._monotonic = monotonic
        self._values: OrderedDict[bytes, tuple[float, _T]] = OrderedDict()

    def get(self, key: bytes) -> _T | None:
        end, value = self._values.get(key, (-math.inf, None))
        if self._monotonic() >= end:
            self._values.pop(key, None)
            return None
        self._values.move_to_end(key)
        return value

    def keep(self, key: bytes, value: _T, seconds: float) -> None:
        self._values[key] = (self._monotonic() + seconds, value)
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)
