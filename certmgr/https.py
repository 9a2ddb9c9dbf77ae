"""The API's connections come over the mesh's TLS, by aiotls."""

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
from certmgr.parts import Bundle
from httpd.connection import Terms
from httpd.site import BACKLOG, Site
from mesh import names
from mesh.errors import UserError
from pqtls import ChainCache, ClientAuthentication, Credential, Profile, ServerConfig, TrustAnchors
from pqtls.errors import ConfigurationError

# Sidecars that renewed or acknowledged within the last minutes and come again; an entry is some 13 kB, so 13 MB in all.
_CHAIN_CACHE_CAPACITY: Final = 1024
# Seconds that a peer has to answer our close_notify at the very end.
_FAREWELL_SECONDS: Final = 1.0

_log = logging.getLogger("qbitel.certmgr")


class MeshSite(Site):
    """HTTP over the mesh's TLS."""

    __slots__ = ("_config_source", "_on_failure", "_tls")

    def __init__(
        self,
        runner: web.BaseRunner,
        sock: socket.socket,
        terms: Terms,
        config_source: Callable[[], ServerConfig],
        on_failure: Callable[[OSError, str], None],
    ) -> None:
        """`config_source` is asked for each connection; `on_failure` gets who failed in the handshake, and how."""
        super().__init__(runner, sock, terms)
        self._config_source = config_source
        self._on_failure = on_failure
        self._tls: aiotls.TlsServer | None = None

    async def listen(self) -> aiotls.TlsServer:
        """Closed by stop(), which gives up handshakes under way, too."""
        self._tls = await aiotls.create_server(
            self.make_protocol,
            None,
            None,
            self._config_source,
            sock=self._sock,
            backlog=BACKLOG,
            on_handshake_failure=lambda error, address: self._on_failure(error, str(address[0]) if address else "-"),
        )
        return self._tls

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
