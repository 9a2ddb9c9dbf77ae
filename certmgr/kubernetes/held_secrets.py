"""A Secret that was made for a service account: what it holds, and what has to be done with it, as pure functions."""

from __future__ import annotations

import base64
import datetime
import enum
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey

from certmgr.authority import CertificateAndKey, spiffe_id_of
from certmgr.kem import KemCertificateAndKey
from certmgr.kubernetes.service_accounts import Wish
from certmgr.parts import Bundle
from kube.objects import Object
from mesh.errors import UserError
from mesh.names import (
    ANNOTATION_PREFIX,
    CERTIFICATE_FILE,
    KEM_CERTIFICATE_FILE,
    KEM_PRIVATE_KEY_FILE,
    PRIVATE_KEY_FILE,
    ROOTS_FILE,
)

# What is ours: without both, a Secret is somebody else's and is never touched.
LABELS: Final = {"app.kubernetes.io/managed-by": "qbitel", f"{ANNOTATION_PREFIX}certificate": "service-account"}
ACCOUNT_ANNOTATION: Final = f"{ANNOTATION_PREFIX}service-account"
GENERATION_ANNOTATION: Final = f"{ANNOTATION_PREFIX}generation"
# Which roots are in it, and since when: RFC 3339.
ANCHORS_ANNOTATION: Final = f"{ANNOTATION_PREFIX}anchors"
ANCHORS_SINCE_ANNOTATION: Final = f"{ANNOTATION_PREFIX}anchors-since"

# Rotated when 30 days are left, as ever with 90 days; of a shorter life, when a third is left, which is the same share.
LONGEST_THRESHOLD: Final = datetime.timedelta(days=30)
# A kubelet takes a changed Secret to its pods within its sync period and its cache's time, a minute each by default;
# beyond that the pod's program has to notice. Only then do these roots count as trusted there.
PROPAGATION: Final = datetime.timedelta(minutes=5)

# Whoever may edit Secrets in some namespace may put any certificate into ours there; it is read field by field.
_BAD_CERTIFICATE: Final = (
    TypeError,
    ValueError,
    UnsupportedAlgorithm,
    UserError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_BAD_PEM: Final = (KeyError, *_BAD_CERTIFICATE)


@dataclass(frozen=True, slots=True)
class Held:
    """A Secret of ours, without its keys. The certificates are None where they or their keys cannot be used."""

    namespace: str
    name: str
    version: str
    service_account: str
    identity: x509.Certificate | None
    encryption: x509.Certificate | None
    roots: str
    generation: str
    anchors: str
    anchors_since: datetime.datetime | None


class Task(enum.Enum):
    """What to do with a Secret."""

    RENEW = "renew its certificates"
    PUBLISH = "bring its roots up to date"
    ACKNOWLEDGE = "acknowledge its roots"


def held_of(secret: Object) -> Held:
    """Read a Secret that has LABELS. Whatever somebody has made of its data or annotations is no error."""
    metadata = secret["metadata"]
    annotations = metadata.get("annotations") or {}
    data = secret.get("data") or {}
    return Held(
        namespace=metadata["namespace"],
        name=metadata["name"],
        version=metadata["resourceVersion"],
        service_account=annotations.get(ACCOUNT_ANNOTATION, ""),
        identity=_identity(data),
        encryption=_encryption(data),
        roots=roots_hash(_decoded(data.get(ROOTS_FILE, ""))),
        generation=annotations.get(GENERATION_ANNOTATION, ""),
        anchors=annotations.get(ANCHORS_ANNOTATION, ""),
        anchors_since=_time(annotations.get(ANCHORS_SINCE_ANNOTATION, "")),
    )


def task_for(
    wish: Wish,
    held: Held,
    bundle: Bundle,
    now: datetime.datetime,
    *,
    trust_domain: str,
    is_revoked: Callable[[x509.Certificate], bool],
    acknowledged: str,
) -> Task | None:
    """Return what is due. `acknowledged` is what was acknowledged for the certificate that is in the Secret."""
    certificates = (held.identity, held.encryption)
    if held.generation != bundle.generation or not all(
        certificate is not None and _is_good(certificate, wish, now, trust_domain, is_revoked)
        for certificate in certificates
    ):
        return Task.RENEW
    if held.roots != roots_hash(bundle.files[ROOTS_FILE]) or held.anchors != bundle.anchors:
        return Task.PUBLISH
    if held.anchors_since is None or held.anchors_since > now:
        return Task.PUBLISH  # somebody has edited it: count from now on
    if acknowledged != bundle.anchors and now >= held.anchors_since + PROPAGATION:
        return Task.ACKNOWLEDGE
    return None


def due_by_time(held: Held, acknowledged: str) -> datetime.datetime:
    """When something may be due, of a Secret of which `task_for` says that nothing is, if nothing else changes."""
    moments = [renewal_time(one) for one in (held.identity, held.encryption) if one is not None]
    if acknowledged != held.anchors and held.anchors_since is not None:
        moments.append(held.anchors_since + PROPAGATION)
    return min(moments)


def renewal_time(certificate: x509.Certificate) -> datetime.datetime:
    """When a certificate is inside the threshold."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - min(LONGEST_THRESHOLD, life / 3)


def annotations_for(
    wish: Wish, held: Held | None, bundle: Bundle, generation: str, now: datetime.datetime
) -> dict[str, str]:
    """Return the annotations of a Secret that is written now with the bundle's roots."""
    return {
        ACCOUNT_ANNOTATION: wish.service_account,
        GENERATION_ANNOTATION: generation,
        ANCHORS_ANNOTATION: bundle.anchors,
        ANCHORS_SINCE_ANNOTATION: _since(held, bundle, now).astimezone(datetime.UTC).isoformat(timespec="seconds"),
    }


def _since(held: Held | None, bundle: Bundle, now: datetime.datetime) -> datetime.datetime:
    """Since when these roots are in the Secret: if they were before, they have reached the pods already."""
    if held is None or held.anchors_since is None or held.anchors_since > now:
        return now
    is_same = held.roots == roots_hash(bundle.files[ROOTS_FILE]) and held.anchors == bundle.anchors
    return held.anchors_since if is_same else now


def roots_hash(roots: bytes) -> str:
    """One word for a file of roots, which is 10 kB for each of them."""
    return hashlib.sha256(roots).hexdigest()


def _is_good(
    certificate: x509.Certificate,
    wish: Wish,
    now: datetime.datetime,
    trust_domain: str,
    is_revoked: Callable[[x509.Certificate], bool],
) -> bool:
    """Whether the certificate says exactly what is wished for, and may stay."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return (
            spiffe_id_of(certificate) == wish.spiffe_id(trust_domain)
            and set(names.get_values_for_type(x509.DNSName)) == set(wish.dns_names)
            and now < renewal_time(certificate)
            and not is_revoked(certificate)
        )
    except _BAD_CERTIFICATE:
        return False


def _identity(data: Mapping[str, str]) -> x509.Certificate | None:
    try:
        certificate = x509.load_pem_x509_certificates(base64.b64decode(data[CERTIFICATE_FILE]))[0]
        key = serialization.load_pem_private_key(base64.b64decode(data[PRIVATE_KEY_FILE]), password=None)
        return CertificateAndKey(certificate, key).certificate if isinstance(key, MLDSA87PrivateKey) else None
    except _BAD_PEM:
        return None


def _encryption(data: Mapping[str, str]) -> x509.Certificate | None:
    try:
        certificate = x509.load_pem_x509_certificate(base64.b64decode(data[KEM_CERTIFICATE_FILE]))
        key = serialization.load_pem_private_key(base64.b64decode(data[KEM_PRIVATE_KEY_FILE]), password=None)
        return KemCertificateAndKey(certificate, key).certificate if isinstance(key, MLKEM1024PrivateKey) else None
    except _BAD_PEM:
        return None


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except (TypeError, ValueError):
        return b""


def _time(text: str) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
