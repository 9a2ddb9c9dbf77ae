"""Our certificate, key and roots: loaded from files, reloaded when they change, and the last good ones kept.

A rotation writes three files one after the other, or swaps a symbolic link (Kubernetes); a reload that meets them half
done fails, is logged once, and is tried again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mesh import names
from mesh.errors import UserError
from pqtls import Credential, TicketKeeper, TrustAnchors
from pqtls.errors import ConfigurationError
from pqtls.trust import OlderRevocationList
from pqtls.x509_reading import load_certificates, uris
from proxy.config import CredentialFiles, TrustFiles
from proxy.credentials import Bundle, TlsSettings, TrustPem, count_nothing
from proxy.reading import exists, read_file, signature_of

# How an envelope of certmgr/sealing.py begins.
SEALED: Final = b"QBSEAL"

_log = logging.getLogger("qbitel.proxy")


def load(files: CredentialFiles, settings: TlsSettings) -> Bundle:
    """Read and check the files, or raise UserError with one line that names the file."""
    chain, key = _read(files.chain), _private_key(files)
    try:
        credential = Credential.from_pem(chain, key)
    except ConfigurationError as error:
        raise UserError(f"{files.chain} with {files.key}: {error}") from None
    _, trust = read_trust(files.trust)
    try:
        return Bundle(credential, trust, settings)
    except ConfigurationError as error:
        raise UserError(f"{files.chain}: {error}") from None


def read_trust(files: TrustFiles) -> tuple[TrustPem, TrustAnchors]:
    """Read and check roots, intermediates and revocation lists; UserError with one line names the file at fault."""
    found = TrustPem(_read(files.roots))
    trust = _checked(found, files.roots)
    if files.intermediates is not None and exists(files.intermediates):
        found = dataclasses.replace(found, intermediates=_read(files.intermediates))
        trust = _checked(found, files.intermediates)
    if files.crl is not None and has_revocations(files):
        found = dataclasses.replace(found, crls=_read_revocations(files.crl))
        trust = _checked(found, files.crl)
    return found, trust


def _checked(pem: TrustPem, last: Path) -> TrustAnchors:
    try:
        return pem.anchors()
    except ConfigurationError as error:
        raise UserError(f"{last}: {error}") from None


def check_follows(trust: TrustAnchors, held: TrustAnchors, files: TrustFiles) -> None:
    """Raise OlderList where `trust`, read from `files`, has an older revocation list than `held`.

    Whoever can put an old file in a new one's place must not let in again what was revoked meanwhile. What is held is
    in memory alone: a process that starts takes the lists that it finds.
    """
    try:
        trust.check_follows(held)
    except OlderRevocationList as error:
        raise OlderList(f"{files.crl}: {error}") from None


class OlderList(UserError):
    """A file of revocation lists is older than what was read from it before."""


def has_revocations(files: TrustFiles) -> bool:
    """Whether a file of revocation lists is there, or must be; raise UserError where nobody lets us look."""
    if files.crl is None or not files.crl_is_optional:
        return files.crl is not None
    return exists(files.crl)


def insisting_on_revocations(files: TrustFiles) -> TrustFiles:
    """The same files, where a revocation list that is there now must not vanish."""
    return dataclasses.replace(files, crl_is_optional=False) if has_revocations(files) else files


def _private_key(files: CredentialFiles) -> bytes:
    """The key in PEM; one that came sealed is opened by the workload's ML-KEM key."""
    content = _read(files.key)
    if not content.startswith(SEALED):
        return _read(files.key, secret=True)  # an envelope may be for everybody's eyes, a key may not
    if files.kem_key is None or files.open_sealed is None:
        raise UserError(f"{files.key} is sealed, and nothing here can open it; give --kem-key")
    kem_key = read_file(
        files.kem_key,
        secret=True,
        if_missing=f"{files.key} is sealed to the workload's ML-KEM key: give its file by --kem-key",
    )
    try:
        return files.open_sealed(kem_key, content, _identity(files.chain), names.PRIVATE_KEY_FILE)
    except UserError as error:
        raise UserError(f"{files.key} with {files.kem_key}: {error}") from None


def _identity(path: Path) -> str:
    """Whose certificate it is: what the key was sealed to."""
    try:
        found = uris(load_certificates(_read(path), "the certificate file")[0])
    except ConfigurationError as error:
        raise UserError(f"{path}: {error}") from None
    if len(found) != 1:
        raise UserError(f"{path} has {len(found)} URIs, not one SPIFFE id that a key could be sealed to")
    return found[0]


def _read_revocations(path: Path) -> bytes:
    lists = read_file(
        path, if_missing="without it nobody would be known as revoked; put it back, or restart without a list"
    )
    if not lists.strip():
        raise UserError(f"{path} is empty: write at least one revocation list (-----BEGIN X509 CRL-----)")
    return lists


def _read(path: Path, *, secret: bool = False) -> bytes:
    return read_file(path, secret=secret, if_missing="`qbitel ca issue` makes certificates")


class CredentialStore:
    """The current Bundle. `reload()` may replace it; a failure keeps the last good one."""

    def __init__(self, files: CredentialFiles, settings: TlsSettings) -> None:
        """Load for the first time; raise UserError where that fails, since there is nothing to keep yet."""
        self._files = files
        self._settings = settings
        self._seen = signature_of(self._files.paths())
        self._last_failure = ""
        self.count_older_list: Callable[[], None] = count_nothing
        self.current = load(files, settings)
        self._insist_on_revocations()
        self._warn_if_expired()

    def has_changed(self) -> bool:
        """Whether a file's time, size or inode is another than at the last good load."""
        return signature_of(self._files.paths()) != self._seen

    def reload(self) -> bool:
        """Reload now. Returns False, logs why (once) and keeps the last good state where that fails."""
        signature = signature_of(self._files.paths())
        try:
            bundle = self._load()
            self._insist_on_revocations()
        except UserError as error:
            if isinstance(error, OlderList):
                self.count_older_list()
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
        check_follows(bundle.trust, self.current.trust, self._files.trust)
        if bundle.identity == self.current.identity or self._settings.tickets is None:
            return bundle
        # Whoever resumes takes us for whom it met before. That was somebody else: those tickets must not hold any more.
        self._settings = dataclasses.replace(self._settings, tickets=TicketKeeper(self._settings.provider))
        return load(self._files, self._settings)

    def _insist_on_revocations(self) -> None:
        """A list that was there must not vanish: what it revoked would be let in again."""
        self._files = dataclasses.replace(self._files, trust=insisting_on_revocations(self._files.trust))

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
