"""The request that we send, and what of an authority's answer we take."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from pqtls import PROFILES
from proxy.answers import AuthorityFailed, Failure, Published
from proxy.credentials import TrustPem
from proxy.enrolment import accept, is_revoked, make_request, read_trust
from proxy.identity import IdentityRule
from tests.proxy.little_authority import DAY, Generation, LittleAuthority, utc_now

WEB = "spiffe://cluster.local/ns/default/sa/web"
RULE = IdentityRule(frozenset({"cluster.local"}), frozenset())
QBITEL = (PROFILES["qbitel"],)


@pytest.fixture(scope="module")
def authority():
    return LittleAuthority()


@pytest.fixture(scope="module")
def request_of_ours():
    return make_request()


def published(authority, **files) -> Published:
    bundle = authority.bundle()
    pem = {name: content.encode() for name, content in (bundle["files"] | files).items()}
    trust = TrustPem(pem["ca.crt"], pem["intermediates.crt"], pem["crl.pem"])
    return Published(trust, bundle["etag"], bundle["generation"], bundle["round"])


def chain(authority, request, name="web", issuer=None) -> bytes:
    csr = x509.load_pem_x509_csr(request.csr)
    leaf = authority.sign(csr.public_key(), name, issuer=issuer)
    return leaf.public_bytes(Encoding.PEM) + authority.signer.intermediate.certificate_pem


def take(authority, request, pem, **more):
    options = {"profiles": QBITEL, "now": utc_now(), "rule": RULE, "present": None}
    return accept(request, pem, read_trust(published(authority), revoking_before=False), **(options | more))


def test_each_request_proves_a_new_key_and_names_nobody(request_of_ours):
    csr = x509.load_pem_x509_csr(request_of_ours.csr)
    key = load_pem_private_key(request_of_ours.private_key, None)
    assert isinstance(key, mldsa.MLDSA87PrivateKey)
    assert csr.is_signature_valid
    assert csr.public_key() == key.public_key()
    assert list(csr.subject) == []
    assert list(csr.extensions) == []
    assert x509.load_pem_x509_csr(make_request().csr).public_key() != csr.public_key()
    assert "PRIVATE" not in repr(request_of_ours)


def test_a_right_answer_becomes_a_credential(authority, request_of_ours):
    credential = take(authority, request_of_ours, chain(authority, request_of_ours), present=WEB)
    assert credential.identity == WEB
    assert len(credential.chain) == 2
    assert len(credential.chain_for((authority.signer.intermediate.certificate.subject.public_bytes(),))) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a, r: b"nonsense", "cannot be used"),
        (lambda a, r: b"", "cannot be used"),
        (lambda a, r: chain(a, make_request()), "does not belong"),
        (lambda a, r: chain(a, r, "spiffe://elsewhere.example/ns/default/sa/web"), "elsewhere.example"),
        (lambda a, r: chain(a, r, "http://cluster.local/web"), "SPIFFE"),
        (lambda a, r: chain(a, r, issuer=Generation("other").intermediate), "no root that we trust"),
        (lambda a, r: chain(a, r, "api"), "but we are spiffe://cluster.local/ns/default/sa/web"),
    ],
)
def test_a_wrong_answer_is_refused_in_one_line(authority, request_of_ours, change, said):
    with pytest.raises(AuthorityFailed) as refused:
        take(authority, request_of_ours, change(authority, request_of_ours), present=WEB)
    assert refused.value.failure is Failure.INVALID
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert "PRIVATE" not in str(refused.value)


@pytest.mark.parametrize(("then", "said"), [(2 * DAY, "expired at"), (-DAY, "not valid before")])
def test_a_certificate_of_another_time_is_refused_with_both_clocks(authority, request_of_ours, then, said):
    with pytest.raises(AuthorityFailed, match=f"{said} .*our clock says"):
        take(authority, request_of_ours, chain(authority, request_of_ours), now=utc_now() + then)


def test_our_own_revocation_is_seen(request_of_ours):
    authority = LittleAuthority()
    credential = take(authority, request_of_ours, chain(authority, request_of_ours))
    before = read_trust(published(authority), revoking_before=False)
    assert not is_revoked(credential, before, QBITEL, utc_now())
    authority.revoked.append(x509.load_der_x509_certificate(credential.chain[0]))
    after = read_trust(published(authority), revoking_before=True)
    assert is_revoked(credential, after, QBITEL, utc_now())
    assert not is_revoked(credential, after, QBITEL, utc_now() + datetime.timedelta(days=30)), "expired is not revoked"


@pytest.mark.parametrize(
    "files",
    [{"ca.crt": ""}, {"ca.crt": "nonsense"}, {"intermediates.crt": "nonsense"}, {"crl.pem": "nonsense"}],
)
def test_a_bundle_that_cannot_be_used_is_refused(authority, files):
    with pytest.raises(AuthorityFailed, match="what it publishes cannot be used"):
        read_trust(published(authority, **files), revoking_before=False)


def test_a_list_of_another_authority_is_refused(authority):
    with pytest.raises(AuthorityFailed, match="signed by none of our authorities"):
        read_trust(published(authority, **{"crl.pem": LittleAuthority().pem_files()["crl.pem"]}), revoking_before=True)


def test_revocation_lists_must_not_vanish(authority):
    without = published(authority, **{"crl.pem": "\n"})
    assert read_trust(without, revoking_before=False).revoked == frozenset()
    with pytest.raises(AuthorityFailed, match="no longer publishes a revocation list"):
        read_trust(without, revoking_before=True)
