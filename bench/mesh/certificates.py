"""What the contenders show one another: the mesh's own certificates, and for Envoy's usual choice an ECDSA pair."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from certmgr.authority import WorkloadRequest, create_root, issue_workload
from mesh import names
from mesh.spiffe import SpiffeId

_SPIFFE_ID: Final = "spiffe://cluster.local/ns/bench/sa/both"
DNS_NAME: Final = "bench.example"  # nginx checks no other kind of name


@dataclass(frozen=True, slots=True)
class Certificates:
    """A folder with a leaf for both ends, its key and the root."""

    folder: Path

    @property
    def chain(self) -> Path:
        """The leaf."""
        return self.folder / names.CERTIFICATE_FILE

    @property
    def key(self) -> Path:
        """Its private key."""
        return self.folder / names.PRIVATE_KEY_FILE

    @property
    def roots(self) -> Path:
        """Who vouches for it."""
        return self.folder / names.ROOTS_FILE

    @property
    def together(self) -> Path:
        """The leaf and its key in one file, as HAProxy wants them."""
        return self.folder / "both.pem"


def post_quantum(folder: Path, now: datetime.datetime) -> Certificates:
    """ML-DSA-87, made by the mesh's own authority."""
    root = create_root("CN=benchmark", now)
    request = WorkloadRequest(spiffe_id=SpiffeId.parse(_SPIFFE_ID), dns_names=(DNS_NAME,))
    leaf = issue_workload(request, root, now)
    return _written(folder, leaf.certificate_pem, leaf.private_key_pem, root.certificate_pem)


def classical(folder: Path, now: datetime.datetime) -> Certificates:
    """ECDSA P-256, as Istio makes them."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark")])

    def builder(public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .issuer_name(name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    root = (
        builder(root_key.public_key())
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        builder(key.public_key())
        .subject_name(x509.Name([]))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_SPIFFE_ID)]), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    return _written(
        folder,
        leaf.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        root.public_bytes(Encoding.PEM),
    )


def _written(folder: Path, chain: bytes, key: bytes, roots: bytes) -> Certificates:
    folder.mkdir()
    made = Certificates(folder)
    for path in (made.key, made.together):
        path.touch(mode=0o600)
    made.chain.write_bytes(chain)
    made.key.write_bytes(key)
    made.roots.write_bytes(roots)
    made.together.write_bytes(chain + key)
    return made
