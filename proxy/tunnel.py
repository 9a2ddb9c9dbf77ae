"""The explicit tunnel: one listener with one target, for machines without interception and for foreign TLS peers. Pure.

The client takes plain TCP and speaks TLS to its target; the server takes TLS, with a client certificate, and speaks
plain TCP to its target. Both are the sidecar's own outbound and inbound with a target that is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pqtls import Profile
from proxy.config import CredentialFiles, Direction, Endpoint, Limits, ListenerConfig, ProxyConfig

# Whoever dials a tunnel was given its address by hand: nobody has to hear that it leaves.
_LIMITS: Final = Limits(drain_quiet=0)


def client(
    *,
    listen: Endpoint,
    target: Endpoint,
    files: CredentialFiles,
    profiles: tuple[Profile, ...],
    expect: frozenset[str] = frozenset(),
    trust_domains: frozenset[str] = frozenset(),
    server_name: str | None = None,
    metrics: tuple[Endpoint, ...] = (),
    workers: int = 1,
    limits: Limits | None = None,
    provider: str = "cryptography",
    key_log: Path | None = None,
) -> ProxyConfig:
    """The tunnel's client end. `expect`: the SPIFFE ids that the server may have, any if empty. Raises UserError."""
    return ProxyConfig(
        files=files,
        listeners=(ListenerConfig(direction=Direction.OUTBOUND, bind=listen, target=target, mesh_only=False),),
        profiles=profiles,
        provider=provider,
        key_log=key_log,
        trust_domains=trust_domains,
        peers=expect,
        server_name=server_name,
        metrics=metrics,
        workers=workers,
        limits=limits or _LIMITS,
    )


def server(
    *,
    listen: Endpoint,
    target: Endpoint,
    files: CredentialFiles,
    profiles: tuple[Profile, ...],
    allow: frozenset[str] = frozenset(),
    trust_domains: frozenset[str] = frozenset(),
    metrics: tuple[Endpoint, ...] = (),
    workers: int = 1,
    limits: Limits | None = None,
    provider: str = "cryptography",
    key_log: Path | None = None,
) -> ProxyConfig:
    """The tunnel's server end. `allow`: the SPIFFE ids that may come in, any if empty. Raises UserError."""
    return ProxyConfig(
        files=files,
        listeners=(ListenerConfig(direction=Direction.INBOUND, bind=listen, target=target, mesh_only=False),),
        profiles=profiles,
        provider=provider,
        key_log=key_log,
        trust_domains=trust_domains,
        peers=allow,
        metrics=metrics,
        workers=workers,
        limits=limits or _LIMITS,
    )
