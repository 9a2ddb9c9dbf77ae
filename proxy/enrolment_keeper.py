"""The Keeper of a worker that is enrolled with an authority."""

from __future__ import annotations

import asyncio
import random

from proxy.authority import AuthorityClient
from proxy.config import EnrolmentConfig
from proxy.credentials import utc_now
from proxy.enrolled_credentials import EnrolledCredentials
from proxy.enroller import Enroller
from proxy.keeper import Watch
from proxy.metrics import EnrolmentMetrics, Metrics


class EnrolmentKeeper:
    """Runs an Enroller, as the instance that the configuration names with the worker's number behind it."""

    def __init__(
        self, config: EnrolmentConfig, credentials: EnrolledCredentials, metrics: Metrics, worker: int
    ) -> None:
        credentials.count_older_list = metrics.older_lists.inc
        self._enroller = Enroller(
            config,
            f"{config.instance}/{worker}",
            credentials,
            AuthorityClient(config.authority, credentials.toward_authority),
            EnrolmentMetrics(metrics),
            now=utc_now,
            # The system's: workers that were forked have the state of any other in common.
            random=random.SystemRandom().random,
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def is_usable(self) -> bool:
        """Whether there is a certificate that has not ended."""
        return self._enroller.is_usable

    def start(self, watch: Watch) -> None:
        """Begin to enrol."""
        self._task = asyncio.get_running_loop().create_task(self._enroller.run())
        watch(self._task)

    async def has_credentials(self) -> None:
        """Return when the first certificate is in use."""
        await self._enroller.enrolled.wait()

    def tend(self) -> None:
        """Say so, where the certificate has ended."""
        self._enroller.tell_of_end()

    def refresh(self) -> None:
        """Renew now."""
        self._enroller.renew_now()

    async def close(self) -> None:
        """Stop enrolling, and hang up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
