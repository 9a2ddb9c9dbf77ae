"""Which addresses host names have had: asked again and again, and remembered for a while after they are gone. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

# An application may use an address for as long as it keeps an answer: 30 s by CoreDNS' own time to live, longer where
# a library keeps answers for itself. Connections to a name's old address must not escape.
FORGOTTEN_AFTER: Final = 600.0
# Of one name. A headless Service with more pods belongs into the document as endpoints.
MAX_ADDRESSES: Final = 256


class NameBook:
    """Names, their addresses, and when those were last seen (seconds of a monotonic clock)."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, float]] = {}

    def found(self, name: str, addresses: Iterable[str], now: float) -> bool:
        """The name has these addresses now; none: nobody could say. Return whether anything is other than before.

        The most that it may have are those that were seen last.
        """
        seen = self._seen.setdefault(name, {})
        before = _sorted(seen), _latest(seen)
        for address in addresses:
            seen.pop(address, None)  # to the end: the order is that of the last sight
            seen[address] = now
        for address in [one for one, at in seen.items() if now - at >= FORGOTTEN_AFTER]:
            del seen[address]
        for address in list(seen)[: max(0, len(seen) - MAX_ADDRESSES)]:
            del seen[address]
        return before != (_sorted(seen), _latest(seen))

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget every other name."""
        wanted = set(names)
        self._seen = {name: seen for name, seen in self._seen.items() if name in wanted}

    @property
    def addresses(self) -> dict[str, tuple[str, ...]]:
        """All that is known, in an order that does not change by itself."""
        return {name: _sorted(seen) for name, seen in self._seen.items()}

    @property
    def latest(self) -> dict[str, tuple[str, ...]]:
        """Of these, what the last answer gave that gave any: where somebody is to be found now, as far as is known."""
        return {name: _latest(seen) for name, seen in self._seen.items()}


def _sorted(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(addresses))


def _latest(seen: dict[str, float]) -> tuple[str, ...]:
    last = max(seen.values(), default=0.0)
    return _sorted(address for address, at in seen.items() if at == last)
