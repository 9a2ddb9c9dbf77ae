"""What we ask an authority for, and what of its answer we take: a key of our own, a CSR, and checks. Pure.

The private key is made here for one certificate and never leaves the process: no file, no log, no request holds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mesh.anchors import anchors_of
from pqtls import CertificateRefused, ConfigurationError, Credential, IdentityRefused, TrustAnchors
from pqtls.certificates import Purpose, ValidatedChain, validate_chain
from proxy.answers import AuthorityFailed, Failure

if TYPE_CHECKING:
    import datetime

    from pqtls import Profile
    from proxy.answers import Published
    from proxy.identity import IdentityRule


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A new ML-DSA-87 key (PKCS#8 in PEM, a secret) and the request (PKCS#10 in PEM) that proves that we have it.

    The request names nobody: who we are is the authority's to say, by the proof that comes with it.
    """

    private_key: bytes = field(repr=False)
    csr: bytes


def make_request() -> KeyRequest:
    """Make a key and its request: a millisecond or two."""
    key = MLDSA87PrivateKey.generate()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, None)
    return KeyRequest(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), request.public_bytes(Encoding.PEM)
    )


def read_trust(published: Published, *, revoking_before: bool) -> TrustAnchors:
    """What is published as what we trust, or AuthorityFailed.

    `revoking_before`: we have had revocation lists from this authority. They must not vanish: what they revoked would
    be let in again.
    """
    if revoking_before and not published.trust.crls.strip():
        raise _invalid("it no longer publishes a revocation list: the last one stays in use")
    try:
        return published.trust.anchors()
    except ConfigurationError as error:
        raise _invalid(f"what it publishes cannot be used: {error}") from None


def name_of_roots(trust: TrustAnchors, round_number: int) -> str:
    """What is acknowledged of this trust: 64 hexadecimal digits, of the roots themselves and the round."""
    return anchors_of(round_number, (one.public_bytes(Encoding.DER) for one in trust.roots))


def accept(
    request: KeyRequest,
    chain: bytes,
    trust: TrustAnchors,
    *,
    profiles: tuple[Profile, ...],
    now: datetime.datetime,
    rule: IdentityRule,
    present: str | None,
) -> Credential:
    """Return the credential that `chain` (PEM, from the authority) makes with the key of `request`, or AuthorityFailed.

    It must be what a peer with this `trust` takes, as server and as client; its identity must satisfy `rule` and be
    the `present` one, where we have one already.
    """
    try:
        credential = Credential.from_pem(chain, request.private_key)
        found = _validate(credential, trust, profiles, now)
        rule(found.identity)
    except (ConfigurationError, CertificateRefused, IdentityRefused) as error:
        said = str(error).replace("the peer's certificate", "it").replace("the peer is", "it is for")
        raise _invalid(f"the certificate that it gave us cannot be used: {said}") from None
    if present is not None and found.identity != present:
        raise _invalid(f"it gave us a certificate of {found.identity}, but we are {present}")
    return credential


def is_revoked(
    credential: Credential, trust: TrustAnchors, profiles: tuple[Profile, ...], now: datetime.datetime
) -> bool:
    """Whether peers with this `trust` refuse our certificate because it, or its issuer, was revoked."""
    try:
        _validate(credential, trust, profiles, now)
    except CertificateRefused as error:
        return error.reason == "revoked"
    return False


def _validate(
    credential: Credential, trust: TrustAnchors, profiles: tuple[Profile, ...], now: datetime.datetime
) -> ValidatedChain:
    for profile in profiles:
        for purpose in Purpose:
            found = validate_chain(credential.chain, trust, purpose, now, profile.signature_schemes)
    return found


def _invalid(message: str) -> AuthorityFailed:
    return AuthorityFailed(Failure.INVALID, f"the authority's answer was not taken: {message}")
