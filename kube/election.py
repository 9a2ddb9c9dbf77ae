"""Leader election among replicas, by a coordination.k8s.io/v1 Lease.

The library's election is not used: a request that hangs leaves its leader leading for ever, it has no answer to "do I
lead now?", and it never lets go.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

from kube.client import ApiRefused, ApiUnavailable, Cluster, resource
from kube.lease import DURATION, RETRY, Claim, Record
from kube.objects import Object

_API: Final = "apis/coordination.k8s.io/v1"
# Several tries fit between two deadlines (lease.DEADLINE).
_REQUEST_SECONDS: Final = 3.0
# At the end, for giving the Lease away; without that the next leader waits DURATION.
_RELEASE_SECONDS: Final = 2.0
# MicroTime, with six digits.
_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"

_log = logging.getLogger("qbitel.kube")


def steady() -> float:
    """Seconds of a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Election:
    """One candidate for the Lease `name`. `run` stands for election; `is_leader` says how it went."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        replica: str,
        *,
        now: Callable[[], datetime.datetime],
        clock: Callable[[], float] = steady,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        # A container that restarts in its pod has the name of the one before it, which may not be dead yet.
        self._claim = Claim(f"{replica}_{secrets.token_hex(4)}")
        self._now = now
        self._clock = clock
        self._lease: Object | None = None
        self._led = False
        self._failing = False

    def is_leader(self) -> bool:
        """Whether we lead, and nobody else does. Ends by itself when renewals do not succeed."""
        return self._claim.leads(self._clock())

    async def run(self) -> NoReturn:
        """Stand for election until cancelled, and let go then."""
        try:
            while True:
                failure: Exception | None = None
                try:
                    await self._try()
                except (ApiUnavailable, ApiRefused) as error:
                    failure = error
                self._tell(failure)
                await asyncio.sleep(RETRY)
        finally:
            led = self.is_leader()
            self._claim.let_go()
            if led:
                with contextlib.suppress(ApiUnavailable, ApiRefused, TimeoutError):
                    async with asyncio.timeout(_RELEASE_SECONDS):
                        await self._write("", self._claim.record)
                self._tell(None)

    async def _try(self) -> None:
        # A holder writes over its own last version; where that fails, somebody else has written.
        if not self.is_leader():
            await self._read()
        if not self._claim.may_write(self._clock()):
            return
        asked = self._clock()
        try:
            written = await self._write(self._claim.identity, self._claim.record)
        except ApiRefused as error:
            if error.status not in (404, 409):
                raise
            # Somebody was faster, or deleted it.
            await self._read()
            return
        self._claim.wrote(written, asked)

    async def _read(self) -> None:
        try:
            lease = await self._cluster.get(self._path(self._name), seconds=_REQUEST_SECONDS)
        except ApiRefused as error:
            if error.status != 404:
                raise
            self._lease = None
            self._claim.saw(None, self._clock())
            return
        self._lease = lease
        self._claim.saw(_record_of(lease), self._clock())

    async def _write(self, holder: str, over: Record | None) -> Record:
        moment = self._now().astimezone(datetime.UTC).strftime(_TIME_FORMAT)
        before: Any = (self._lease or {}).get("spec") or {}
        is_renewal = before.get("holderIdentity") == holder
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": int(DURATION),
            "acquireTime": before.get("acquireTime") if is_renewal else moment,
            "renewTime": moment,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if is_renewal or not holder else 1),
        }
        metadata = {"name": self._name, "namespace": self._namespace}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        if over is None:
            lease = await self._cluster.create(self._path(), body, seconds=_REQUEST_SECONDS)
        else:
            metadata["resourceVersion"] = over.version
            lease = await self._cluster.replace(self._path(self._name), body, seconds=_REQUEST_SECONDS)
        self._lease = lease
        return _record_of(lease)

    def _path(self, name: str = "") -> str:
        return resource("leases", namespace=self._namespace, name=name, api=_API)

    def _tell(self, failure: Exception | None) -> None:
        """Say what has changed: not every two seconds of an outage that it goes on."""
        if failure is not None and not self._failing:
            _log.warning("nobody can be elected: %s", failure)
        elif failure is None and self._failing:
            _log.info("the election goes on")
        self._failing = failure is not None
        leads = self.is_leader()
        if leads != self._led:
            _log.info("%s %s", self._claim.identity, "leads" if leads else "leads no longer")
        self._led = leads


def _record_of(lease: Object) -> Record:
    spec = lease.get("spec") or {}
    return Record(
        holder=str(spec.get("holderIdentity") or ""),
        duration=float(spec.get("leaseDurationSeconds") or 0),
        version=lease["metadata"]["resourceVersion"],
    )
