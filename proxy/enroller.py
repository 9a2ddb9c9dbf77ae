"""Keeps one worker enrolled: the first certificate, each next one, and what the authority publishes meanwhile.

Two loops, which never end by what the authority does or does not do: one asks for certificates when they are due, and
one follows what is published and acknowledges it. What was good last stays in use until there is better.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

from mesh.errors import UserError
from pqtls import Credential
from proxy.answers import AuthorityFailed, Failure, Issued, News
from proxy.config import EnrolmentConfig
from proxy.enrolled_credentials import EnrolledCredentials
from proxy.enrolment import KeyRequest, make_request
from proxy.outage import Outage
from proxy.renewal import Backoff, Schedule, schedule
from proxy.token_file import read_authorization

# Seconds. An authority that answers each question for news at once is not asked more often.
_BETWEEN_POLLS: Final = 1.0

_log = logging.getLogger("qbitel.proxy")


class Client(Protocol):
    """What is needed of proxy.authority.AuthorityClient."""

    async def request_certificate(
        self,
        csr: bytes,
        *,
        instance: str,
        anchors: str,
        now: datetime.datetime,
        credential: Credential | None = None,
        authorization: str = "",
    ) -> Issued: ...

    async def acknowledge(self, anchors: str, *, instance: str, credential: Credential) -> None: ...

    def next_bundle(self, etag: str, credential: Credential | None) -> Coroutine[Any, Any, News]: ...

    async def close(self) -> None: ...


class Counts(Protocol):
    """Where it is counted: proxy.metrics.EnrolmentMetrics."""

    def rotation(self, result: str) -> None: ...

    def succeeded_at(self, now: datetime.datetime) -> None: ...

    def reachable(self, yes: bool) -> None: ...


class Enroller:
    """Runs beside the connections of one worker, whose `instance` is its own.

    `random` gives numbers from 0 to 1; `sleep` waits for seconds that no clock can change.
    """

    def __init__(
        self,
        config: EnrolmentConfig,
        instance: str,
        credentials: EnrolledCredentials,
        client: Client,
        counts: Counts,
        *,
        now: Callable[[], datetime.datetime],
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._config = config
        self._instance = instance
        self._credentials = credentials
        self._client = client
        self._counts = counts
        self._now = now
        self._random = random
        self._sleep = sleep
        self._schedule: Schedule | None = None
        self._generation = ""
        # Kept until it has a certificate: a one-time token may have been spent for it by a request without an answer.
        self._key_request: KeyRequest | None = None
        self._acknowledged = ""
        self._renewed = asyncio.Event()
        self._shunned = False  # the authority does not take the certificate that we have
        self._hurry = asyncio.Event()
        self.enrolled = asyncio.Event()
        self._renewals = Outage("no certificate came", "certificates come again")
        self._news = Outage("revocations and roots are not followed", "revocations and roots are followed again")
        self._acknowledgements = Outage("the roots are not acknowledged", "the roots are acknowledged again")
        self._told_of_end = False

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_certificate())
                tasks.create_task(self._keep_in_touch())
        finally:
            await self._client.close()

    @property
    def is_usable(self) -> bool:
        """Whether there is a certificate that peers accept, as far as its time goes."""
        return self._schedule is not None and not self._schedule.has_ended(self._now())

    def renew_now(self) -> None:
        """Ask for a new certificate at once, whatever the schedule or the wait after a failure says."""
        if self._schedule is not None:
            self._schedule = self._schedule.at_once()
        self._hurry.set()

    def tell_of_end(self) -> None:
        """Say once that the certificate has ended. To be called from time to time."""
        ended = self._schedule is not None and not self.is_usable
        if ended and not self._told_of_end and self._schedule is not None:
            _log.error(
                "our certificate ended at %s and the authority gave no other: peers refuse us; not ready until it does",
                self._schedule.end.isoformat(),
            )
        self._told_of_end = ended

    # -- certificates -------------------------------------------------------------------------------------------

    async def _keep_certificate(self) -> None:
        backoff = Backoff()
        while True:
            await self._until_due()
            try:
                await self._enrol()
            except AuthorityFailed as error:
                self._counts.rotation(error.failure.value)
                self._reached(error)
                self._renewals.begins(error.failure.value, f"{error}; {self._what_now()}")
                await self._pause(backoff.after_failure(self._random(), error.retry_after))
            else:
                self._counts.rotation("ok")
                self._reached(None)
                self._renewals.ends()
                backoff.after_success()

    async def _until_due(self) -> None:
        while self._schedule is not None and not self._schedule.is_due(self._now()):
            await self._pause(self._schedule.pause(self._now()))

    async def _enrol(self) -> None:
        request = self._key_request = self._key_request or make_request()
        issued = await self._ask(request.csr)
        self._credentials.take_certificate(request, issued)
        self._key_request = None
        now, bundle = self._now(), self._credentials.current
        end = bundle.credential.not_valid_after
        self._schedule = schedule(now, end, self._instance, self._random())
        self._generation = issued.generation
        self._shunned = False
        # Said again with each certificate: only by that does the authority learn that the one before is out of use.
        self._acknowledged = ""
        self._counts.succeeded_at(now)
        level = logging.DEBUG if self.enrolled.is_set() else logging.INFO  # twice a day is no news, the first is
        _log.log(level, "enrolled with %s as %s until %s", self._config.authority, bundle.identity, end.isoformat())
        self._trust_changed()
        self._renewed.set()
        self.enrolled.set()

    async def _ask(self, csr: bytes) -> Issued:
        """By the certificate that we have, and where the authority does not take that (any more), by the token."""
        credential, refused = self._credentials.credential, None
        if credential is not None and self.is_usable:
            try:
                return await self._request(csr, credential=credential)
            except AuthorityFailed as error:
                if not error.of_certificate:
                    raise
                refused, self._shunned = error, True
        try:
            authorization = read_authorization(self._config)
        except UserError as error:
            before = f"{refused}; and " if refused else ""
            raise AuthorityFailed(Failure.REFUSED, f"{before}there is no other proof: {error}") from None
        return await self._request(csr, authorization=authorization)

    async def _request(self, csr: bytes, *, credential: Credential | None = None, authorization: str = "") -> Issued:
        return await self._client.request_certificate(
            csr,
            instance=self._instance,
            anchors=self._credentials.anchors,
            now=self._now(),
            credential=credential,
            authorization=authorization,
        )

    # -- what is published --------------------------------------------------------------------------------------

    async def _keep_in_touch(self) -> None:
        """Acknowledge what is in use, and wait for what is published next, over one connection and for ever."""
        await self.enrolled.wait()
        backoff = Backoff()
        while True:
            self._renewed.clear()
            await self._acknowledge()
            try:
                pause = await self._take_news()
            except AuthorityFailed as error:
                self._reached(error)
                self._news.begins(error.failure.value, str(error))
                pause = backoff.after_failure(self._random(), error.retry_after)
                await self._client.close()
            else:
                self._reached(None)
                self._news.ends()
                backoff.after_success()
            await self._sleep(max(pause, _BETWEEN_POLLS))

    async def _acknowledge(self) -> None:
        """Say what every connection is made with that begins from now on, unless that was heard already.

        A failure keeps no news from us. It is said again behind the next of them, within half a minute.
        """
        anchors, bundle = self._credentials.anchors, self._credentials.current
        if anchors == self._acknowledged or self._shunned or not self.is_usable:
            return
        try:
            await self._client.acknowledge(anchors, instance=self._instance, credential=bundle.credential)
        except AuthorityFailed as error:
            self._shunned = self._shunned or error.of_certificate
            self._acknowledgements.begins(error.failure.value, str(error))
            return
        self._acknowledgements.ends()
        if bundle.credential is self._credentials.credential:
            self._acknowledged = anchors

    async def _take_news(self) -> float:
        """Wait for what is published next, or for a certificate of ours; return the seconds to leave it alone."""
        published = self._credentials.published
        credential = self._credentials.credential if self.is_usable and not self._shunned else None
        etag = "" if published is None else published.etag
        news = await self._unless_renewed(self._client.next_bundle(etag, credential))
        if news is None:
            return 0.0
        if news.published is not None and news.published != self._credentials.published:
            self._credentials.take_published(news.published)
            self._trust_changed()
        return news.pause

    async def _unless_renewed(self, asking: Coroutine[Any, Any, News]) -> News | None:
        """What is answered; None where we got a certificate first, with which to ask again."""
        poll, renewed = asyncio.ensure_future(asking), asyncio.ensure_future(self._renewed.wait())
        try:
            await asyncio.wait((poll, renewed), return_when=asyncio.FIRST_COMPLETED)
            return await poll if poll.done() else None
        except AuthorityFailed as error:
            self._shunned = self._shunned or error.of_certificate
            raise
        finally:
            poll.cancel()
            renewed.cancel()
            await asyncio.gather(poll, renewed, return_exceptions=True)

    def _trust_changed(self) -> None:
        published = self._credentials.published
        if published is None or self._schedule is None:
            return
        if published.generation != self._generation:
            # Once for each: every later bundle would draw the lot again.
            self._generation = published.generation
            self._schedule = self._schedule.early(self._now(), self._instance, self._random())
            self._hurry.set()
        if self._credentials.is_revoked():
            _log.warning("our own certificate was revoked: a new one is asked for")
            self.renew_now()

    # -- both ---------------------------------------------------------------------------------------------------

    def _reached(self, error: AuthorityFailed | None) -> None:
        self._counts.reachable(error is None or error.failure is not Failure.UNREACHABLE)

    def _what_now(self) -> str:
        if self._schedule is None:
            return "nothing is let in or out before there is one; trying on"
        return f"the last one stays in use until {self._schedule.end.isoformat()}; trying on"

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless there is a reason to hurry."""
        self._hurry.clear()
        sleeping = asyncio.ensure_future(self._sleep(seconds))
        hurrying = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((sleeping, hurrying), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            hurrying.cancel()
