"""Where an authority's state is kept: the seam between what it says (certmgr/state.py) and what holds it.

One document, with compare-and-swap: whoever changes it names the version that the change was made from, and learns
when somebody else was faster. The document holds private keys; a store keeps it accordingly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class StoreConflict(Exception):
    """The state is not of the version that the change was made from: load it and decide again."""


class StoreUnavailable(Exception):
    """The store cannot be reached, or cannot write now.

    The message says why, in one sentence; trying again may help.
    """


@dataclass(frozen=True, slots=True)
class Stored:
    """A document and the store's name for this version of it, which nobody else interprets."""

    document: bytes = field(repr=False)
    version: str


class Store(Protocol):
    """Keeps one document of at most 1 MiB (what a Kubernetes Secret holds)."""

    async def load(self) -> Stored | None:
        """The present document, None where there was never one. Raises StoreUnavailable, and UserError for the rest."""
        ...

    async def save(self, document: bytes, expected: str | None) -> str:
        """Replace the document of version `expected` (None: there is none), and return the new version.

        When it returns, the document outlives a power cut; when it raises, the old one stands. Raises StoreConflict,
        StoreUnavailable, and UserError for what will not mend itself.
        """
        ...


# One event of the audit log: JSON's types only, "time" (RFC 3339) and "event" always among the keys.
Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Replay:
    """What a journal still has. `is_complete`: no entry of a certificate that may still be valid is missing."""

    entries: Sequence[Entry]
    is_complete: bool


class Journal(Protocol):
    """The append-only audit log."""

    async def append(self, entry: Entry) -> None:
        """Return when `entry` is kept. Raises StoreUnavailable: what cannot be written down must not happen."""
        ...

    async def replay(self) -> Replay:
        """Everything that is kept of the past, oldest first; nothing and False where a journal cannot be read back."""
        ...
