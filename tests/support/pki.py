"""Certificates of any kind, right and wrong, for tests.

Made with `cryptography` directly and not by certmgr: the tests of the engine need certificates that certmgr rightly
refuses to make.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

import pqtls
from pqtls.profiles import QBITEL

# The moment at which every test of the engine takes place, unless it says otherwise.
NOW = datetime.datetime(2026, 6, 1, 12, 0, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
BOTH_PURPOSES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any = field(repr=False)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The certificate alone, as it goes over the wire."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        """The private key in PKCS#8."""
        pem: bytes = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem


def make_certificate(
    *,
    issuer: Issued | None,
    subject: str,
    key: Any = None,
    is_ca: bool = False,
    path_length: int | None = None,
    names: tuple[x509.GeneralName, ...] = (),
    purposes: tuple[x509.ObjectIdentifier, ...] = BOTH_PURPOSES,
    authority_purposes: tuple[x509.ObjectIdentifier, ...] = (),
    digital_signature: bool | None = None,
    key_cert_sign: bool | None = None,
    crl_sign: bool | None = None,
    not_before: datetime.datetime = NOW - DAY,
    not_after: datetime.datetime = NOW + DAY,
    key_identifiers: bool = True,
) -> Issued:
    """Make any certificate; without an issuer it signs itself."""
    key = key or mldsa.MLDSA87PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    issuer_key = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(is_ca, path_length if is_ca else None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=(not is_ca) if digital_signature is None else digital_signature,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=is_ca if key_cert_sign is None else key_cert_sign,
                crl_sign=is_ca if crl_sign is None else crl_sign,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if key_identifiers:
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        issuers = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(own, critical=False).add_extension(issuers, critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    wanted = authority_purposes if is_ca else purposes
    if wanted:
        builder = builder.add_extension(x509.ExtendedKeyUsage(wanted), critical=False)
    algorithm = hashes.SHA384() if isinstance(issuer_key, ec.EllipticCurvePrivateKey) else None
    return Issued(builder.sign(issuer_key, algorithm), key)


def uri(text: str) -> x509.UniformResourceIdentifier:
    """A URI subject alternative name."""
    return x509.UniformResourceIdentifier(text)


def root(name: str = "QBITEL Test Root") -> Issued:
    """A root with an ML-DSA-87 key, made once per process."""
    return _root(name)


@cache
def _root(name: str) -> Issued:
    return make_certificate(issuer=None, subject=name, is_ca=True, path_length=1)


def leaf(name: str, root_name: str = "QBITEL Test Root") -> Issued:
    """The leaf of `spiffe://cluster.local/ns/default/sa/<name>`, made once per process."""
    return _leaf(name, root_name)


@cache
def _leaf(name: str, root_name: str) -> Issued:
    return make_certificate(issuer=root(root_name), subject=name, names=(uri(identity(name)),))


def identity(name: str) -> str:
    """The SPIFFE id of the leaf `name`."""
    return f"spiffe://cluster.local/ns/default/sa/{name}"


def credential(*chain: Issued) -> pqtls.Credential:
    """A credential of a chain, leaf first."""
    return pqtls.Credential.from_pem(b"".join(one.certificate_pem for one in chain), chain[0].key_pem)


def trust(*roots: Issued) -> pqtls.TrustAnchors:
    """Trust in these roots; by default in the root of all."""
    return pqtls.TrustAnchors.from_pem(b"".join(one.certificate_pem for one in roots or (root(),)))


def crl(
    *revoked: Issued,
    signer: Issued | None = None,
    this_update: datetime.datetime = NOW - DAY,
    next_update: datetime.datetime = NOW + DAY,
    number: int | None = None,
) -> bytes:
    """A revocation list in PEM that names these certificates; by default of the root of all."""
    by = signer or root()
    builder = x509.CertificateRevocationListBuilder().issuer_name(by.certificate.subject).last_update(this_update)
    builder = builder.next_update(next_update)
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number).revocation_date(NOW)
        builder = builder.add_revoked_certificate(entry.build())
    algorithm = hashes.SHA384() if isinstance(by.key, ec.EllipticCurvePrivateKey) else None
    return builder.sign(by.key, algorithm).public_bytes(Encoding.PEM)


def trust_with_crl(*revoked: Issued) -> pqtls.TrustAnchors:
    """Trust in the root of all, with a list of its that revokes these leaves."""
    return pqtls.TrustAnchors.from_pem(root().certificate_pem, crls=crl(*revoked))


def client_config(**changes: Any) -> pqtls.ClientConfig:
    """A client of profile qbitel, at NOW; any field can be changed."""
    values: dict[str, Any] = {
        "credential": credential(leaf("client")),
        "trust": trust(),
        "now": lambda: NOW,
        "profiles": (QBITEL,),
    }
    return pqtls.ClientConfig(**(values | changes))


def server_config(**changes: Any) -> pqtls.ServerConfig:
    """A server of profile qbitel, at NOW; any field can be changed."""
    values: dict[str, Any] = {
        "credential": credential(leaf("server")),
        "trust": trust(),
        "now": lambda: NOW,
        "profiles": (QBITEL,),
    }
    return pqtls.ServerConfig(**(values | changes))


def pump(a: pqtls.Connection, b: pqtls.Connection, piece: int = 2**20) -> None:
    """Carry bytes both ways, in pieces of at most `piece` bytes, until neither has anything to send."""
    while a.has_data_to_send or b.has_data_to_send:
        for source, target in ((a, b), (b, a)):
            data = source.data_to_send()
            for start in range(0, len(data), piece):
                target.receive_data(data[start : start + piece])


def connected(
    client: pqtls.ClientConfig | None = None, server: pqtls.ServerConfig | None = None
) -> tuple[pqtls.ClientConnection, pqtls.ServerConnection]:
    """A client and a server after their handshake, their events drained."""
    pair = (
        pqtls.ClientConnection(client or client_config()),
        pqtls.ServerConnection(server or server_config()),
    )
    pump(*pair)
    for connection in pair:
        connection.events()
    return pair
