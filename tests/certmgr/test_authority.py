"""Certificates as they come out: names, times to the second, chains that hold and chains that do not."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA65PrivateKey,
    MLDSA87PrivateKey,
    MLDSA87PublicKey,
)
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import verification
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from certmgr.authority import (
    CertificateAndKey,
    WorkloadRequest,
    certify_workload,
    create_intermediate,
    create_root,
    is_authority,
    issue_workload,
    request_intermediate,
    sign_intermediate,
    spiffe_id_of,
)
from certmgr.profiles import MAX_ROOT_VALIDITY, MAX_WORKLOAD_VALIDITY
from mesh.errors import UserError
from mesh.spiffe import InvalidSpiffeId, SpiffeId

SECOND = datetime.timedelta(seconds=1)
NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, tzinfo=datetime.UTC)
WEB = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web")


def names(certificate: x509.Certificate) -> x509.Extension[x509.SubjectAlternativeName]:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def verify(leaf: x509.Certificate, root: x509.Certificate, at: datetime.datetime) -> verification.VerifiedClient:
    store = verification.Store([root])
    return verification.PolicyBuilder().store(store).time(at).build_client_verifier().verify(leaf, [])


def foreign_certificate(
    key: ec.EllipticCurvePrivateKey | MLDSA65PrivateKey | MLDSA87PrivateKey,
    *extensions: x509.ExtensionType,
    signer: MLDSA87PrivateKey | None = None,
) -> x509.Certificate:
    """A certificate that another authority than ours might have made."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "foreign")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOON - 60 * SECOND)
        .not_valid_after(NOON + 60 * SECOND)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(signer or MLDSA87PrivateKey.generate(), None)


SIGNS_CERTIFICATES = x509.KeyUsage(False, False, False, False, False, True, False, False, False)


# Roots


def test_a_root_is_self_signed_with_ml_dsa_87(root: CertificateAndKey) -> None:
    certificate = root.certificate

    assert certificate.signature_algorithm_oid == SignatureAlgorithmOID.ML_DSA_87
    assert isinstance(certificate.public_key(), MLDSA87PublicKey)
    certificate.verify_directly_issued_by(certificate)
    assert certificate.version is x509.Version.v3
    assert is_authority(certificate)


def test_a_root_has_the_subject_that_was_asked_for(root: CertificateAndKey) -> None:
    assert root.certificate.subject.rfc4514_string() == "CN=Test root,O=Example"
    assert root.certificate.issuer == root.certificate.subject


def test_a_root_begins_five_minutes_ago_and_ends_ten_years_ahead_to_the_second(
    root: CertificateAndKey,
) -> None:
    assert root.certificate.not_valid_before_utc == NOON - datetime.timedelta(minutes=5)
    assert root.certificate.not_valid_after_utc == NOON + datetime.timedelta(days=3652)


def test_serial_numbers_are_random_positive_and_of_at_most_twenty_octets(root: CertificateAndKey) -> None:
    serials = {root.certificate.serial_number, create_root("CN=a", NOON).certificate.serial_number}

    assert len(serials) == 2
    assert all(2**96 < serial < 2**159 for serial in serials)


def test_the_time_zone_of_now_does_not_matter(now: datetime.datetime) -> None:
    east = now.astimezone(datetime.timezone(datetime.timedelta(hours=9)))

    assert create_root("CN=a", east).certificate.not_valid_before_utc == NOON - 300 * SECOND


def test_a_naive_time_is_refused_as_a_mistake_of_the_caller(root: CertificateAndKey) -> None:
    naive = NOON.replace(tzinfo=None)
    with pytest.raises(ValueError, match="aware"):
        create_root("CN=a", naive)
    with pytest.raises(ValueError, match="aware"):
        issue_workload(WorkloadRequest(spiffe_id=WEB), root, naive)


@pytest.mark.parametrize(
    "subject", ["", "foo", "CN=", "CN=" + "x" * 65, "C=DEU", "CN=a\x00b", "CN=\ud800", "9.9=1", "CN=\\zz"]
)
def test_a_subject_that_is_no_name_is_refused_with_an_example(subject: str) -> None:
    with pytest.raises(UserError, match="CN=Example root"):
        create_root(subject, NOON)


@pytest.mark.parametrize("validity", [datetime.timedelta(0), -SECOND, MAX_ROOT_VALIDITY + SECOND])
def test_a_root_of_no_or_endless_validity_is_refused(validity: datetime.timedelta) -> None:
    with pytest.raises(UserError, match="valid for at most"):
        create_root("CN=a", NOON, validity)


@given(st.one_of(st.text(), st.builds("{}={}".format, st.sampled_from(["CN", "O", "C", "DC"]), st.text())))
@example("1.2.840.113549.1.9.1=ä")
@example("CN=#0101")
@example("C=0&")
@example("CN=a+O=b,CN=c")
def test_any_subject_makes_a_root_or_one_line_for_its_user(subject: str) -> None:
    try:
        made = create_root(subject, NOON)
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert made.certificate.subject.rdns


# Leaves


def test_a_leaf_holds_its_spiffe_id_as_its_only_uri_then_the_names_in_order(root: CertificateAndKey) -> None:
    request = WorkloadRequest(
        spiffe_id=WEB,
        dns_names=("Web.Shop", "web", "web.shop"),
        ip_addresses=(ipaddress.ip_address("10.0.0.7"), ipaddress.ip_address("fd00::7")),
    )
    leaf = issue_workload(request, root, NOON).certificate

    assert list(names(leaf).value) == [
        x509.UniformResourceIdentifier("spiffe://cluster.local/ns/shop/sa/web"),
        x509.DNSName("web.shop"),
        x509.DNSName("web"),
        x509.IPAddress(ipaddress.ip_address("10.0.0.7")),
        x509.IPAddress(ipaddress.ip_address("fd00::7")),
    ]
    assert spiffe_id_of(leaf) == WEB


def test_a_leaf_is_issued_by_its_root_and_says_so(root: CertificateAndKey, web: CertificateAndKey) -> None:
    leaf = web.certificate
    extensions = leaf.extensions
    root_identifier = root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value

    leaf.verify_directly_issued_by(root.certificate)
    assert leaf.signature_algorithm_oid == SignatureAlgorithmOID.ML_DSA_87
    assert authority.key_identifier == root_identifier.digest
    assert not is_authority(leaf)
    assert leaf.public_key() != root.certificate.public_key()


def test_a_leaf_has_an_empty_subject_and_critical_names_unless_it_is_given_a_common_name(
    root: CertificateAndKey, web: CertificateAndKey, request_web: WorkloadRequest
) -> None:
    named = issue_workload(dataclasses.replace(request_web, common_name="web"), root, NOON).certificate

    assert not web.certificate.subject.rdns
    assert names(web.certificate).critical
    assert named.subject.rfc4514_string() == "CN=web"
    assert not names(named).critical


def test_a_leaf_is_small_enough_for_the_first_flight(web: CertificateAndKey) -> None:
    # Ten segments of 1460 bytes (RFC 6928) less a CertificateVerify of 4627 bytes and a ServerHello of 1.7
    # kB.
    assert len(web.certificate.public_bytes(Encoding.DER)) < 8000


def test_a_leaf_lives_a_day_to_the_second(root: CertificateAndKey, web: CertificateAndKey) -> None:
    assert web.certificate.not_valid_before_utc == NOON - datetime.timedelta(minutes=5)
    assert web.certificate.not_valid_after_utc == NOON + datetime.timedelta(hours=24)


def test_a_leaf_never_outlives_its_issuer_nor_comes_before_it(
    root: CertificateAndKey, request_web: WorkloadRequest
) -> None:
    an_hour_before_the_end = root.certificate.not_valid_after_utc - datetime.timedelta(hours=1)
    late = issue_workload(request_web, root, an_hour_before_the_end).certificate
    at_the_start = root.certificate.not_valid_before_utc
    early = issue_workload(request_web, root, at_the_start).certificate

    assert late.not_valid_after_utc == root.certificate.not_valid_after_utc
    assert early.not_valid_before_utc == at_the_start


def test_an_authority_outside_its_days_issues_nothing(root: CertificateAndKey, request_web: WorkloadRequest) -> None:
    with pytest.raises(UserError, match="ended at 2040-05-16 12:00:00 UTC; make a new root"):
        issue_workload(request_web, root, root.certificate.not_valid_after_utc + SECOND)
    with pytest.raises(UserError, match="begins only at 2030-05-17 11:55:00 UTC; set this machine's clock"):
        issue_workload(request_web, root, root.certificate.not_valid_before_utc - SECOND)


def test_a_leaf_cannot_issue(web: CertificateAndKey, request_web: WorkloadRequest) -> None:
    with pytest.raises(UserError, match="no authority"):
        issue_workload(request_web, web, NOON)


def test_an_issuer_without_a_key_identifier_gets_the_one_that_we_would_compute(
    request_web: WorkloadRequest,
) -> None:
    key = MLDSA87PrivateKey.generate()
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    foreign = foreign_certificate(key, constraints, SIGNS_CERTIFICATES, signer=key)
    leaf = issue_workload(request_web, CertificateAndKey(foreign, key), NOON).certificate

    identifier = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert identifier is not None
    assert len(identifier) == 20


@pytest.mark.parametrize(
    "extensions",
    [
        (),
        (x509.BasicConstraints(ca=True, path_length=None),),
        (x509.BasicConstraints(ca=False, path_length=None), SIGNS_CERTIFICATES),
    ],
)
def test_only_ca_true_together_with_key_cert_sign_makes_an_authority(
    extensions: tuple[x509.ExtensionType, ...],
) -> None:
    assert not is_authority(foreign_certificate(MLDSA87PrivateKey.generate(), *extensions))


# Intermediates


def test_a_chain_over_an_intermediate_holds_and_ends_no_later_than_its_issuers(
    root: CertificateAndKey, request_web: WorkloadRequest
) -> None:
    intermediate = create_intermediate("CN=Signer", root, NOON)
    leaf = issue_workload(request_web, intermediate, NOON).certificate
    store = verification.Store([root.certificate])
    verifier = verification.PolicyBuilder().store(store).time(NOON).build_client_verifier()

    assert verifier.verify(leaf, [intermediate.certificate]).chain == [leaf, intermediate.certificate, root.certificate]
    assert intermediate.certificate.not_valid_after_utc == NOON + datetime.timedelta(days=365)
    late = create_intermediate("CN=Signer", root, root.certificate.not_valid_after_utc - 60 * SECOND)
    assert late.certificate.not_valid_after_utc == root.certificate.not_valid_after_utc


def test_an_intermediate_s_certificates_end_where_a_third_tier_would_begin(
    root: CertificateAndKey, request_web: WorkloadRequest
) -> None:
    intermediate = create_intermediate("CN=Signer", root, NOON)
    third = create_intermediate("CN=Third", intermediate, NOON)
    leaf = issue_workload(request_web, third, NOON).certificate
    store = verification.Store([root.certificate])
    verifier = verification.PolicyBuilder().store(store).time(NOON).build_client_verifier()

    with pytest.raises(verification.VerificationError):
        verifier.verify(leaf, [third.certificate, intermediate.certificate])


def test_a_leaf_is_made_for_a_key_that_somebody_else_keeps(
    root: CertificateAndKey, request_web: WorkloadRequest
) -> None:
    public_key = MLDSA87PrivateKey.generate().public_key()
    leaf = certify_workload(request_web, public_key, root, NOON)

    assert leaf.public_key() == public_key
    leaf.verify_directly_issued_by(root.certificate)


def test_authorities_of_one_subject_have_names_of_their_own(root: CertificateAndKey) -> None:
    made = [create_root("CN=Same,O=Example", NOON, distinct=True) for _ in range(2)]
    made += [create_intermediate("CN=Same,O=Example", root, NOON) for _ in range(2)]

    assert len({one.certificate.subject for one in made}) == 4
    for one in made:
        identifier = one.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        assert one.certificate.subject.rfc4514_string() == f"CN=Same {identifier.hex()[:8]},O=Example"


def test_a_root_elsewhere_signs_a_request_for_what_an_intermediate_is_and_nothing_else(root: CertificateAndKey) -> None:
    key, request = request_intermediate("CN=Mesh")
    certificate = sign_intermediate(request, root, NOON)

    assert CertificateAndKey(certificate, key)
    assert certificate.subject == request.subject
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(root.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=7), critical=True)
        .sign(key, None)
    )
    signed = sign_intermediate(greedy, root, NOON)
    assert signed.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert signed.subject != root.certificate.subject


def test_a_request_of_another_key_or_with_a_broken_signature_is_refused(root: CertificateAndKey) -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(root.certificate.subject)
    with pytest.raises(UserError, match="not ML-DSA-87"):
        sign_intermediate(builder.sign(MLDSA65PrivateKey.generate(), None), root, NOON)
    der = bytearray(request_intermediate("CN=Mesh")[1].public_bytes(Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(UserError, match="not signed by the key"):
        sign_intermediate(x509.load_der_x509_csr(bytes(der)), root, NOON)
    with pytest.raises(UserError, match="no subject"):
        request_intermediate("nonsense")


# Chains, as a peer checks them


def test_a_peer_verifies_the_chain_within_the_leaf_s_days_and_reads_the_identity(
    root: CertificateAndKey, web: CertificateAndKey
) -> None:
    for moment in (web.certificate.not_valid_before_utc, NOON, web.certificate.not_valid_after_utc):
        verified = verify(web.certificate, root.certificate, moment)
        assert verified.subjects == [x509.UniformResourceIdentifier(str(WEB))]
        assert verified.chain == [web.certificate, root.certificate]


def test_a_server_s_name_is_verified_where_it_was_asked_for(root: CertificateAndKey) -> None:
    leaf = issue_workload(WorkloadRequest(spiffe_id=WEB, dns_names=("web.shop",)), root, NOON).certificate
    builder = verification.PolicyBuilder().store(verification.Store([root.certificate])).time(NOON)

    builder.build_server_verifier(x509.DNSName("web.shop")).verify(leaf, [])
    with pytest.raises(verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("other.shop")).verify(leaf, [])


def test_a_peer_refuses_the_leaf_a_second_outside_its_days(root: CertificateAndKey, web: CertificateAndKey) -> None:
    for moment in (
        web.certificate.not_valid_before_utc - SECOND,
        web.certificate.not_valid_after_utc + SECOND,
    ):
        with pytest.raises(verification.VerificationError):
            verify(web.certificate, root.certificate, moment)


def test_a_peer_refuses_the_leaf_under_another_root_of_the_same_name(web: CertificateAndKey) -> None:
    twin = create_root("CN=Test root,O=Example", NOON)

    with pytest.raises(verification.VerificationError):
        verify(web.certificate, twin.certificate, NOON)


# Requests


def test_a_request_for_what_is_no_dns_name_is_refused() -> None:
    with pytest.raises(UserError, match="is no DNS name"):
        WorkloadRequest(spiffe_id=WEB, dns_names=("web", "*.shop"))


def test_a_request_s_numbers_have_limits() -> None:
    with pytest.raises(UserError, match="101 DNS names and IP addresses are too many"):
        WorkloadRequest(spiffe_id=WEB, dns_names=tuple(f"n{number}" for number in range(101)))
    with pytest.raises(UserError, match="at most 64 bytes"):
        WorkloadRequest(spiffe_id=WEB, common_name="é" * 33)
    with pytest.raises(UserError, match="at most 64 bytes"):
        WorkloadRequest(spiffe_id=WEB, common_name="\ud800")
    for validity in (datetime.timedelta(0), MAX_WORKLOAD_VALIDITY + SECOND):
        with pytest.raises(UserError, match="at most 398 days"):
            WorkloadRequest(spiffe_id=WEB, validity=validity)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    uri=st.one_of(st.text(), st.from_regex(r"spiffe://[a-z.]{1,9}(/[\x21-\x7e]{0,9}){0,3}", fullmatch=True)),
    dns=st.lists(st.one_of(st.text(), st.from_regex(r"[a-zA-Z0-9.*_-]{1,80}", fullmatch=True)), max_size=3),
    ip=st.lists(st.ip_addresses(), max_size=3),
    common_name=st.text(max_size=70),
)
def test_any_names_make_a_leaf_that_a_peer_accepts_or_one_line_for_their_user(
    root: CertificateAndKey,
    uri: str,
    dns: list[str],
    ip: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
    common_name: str,
) -> None:
    try:
        request = WorkloadRequest(
            spiffe_id=SpiffeId.parse(uri),
            dns_names=tuple(dns),
            ip_addresses=tuple(ip),
            common_name=common_name,
        )
    except (UserError, InvalidSpiffeId) as error:
        assert str(error).isprintable()
        return
    leaf = issue_workload(request, root, NOON).certificate
    verified = verify(leaf, root.certificate, NOON)
    assert verified.subjects is not None
    assert verified.subjects[0] == x509.UniformResourceIdentifier(uri)


# Pairs


def test_the_pem_forms_give_the_same_pair_back(web: CertificateAndKey) -> None:
    certificate = x509.load_pem_x509_certificate(web.certificate_pem)
    key = load_pem_private_key(web.private_key_pem, None)

    assert isinstance(key, MLDSA87PrivateKey)
    again = CertificateAndKey(certificate, key)
    assert again.certificate == web.certificate
    assert again.private_key.private_bytes_raw() == web.private_key.private_bytes_raw()
    assert web.certificate_pem.count(b"BEGIN CERTIFICATE") == 1


def test_the_private_key_is_in_seed_form(web: CertificateAndKey) -> None:
    # RFC 9881 §6: PKCS#8 with the 32-byte seed makes 54 bytes of DER; the expanded form has 4896 bytes more.
    assert len(web.private_key_pem) == 128
    assert web.private_key_pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")


def test_the_repr_of_a_pair_does_not_show_the_key(web: CertificateAndKey) -> None:
    assert "private_key" not in repr(web)
    assert web.private_key_pem.splitlines()[1].decode() not in repr(web)


def test_a_fingerprint_is_the_sha256_that_other_tools_show(web: CertificateAndKey) -> None:
    der = web.certificate.public_bytes(Encoding.DER)
    assert web.fingerprint == hashlib.sha256(der).hexdigest()


def test_a_key_of_another_certificate_makes_no_pair(root: CertificateAndKey, web: CertificateAndKey) -> None:
    with pytest.raises(UserError, match="does not belong to the certificate"):
        CertificateAndKey(web.certificate, root.private_key)


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256R1()), MLDSA65PrivateKey.generate()], ids=["P-256", "ML-DSA-65"]
)
def test_a_certificate_with_another_kind_of_key_makes_no_pair(
    web: CertificateAndKey, key: ec.EllipticCurvePrivateKey | MLDSA65PrivateKey
) -> None:
    with pytest.raises(UserError, match="not ML-DSA-87"):
        CertificateAndKey(foreign_certificate(key), web.private_key)


@pytest.mark.parametrize("uris", [[], ["https://example.org/"], ["spiffe://a/b", "spiffe://a/c"], ["spiffe://a"]])
def test_a_certificate_without_exactly_one_spiffe_id_has_no_identity(uris: list[str]) -> None:
    alternative = x509.SubjectAlternativeName([x509.DNSName("web"), *map(x509.UniformResourceIdentifier, uris)])
    with pytest.raises(UserError, match="exactly one URI"):
        spiffe_id_of(foreign_certificate(MLDSA87PrivateKey.generate(), alternative))


def test_a_certificate_without_alternative_names_has_no_identity(root: CertificateAndKey) -> None:
    with pytest.raises(UserError, match="exactly one URI"):
        spiffe_id_of(root.certificate)
