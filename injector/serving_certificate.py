"""The certificate that the webhook shows: followed while its files change, and never half of a pair."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from mesh.errors import UserError

# Certificates change every few weeks, and are looked at more often than anybody waits for that.
RELOAD_SECONDS: Final = 5.0
# A chain has a few kB; a file that is larger by far is none.
_LARGEST_FILE: Final = 1 << 20
# The best that Python's ssl offers for the API server's client, which is Go's: TLS 1.3, whose groups OpenSSL chooses
# (X25519MLKEM768 first since OpenSSL 3.5, where both sides have it).
_OLDEST_TLS: Final = ssl.TLSVersion.TLSv1_3

_log = logging.getLogger("qbitel.injector")

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class ServingFiles:
    """The webhook's certificate with its chain, and its key: PEM."""

    certificate: Path
    key: Path

    def stamp(self) -> _Stamp:
        """What changes when one of the files does (mounted Secrets are links that are swapped)."""
        stats = [path.stat() for path in (self.certificate, self.key)]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in stats)


class ServingCertificate:
    """A TLS context whose certificate follows its files; the last good one stays."""

    def __init__(self, files: ServingFiles) -> None:
        """Raise UserError where there is no usable certificate now."""
        self._files = files
        self._failure = ""
        try:
            self._stamp = files.stamp()
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}") from None
        pair = _read(files)
        self.context = _new_context()
        pair.load_into(self.context)
        self.end = pair.end

    def refresh(self) -> None:
        """Look at the files, and take what they hold for connections from now on."""
        try:
            stamp = self._files.stamp()
            if stamp == self._stamp:
                return
            pair = _read(self._files)
            # Into a context of its own first: a certificate without its key would spoil the one in use.
            pair.load_into(_new_context())
        except (OSError, UserError) as error:
            if str(error) != self._failure:
                self._failure = str(error)
                _log.warning("the new certificate cannot be used, the last one stays: %s", error)
            return
        pair.load_into(self.context)
        self._stamp, self._failure, self.end = stamp, "", pair.end
        _log.info("a new certificate is in use, until %s", self.end.isoformat(timespec="seconds"))

    async def follow(self) -> None:
        """Refresh until cancelled."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            self.refresh()


@dataclass(frozen=True, slots=True)
class _Pair:
    """What was read once: the very bytes that were found to be good are the ones that are used."""

    files: ServingFiles
    certificate: bytes
    key: bytes
    end: datetime.datetime

    def load_into(self, context: ssl.SSLContext) -> None:
        """Raise UserError where they are no certificate and its key."""
        with ExitStack() as undo:
            certificate, key = (undo.enter_context(_in_memory(content)) for content in (self.certificate, self.key))
            try:
                # An encrypted key must not make it ask somebody at a terminal.
                context.load_cert_chain(certificate, key, password=_no_password)
            except FileNotFoundError:
                # What there is of these files is in our memory: only the way to it can be missing.
                raise UserError(
                    "/proc is not mounted, and a certificate is handed to OpenSSL by /proc/self/fd alone, so that no "
                    "disk ever has its key: mount it (mount -t proc proc /proc)"
                ) from None
            except ssl.SSLError as error:
                what = f"{self.files.certificate} and {self.files.key}"
                raise UserError(f"{what}: {error.reason or 'no certificate and its key'}") from None


def _read(files: ServingFiles) -> _Pair:
    certificate, key = (_content(path) for path in (files.certificate, files.key))
    try:
        end = x509.load_pem_x509_certificates(certificate)[0].not_valid_after_utc
    except (ValueError, x509.InvalidVersion):
        raise UserError(f"{files.certificate} holds no certificate in PEM form") from None
    return _Pair(files, certificate, key, end)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if len(content) > _LARGEST_FILE:
        raise UserError(f"{path} has more than {_LARGEST_FILE} bytes; it is no certificate")
    return content


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path to a file that no disk and nobody else ever sees: Python's ssl reads certificates from files alone."""
    try:
        descriptor = os.memfd_create("qbitel-tls", os.MFD_CLOEXEC)
    except OSError as error:  # a sandbox's filter of system calls
        raise UserError(
            f"the certificate cannot be kept in memory (memfd_create: {error.strerror}): let the sandbox allow that"
        ) from None
    try:
        with open(descriptor, "wb", closefd=False) as file:  # a descriptor
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _OLDEST_TLS
    return context


def _no_password() -> bytes:
    raise UserError("the webhook's key is encrypted; give one that is not")
