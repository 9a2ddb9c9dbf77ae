"""A workload's folder out of an authority: key, certificate, and what the workload judges its peers by.

Nobody looks after such a folder but whoever ran the command, so what is written into it must hold for as long as the
certificate does, and the authority must know of it: a rotation of the root waits for it.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey

from certmgr.authority import CertificateAndKey, WorkloadRequest
from certmgr.files import check_place, write_workload
from certmgr.parts import Bundle
from certmgr.peers import check_instance
from certmgr.service import AuthorityService
from certmgr.x509_files import certificates_of, lists_of
from mesh.errors import UserError
from mesh.names import INTERMEDIATES_FILE, REVOCATION_FILE, ROOTS_FILE

# How long peers go on using a list after its nextUpdate (pqtls.trust.DEFAULT_CRL_GRACE, which no program here imports).
LIST_GRACE: Final = datetime.timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class WrittenFolder:
    """What was issued and written. `list_until` is when the revocation list goes out of use; None: none was written."""

    workload: CertificateAndKey
    generation: str
    bundle: Bundle
    list_until: datetime.datetime | None


async def issue_into(
    folder: Path, request: WorkloadRequest, authority: AuthorityService, instance: str
) -> WrittenFolder:
    """Issue a certificate for a new key and write `folder`; the authority knows it as a peer that has what it wrote.

    Whoever may use the authority's key may name an identity of any trust domain. A revocation list that would go out of
    use before the certificate ends is left out: once it is too old, nobody is let in any more. It is renewed where the
    folder has one already. Raises UserError, StoreUnavailable, Refused.
    """
    check_place(folder, request.spiffe_id)
    private_key = MLDSA87PrivateKey.generate()
    issued = await authority.certify(request, private_key.public_key(), instance, any_trust_domain=True)
    workload = CertificateAndKey(issued.certificate, private_key)
    bundle = authority.bundle()
    beside = {INTERMEDIATES_FILE: bundle.files[INTERMEDIATES_FILE]}
    lists = bundle.files[REVOCATION_FILE]
    until = lists_until(lists)
    serves = until is not None and until >= issued.certificate.not_valid_after_utc
    if lists and (serves or (folder / REVOCATION_FILE).exists()):
        beside[REVOCATION_FILE] = lists
    write_workload(
        folder, workload, certificates_of(bundle.files[ROOTS_FILE]), issuers=issued.intermediates, beside=beside
    )
    serial = f"{issued.certificate.serial_number:x}"
    await authority.acknowledge(str(request.spiffe_id), instance, bundle.anchors, serial)
    return WrittenFolder(workload, issued.generation, bundle, until if REVOCATION_FILE in beside else None)


def lists_until(lists: bytes) -> datetime.datetime | None:
    """Until when peers use the first of these lists (PEM) to become too old; None where there is none."""
    if not lists:
        return None
    return min(_end(one) for one in lists_of(lists)) + LIST_GRACE


def _end(crl: x509.CertificateRevocationList) -> datetime.datetime:
    if crl.next_update_utc is None:  # ours all say it
        raise UserError("a revocation list does not say when the next one comes; make new ones with `qbitel ca bundle`")
    return crl.next_update_utc


def instance_of(folder: Path, given: str = "") -> str:
    """The name under which the authority knows the holder of this folder: `given`, or the folder's path.

    UserError where `given` is no name. A path that is none is hashed.
    """
    if given:
        try:
            return check_instance(given)
        except ValueError as error:
            raise UserError(f"{given[:80]!r} cannot be used: {error}") from None
    path = str(folder.resolve())
    try:
        return check_instance(path)
    except ValueError:
        digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()
        return f"folder-{digest[:32]}"
