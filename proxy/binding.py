"""Before anybody is served: the certificates are loaded, every port is bound, and there are descriptors enough."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mesh.errors import UserError
from pqtls import ChainCache, TicketKeeper
from pqtls.config import ignore_secret
from proxy import sockets, transparent
from proxy.config import ListenerConfig, ProxyConfig
from proxy.credential_files import CredentialStore
from proxy.credentials import CHAIN_CACHE_CAPACITY, TlsSettings, utc_now
from proxy.identity import IdentityRule
from proxy.key_log import open_key_log
from proxy.peers.peers import check_peers
from proxy.providers import choose_provider

if TYPE_CHECKING:
    from proxy.enrolled_credentials import EnrolledCredentials

# Descriptors besides those of connections: listeners, epolls, logs, a scrape or two.
_SPARE_DESCRIPTORS: Final = 256

_log = logging.getLogger("qbitel.proxy")


@dataclass(frozen=True, slots=True)
class Bound:
    """A checked configuration whose every port is ours. `listeners` holds one set of sockets per worker."""

    config: ProxyConfig
    credentials: CredentialStore | EnrolledCredentials
    listeners: tuple[tuple[socket.socket, ...], ...]
    metrics: tuple[socket.socket, ...]
    health: tuple[socket.socket, ...]
    admin: tuple[socket.socket, ...] = ()

    def close(self) -> None:
        """Give the ports back."""
        for sock in (*(sock for each in self.listeners for sock in each), *self.metrics, *self.health, *self.admin):
            sock.close()


def build(config: ProxyConfig, environment: Mapping[str, str] = os.environ) -> Bound:
    """Load the certificates or roots and bind every port, or raise UserError with one line and leave nothing bound."""
    config.policy.check_folder()
    check_peers(config)
    if any(listener.transparent for listener in config.listeners):
        transparent.check()
    provider = choose_provider(config.provider, environment)
    credentials = _credentials(
        config,
        TlsSettings(
            profiles=config.profiles,
            accept_identity=IdentityRule(config.trust_domains, config.peers),
            server_name=config.server_name,
            now=utc_now,
            provider=provider,
            # Both are still empty when workers are forked: each makes ticket keys and entries of its own.
            tickets=TicketKeeper(provider),
            chain_cache=ChainCache(CHAIN_CACHE_CAPACITY),
            key_log=ignore_secret if config.key_log is None else open_key_log(config.key_log, environment),
        ),
    )
    with contextlib.ExitStack() as undo:

        def keep(sock: socket.socket) -> socket.socket:
            return undo.enter_context(contextlib.closing(sock))

        columns = [_bind_for_workers(listener, config.workers, keep) for listener in config.listeners]
        metrics = tuple(keep(sockets.listen(endpoint)) for endpoint in config.metrics)
        health = tuple(keep(sockets.listen(endpoint)) for endpoint in config.health)
        admin = tuple(keep(sockets.listen(endpoint)) for endpoint in config.admin)
        bound = Bound(config, credentials, tuple(zip(*columns, strict=True)), metrics, health, admin)
        undo.pop_all()
    return bound


def _bind_for_workers(
    listener: ListenerConfig, workers: int, keep: Callable[[socket.socket], socket.socket]
) -> list[socket.socket]:
    first = sockets.listen(listener.bind, proxied=True, foreign=listener.transparent)
    if workers == 1:
        return [keep(first)]
    # SO_REUSEPORT would share a port with another qbitel of the same user without a word. Without it, it fails where
    # anybody has the port, and tells the number that the kernel chose for port 0.
    address = listener.bind if listener.bind.port else type(listener.bind)(listener.bind.host, first.getsockname()[1])
    first.close()
    return [
        keep(sockets.listen(address, reuse_port=True, proxied=True, foreign=listener.transparent))
        for _ in range(workers)
    ]


def _credentials(config: ProxyConfig, settings: TlsSettings) -> CredentialStore | EnrolledCredentials:
    if config.files is not None:
        return CredentialStore(config.files, settings)
    if config.enrolment is not None:
        # Whoever has files does without two megabytes of HTTP client.
        from proxy.enrolled_credentials import EnrolledCredentials  # noqa: PLC0415

        return EnrolledCredentials(config.enrolment, settings, config.trust_domains)
    raise AssertionError("a ProxyConfig has one of them")


def raise_descriptor_limit(max_connections: int) -> None:
    """Ask for as many descriptors as the connections may need (two each); say so where the system gives fewer."""
    wanted = 2 * max_connections + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    possible = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, possible), hard))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot raise the limit of open files to {possible}: {error}") from None
    if possible < 2 * max_connections:
        _log.warning(
            "the limit of open files is %d: room for some %d connections, not the %d of --max-connections "
            "(ulimit -Hn raises it)",
            possible,
            max(0, (possible - _SPARE_DESCRIPTORS) // 2),
            max_connections,
        )
