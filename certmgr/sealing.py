"""Sealing: bytes that only one workload can read.

HPKE in base mode (RFC 9180 §5.1.1) with ML-KEM-1024, HKDF-SHA384 and AES-256-GCM. The key schedule's `info` binds
the ciphertext to the envelope's version, to the workload's SPIFFE id and to what was sealed, so that an envelope
that is moved to another name does not open. It does not say who sealed: base mode authenticates no sender.

    envelope = "QBSEAL" || version (1 byte) || encapsulated key (1568) || ciphertext with its tag (n + 16)
"""

from __future__ import annotations

import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from certmgr.authority import spiffe_id_of
from certmgr.kem import kem_public_key
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

MAGIC: Final = b"QBSEAL"
VERSION: Final = 1
_HEADER: Final = MAGIC + bytes([VERSION])
# 1568 bytes of ML-KEM-1024 ciphertext (FIPS 203 table 3) and GCM's tag.
OVERHEAD: Final = len(_HEADER) + 1568 + 16
# A Secret holds at most 1 MiB; whatever is larger does not belong into one.
MAX_PLAINTEXT: Final = 1 << 20


class CannotSeal(UserError, ValueError):
    """This recipient may not get what should be sealed."""


class CannotOpen(UserError, ValueError):
    """The envelope does not open. One message for every cause, so that nothing is told to whoever probes."""


def seal(
    recipient: x509.Certificate,
    plaintext: bytes,
    identity: SpiffeId,
    *,
    label: str,
    issuer: x509.Certificate,
    now: datetime.datetime,
) -> bytes:
    """Return `plaintext` (at most 1 MiB) as an envelope, OVERHEAD bytes longer, that only `recipient` opens.

    `label` names what is sealed, such as "tls.key"; opening needs the same. Raises CannotSeal where `recipient`
    is no ML-KEM-1024 certificate of exactly `identity`, was not signed by `issuer`, or is not valid at `now`
    (aware): a secret that was sealed to a forged certificate is given away.
    """
    if len(plaintext) > MAX_PLAINTEXT:
        raise CannotSeal(f"at most {MAX_PLAINTEXT} bytes can be sealed; give less")
    try:
        public_key = kem_public_key(recipient)
        named = spiffe_id_of(recipient)
    except UserError as error:
        raise CannotSeal(str(error)) from None
    if named != identity:
        raise CannotSeal("the recipient's certificate is another workload's; give the kem.crt of the identity")
    if not recipient.not_valid_before_utc <= now <= recipient.not_valid_after_utc:
        raise CannotSeal("the recipient's certificate is not valid now; issue a new one, or set the clock")
    try:
        recipient.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        raise CannotSeal("the recipient's certificate is not of this authority; give one that it signed") from None
    return _HEADER + _suite().encrypt(plaintext, public_key, info=_info(identity, label))


def open_sealed(private_key: MLKEM1024PrivateKey, envelope: bytes, identity: SpiffeId, *, label: str) -> bytes:
    """Return what `seal` was given for this key, `identity` and `label`. Raises CannotOpen for anything else."""
    if not OVERHEAD <= len(envelope) <= OVERHEAD + MAX_PLAINTEXT or not envelope.startswith(_HEADER):
        raise _cannot_open()
    try:
        return _suite().decrypt(envelope[len(_HEADER) :], private_key, info=_info(identity, label))
    except InvalidTag:
        raise _cannot_open() from None


def _cannot_open() -> CannotOpen:
    return CannotOpen("the sealed secret does not open for this workload; have it issued again")


def _info(identity: SpiffeId, label: str) -> bytes:
    """The binding, with each part's length before it: no two pairs of parts give the same bytes."""
    parts = (_HEADER, str(identity).encode(), label.encode())
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def _suite() -> Suite:
    return Suite(KEM.MLKEM1024, KDF.HKDF_SHA384, AEAD.AES_256_GCM)
