"""The name of a set of roots in one round of their rotation: the authority publishes it, sidecars acknowledge it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def anchors_of(round_number: int, roots: Iterable[bytes]) -> str:
    """Return 64 hexadecimal digits that stand for these `roots` (DER, in any order) in this round.

    Each rotation that begins, and each that is taken back, is a round of its own (0 to 2^63 - 1): to trust the same
    roots in an earlier attempt is something else, because they may have been given up in between.
    """
    # Everything is of fixed size, so that no two sets and rounds are one string of bytes.
    digest = hashlib.sha256(round_number.to_bytes(8, "big"))
    for root in sorted(hashlib.sha256(der).digest() for der in set(roots)):
        digest.update(root)
    return digest.hexdigest()
