"""What is sealed to a workload opens for it alone."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey

from certmgr.authority import CertificateAndKey, WorkloadRequest, create_root
from certmgr.kem import KemCertificateAndKey, issue_kem
from certmgr.sealing import MAX_PLAINTEXT, OVERHEAD, CannotOpen, CannotSeal, open_sealed, seal
from mesh.spiffe import SpiffeId

SECRET = b"what only web may read"
OTHER = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/other")


@pytest.fixture(scope="module")
def recipient(request_web: WorkloadRequest, root: CertificateAndKey, now: datetime.datetime) -> KemCertificateAndKey:
    return issue_kem(request_web, root, now)


@pytest.fixture(scope="module")
def identity(request_web: WorkloadRequest) -> SpiffeId:
    return request_web.spiffe_id


@pytest.fixture(scope="module")
def envelope(
    recipient: KemCertificateAndKey, identity: SpiffeId, root: CertificateAndKey, now: datetime.datetime
) -> bytes:
    return seal(recipient.certificate, SECRET, identity, label="tls.key", issuer=root.certificate, now=now)


def test_the_recipient_opens_what_was_sealed(
    envelope: bytes, recipient: KemCertificateAndKey, identity: SpiffeId
) -> None:
    assert open_sealed(recipient.private_key, envelope, identity, label="tls.key") == SECRET
    assert len(envelope) == len(SECRET) + OVERHEAD
    assert SECRET not in envelope


def test_another_key_identity_or_label_does_not_open_it_and_is_told_the_same(
    envelope: bytes, recipient: KemCertificateAndKey, identity: SpiffeId
) -> None:
    key = recipient.private_key
    attempts = [(MLKEM1024PrivateKey.generate(), identity, "tls.key"), (key, OTHER, "tls.key"), (key, identity, "x")]
    messages = set()
    for private_key, who, label in attempts:
        with pytest.raises(CannotOpen) as caught:
            open_sealed(private_key, envelope, who, label=label)
        messages.add(str(caught.value))
    assert len(messages) == 1


@pytest.mark.parametrize("place", [0, 6, 7, 800, 1574, 1575, -17, -1])
def test_a_changed_byte_anywhere_is_noticed(
    envelope: bytes, recipient: KemCertificateAndKey, identity: SpiffeId, place: int
) -> None:
    broken = bytearray(envelope)
    broken[place] ^= 1
    with pytest.raises(CannotOpen):
        open_sealed(recipient.private_key, bytes(broken), identity, label="tls.key")


@pytest.mark.parametrize("length", [0, 6, 7, 100, 1575, OVERHEAD - 1, OVERHEAD, -1])
def test_a_cut_envelope_is_refused(
    envelope: bytes, recipient: KemCertificateAndKey, identity: SpiffeId, length: int
) -> None:
    with pytest.raises(CannotOpen):
        open_sealed(recipient.private_key, envelope[:length], identity, label="tls.key")


def test_nothing_is_sealed_to_a_forged_outdated_or_other_certificate(  # the ways to give a secret away
    recipient: KemCertificateAndKey,
    identity: SpiffeId,
    root: CertificateAndKey,
    web: CertificateAndKey,
    now: datetime.datetime,
) -> None:
    stranger = create_root("CN=Test root,O=Example", now)  # the same name, another key
    late = now + datetime.timedelta(days=2)
    cases: list[tuple[x509.Certificate, SpiffeId, x509.Certificate, datetime.datetime, str]] = [
        (recipient.certificate, identity, stranger.certificate, now, "not of this authority"),
        (recipient.certificate, identity, root.certificate, late, "not valid now"),
        (recipient.certificate, OTHER, root.certificate, now, "another workload's"),
        (web.certificate, identity, root.certificate, now, "not an ML-KEM-1024"),
    ]
    for certificate, who, issuer, moment, message in cases:
        with pytest.raises(CannotSeal, match=message):
            seal(certificate, SECRET, who, label="tls.key", issuer=issuer, now=moment)


def test_more_than_a_secret_can_hold_is_refused(
    recipient: KemCertificateAndKey, identity: SpiffeId, root: CertificateAndKey, now: datetime.datetime
) -> None:
    with pytest.raises(CannotSeal, match=r"at most"):
        seal(
            recipient.certificate,
            bytes(MAX_PLAINTEXT + 1),
            identity,
            label="tls.key",
            issuer=root.certificate,
            now=now,
        )
