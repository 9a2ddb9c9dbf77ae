"""QuantumCertificateManager: the certificate authority for Python programs, with dicts for certificates.

The keys of those dicts are listed in docs/adr/0010-seed-certificate-api.md. All PEM is str.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey

from certmgr.algorithms import CertificateAlgorithm, key_algorithm, signature_algorithm
from certmgr.authority import CertificateAndKey, WorkloadRequest, create_root, issue_workload, spiffe_id_of
from certmgr.kem import issue_kem
from certmgr.profiles import MAX_ROOT_VALIDITY, MAX_WORKLOAD_VALIDITY
from certmgr.sealing import seal
from certmgr.secrets import check_label, check_subdomain, tls_secret
from mesh.errors import UserError
from mesh.names import (
    CERTIFICATE_FILE,
    DEFAULT_TRUST_DOMAIN,
    KEM_CERTIFICATE_FILE,
    KEM_PRIVATE_KEY_FILE,
    PRIVATE_KEY_FILE,
    ROOTS_FILE,
)
from mesh.spiffe import SpiffeId

SEALED_ANNOTATION: Final = "qbitel.io/sealed"
ROTATE_AFTER_ANNOTATION: Final = "qbitel.io/rotate-after"
# The mean length of a year in days; ten of them have 3652.
_DAYS_PER_YEAR: Final = 365.25
# RFC 3339, as Kubernetes writes times.
_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


class CertificateData(dict[str, Any]):
    """A certificate as a dict of strings (and one list, dns_names). Its repr leaves the private keys out."""

    def __repr__(self) -> str:
        shown = {key: "<private key>" if key.endswith("private_key_pem") else value for key, value in self.items()}
        return f"{type(self).__name__}({shown!r})"

    __str__ = __repr__


class QuantumCertificateManager:
    """Makes roots, service certificates and their Secrets, and says when a certificate is due.

    `key_algorithm` (of the encryption certificate) and `signature_algorithm` take a CertificateAlgorithm or its
    name. Service certificates are valid for `cert_validity_days` (1 to 398) and are due `rotation_threshold_days`
    (at least 1, less than the validity) before their end. With `auto_rotation`, each Secret says in an
    annotation when it is due, for whatever rotates it. `now` gives the time (aware). The manager keeps the
    last certificate of each service in memory, with its private keys, and nothing else.

    Every method raises ValueError, which names the argument, for what cannot work.
    """

    def __init__(
        self,
        key_algorithm: CertificateAlgorithm | str = CertificateAlgorithm.KYBER_1024,
        signature_algorithm: CertificateAlgorithm | str = CertificateAlgorithm.DILITHIUM_5,
        cert_validity_days: int = 90,
        rotation_threshold_days: int = 30,
        auto_rotation: bool = True,
        *,
        trust_domain: str = DEFAULT_TRUST_DOMAIN,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self.key_algorithm = _key_algorithm(key_algorithm)
        self.signature_algorithm = _signature_algorithm(signature_algorithm)
        self.cert_validity_days = _whole_number("cert_validity_days", cert_validity_days, MAX_WORKLOAD_VALIDITY.days)
        self.rotation_threshold_days = _whole_number(
            "rotation_threshold_days", rotation_threshold_days, self.cert_validity_days - 1
        )
        if not isinstance(auto_rotation, bool):
            raise ValueError("auto_rotation: give True or False")  # noqa: TRY004  # one kind of error for all
        self.auto_rotation = auto_rotation
        # A SPIFFE id is made here only to check the trust domain at once.
        SpiffeId.for_service_account("default", "default", trust_domain)
        self.trust_domain = trust_domain
        self._now = now
        self._issued: dict[tuple[str, str], CertificateData] = {}

    def generate_root_ca(self, subject: str, validity_years: int = 10) -> CertificateData:
        """Return a new self-signed ML-DSA-87 root named `subject` (RFC 4514), valid for 1 to 30 years."""
        longest = int(MAX_ROOT_VALIDITY.days / _DAYS_PER_YEAR)
        years = _whole_number("validity_years", validity_years, longest)
        if not isinstance(subject, str):
            raise ValueError("subject: give a string such as 'CN=Example root,O=Example'")  # noqa: TRY004  # as above
        try:
            root = create_root(subject, self._now(), datetime.timedelta(days=int(years * _DAYS_PER_YEAR)))
        except UserError as error:
            raise ValueError(f"subject: {error}") from None
        return CertificateData(_described(root))

    def generate_service_certificate(
        self,
        service_name: str,
        namespace: str,
        ca_cert: Mapping[str, Any] | str | bytes,
        ca_private_key: str | bytes,
    ) -> CertificateData:
        """Return a new identity certificate (ML-DSA-87) and encryption certificate (ML-KEM-1024) of a service.

        `ca_cert` is what `generate_root_ca` returned, or a PEM certificate. Neither certificate outlives it.
        """
        check_label("service_name", service_name)
        check_label("namespace", namespace)
        issuer = _issuer(ca_cert, ca_private_key)
        request = WorkloadRequest(
            spiffe_id=SpiffeId.for_service_account(namespace, service_name, self.trust_domain),
            dns_names=_service_names(service_name, namespace),
            validity=datetime.timedelta(days=self.cert_validity_days),
        )
        now = self._now()
        try:
            identity = issue_workload(request, issuer, now)
            encryption = issue_kem(request, issuer, now)
        except UserError as error:
            raise ValueError(f"ca_cert: {error}") from None
        issued = CertificateData(
            _described(identity),
            service_name=service_name,
            namespace=namespace,
            spiffe_id=str(request.spiffe_id),
            dns_names=list(request.dns_names),
            kem_certificate_pem=encryption.certificate_pem.decode("ascii"),
            kem_private_key_pem=encryption.private_key_pem.decode("ascii"),
            kem_algorithm=str(self.key_algorithm),
            ca_certificate_pem=issuer.certificate_pem.decode("ascii"),
        )
        self._issued[namespace, service_name] = issued
        return CertificateData(issued)

    def create_kubernetes_secret(
        self,
        cert_data: Mapping[str, Any],
        secret_name: str,
        namespace: str,
        *,
        seal_private_key: bool = False,
    ) -> dict[str, Any]:
        """Return a Secret of type kubernetes.io/tls for `cert_data`, a service's certificate.

        With `seal_private_key`, `tls.key` is an envelope (certmgr/sealing.py) that only the workload's ML-KEM key
        opens, and `kem.key` is left out: it reaches the sidecar by another way, or the Secret would hold its own key.
        A Secret in another namespace than the identity's is refused: it would give the key to strangers.
        """
        check_subdomain("secret_name", secret_name)
        check_label("namespace", namespace)
        if _text(cert_data, "namespace") != namespace:
            raise ValueError("namespace: the certificate is another namespace's; use the one that it was made for")
        certificate = _certificate("cert_data", _text(cert_data, "certificate_pem"))
        files = {
            CERTIFICATE_FILE: _text(cert_data, "certificate_pem").encode(),
            PRIVATE_KEY_FILE: _text(cert_data, "private_key_pem").encode(),
            ROOTS_FILE: _text(cert_data, "ca_certificate_pem").encode(),
            KEM_CERTIFICATE_FILE: _text(cert_data, "kem_certificate_pem").encode(),
        }
        annotations = {"qbitel.io/spiffe-id": _text(cert_data, "spiffe_id")}
        if self.auto_rotation:
            annotations[ROTATE_AFTER_ANNOTATION] = self._due_at(certificate).strftime(_TIME_FORMAT)
        if seal_private_key:
            files[PRIVATE_KEY_FILE] = self._sealed_key(cert_data, certificate)
            annotations[SEALED_ANNOTATION] = PRIVATE_KEY_FILE
        else:
            files[KEM_PRIVATE_KEY_FILE] = _text(cert_data, "kem_private_key_pem").encode()
        labels = {
            "app.kubernetes.io/managed-by": "qbitel",
            "qbitel.io/service": _text(cert_data, "service_name"),
        }
        return tls_secret(secret_name, namespace, files, labels=labels, annotations=annotations)

    def get_certificate(self, service_name: str, namespace: str) -> CertificateData:
        """Return a copy of the last certificate that this manager issued to a service.

        Raises KeyError where it issued none: None would let whoever asks next believe that nothing is due.
        """
        issued = self._issued.get((namespace, service_name))
        if issued is None:
            raise KeyError(f"no certificate was issued to {service_name!r} in namespace {namespace!r} by this manager")
        return CertificateData(issued)

    def check_rotation_needed(self, cert_data: Mapping[str, Any]) -> bool:
        """Whether at most `rotation_threshold_days` are left, by the certificate itself; True once it has ended."""
        return self._now() >= self._due_at(_certificate("cert_data", _text(cert_data, "certificate_pem")))

    def _due_at(self, certificate: x509.Certificate) -> datetime.datetime:
        return certificate.not_valid_after_utc - datetime.timedelta(days=self.rotation_threshold_days)

    def _sealed_key(self, cert_data: Mapping[str, Any], certificate: x509.Certificate) -> bytes:
        recipient = _certificate("cert_data", _text(cert_data, "kem_certificate_pem"))
        issuer = _certificate("cert_data", _text(cert_data, "ca_certificate_pem"))
        try:
            return seal(
                recipient,
                _text(cert_data, "private_key_pem").encode(),
                spiffe_id_of(certificate),
                label=PRIVATE_KEY_FILE,
                issuer=issuer,
                now=self._now(),
            )
        except UserError as error:
            raise ValueError(f"cert_data: {error}") from None


# The constructor's arguments have the names of these two.
_key_algorithm = key_algorithm
_signature_algorithm = signature_algorithm


def _described(pair: CertificateAndKey) -> dict[str, Any]:
    certificate = pair.certificate
    return {
        "certificate_pem": pair.certificate_pem.decode("ascii"),
        "private_key_pem": pair.private_key_pem.decode("ascii"),
        # In hexadecimal: 159 bits as a JSON number would lose most of them.
        "serial_number": f"{certificate.serial_number:x}",
        "not_before": certificate.not_valid_before_utc.strftime(_TIME_FORMAT),
        "not_after": certificate.not_valid_after_utc.strftime(_TIME_FORMAT),
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "algorithm": str(CertificateAlgorithm.ML_DSA_87),
        "fingerprint": certificate.fingerprint(hashes.SHA256()).hex(),
    }


def _service_names(service: str, namespace: str) -> tuple[str, ...]:
    """What a Service is dialled by within a cluster whose domain is cluster.local."""
    return (
        service,
        f"{service}.{namespace}",
        f"{service}.{namespace}.svc",
        f"{service}.{namespace}.svc.cluster.local",
    )


def _issuer(ca_cert: object, ca_private_key: object) -> CertificateAndKey:
    pem = ca_cert.get("certificate_pem") if isinstance(ca_cert, Mapping) else ca_cert
    certificate = _certificate("ca_cert", pem)
    private_key = _private_key("ca_private_key", ca_private_key)
    try:
        return CertificateAndKey(certificate, private_key)
    except UserError as error:
        raise ValueError(f"ca_private_key: {error}") from None


def _certificate(argument: str, pem: object) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_pem_bytes(argument, pem))
    except (ValueError, x509.InvalidVersion):
        raise ValueError(f"{argument}: holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)") from None


def _private_key(argument: str, pem: object) -> MLDSA87PrivateKey:
    """The key in `pem`; no message says anything of what `pem` holds."""
    try:
        key = serialization.load_pem_private_key(_pem_bytes(argument, pem), password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, MLDSA87PrivateKey):
        raise ValueError(f"{argument}: holds no unencrypted ML-DSA-87 key in PEM and seed form (RFC 9881)")  # noqa: TRY004  # as above
    return key


def _pem_bytes(argument: str, pem: object) -> bytes:
    match pem:
        case str():
            return pem.encode("utf-8", "replace")  # what is no ASCII is refused as PEM
        case bytes():
            return pem
    raise ValueError(f"{argument}: give PEM as str or bytes")


def _text(cert_data: object, key: str) -> str:
    """`cert_data[key]`, or ValueError where this is not what generate_service_certificate returns."""
    value = cert_data.get(key) if isinstance(cert_data, Mapping) else None
    if not isinstance(value, str):
        raise ValueError(f"cert_data: {key!r} is missing; give what generate_service_certificate returned")  # noqa: TRY004  # one kind of error for all
    return value


def _whole_number(argument: str, value: object, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= highest:
        raise ValueError(f"{argument}: {str(value)[:40]!r} is not a whole number from 1 to {highest}")
    return value
