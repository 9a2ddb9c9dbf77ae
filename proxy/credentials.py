"""Who we are and whom we trust, as every new connection uses it: made of files, or of what the authority gave us.

Whoever replaces it (credential_files.py, enrolled_credentials.py) puts a new Bundle in the old one's place in one step:
connections keep the configuration that they were made with, and all later ones have the new.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from mesh import names
from pqtls import ChainCache, ClientConfig, Credential, Profile, ServerConfig, TicketKeeper, TrustAnchors
from pqtls.config import LARGE_RECORDS, ignore_secret
from pqtls.provider import CryptoProvider, default_provider
from proxy.identity import IdentityRule

# Peers that one workload usually has, with room for their rotations of an hour; an entry is about 13 KB (OpenSSL keeps
# the key expanded), so 6.5 MB in all. What falls out costs its next handshake two verifications, half a millisecond.
CHAIN_CACHE_CAPACITY: Final = 512

Clock = Callable[[], datetime.datetime]


def count_nothing() -> None:
    """Where nobody counts: before a worker has its metrics, and in commands that only look."""


def utc_now() -> datetime.datetime:
    """The present as an aware datetime: the clock of every program here."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """What a connection's configuration is made of besides certificates, keys and roots.

    The cache and the tickets outlive a renewal: the engine checks at each use that what they say still
    holds for the certificates, the roots and the revocation lists of that moment.
    """

    profiles: tuple[Profile, ...]
    accept_identity: IdentityRule
    server_name: str | None = None
    now: Clock = utc_now
    provider: CryptoProvider = field(default_factory=default_provider)
    tickets: TicketKeeper | None = None
    chain_cache: ChainCache = field(default_factory=lambda: ChainCache(0))
    key_log: Callable[[str], None] = field(default=ignore_secret, repr=False)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A credential and a state of trust, and the configurations made of them (kept, because connections share them).

    `certificates_id` stands for the chain that we show: whoever has to remember by which one needs no 15 KB for it.
    """

    credential: Credential
    trust: TrustAnchors
    settings: TlsSettings
    certificates_id: bytes = field(init=False, repr=False)
    mesh_client: ClientConfig = field(init=False)
    tunnel_client: ClientConfig = field(init=False)
    move_client: ClientConfig = field(init=False)
    mesh_server: ServerConfig = field(init=False)
    foreign_client: ClientConfig = field(init=False)
    foreign_server: ServerConfig = field(init=False)

    def __post_init__(self) -> None:
        common: Callable[..., dict[str, Any]] = functools.partial(
            dict,
            credential=self.credential,
            trust=self.trust,
            now=self.settings.now,
            profiles=self.settings.profiles,
            provider=self.settings.provider,
            chain_cache=self.settings.chain_cache,
            key_log=self.settings.key_log,
            accept_identity=self.settings.accept_identity,
        )
        mesh: Callable[..., dict[str, Any]] = common
        if self.settings.key_log is ignore_secret:  # who reads along (Wireshark) knows the records of RFC 8446 only
            mesh = functools.partial(common, large_record_size_limit=LARGE_RECORDS)
        put = functools.partial(object.__setattr__, self)
        single, both = (names.ALPN_STREAM,), (names.ALPN_TUNNEL, names.ALPN_STREAM)
        move = (names.ALPN_MOVE,)
        client = functools.partial(ClientConfig, server_name=self.settings.server_name)
        server = functools.partial(ServerConfig, tickets=self.settings.tickets)
        # Of fixed size each, so that no two chains look alike.
        each = [hashlib.sha256(certificate).digest() for certificate in self.credential.chain]
        put("certificates_id", hashlib.sha256(b"".join(each)).digest())
        put("mesh_client", client(**mesh(alpn=single, require_alpn=True)))
        put("tunnel_client", client(**mesh(alpn=both, require_alpn=True)))
        put("foreign_client", client(**common(alpn=single)))
        put("move_client", client(**mesh(alpn=move, require_alpn=True)))
        put("mesh_server", server(**mesh(alpn=both + move, require_alpn=True)))
        put("foreign_server", server(**common(alpn=single)))

    @property
    def identity(self) -> str:
        """Our own SPIFFE ID, or "-" where our certificate has none (or several)."""
        return self.credential.identity or "-"

    def client(self, mesh_only: bool) -> ClientConfig:
        """The configuration of a client; `mesh_only` demands that the server is a sidecar of ours."""
        return self.mesh_client if mesh_only else self.foreign_client

    def server(self, mesh_only: bool) -> ServerConfig:
        """The configuration of a server; `mesh_only` demands that the client is a sidecar of ours."""
        return self.mesh_server if mesh_only else self.foreign_server


@dataclass(frozen=True, slots=True)
class TrustPem:
    """Whom we trust, as it comes: PEM roots, and perhaps intermediates and revocation lists."""

    roots: bytes = field(repr=False)
    intermediates: bytes = field(default=b"", repr=False)
    crls: bytes = field(default=b"", repr=False)

    def anchors(self) -> TrustAnchors:
        """The same as the engine takes it. Raises ConfigurationError."""
        return TrustAnchors.from_pem(self.roots, intermediates=self.intermediates, crls=self.crls)


class CredentialSource(Protocol):
    """Where connections find the Bundle of the moment."""

    @property
    def current(self) -> Bundle:
        """What a connection that begins now is made with."""
        ...
