"""Where an authority keeps what it must not forget: small documents by name, changed by compare-and-swap.

Whoever changes a document names the version that the change was made from, and learns when somebody else was faster.
The documents hold private keys; a store keeps them accordingly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

# A Kubernetes Secret holds 1 MiB; this leaves room for what a store writes beside the document.
MAX_DOCUMENT: Final = (1 << 20) - 1024
# The state of certmgr/state.py. The others are certmgr/peers.py's, one or more per replica.
AUTHORITY_DOCUMENT: Final = "authority"
PEERS_PREFIX: Final = "peers-"


class StoreConflict(Exception):
    """The document is not of the version that the change was made from: load it and decide again."""


class StoreUnavailable(Exception):
    """The store cannot be reached, or cannot write now.

    The message says why, in one sentence; trying again may help.
    """


@dataclass(frozen=True, slots=True)
class Stored:
    """A document and the store's name for this version of it, which nobody else interprets.

    Each save gives a version that never was before: a change and its undoing are two.
    """

    document: bytes = field(repr=False)
    version: str


class Store(Protocol):
    """Keeps documents of at most MAX_DOCUMENT bytes; names are lower-case letters, digits, dots and dashes.

    Every method raises StoreUnavailable for what may mend itself, and UserError for what will not.
    """

    async def load(self, name: str) -> Stored | None:
        """The present document, None where there is none."""
        ...

    async def save(self, name: str, document: bytes, expected: str | None) -> str:
        """Replace the document of version `expected` (None: there is none), and return the new version.

        When it returns, the document outlives a power cut; when it raises, the old one stands. Raises StoreConflict.
        """
        ...

    async def delete(self, name: str, expected: str) -> None:
        """Forget the document of version `expected`. Raises StoreConflict; a document that is gone already is fine."""
        ...

    async def names(self) -> Sequence[str]:
        """The names of all documents, sorted."""
        ...

    async def versions(self) -> Mapping[str, str]:
        """The present version of each document by its name, without the documents."""
        ...

    async def changed(self, name: str, version: str | None) -> None:
        """Return when `name` may be of another version than `version`: within a second or two, perhaps too early."""
        ...
