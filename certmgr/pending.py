"""An intermediate that was asked for and is not signed yet: its key waits for the answer of a root kept off line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from certmgr.authority import CertificateAndKey, request_intermediate
from certmgr.x509_files import UNREADABLE, deprecations_ignored, find
from mesh.errors import UserError

# The document of a certmgr.store.Store that one is kept in.
PENDING_DOCUMENT: Final = "request"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class PendingIntermediate:
    """A key and the request that it signed; equal where the requests are."""

    request_pem: bytes
    private_key: MLDSA87PrivateKey = field(repr=False, compare=False)

    @classmethod
    def new(cls, subject: str) -> PendingIntermediate:
        """A new key. UserError for a subject that is none (`CN=…,O=…`)."""
        private_key, request = request_intermediate(subject)
        return cls(request.public_bytes(Encoding.PEM), private_key)

    def answered_by(self, certificate: x509.Certificate) -> CertificateAndKey:
        """The intermediate. UserError where the certificate is for another key."""
        try:
            return CertificateAndKey(certificate, self.private_key)
        except UserError:
            raise UserError(
                "the certificate is not for the key that waits here; give the one that was signed for the last "
                "`qbitel ca request`"
            ) from None

    def encode(self) -> bytes:
        """Return the document: JSON. It holds the private key."""
        key = self.private_key.private_bytes(
            Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        document = {"version": _VERSION, "request": self.request_pem.decode(), "key": key.decode()}
        return json.dumps(document, sort_keys=True).encode()

    @classmethod
    def decode(cls, document: bytes) -> PendingIntermediate:
        """Return what encode() was called on. UserError, which tells nothing secret, for any other bytes."""
        try:
            content = json.loads(document)
            if not isinstance(content, dict) or content.get("version") != _VERSION:
                raise ValueError("of another version")
            request, key = content["request"].encode(), content["key"].encode()
            private_key = serialization.load_pem_private_key(key, password=None)
            if not isinstance(private_key, MLDSA87PrivateKey) or _requested_key(request) != private_key.public_key():
                raise ValueError("of another key")
        except (*UNREADABLE, KeyError, AttributeError, RecursionError, UserError):
            raise UserError(
                "the request that waits here is damaged; make a new one with `qbitel ca request --force`"
            ) from None
        return cls(request, private_key)


def read_request(content: bytes) -> x509.CertificateSigningRequest:
    """The one certificate request that `content` holds, PEM or DER. UserError, without the file's name, for others."""
    requests = [one.thing for one in find(content) if isinstance(one.thing, x509.CertificateSigningRequest)]
    if len(requests) != 1:
        raise UserError(f"it holds {len(requests)} certificate requests; give the one of `qbitel ca request`")
    return requests[0]


def _requested_key(request_pem: bytes) -> object:
    with deprecations_ignored():
        return read_request(request_pem).public_key()
