"""A small authority in memory, for tests of what stands in front of an authority: what it is asked is written down."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import hashlib
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from certmgr.authority import (
    CertificateAndKey,
    WorkloadRequest,
    alternative_names,
    create_root,
    issue_workload,
    issuer_key_identifier,
    sign_certificate,
)
from certmgr.parts import Bundle, Issued
from certmgr.profiles import BACKDATE, workload_extensions
from certmgr.proofs import Method, ProvenIdentity, Reason, Refused
from certmgr.store import StoreUnavailable
from mesh import names
from mesh.spiffe import SpiffeId

TRUST_DOMAIN = "cluster.local"


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def workload_id(name: str, trust_domain: str = TRUST_DOMAIN) -> SpiffeId:
    return SpiffeId.for_service_account("shop", name, trust_domain)


@dataclasses.dataclass(frozen=True)
class Certified:
    certificate: x509.Certificate
    certificate_pem: bytes
    kem_certificate_pem: bytes | None
    generation: str


class StandIn:
    """Implements certmgr.api.Service. `hold`, when set to an Event, keeps issue() until it is set."""

    trust_domain = TRUST_DOMAIN

    def __init__(self) -> None:
        self.root = create_root("CN=Stand-in root", utc_now() - datetime.timedelta(days=3))
        self.own = issue_workload(
            WorkloadRequest(spiffe_id=SpiffeId.of_authority(TRUST_DOMAIN), dns_names=("localhost",)),
            self.root,
            utc_now(),
        )
        self.revoked: set[int] = set()
        self.bootstrap = {"b" * 40: ProvenIdentity(spiffe_id=workload_id("machine"), method=Method.BOOTSTRAP)}
        self.journal: list[tuple[str, str, str]] = []
        self.acknowledged: list[tuple[str, str, str]] = []
        self.asked: list[dict[str, Any]] = []
        self.hold: asyncio.Event | None = None
        self.unavailable = ""
        self._crl = b""
        self._changed = asyncio.Event()

    def workload(self, name: str, **request: Any) -> CertificateAndKey:
        spiffe_id = request.pop("spiffe_id", workload_id(name))
        now = request.pop("now", utc_now())
        return issue_workload(WorkloadRequest(spiffe_id=spiffe_id, **request), self.root, now)

    def revoke(self, certificate: x509.Certificate) -> None:
        self.revoked.add(certificate.serial_number)
        now = utc_now()
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.root.certificate.subject)
        builder = builder.last_update(now).next_update(now + datetime.timedelta(hours=1))
        for serial in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        self._crl = builder.sign(self.root.private_key, None).public_bytes(Encoding.PEM)
        self._changed.set()
        self._changed = asyncio.Event()

    # -- certmgr.api.Service ------------------------------------------------------------------------------------

    def own_credential(self) -> tuple[bytes, bytes]:
        return self.own.certificate_pem, self.own.private_key_pem

    def bundle(self) -> Bundle:
        files = {names.ROOTS_FILE: self.root.certificate_pem, names.REVOCATION_FILE: self._crl}
        etag = hashlib.sha256(b"".join(files.values())).hexdigest()
        return Bundle(files, self.root.fingerprint, etag, self.root.fingerprint[:16])

    async def next_bundle(self, after: str) -> Bundle:
        while self.bundle().etag == after:
            await self._changed.wait()
        return self.bundle()

    async def issue(
        self,
        proven: ProvenIdentity,
        csr: bytes,
        *,
        instance: str,
        anchors: str,
        kem_public_key: bytes | None,
        shown: str = "",
    ) -> Certified:
        assert bool(shown) == (proven.method is Method.CERTIFICATE)
        if self.unavailable:
            raise StoreUnavailable(self.unavailable)
        try:
            request = x509.load_pem_x509_csr(csr)
            public_key = request.public_key()
        except ValueError:
            raise Refused(Reason.CSR_MALFORMED, "the CSR cannot be read") from None
        if not isinstance(public_key, MLDSA87PublicKey):
            raise Refused(Reason.CSR_KEY, "the CSR's key is not ML-DSA-87")
        if not request.is_signature_valid:
            raise Refused(Reason.CSR_SIGNATURE, "the CSR is not signed by its own key")
        if self.hold is not None:
            await self.hold.wait()
        self.asked.append(
            {"proven": proven, "instance": instance, "anchors": anchors, "kem": kem_public_key, "csr": request}
        )
        now = utc_now()
        leaf = sign_certificate(
            subject=x509.Name([]),
            issuer=self.root.certificate.subject,
            public_key=public_key,
            not_before=(now - BACKDATE).replace(microsecond=0),
            not_after=(now + datetime.timedelta(hours=24)).replace(microsecond=0),
            extensions=workload_extensions(
                public_key,
                issuer_key_identifier(self.root),
                alternative_names(WorkloadRequest(spiffe_id=proven.spiffe_id, dns_names=proven.dns_names)),
                subject_is_empty=True,
            ),
            signing_key=self.root.private_key,
        )
        return Certified(leaf, leaf.public_bytes(Encoding.PEM), None, self.root.fingerprint[:16])

    async def redeem(self, token: str, check: Callable[[ProvenIdentity], object]) -> ProvenIdentity:
        proven = self.bootstrap.get(token)
        if proven is None:
            raise Refused(Reason.BOOTSTRAP_REFUSED, "there is no such token, or it is used")
        check(proven)
        return self.bootstrap.pop(token)

    async def acknowledge(self, identity: str, instance: str, anchors: str, serial: str = "") -> None:
        assert serial
        self.acknowledged.append((identity, instance, anchors))

    async def certify(self, request: Any, public_key: Any, instance: str) -> Issued:
        raise NotImplementedError

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        return certificate.serial_number in self.revoked

    async def note_refusal(self, refused: Refused, *, method: Method | None, source: str) -> None:
        self.journal.append((refused.reason.slug, "none" if method is None else method.value, source))
