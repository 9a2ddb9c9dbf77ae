"""Descriptions as a person and a program get them, of our certificates and of a stranger's worst."""

from __future__ import annotations

import datetime
import ipaddress
import json
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from certmgr.authority import CertificateAndKey, WorkloadRequest, issue_workload
from certmgr.describe import Description, describe, describe_certificate
from certmgr.x509_files import Found, PrivateKey, PublicKey, find
from mesh.errors import UserError

_DER = serialization.Encoding.DER
_DAY = datetime.timedelta(days=1)


def told(thing: object, now: datetime.datetime) -> Description:
    description = describe(Found(thing, "DER"), now)  # type: ignore[arg-type]
    assert json.loads(json.dumps(description.data)) == description.data
    assert all(line.isprintable() for line in description.text.split("\n"))
    return description


def lines(description: Description) -> dict[str, str]:
    """The text of each label."""
    return {line[2:15].strip(): line[15:] for line in description.text.split("\n")[1:]}


def test_a_leaf_is_told_as_a_person_reads_it(
    root: CertificateAndKey, request_web: WorkloadRequest, now: datetime.datetime
) -> None:
    request = replace(request_web, dns_names=("web.shop.svc",), ip_addresses=(ipaddress.ip_address("fd00::7"),))
    leaf = issue_workload(request, root, now).certificate

    description = told(leaf, now + datetime.timedelta(hours=12, minutes=30))
    assert description.title == "certificate: spiffe://cluster.local/ns/shop/sa/web"
    assert lines(description) == {
        "subject": "(empty)",
        "identity": "spiffe://cluster.local/ns/shop/sa/web",
        "names": "DNS web.shop.svc, IP fd00::7",
        "issuer": root.certificate.subject.rfc4514_string(),
        "valid": "2030-05-17 11:55:00 to 2030-05-18 12:00:00 UTC: ends in 11 hours",
        "key": "ML-DSA-87, 2592 bytes",
        "usages": "digitalSignature; TLS server, TLS client",
        "signature": "ML-DSA-87, 4627 bytes",
        "serial": f"{leaf.serial_number:x}",
        "key id": leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex(),
        "issuer's key": root.certificate.extensions.get_extension_for_class(
            x509.SubjectKeyIdentifier
        ).value.digest.hex(),
        "SHA-256": leaf.fingerprint(hashes.SHA256()).hex(),
        "size": f"{len(leaf.public_bytes(_DER))} bytes of DER",
    }


def test_a_leaf_is_told_as_a_program_reads_it(web: CertificateAndKey, now: datetime.datetime) -> None:
    data = told(web.certificate, now).data

    assert data["kind"] == "certificate"
    assert data["spiffe_id"] == "spiffe://cluster.local/ns/shop/sa/web"
    assert (data["not_before"], data["not_after"]) == ("2030-05-17T11:55:00Z", "2030-05-18T12:00:00Z")
    assert data["state"] == "valid"
    assert data["key"] == {"algorithm": "ML-DSA-87", "bits": None, "bytes": 2592}
    assert data["authority"] is False
    assert data["extended_key_usage"] == ["TLS server", "TLS client"]
    assert "unreadable" not in data


def test_a_root_says_that_it_is_one(root: CertificateAndKey, now: datetime.datetime) -> None:
    said = lines(told(root.certificate, now))

    assert said["authority"] == "yes, one tier of authorities below it"
    assert said["issuer"].endswith("(itself: a root)")
    assert said["usages"] == "keyCertSign, cRLSign"


@pytest.mark.parametrize(
    ("days", "state", "words"),
    [(-9, "not yet valid", "begins in 8 days"), (0, "valid", "ends in 24 hours"), (4, "ended", "ended 3 days ago")],
)
def test_validity_is_told_from_where_we_stand(
    web: CertificateAndKey, now: datetime.datetime, days: int, state: str, words: str
) -> None:
    description = told(web.certificate, now.replace(microsecond=0) + days * _DAY)

    assert description.data["state"] == state
    assert lines(description)["valid"].endswith(f": {words}")


def crl_of(root: CertificateAndKey, now: datetime.datetime, serials: range) -> x509.CertificateRevocationList:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.certificate.subject)
        .last_update(now)
        .next_update(now + datetime.timedelta(hours=1))
        .add_extension(x509.CRLNumber(7), critical=False)
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
        if serial % 2:
            entry = entry.add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(root.private_key, None)


def test_a_revocation_list_names_what_it_revokes_and_when_the_next_is_due(
    root: CertificateAndKey, now: datetime.datetime
) -> None:
    description = told(crl_of(root, now, range(16, 18)), now + datetime.timedelta(hours=4))

    assert description.data["number"] == 7
    assert description.data["state"] == "late"
    assert [(one["serial"], one["reason"]) for one in description.data["revoked"]] == [
        ("10", "no reason given"),
        ("11", "keyCompromise"),
    ]
    assert lines(description)["next"].endswith("due 3 hours ago")
    assert "11 (2030-05-17T12:00:00Z, keyCompromise)" in description.text


def test_a_long_list_is_cut_for_people_and_whole_for_programs(root: CertificateAndKey, now: datetime.datetime) -> None:
    description = told(crl_of(root, now, range(1, 101)), now)

    assert len(description.data["revoked"]) == 100
    assert "… and 80 more" in description.text
    assert description.text.count("\n") < 40


def test_a_request_says_whether_its_maker_holds_the_key(web: CertificateAndKey, now: datetime.datetime) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "abcdef")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(web.private_key, None)
    forged = x509.load_der_x509_csr(csr.public_bytes(_DER).replace(b"abcdef", b"abcdeF"))

    assert told(csr, now).title == "certificate request: CN=abcdef"
    assert told(csr, now).data["signature_valid"] is True
    assert told(forged, now).data["signature_valid"] is False
    assert "NOT by the key" in told(forged, now).text


def test_keys_are_named_and_never_shown(root: CertificateAndKey, now: datetime.datetime) -> None:
    (found,) = find(root.private_key_pem)
    description = describe(found, now)

    assert description.text == "private key, ML-DSA-87 (not shown: keep it secret)"
    assert description.data == {"kind": "private key", "key": {"algorithm": "ML-DSA-87"}, "encrypted": False}
    assert told(PrivateKey("unknown", encrypted=True), now).title == "private key, encrypted (not shown)"
    assert "not shown" in told(PrivateKey("unreadable"), now).title
    assert told(PublicKey("RSA"), now).title == "public key, RSA"


@pytest.fixture(scope="module")
def strange(now: datetime.datetime) -> x509.Certificate:
    """A certificate of everything that ours have not."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil\x1b[2J\nserial  1")])
    names = [
        *(x509.DNSName(f"host-{number}.example") for number in range(50)),
        x509.UniformResourceIdentifier("spiffe://a/b"),
        x509.UniformResourceIdentifier("https://example.org/\x1b"),
        x509.RFC822Name("someone@example.org"),
        x509.DirectoryName(name),
    ]
    builder = x509.CertificateBuilder(name, name, key.public_key(), 77, now, now + _DAY)
    for extension, critical in (
        (x509.SubjectAlternativeName(names), False),
        (x509.KeyUsage(False, False, False, False, True, False, False, True, False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING, x509.ObjectIdentifier("1.2.3.4")]), False),
        (x509.NameConstraints([x509.DNSName("example")], None), True),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.5"), b"\x00"), True),
    ):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, hashes.SHA256())


def test_a_stranger_s_names_cannot_act_on_a_terminal_nor_fake_a_line(
    strange: x509.Certificate, now: datetime.datetime
) -> None:
    description = told(strange, now)

    assert "\\x1b" in description.title
    assert sum(line.startswith("  serial") for line in description.text.split("\n")) == 1
    assert "… and" in lines(description)["names"]
    assert len(description.data["dns_names"]) == 50
    assert "spiffe_id" not in description.data
    assert lines(description)["usages"] == "keyAgreement, encipherOnly; code signing, 1.2.3.4"
    assert lines(description)["extensions"] == "name constraints (critical), 1.2.3.5 (critical)"
    assert lines(description)["key"] == "EC P-256, 256 bits"
    assert lines(description)["signature"].startswith("ECDSA-WITH-SHA256, ")


def test_a_part_that_cannot_be_read_does_not_hide_the_others(web: CertificateAndKey, now: datetime.datetime) -> None:
    whole = web.certificate.public_bytes(_DER)
    # The key's algorithm becomes one that nobody knows: both in the key and in the signature it stays consistent.
    unknown = whole.replace(bytes.fromhex("608648016503040313"), bytes.fromhex("60864801650304037f"))

    description = describe_certificate(x509.load_der_x509_certificate(unknown), now)
    assert description.data["unreadable"] == ["key"]
    assert lines(description)["key"].startswith("cannot be read: ")
    assert lines(description)["signature"].startswith("2.16.840.1.101.3.4.3.127, ")
    assert lines(description)["identity"] == "spiffe://cluster.local/ns/shop/sa/web"


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_certificate_is_told_or_refused(
    web: CertificateAndKey, strange: x509.Certificate, now: datetime.datetime, data: st.DataObject
) -> None:
    content = bytearray(data.draw(st.sampled_from([web.certificate, strange])).public_bytes(_DER))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, min(len(content), 900) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = find(bytes(content))
    except UserError:
        return
    for one in found:
        told(one.thing, now)
