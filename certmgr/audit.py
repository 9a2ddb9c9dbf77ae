"""The append-only audit log: who got which certificate, who was refused and why, what was done to the authority."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

# One event: JSON's types only, "time" (RFC 3339) and "event" always among the keys. Never a secret.
Entry = Mapping[str, Any]


class Journal(Protocol):
    """Where the audit log goes."""

    async def append(self, entry: Entry) -> None:
        """Return when `entry` is kept. Raises StoreUnavailable: what cannot be written down must not happen."""
        ...
