"""Who may be at the other end: the rule that pqtls asks once it has verified whose certificate it is. Pure."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from mesh.spiffe import InvalidSpiffeId, SpiffeId
from pqtls.errors import IdentityRefused

# A workload has few peers, and each of their handshakes asks. An id has at most 2 KB.
_parse: Final = functools.lru_cache(maxsize=512)(SpiffeId.parse)


@dataclass(frozen=True, slots=True)
class IdentityRule:
    """Callable as pqtls' `accept_identity`.

    `trust_domains` empty: any domain that the roots vouch for. `peers` empty: any identity of those domains.
    """

    trust_domains: frozenset[str]
    peers: frozenset[str]

    def __call__(self, uri: str) -> None:
        """Return where the peer with the verified `uri` is welcome; raise IdentityRefused where it is not."""
        try:
            identity = _parse(uri)
        except InvalidSpiffeId as error:
            raise IdentityRefused(
                f"the peer's certificate names no SPIFFE identity: {error}", reason="no_identity"
            ) from None
        if self.trust_domains and identity.trust_domain not in self.trust_domains:
            raise IdentityRefused(
                f"the peer is {identity}, whose trust domain {identity.trust_domain} is not one of ours "
                f"({', '.join(sorted(self.trust_domains))})",
                reason="foreign_trust_domain",
            )
        if self.peers and str(identity) not in self.peers:
            raise IdentityRefused(
                f"the peer is {identity}, which is not one of the expected ({', '.join(sorted(self.peers))})",
                reason="unexpected_identity",
            )
