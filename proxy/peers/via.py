"""Which way a TLS connection to a peer is made, and what the peer must show: connections made otherwise are no use."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from dataclasses import dataclass

from pqtls import PROFILES, ClientConfig
from pqtls.errors import IdentityRefused
from proxy.config import Endpoint
from proxy.identity import IdentityRule


@dataclass(frozen=True, slots=True)
class Via:
    """The key of tunnels and sessions.

    `address` is what is dialled. `identities` are those that a peer may have there; empty: any that the sidecar takes.
    `profile` None: whatever the sidecar may negotiate. `by_stream`: it is a sidecar's tunnel port, where each stream
    says where it goes; else everything goes to where the tunnel was dialled.
    """

    address: Endpoint
    identities: frozenset[str] = frozenset()
    profile: str | None = None
    by_stream: bool = False

    def __str__(self) -> str:
        return str(self.address)

    def configured(self, config: ClientConfig, rule: IdentityRule) -> ClientConfig:
        """`config`, whose identities are those of `rule`, held to what this asks for."""
        if not self.identities and self.profile is None:
            return config
        accept = Pinned(rule, self.identities, self.address) if self.identities else rule
        profiles = config.profiles if self.profile is None else (PROFILES[self.profile],)
        return dataclasses.replace(config, accept_identity=accept, profiles=profiles)

    def sessions_key(self, rule: IdentityRule) -> tuple[Endpoint, Hashable]:
        """What a session must have been made under to be resumed here."""
        return self.address, (rule, self.identities, self.profile)


@dataclass(frozen=True, slots=True)
class Pinned:
    """Callable as pqtls' `accept_identity`: whoever `rule` takes, and who is one of `identities` besides.

    One that ends in `/sa/*` is every service account of its namespace.
    """

    rule: IdentityRule
    identities: frozenset[str]
    address: Endpoint

    def __call__(self, uri: str) -> None:
        """Return where the peer with the verified `uri` is expected; raise IdentityRefused where it is not."""
        self.rule(uri)
        namespace, _, _ = uri.rpartition("/")
        if uri not in self.identities and f"{namespace}/*" not in self.identities:
            raise IdentityRefused(
                f"the peer at {self.address} is {uri}, and the peers document expects "
                f"{' or '.join(sorted(self.identities))} there",
                reason="unexpected_identity",
            )
