"""Where an aiohttp server's connections come from: aiotls for the API, asyncio for metrics and health."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import socket
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from aiohttp import web

import aiotls
from certmgr.connections import HttpConnection, Surroundings
from certmgr.parts import Bundle
from mesh import names
from mesh.errors import UserError
from pqtls import ChainCache, ClientAuthentication, Credential, Profile, ServerConfig, TrustAnchors
from pqtls.errors import ConfigurationError

BACKLOG: Final = 1024
# Sidecars that renewed or acknowledged within the last minutes and come again; an entry is some 13 kB, so 13 MB in all.
_CHAIN_CACHE_CAPACITY: Final = 1024
# Seconds that a peer has to answer our close_notify at the very end.
_FAREWELL_SECONDS: Final = 1.0

_log = logging.getLogger("qbitel.certmgr")


class Site(web.BaseSite):
    """Connections of `sock`, which listens already, as HTTP of `runner`. Subclasses say what lies in between."""

    __slots__ = ("_around", "_sock")

    def __init__(self, runner: web.BaseRunner, sock: socket.socket, around: Surroundings) -> None:
        super().__init__(runner)
        self._sock = sock
        self._around = around

    @property
    def name(self) -> str:
        """HOST:PORT, where the sock is open."""
        return address_of(self._sock)

    def make_protocol(self) -> HttpConnection:
        """For one more connection."""
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner was not set up, or is cleaned up already")
        return HttpConnection(server, self._around)


class PlainSite(Site):
    """HTTP as it is."""

    __slots__ = ()

    async def start(self) -> None:
        """Accept connections until stop(), which closes the socket."""
        await super().start()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self.make_protocol, sock=self._sock, backlog=BACKLOG)


class MeshSite(Site):
    """HTTP over the mesh's TLS."""

    __slots__ = ("_config_source", "_on_failure", "_tls")

    def __init__(
        self,
        runner: web.BaseRunner,
        sock: socket.socket,
        around: Surroundings,
        config_source: Callable[[], ServerConfig],
        on_failure: Callable[[OSError, str], None],
    ) -> None:
        """`config_source` is asked for each connection; `on_failure` gets who failed in the handshake, and how."""
        super().__init__(runner, sock, around)
        self._config_source = config_source
        self._on_failure = on_failure
        self._tls: aiotls.TlsServer | None = None

    async def start(self) -> None:
        """Accept connections until stop(), which closes the socket and gives up handshakes under way."""
        await super().start()
        self._tls = await aiotls.create_server(
            self.make_protocol,
            None,
            None,
            self._config_source,
            sock=self._sock,
            backlog=BACKLOG,
            on_handshake_failure=lambda error, address: self._on_failure(error, str(address[0]) if address else "-"),
        )
        self._server = self._tls

    async def farewell(self) -> None:
        """After the runner's cleanup: let the connections close in order for a moment, then end them."""
        if self._tls is None:
            return
        self._tls.close_clients()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._tls.wait_closed()
        self._tls.abort_clients()
        await self._tls.wait_closed()


class CredentialSource(Protocol):
    """Who we are and whom we trust, now: a part of service.AuthorityService."""

    def own_credential(self) -> tuple[bytes, bytes]:
        """The chain (PEM, leaf first) and its key (PEM)."""
        ...

    def bundle(self) -> Bundle:
        """What we publish is what we trust."""
        ...


class TlsConfigs:
    """Makes the configuration of each connection: a new one when our certificate or the bundle is a new one.

    The client's certificate is optional, and there are no tickets: each renewal shows the certificate itself.
    """

    def __init__(
        self, source: CredentialSource, profiles: tuple[Profile, ...], now: Callable[[], datetime.datetime]
    ) -> None:
        """Raise UserError where `source` and `profiles` do not fit."""
        self._source = source
        self._profiles = profiles
        self._now = now
        self._chain_cache = ChainCache(_CHAIN_CACHE_CAPACITY)
        self._made_of: tuple[bytes, str] = (b"", "")
        self._current = self._make()

    def __call__(self) -> ServerConfig:
        """The configuration for a connection that begins now."""
        chain, _ = self._source.own_credential()
        made_of = (chain, self._source.bundle().etag)
        if made_of != self._made_of:
            try:
                self._current = self._make()
            except UserError as error:
                self._made_of = made_of  # said once; what is used stays as it was
                _log.error("new connections keep the certificates from before: %s", error)
        return self._current

    def _make(self) -> ServerConfig:
        chain, key = self._source.own_credential()
        bundle = self._source.bundle()
        try:
            config = ServerConfig(
                credential=Credential.from_pem(chain, key),
                trust=_trust(bundle.files),
                now=self._now,
                profiles=self._profiles,
                chain_cache=self._chain_cache,
                client_authentication=ClientAuthentication.OPTIONAL,
            )
        except ConfigurationError as error:
            raise UserError(f"the authority's own TLS: {error}") from None
        self._made_of = (chain, bundle.etag)
        return config


def _trust(files: Mapping[str, bytes]) -> TrustAnchors:
    return TrustAnchors.from_pem(
        files[names.ROOTS_FILE],
        intermediates=files.get(names.INTERMEDIATES_FILE, b""),
        crls=files.get(names.REVOCATION_FILE, b""),
    )


def address_of(sock: socket.socket) -> str:
    """HOST:PORT, with the port that the kernel chose where 0 was asked for; an IPv6 address in brackets."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
