"""What each kind of certificate says: the extensions of a root and of a workload's leaf, and their lifetimes.

Sources: RFC 5280 (the profile of X.509), RFC 9881 (ML-DSA in X.509), and the SPIFFE X.509-SVID specification,
which wants of a leaf exactly one URI, CA:FALSE, digitalSignature and neither keyCertSign nor cRLSign.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

# A root is replaced by hand on every machine that trusts it, so it should outlive most installations of the
# mesh.
ROOT_VALIDITY: Final = datetime.timedelta(days=3652)  # ten years, leap days included
# Beyond a human generation nobody is left who knows where the key lies; it also keeps every date far below
# 9999.
MAX_ROOT_VALIDITY: Final = datetime.timedelta(days=30 * 366)
# Signs leaves in the root's place, so that the root's key can lie elsewhere; it is replaced while a third is left.
INTERMEDIATE_VALIDITY: Final = datetime.timedelta(days=365)
# Where no revocation list gets to a peer, a stolen key is worth what is left of its certificate's day.
WORKLOAD_VALIDITY: Final = datetime.timedelta(hours=24)
# What public authorities allowed for years (13 months): the most that a certificate without rotation should
# have.
MAX_WORKLOAD_VALIDITY: Final = datetime.timedelta(days=398)
# Machines whose clocks are a little behind must not refuse a certificate that was made this second. Kerberos
# has lived with the same allowance for decades.
BACKDATE: Final = datetime.timedelta(minutes=5)
# Room for one tier of intermediates (RFC 5280 §4.2.1.9 counts the CA certificates between root and leaf).
ROOT_PATH_LENGTH: Final = 1
# An intermediate signs leaves and nothing else.
INTERMEDIATE_PATH_LENGTH: Final = 0
# RFC 5280 appendix A: ub-common-name.
MAX_COMMON_NAME: Final = 64
# Names beyond the SPIFFE id. 100 names of 255 bytes make 26 kB, which stays under the 100 kB that OpenSSL
# accepts of a peer's whole chain; a leaf that should fit TCP's first flight has a handful.
MAX_ALTERNATIVE_NAMES: Final = 100


@dataclass(frozen=True, slots=True)
class ProfiledExtension:
    """One extension and whether a reader that does not know it must refuse the certificate."""

    value: x509.ExtensionType
    critical: bool


def root_extensions(public_key: MLDSA87PublicKey) -> tuple[ProfiledExtension, ...]:
    """What a self-signed root says. It has no EKU: RFC 5280 gives it no meaning there, and some readers
    refuse it.
    """
    return (
        ProfiledExtension(x509.BasicConstraints(ca=True, path_length=ROOT_PATH_LENGTH), critical=True),
        ProfiledExtension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True),
        ProfiledExtension(key_identifier(public_key), critical=False),
    )


def intermediate_extensions(
    public_key: MLDSA87PublicKey, issuer: x509.SubjectKeyIdentifier
) -> tuple[ProfiledExtension, ...]:
    """What an intermediate says: what a root does, but that there is no further authority below, and who is above."""
    return (
        ProfiledExtension(x509.BasicConstraints(ca=True, path_length=INTERMEDIATE_PATH_LENGTH), critical=True),
        ProfiledExtension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True),
        ProfiledExtension(key_identifier(public_key), critical=False),
        ProfiledExtension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False),
    )


def workload_extensions(
    public_key: MLDSA87PublicKey,
    issuer: x509.SubjectKeyIdentifier,
    names: Sequence[x509.GeneralName],
    *,
    subject_is_empty: bool,
) -> tuple[ProfiledExtension, ...]:
    """What a workload's leaf says; `names` is its SPIFFE id as a URI, then its DNS names and IP addresses.

    Where the subject is empty, the alternative names are the only ones and therefore critical (RFC 5280
    §4.2.1.6).
    """
    # Every workload is both: it is dialled, and it dials.
    both_roles = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return (
        ProfiledExtension(x509.BasicConstraints(ca=False, path_length=None), critical=True),
        ProfiledExtension(_key_usage(digital_signature=True), critical=True),
        ProfiledExtension(both_roles, critical=False),
        ProfiledExtension(x509.SubjectAlternativeName(names), critical=subject_is_empty),
        ProfiledExtension(key_identifier(public_key), critical=False),
        ProfiledExtension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False),
    )


def key_identifier(public_key: MLDSA87PublicKey | MLKEM1024PublicKey) -> x509.SubjectKeyIdentifier:
    """The leftmost 160 bits of the key's SHA-256 (RFC 7093 §2, method 1), so that no SHA-1 is computed
    anywhere.
    """
    return x509.SubjectKeyIdentifier(hashlib.sha256(public_key.public_bytes_raw()).digest()[:20])


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        # RFC 9881 §5: an ML-DSA key neither enciphers nor agrees on keys.
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
