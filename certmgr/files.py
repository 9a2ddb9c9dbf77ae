"""Authorities and issued certificates as folders.

    a root's folder         ca.crt  ca.key
    a workload's folder     tls.crt  tls.key  ca.crt, and perhaps intermediates.crt  crl.pem

`tls.crt` holds the leaf and what stands between it and the root, if anything does: what a peer holds already is not
sent to it. How the bytes get to disk and back is certmgr/storage.py's business.

A certificate is never without its key, whenever a renewal is killed: while the two files are replaced, the key's holds
the new key and, behind it, the old one, and readers take the one that belongs to the certificate.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey

from certmgr.authority import CertificateAndKey, is_authority, spiffe_id_of
from certmgr.storage import PUBLIC_MODE, SECRET_MODE, File, read_file, write_files
from mesh.errors import UserError, shown
from mesh.names import CERTIFICATE_FILE, PRIVATE_KEY_FILE, ROOTS_FILE
from mesh.spiffe import SpiffeId

AUTHORITY_KEY_FILE: Final = "ca.key"
# In front of each block of a PEM file, and how a block of a private key begins, whatever its kind.
_PEM_BLOCK: Final = re.compile(rb"(?=-----BEGIN )")
_PEM_KEY: Final = re.compile(rb"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----")
# The object identifier 2.16.840.1.101.3.4.3.19 (RFC 9881 §2) as DER.
_ML_DSA_87_OID: Final = bytes.fromhex("0609608648016503040313")


@dataclass(frozen=True, slots=True)
class Workload:
    """What a workload's folder holds: its leaf with the key, the roots that it trusts, and the issuers of the leaf that
    it sends along (nearest first, no root).
    """

    credential: CertificateAndKey
    roots: tuple[x509.Certificate, ...]
    issuers: tuple[x509.Certificate, ...] = ()


def write_authority(folder: Path, root: CertificateAndKey, *, replace: bool = False) -> None:
    """Write `ca.key` and `ca.crt`. UserError where a root is there already, unless `replace`."""
    there = _there(lambda: read_authority(folder)) if replace else None
    files = _pair_of_files(
        File(AUTHORITY_KEY_FILE, root.private_key_pem, SECRET_MODE),
        File(ROOTS_FILE, root.certificate_pem, PUBLIC_MODE),
        there,
    )
    write_files(folder, files, replace=replace)


def write_workload(
    folder: Path,
    workload: CertificateAndKey,
    roots: Sequence[x509.Certificate],
    *,
    issuers: Sequence[x509.Certificate] = (),
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write `ca.crt`, `tls.key` and `tls.crt`, or renew them.

    `issuers` stand behind the leaf in tls.crt, nearest first; `beside` are further public files by name. UserError
    where the folder holds another identity's certificate: renewing is usual, changing who somebody is by accident must
    not happen.
    """
    if not roots:
        raise ValueError("a workload that trusts nobody cannot talk to anybody: give at least one root")
    check_place(folder, spiffe_id_of(workload.certificate))
    # In this order, so that whoever waits for a change of tls.crt finds the others changed already.
    files = (
        File(ROOTS_FILE, _pem(roots), PUBLIC_MODE),
        *(File(name, content, PUBLIC_MODE) for name, content in beside.items()),
        *_pair_of_files(
            File(PRIVATE_KEY_FILE, workload.private_key_pem, SECRET_MODE),
            File(CERTIFICATE_FILE, _pem([workload.certificate, *issuers]), PUBLIC_MODE),
            _there(lambda: read_workload(folder).credential),
        ),
    )
    write_files(folder, files, replace=True)


def _pair_of_files(key: File, certificate: File, there: CertificateAndKey | None) -> tuple[File, ...]:
    """What to write, one after the other, where the pair `there` is to be replaced: see the top of this file."""
    if there is None:
        return (key, certificate)
    # The new key first: programs that look at one key alone, as OpenSSL does, watch for a change of the certificate.
    both = File(key.name, key.content + there.private_key_pem, key.mode)
    return (both, certificate, key)


def _there(read: Callable[[], CertificateAndKey]) -> CertificateAndKey | None:
    """What `read` finds; None where there is nothing, or nothing that anybody could use."""
    try:
        return read()
    except UserError:
        return None


def read_authority(folder: Path) -> CertificateAndKey:
    """Return the authority that `folder` holds. UserError, with the fix, for whatever is wrong with it."""
    path = folder / ROOTS_FILE
    root = _pair(path, folder / AUTHORITY_KEY_FILE, _one_certificate(path))
    if not is_authority(root.certificate):
        raise UserError(
            f"{shown(path)} is no authority's certificate; make one with `qbitel ca init` in another folder"
        )
    return root


def read_workload(folder: Path) -> Workload:
    """Return what a workload's folder holds. UserError, with the fix, for whatever is wrong with it."""
    path = folder / CERTIFICATE_FILE
    leaf, *issuers = _certificates(path)
    credential = _pair(path, folder / PRIVATE_KEY_FILE, leaf)
    return Workload(credential, _certificates(folder / ROOTS_FILE), tuple(issuers))


def check_place(folder: Path, wanted: SpiffeId) -> None:
    """Raise UserError where `folder` holds a certificate of another identity, or something else in its place."""
    path = folder / CERTIFICATE_FILE
    if not os.path.lexists(path):
        return
    try:
        there = spiffe_id_of(_certificates(path)[0])
    except UserError as error:
        raise UserError(f"{shown(path)} is in the way: {error}") from None
    if there != wanted:
        raise UserError(f"{shown(path)} belongs to {there}; use another folder for {wanted} (--out)")


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def _pair(certificate_path: Path, key_path: Path, certificate: x509.Certificate) -> CertificateAndKey:
    first, *others = _private_keys(key_path)
    for other in others:
        with contextlib.suppress(UserError):
            return CertificateAndKey(certificate, other)
    try:
        return CertificateAndKey(certificate, first)
    except UserError as error:
        raise UserError(f"{shown(certificate_path)} and {shown(key_path)}: {error}") from None


def _one_certificate(path: Path) -> x509.Certificate:
    certificates = _certificates(path)
    if len(certificates) != 1:
        raise UserError(
            f"{shown(path)} holds {len(certificates)} certificates; leave only the first, the one of its key"
        )
    return certificates[0]


def _certificates(path: Path) -> tuple[x509.Certificate, ...]:
    content = read_file(path)
    try:
        return tuple(x509.load_pem_x509_certificates(content))
    except (ValueError, x509.InvalidVersion):
        raise UserError(
            f"{shown(path)} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----); "
            "DER is converted with: openssl x509 -inform der"
        ) from None


def _private_keys(path: Path) -> list[MLDSA87PrivateKey]:
    """The key in a file, or the two where a renewal was interrupted."""
    content = read_file(path, secret=True)
    blocks = [block for block in _PEM_BLOCK.split(content) if _PEM_KEY.match(block)]
    # What holds no key is for the reader of keys to complain of.
    return [_private_key(path, block) for block in blocks[:2] or [content]]


def _private_key(path: Path, content: bytes) -> MLDSA87PrivateKey:
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        raise UserError(
            f"{shown(path)} is encrypted; decrypt it with openssl pkey and protect it by its mode, 0600"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise UserError(f"{shown(path)} {_why_unreadable(content)}") from None
    if not isinstance(key, MLDSA87PrivateKey):
        raise UserError(f"{shown(path)} is no ML-DSA-87 key; make one with `qbitel ca init` or `qbitel ca issue`")
    return key


def _why_unreadable(content: bytes) -> str:
    """OpenSSL writes the expanded form by default, which `cryptography` does not take (RFC 9881 §6)."""
    body = b"".join(line for line in content.splitlines() if not line.startswith(b"-----"))
    try:
        is_ml_dsa = b"PRIVATE KEY-----" in content and _ML_DSA_87_OID in base64.b64decode(body)
    except binascii.Error:
        is_ml_dsa = False
    if is_ml_dsa:
        return (
            "is an ML-DSA-87 key that is not in seed form; convert it with: "
            "openssl pkey -provparam ml-dsa.output_formats=seed-only -in OLD -out NEW"
        )
    return "holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)"
