"""What the API server has of one kind of objects, kept up by list and watch.

After a broken connection the watch goes on from the last resourceVersion; where the server no longer knows that one
(410 Gone), everything is listed again. Sources: the Kubernetes API's concepts, "Efficient detection of changes".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from typing import Final, Generic, NoReturn, TypeVar

from kube.backoff import Backoff
from kube.client import EVERYTHING, GONE, ApiRefused, ApiUnavailable, Cluster, Query
from kube.objects import Key, Object, key_of, version_of

T = TypeVar("T")

_FIRST_RETRY_SECONDS: Final = 0.25
# An API server that comes back is noticed so soon at the latest.
_LONGEST_RETRY_SECONDS: Final = 5.0
# A server whose history was restored from a backup may never know our version again and not say GONE.
_FAILURES_UNTIL_RELIST: Final = 4
# So that a server's watchers, which it cut off together, do not all come back at once.
_SPREAD_SECONDS: Final = 0.5

_log = logging.getLogger("qbitel.kube")


class Mirror(Generic[T]):
    """Objects under `path` (with `query` as selector), each as what `read` makes of it; None is left out.

    `on_change` is called whenever an item has become another. `ready` is false until everything was listed once.
    """

    def __init__(
        self,
        cluster: Cluster,
        path: str,
        read: Callable[[Object], T | None],
        on_change: Callable[[], None],
        query: Query = EVERYTHING,
        *,
        retries: Backoff | None = None,
    ) -> None:
        self._cluster = cluster
        self._path = path
        self._read = read
        self._on_change = on_change
        self._query = query
        self._backoff = retries or Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        self._items: dict[Key, T] = {}
        # Of each object that there is, wanted or not: who lists again need not read again what has not changed.
        self._versions: dict[Key, int] = {}
        # Our own writes whose echo is still to come, and how far the watch has come.
        self._awaited: dict[Key, int] = {}
        self._seen = 0
        self.ready = False

    @property
    def items(self) -> Mapping[Key, T]:
        """What there is, as far as it is known."""
        return self._items

    def wrote(self, written: Object) -> None:
        """Take up at once what the server answered to a write of ours.

        Older events about this object that are still on their way are passed over; without that, a decision that was
        carried out would be made again.
        """
        version = version_of(written)
        if version > self._seen:
            self._put(written)
            self._awaited[key_of(written)] = version

    async def run(self) -> NoReturn:
        """Keep up until cancelled, whatever the server does."""
        listed = False
        while True:
            try:
                if not listed:
                    await self._list()
                    listed = True
                await self._follow()
                self._recovered()
            except ApiRefused as error:
                listed = False
                if error.status == GONE:
                    _log.info("what happened to %s is no longer known; listing all", self._path)
                await self._wait(error)
            except ApiUnavailable as error:
                listed = listed and self._backoff.failures < _FAILURES_UNTIL_RELIST
                await self._wait(error)
            else:
                await asyncio.sleep(random.SystemRandom().uniform(0, _SPREAD_SECONDS))

    async def _follow(self) -> None:
        """Take up what happens until the server ends the watch."""
        watch = self._cluster.watch(self._path, str(self._seen), self._query)
        async with contextlib.aclosing(watch) as events:
            async for kind, changed in events:
                self._recovered()
                self._seen = version_of(changed)
                self._apply(kind, changed)

    async def _list(self) -> None:
        items: dict[Key, T] = {}
        versions: dict[Key, int] = {}
        seen = 0
        async with contextlib.aclosing(self._cluster.pages(self._path, self._query)) as pages:
            async for page, version in pages:
                seen = int(version)
                for found in page:
                    self._take(found, items, versions)
                    # Reading a certificate and its key takes a millisecond, and there may be thousands.
                    await asyncio.sleep(0)
        # What we wrote while the list was on its way is not in it.
        self._awaited = {key: awaited for key, awaited in self._awaited.items() if awaited > seen}
        for key, awaited in self._awaited.items():
            items.pop(key, None)
            versions[key] = awaited
            if key in self._items:
                items[key] = self._items[key]
        self._items, self._versions, self._seen = items, versions, seen
        self.ready = True
        self._on_change()

    def _take(self, found: Object, items: dict[Key, T], versions: dict[Key, int]) -> None:
        """Put a listed object into `items`: as it was read before, where it is of the same version."""
        key, version = key_of(found), version_of(found)
        item = self._items.get(key) if self._versions.get(key) == version else self._read(found)
        versions[key] = version
        if item is not None:
            items[key] = item

    def _apply(self, kind: str, changed: Object) -> None:
        if kind == "BOOKMARK":
            return
        key = key_of(changed)
        awaited = self._awaited.get(key, 0)
        if awaited > self._seen:
            return
        self._awaited.pop(key, None)
        if awaited == self._seen:
            return
        before = self._items.get(key)
        if kind == "DELETED":
            self._items.pop(key, None)
            self._versions.pop(key, None)
        else:
            self._put(changed)
        if self._items.get(key) != before:
            self._on_change()

    def _put(self, changed: Object) -> None:
        key = key_of(changed)
        self._versions[key] = version_of(changed)
        item = self._read(changed)
        if item is None:
            self._items.pop(key, None)
        else:
            self._items[key] = item

    async def _wait(self, error: Exception) -> None:
        if not self._backoff.failures:
            _log.warning("watching %s: %s", self._path, error)
        await asyncio.sleep(self._backoff.failed())

    def _recovered(self) -> None:
        if self._backoff.failures:
            _log.info("watching %s again", self._path)
            self._backoff.succeeded()
