"""What keeps the credentials of one worker good while it serves: files, or (enrolment_keeper.py) an authority."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from proxy.credential_files import CredentialStore
from proxy.credentials import utc_now
from proxy.metrics import Metrics

# Given a task that must not end, looks after it.
Watch = Callable[[asyncio.Task[None]], None]


class Keeper(Protocol):
    """Beside the connections of one worker, from its start to its end."""

    @property
    def is_usable(self) -> bool:
        """Whether what we have is worth being sent traffic for."""
        ...

    def start(self, watch: Watch) -> None:
        """Begin. Needs a running loop."""
        ...

    async def has_credentials(self) -> None:
        """Return when there are credentials to serve with."""
        ...

    def tend(self) -> None:
        """What has to be done every few seconds."""
        ...

    def refresh(self) -> None:
        """What SIGHUP asks for: look for something newer now."""
        ...

    async def close(self) -> None:
        """End."""
        ...


class FileKeeper:
    """Reloads files that changed."""

    def __init__(self, store: CredentialStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        store.count_older_list = metrics.older_lists.inc

    @property
    def is_usable(self) -> bool:
        """Whether our certificate has not expired: every peer would refuse it."""
        return self._store.current.credential.not_valid_after > utc_now()

    def start(self, watch: Watch) -> None:
        """There is nothing to begin: the store has loaded already."""

    async def has_credentials(self) -> None:
        """They were loaded before anything was bound."""

    def tend(self) -> None:
        """Reload what changed."""
        if self._store.has_changed():
            self.refresh()

    def refresh(self) -> None:
        """Reload."""
        self._metrics.reloads.labels("ok" if self._store.reload() else "failed").inc()

    async def close(self) -> None:
        """There is nothing to end."""
