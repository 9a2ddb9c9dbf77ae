"""Folders of certificates: what they hold, and one line for each thing amiss."""

from __future__ import annotations

import base64
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from certmgr import files
from certmgr.authority import CertificateAndKey, WorkloadRequest, create_intermediate, create_root, issue_workload
from certmgr.files import read_authority, read_workload, write_authority, write_workload
from mesh.errors import UserError
from mesh.spiffe import SpiffeId


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(call: Callable[[], object]) -> str:
    """The one line that `call` gives its user."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable()
    return message


# Written


def test_an_authority_s_folder_holds_its_certificate_and_key(authority_folder: Path, root: CertificateAndKey) -> None:
    assert contents(authority_folder) == {"ca.crt": root.certificate_pem, "ca.key": root.private_key_pem}


def test_a_workload_s_folder_holds_the_leaf_alone_its_key_and_the_roots(
    workload_folder: Path, root: CertificateAndKey, web: CertificateAndKey
) -> None:
    assert contents(workload_folder) == {
        "tls.crt": web.certificate_pem,
        "tls.key": web.private_key_pem,
        "ca.crt": root.certificate_pem,
    }


def test_several_roots_make_one_bundle(tmp_path: Path, root: CertificateAndKey, web: CertificateAndKey) -> None:
    other = create_root("CN=next", root.certificate.not_valid_before_utc)
    write_workload(tmp_path, web, [root.certificate, other.certificate])

    assert read_workload(tmp_path).roots == (root.certificate, other.certificate)


def test_a_root_that_is_there_stays_unless_it_is_to_be_replaced(
    authority_folder: Path, root: CertificateAndKey
) -> None:
    other = create_root("CN=next", root.certificate.not_valid_before_utc)

    message = refusal(lambda: write_authority(authority_folder, other))
    assert "ca.key exists already" in message
    assert "--force" in message
    assert read_authority(authority_folder) == root

    write_authority(authority_folder, other, replace=True)
    assert contents(authority_folder) == {"ca.crt": other.certificate_pem, "ca.key": other.private_key_pem}


def test_a_renewal_replaces_the_files_of_the_same_identity(
    workload_folder: Path, root: CertificateAndKey, request_web: WorkloadRequest
) -> None:
    renewed = issue_workload(request_web, root, root.certificate.not_valid_before_utc)
    write_workload(workload_folder, renewed, [root.certificate])

    assert read_workload(workload_folder).credential == renewed
    assert len(contents(workload_folder)) == 3


def test_the_folder_of_another_identity_is_left_alone(workload_folder: Path, root: CertificateAndKey) -> None:
    before = contents(workload_folder)
    stranger = WorkloadRequest(spiffe_id=SpiffeId.parse("spiffe://cluster.local/ns/other/sa/web"))
    leaf = issue_workload(stranger, root, root.certificate.not_valid_before_utc)

    message = refusal(lambda: write_workload(workload_folder, leaf, [root.certificate]))
    assert "belongs to spiffe://cluster.local/ns/shop/sa/web" in message
    assert "--out" in message
    assert contents(workload_folder) == before


def test_a_file_that_is_no_certificate_is_not_overwritten(
    tmp_path: Path, root: CertificateAndKey, web: CertificateAndKey
) -> None:
    (tmp_path / "tls.crt").write_text("something of the user's own")

    assert "is in the way" in refusal(lambda: write_workload(tmp_path, web, [root.certificate]))
    assert (tmp_path / "tls.crt").read_text() == "something of the user's own"


def test_a_workload_without_any_root_is_a_mistake_of_the_caller(tmp_path: Path, web: CertificateAndKey) -> None:
    with pytest.raises(ValueError, match="at least one root"):
        write_workload(tmp_path, web, [])


# Read


def test_what_was_written_is_read_back(
    authority_folder: Path, workload_folder: Path, root: CertificateAndKey, web: CertificateAndKey
) -> None:
    assert read_authority(authority_folder) == root
    assert read_authority(authority_folder).private_key_pem == root.private_key_pem
    assert read_workload(workload_folder) == files.Workload(web, (root.certificate,))


def test_openssl_loads_the_files(workload_folder: Path) -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate_file(str(workload_folder / "tls.crt"))
    context.use_privatekey_file(str(workload_folder / "tls.key"))
    context.check_privatekey()
    context.load_verify_locations(str(workload_folder / "ca.crt"))


@pytest.mark.parametrize("name", ["ca.crt", "ca.key"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(authority_folder: Path, name: str) -> None:
    (authority_folder / name).unlink()

    message = refusal(lambda: read_authority(authority_folder))
    assert message.startswith(f"{authority_folder / name} does not exist; ")
    assert "`qbitel ca`" in message


@pytest.mark.parametrize("content", [b"", b"hello", b"\x30\x82\x00\xff", b"\xff" * 100])
@pytest.mark.parametrize("name", ["ca.crt", "ca.key"])
def test_a_file_that_is_not_pem_is_refused(authority_folder: Path, name: str, content: bytes) -> None:
    (authority_folder / name).write_bytes(content)

    message = refusal(lambda: read_authority(authority_folder))
    assert message.startswith(f"{authority_folder / name} holds no ")
    assert "PEM" in message


def test_files_that_were_swapped_are_refused(authority_folder: Path, root: CertificateAndKey) -> None:
    (authority_folder / "ca.crt").write_bytes(root.private_key_pem)
    assert "holds no certificate" in refusal(lambda: read_authority(authority_folder))

    (authority_folder / "ca.crt").write_bytes(root.certificate_pem)
    (authority_folder / "ca.key").write_bytes(root.certificate_pem)
    assert "holds no private key" in refusal(lambda: read_authority(authority_folder))


def test_a_key_of_another_certificate_is_refused_with_both_paths(
    authority_folder: Path, web: CertificateAndKey
) -> None:
    (authority_folder / "ca.key").write_bytes(web.private_key_pem)

    message = refusal(lambda: read_authority(authority_folder))
    assert str(authority_folder / "ca.crt") in message
    assert str(authority_folder / "ca.key") in message
    assert "does not belong" in message


def test_a_leaf_in_an_authority_s_place_is_refused(authority_folder: Path, web: CertificateAndKey) -> None:
    (authority_folder / "ca.crt").write_bytes(web.certificate_pem)
    (authority_folder / "ca.key").write_bytes(web.private_key_pem)

    assert "is no authority's certificate" in refusal(lambda: read_authority(authority_folder))


def test_a_chain_is_written_and_read_where_an_intermediate_issued(
    tmp_path: Path, root: CertificateAndKey, request_web: WorkloadRequest
) -> None:
    begin = root.certificate.not_valid_before_utc
    intermediate = create_intermediate("CN=Between", root, begin)
    leaf = issue_workload(request_web, intermediate, begin)
    beside = {"intermediates.crt": intermediate.certificate_pem, "crl.pem": b"lists"}
    write_workload(tmp_path, leaf, [root.certificate], issuers=[intermediate.certificate], beside=beside)

    assert read_workload(tmp_path) == files.Workload(leaf, (root.certificate,), (intermediate.certificate,))
    assert contents(tmp_path) == {
        "tls.crt": leaf.certificate_pem + intermediate.certificate_pem,
        "tls.key": leaf.private_key_pem,
        "ca.crt": root.certificate_pem,
        **beside,
    }
    assert mode(tmp_path / "crl.pem") == 0o644


def test_a_chain_where_one_certificate_belongs_is_refused(
    authority_folder: Path, root: CertificateAndKey, web: CertificateAndKey
) -> None:
    (authority_folder / "ca.crt").write_bytes(root.certificate_pem + web.certificate_pem)

    assert "holds 2 certificates" in refusal(lambda: read_authority(authority_folder))


def tlv(tag: int, content: bytes) -> bytes:
    """One DER value. Only for keys that `cryptography` cannot write."""
    length = len(content)
    head = bytes([length]) if length < 128 else b"\x82" + length.to_bytes(2, "big")
    return bytes([tag]) + head + content


@pytest.mark.parametrize("with_seed", [True, False], ids=["both", "expanded-only"])
def test_a_key_in_expanded_form_is_refused_with_the_command_that_converts_it(
    workload_folder: Path, with_seed: bool
) -> None:
    # RFC 9881 §6: expandedKey is an OCTET STRING of 4896 bytes; `both` a SEQUENCE of the seed and it.
    expanded = tlv(0x04, bytes(4896))
    private_key = tlv(0x30, tlv(0x04, bytes(32)) + expanded) if with_seed else expanded
    algorithm = tlv(0x30, bytes.fromhex("0609608648016503040313"))
    der = tlv(0x30, b"\x02\x01\x00" + algorithm + tlv(0x04, private_key))
    pem = b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(der) + b"-----END PRIVATE KEY-----\n"
    (workload_folder / "tls.key").write_bytes(pem)

    message = refusal(lambda: read_workload(workload_folder))
    assert "not in seed form" in message
    assert "openssl pkey -provparam ml-dsa.output_formats=seed-only" in message


def test_an_encrypted_key_is_refused(workload_folder: Path, web: CertificateAndKey) -> None:
    encrypted = web.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (workload_folder / "tls.key").write_bytes(encrypted)

    assert "is encrypted" in refusal(lambda: read_workload(workload_folder))


def test_a_key_of_another_algorithm_is_refused(workload_folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (workload_folder / "tls.key").write_bytes(pem)

    assert "is no ML-DSA-87 key" in refusal(lambda: read_workload(workload_folder))


def test_no_refusal_shows_a_key(workload_folder: Path, web: CertificateAndKey) -> None:
    damaged = web.private_key_pem.replace(b"MDQ", b"MDR")
    assert damaged != web.private_key_pem
    (workload_folder / "tls.key").write_bytes(damaged)

    secret = web.private_key_pem.splitlines()[1].decode()
    message = refusal(lambda: read_workload(workload_folder))
    assert not any(secret[at : at + 8] in message for at in range(len(secret) - 8))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_certificate_is_refused_in_one_line_or_read(
    root: CertificateAndKey,
    web: CertificateAndKey,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    """The structure is in the first 250 and the last 5000 bytes; between them lies the key, where any byte
    goes.
    """
    folder = tmp_path_factory.getbasetemp() / "damaged"
    pair = data.draw(st.sampled_from([root, web]))
    der = bytearray(pair.certificate.public_bytes(serialization.Encoding.DER))
    at = data.draw(st.one_of(st.integers(0, 250), st.integers(len(der) - 5000, len(der) - 1)))
    der[at] ^= data.draw(st.integers(1, 255))
    folder.mkdir(exist_ok=True)
    body = base64.encodebytes(bytes(der))
    (folder / "ca.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n")
    (folder / "ca.key").write_bytes(pair.private_key_pem)
    (folder / "ca.key").chmod(0o600)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `cryptography` warns of serial numbers that RFC 5280 forbids
        try:
            read_authority(folder)
        except UserError as error:
            assert str(error).isprintable()


def test_a_certificate_of_an_unknown_key_algorithm_is_refused(authority_folder: Path, root: CertificateAndKey) -> None:
    der = root.certificate.public_bytes(serialization.Encoding.DER)
    oid = bytes.fromhex("0609608648016503040313")
    # The second of three occurrences is the subject's key; 0x7f is an algorithm that nobody has registered.
    before, first, rest = der.partition(oid)
    middle, second, after = rest.partition(oid)
    unknown = before + first + middle + second[:-1] + b"\x7f" + after
    x509.load_der_x509_certificate(unknown)
    body = base64.encodebytes(unknown)
    (authority_folder / "ca.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n")

    assert "not ML-DSA-87" in refusal(lambda: read_authority(authority_folder))


def test_a_private_key_never_stands_in_the_repr_of_what_is_read(workload_folder: Path) -> None:
    workload = read_workload(workload_folder)

    assert isinstance(workload.credential.private_key, MLDSA87PrivateKey)
    assert "rivate" not in repr(workload)
