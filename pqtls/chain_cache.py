"""A bounded cache of verified chains.

Only the very same bytes, for the same purpose and key types, under the same anchors and revocation lists, in the same
hour can hit it; and the times of the path are checked again at each hit, so that nothing outlives its certificate.
"""

from __future__ import annotations

import datetime
import hashlib
from collections import OrderedDict

from pqtls.certificates import Purpose, ValidatedChain
from pqtls.errors import ConfigurationError
from pqtls.signatures import SignatureScheme
from pqtls.trust import TrustAnchors


class ChainCache:
    """The last `capacity` verified chains; capacity 0 caches nothing.

    An entry is about 13 KB: OpenSSL keeps an ML-DSA-87 key expanded.
    """

    __slots__ = ("_capacity", "_entries", "hits", "misses")

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ConfigurationError(f"a cache cannot hold {capacity} chains")
        self._capacity = capacity
        self._entries: OrderedDict[bytes, ValidatedChain] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def key(
        self,
        chain: tuple[bytes, ...],
        trust: TrustAnchors,
        purpose: Purpose,
        now: datetime.datetime,
        schemes: tuple[SignatureScheme, ...],
    ) -> bytes:
        """The digest of everything that the verdict depends on, and of the hour."""
        digest = hashlib.sha256(trust.identifier)
        hour = int(now.timestamp()) // 3600
        digest.update(f"{purpose.name} {hour} {[scheme.name for scheme in schemes]}".encode())
        for certificate in chain:
            digest.update(len(certificate).to_bytes(4, "big"))
            digest.update(certificate)
        return digest.digest()

    def get(self, key: bytes, now: datetime.datetime) -> ValidatedChain | None:
        """The verdict of the same question asked before, if it still holds."""
        found = self._entries.get(key)
        if found is None or not found.valid_from <= now <= found.valid_until:
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return found

    def put(self, key: bytes, found: ValidatedChain) -> None:
        """Remember a verdict; the one that was used least recently goes."""
        if not self._capacity:
            return
        self._entries[key] = found
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
