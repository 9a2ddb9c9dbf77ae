"""Which connections are open, and which of them goes where there are too many."""

from __future__ import annotations

from collections.abc import Callable, Hashable


class ConnectionTable:
    """The open connections, the one first that was silent for the longest: it goes when there are too many.

    Of one source's too many it is one of that source's own that goes.
    """

    def __init__(self, most: int, most_per_source: int | None = None) -> None:
        """None: a source may have all of them."""
        self._most = most
        self._most_per_source = most if most_per_source is None else most_per_source
        self._sources: dict[Hashable, str] = {}  # in the order of last activity, as the next is for each source
        self._closers: dict[str, dict[Hashable, Callable[[], None]]] = {}
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._sources)

    def add(self, connection: Hashable, source: str, close: Callable[[], None]) -> None:
        """`connection` is open; `close` will be called where it has to go, and nothing else of it then."""
        of_source = self._closers.get(source, {})
        if len(of_source) >= self._most_per_source:
            self._evict(next(iter(of_source)))
        elif len(self._sources) >= self._most:
            self._evict(next(iter(self._sources)))
        self._sources[connection] = source
        self._closers.setdefault(source, {})[connection] = close

    def heard(self, connection: Hashable) -> None:
        """Something came from `connection` just now."""
        source = self._sources.pop(connection, None)
        if source is not None:
            self._sources[connection] = source
            self._closers[source][connection] = self._closers[source].pop(connection)

    def remove(self, connection: Hashable) -> None:
        """`connection` is no more. Idempotent."""
        source = self._sources.pop(connection, None)
        if source is None:
            return
        of_source = self._closers[source]
        del of_source[connection]
        if not of_source:
            del self._closers[source]

    def _evict(self, connection: Hashable) -> None:
        close = self._closers[self._sources[connection]][connection]
        self.remove(connection)
        self.evicted += 1
        close()
