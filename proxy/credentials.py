"""Our certificate, key and roots: loaded from files, reloaded when they change, and the last good ones kept.

A rotation writes three files one after the other, or swaps a symbolic link (Kubernetes); a reload that meets them half
done fails, is logged once, and is tried again. Connections keep the configuration that they were made with.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mesh import names
from mesh.errors import UserError
from pqtls import ChainCache, ClientConfig, Credential, Profile, ServerConfig, TicketKeeper, TrustAnchors
from pqtls.config import ignore_secret
from pqtls.errors import ConfigurationError
from pqtls.provider import CryptoProvider, default_provider
from proxy.config import CredentialFiles
from proxy.identity import IdentityRule

# Peers that one workload usually has, with room for their rotations of an hour; an entry is about 4 KB, so 4 MB in all.
CHAIN_CACHE_CAPACITY: Final = 1024
# Of each file. A revocation list of 100,000 certificates has some 4 MB; nothing else comes near.
_MAX_FILE_SIZE: Final = 16 << 20

_log = logging.getLogger("qbitel.proxy")

Clock = Callable[[], datetime.datetime]


def utc_now() -> datetime.datetime:
    """The present as an aware datetime: the clock of every program here."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """What a connection's configuration is made of besides the files.

    The cache and the tickets outlive a reload of the files: the engine checks at each use that what they say still
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
    """One good state of the files, and the configurations made of it (kept, because connections share them)."""

    credential: Credential
    trust: TrustAnchors
    settings: TlsSettings
    mesh_client: ClientConfig = field(init=False)
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
            alpn=(names.ALPN_STREAM,),
        )
        put = functools.partial(object.__setattr__, self)
        put("mesh_client", ClientConfig(**common(server_name=self.settings.server_name, require_alpn=True)))
        put("foreign_client", ClientConfig(**common(server_name=self.settings.server_name)))
        put("mesh_server", ServerConfig(**common(require_alpn=True, tickets=self.settings.tickets)))
        put("foreign_server", ServerConfig(**common(tickets=self.settings.tickets)))

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


def load(files: CredentialFiles, settings: TlsSettings) -> Bundle:
    """Read and check the files, or raise UserError with one line that names the file."""
    chain, key, roots = _read(files.chain), _read(files.key, secret=True), _read(files.roots)
    try:
        credential = Credential.from_pem(chain, key)
    except ConfigurationError as error:
        raise UserError(f"{files.chain} with {files.key}: {error}") from None
    try:
        trust = TrustAnchors.from_pem(roots)
    except ConfigurationError as error:
        raise UserError(f"{files.roots}: {error}") from None
    try:
        if files.crl is not None and has_revocations(files):
            trust = TrustAnchors.from_pem(roots, crls=_read_revocations(files.crl))
    except ConfigurationError as error:
        raise UserError(f"{files.crl}: {error}") from None
    try:
        bundle = Bundle(credential, trust, settings)
    except ConfigurationError as error:
        raise UserError(f"{files.chain}: {error}") from None
    return bundle


def has_revocations(files: CredentialFiles) -> bool:
    """Whether a file of revocation lists is there, or must be; raise UserError where nobody lets us look."""
    if files.crl is None or not files.crl_is_optional:
        return files.crl is not None
    try:
        files.crl.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # it cannot be said that there is none
        raise UserError(f"cannot look for {files.crl}: {error.strerror}") from None
    return True


def _read_revocations(path: Path) -> bytes:
    lists = _read(
        path, if_missing="without it nobody would be known as revoked; put it back, or restart without a list"
    )
    if not lists.strip():
        raise UserError(f"{path} is empty: write at least one revocation list (-----BEGIN X509 CRL-----)")
    return lists


def _read(path: Path, *, secret: bool = False, if_missing: str = "`qbitel ca issue` makes certificates") -> bytes:
    try:
        with open(path, "rb", opener=_open_at_once) as file:  # Path.open knows no opener
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise UserError(f"{path} is no regular file; give a file in PEM form")
            if secret and mode & stat.S_IRWXO:
                raise UserError(f"every user of this machine can use the private key {path}; chmod 600 {path}")
            content = file.read(_MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {if_missing}") from None
    except PermissionError:
        raise UserError(f"no permission to read {path}; it must be readable for the user of this process") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > _MAX_FILE_SIZE:
        raise UserError(f"{path} has more than {_MAX_FILE_SIZE >> 20} MiB; is it the right file?")
    return content


def _open_at_once(path: str, flags: int) -> int:
    """A pipe in a file's place would make us wait for its writer, and all connections with us."""
    return os.open(path, flags | os.O_NONBLOCK)


class CredentialStore:
    """The current Bundle. `reload()` may replace it; a failure keeps the last good one."""

    def __init__(self, files: CredentialFiles, settings: TlsSettings) -> None:
        """Load for the first time; raise UserError where that fails, since there is nothing to keep yet."""
        self._files = files
        self._settings = settings
        self._seen = self._signature()
        self._last_failure = ""
        self.current = load(files, settings)
        self._insist_on_revocations()
        self._warn_if_expired()

    def has_changed(self) -> bool:
        """Whether a file's time, size or inode is another than at the last good load."""
        return self._signature() != self._seen

    def reload(self) -> bool:
        """Reload now. Returns False, logs why (once) and keeps the last good state where that fails."""
        signature = self._signature()
        try:
            bundle = self._load()
            self._insist_on_revocations()
        except UserError as error:
            if str(error) != self._last_failure:
                self._last_failure = str(error)
                _log.error("the certificates were not reloaded, the last good ones stay in use: %s", error)
            return False
        self._seen = signature
        self._last_failure = ""
        self.current = bundle
        _log.info(
            "certificates reloaded: %s, valid until %s",
            bundle.identity,
            bundle.credential.not_valid_after.isoformat(),
        )
        self._warn_if_expired()
        return True

    def _load(self) -> Bundle:
        bundle = load(self._files, self._settings)
        if bundle.identity == self.current.identity or self._settings.tickets is None:
            return bundle
        # Whoever resumes takes us for whom it met before. That was somebody else: those tickets must not hold any more.
        self._settings = dataclasses.replace(self._settings, tickets=TicketKeeper(self._settings.provider))
        return load(self._files, self._settings)

    def _insist_on_revocations(self) -> None:
        """A list that was there must not vanish: what it revoked would be let in again."""
        if has_revocations(self._files):
            self._files = dataclasses.replace(self._files, crl_is_optional=False)

    def _signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes when a file does; None for one that is not there at the moment."""
        found: list[tuple[int, int, int] | None] = []
        for path in self._files.paths():
            try:
                status = path.stat()
            except OSError:
                found.append(None)
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    def _warn_if_expired(self) -> None:
        end, now = self.current.credential.not_valid_after, self._settings.now()
        if end < now:
            _log.warning(
                "our certificate %s expired at %s (now %s): every peer will refuse us; issue a new one into %s",
                self.current.identity,
                end.isoformat(),
                now.isoformat(),
                self._files.chain,
            )
