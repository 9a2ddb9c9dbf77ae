"""The injector's certificate for the API server: what it says, how long it is good for, and who is trusted for it."""

from __future__ import annotations

import datetime
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from certmgr.webhook_certificate import (
    MOST_AUTHORITIES,
    OVERLAP,
    VALIDITY,
    HeldCertificate,
    WebhookCertificate,
    alive,
    has_signed,
    issue,
    names_of,
    pem,
    read,
    renewal_time,
)

NOW = datetime.datetime(2030, 5, 17, 12, 0, 0, 987654, tzinfo=datetime.UTC)
NAMES = names_of("qbitel-sidecar-injector", "qbitel-system")
SECOND = datetime.timedelta(seconds=1)
ONE = issue(NAMES, NOW)
FILES = ONE.files([ONE.authority])


def held(made: WebhookCertificate, *others: x509.Certificate) -> HeldCertificate:
    found = read(made.files([made.authority, *others]))
    assert found is not None
    return found


def test_it_is_good_under_each_name_by_which_the_service_can_be_called() -> None:
    assert NAMES == (
        "qbitel-sidecar-injector.qbitel-system.svc",
        "qbitel-sidecar-injector.qbitel-system.svc.cluster.local",
        "qbitel-sidecar-injector.qbitel-system",
        "qbitel-sidecar-injector",
    )
    assert all(held(ONE).is_good(name, NOW) for name in NAMES)
    assert not held(ONE).is_good("qbitel-sidecar-injector.other.svc", NOW)


def test_it_serves_and_does_nothing_else_and_its_authority_signs_leaves_and_nothing_else() -> None:
    extensions = ONE.certificate.extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(False, None)
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    above = ONE.authority.extensions
    assert above.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    assert above.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    for certificate in (ONE.certificate, ONE.authority):
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP384R1)
        assert isinstance(certificate.signature_hash_algorithm, hashes.SHA384)


def test_each_certificate_has_an_authority_of_its_own_with_a_name_of_its_own() -> None:
    other = issue(NAMES, NOW)

    assert has_signed(ONE.authority, ONE.certificate)
    assert not has_signed(other.authority, ONE.certificate)
    assert other.authority.subject != ONE.authority.subject
    assert held(other).authorities[0].public_key() != ONE.certificate.public_key()


def test_it_lives_thirty_days_and_the_next_one_may_begin_after_half_of_them() -> None:
    middle = NOW + VALIDITY / 2
    assert not held(ONE).is_due(middle - datetime.timedelta(minutes=4))
    assert held(ONE).is_due(middle)
    assert held(ONE).is_good(NAMES[0], NOW + VALIDITY - 2 * SECOND)
    assert not held(ONE).is_good(NAMES[0], NOW + VALIDITY + SECOND)


def test_a_machine_whose_clock_is_five_minutes_behind_takes_it() -> None:
    assert held(ONE).is_good(NAMES[0], NOW - datetime.timedelta(minutes=5))
    assert not held(ONE).is_good(NAMES[0], NOW - datetime.timedelta(minutes=6))


def test_the_authority_before_is_trusted_for_an_hour_beside_the_one_that_signed() -> None:
    before = issue(NAMES, NOW).authority
    both = held(ONE, before)

    assert both.trusted(NOW + OVERLAP - SECOND) == (ONE.authority, before)
    assert both.trusted(NOW + OVERLAP) == (ONE.authority,)


def test_the_one_that_signed_comes_first_wherever_it_stands() -> None:
    before = issue(NAMES, NOW).authority
    found = HeldCertificate(ONE.certificate, (before, ONE.authority))

    assert found.trusted(NOW) == (ONE.authority, before)
    assert found.trusted(NOW + OVERLAP) == (ONE.authority,)


def test_authorities_that_have_ended_and_more_than_four_are_not_kept() -> None:
    ended = issue(NAMES, NOW - VALIDITY - SECOND).authority
    many = [issue(NAMES, NOW).authority for _ in range(MOST_AUTHORITIES + 2)]

    assert alive([ended, many[0], many[0], *many[1:]], NOW) == tuple(many[:MOST_AUTHORITIES])


def test_the_key_is_in_no_repr() -> None:
    assert "PRIVATE" not in repr(ONE)
    assert b"PRIVATE KEY" in ONE.private_key_pem


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("content", [None, b"", b"\xff", b"-----BEGIN CERTIFICATE-----", "another"])
def test_what_is_not_whole_counts_as_nothing_and_another_s_key_or_authority_as_no_good(
    name: str, content: bytes | str | None
) -> None:
    other = issue(NAMES, NOW)
    files = {**FILES, name: other.files([other.authority])[name] if content == "another" else content}
    if content is None:
        del files[name]

    found = read(files)  # type: ignore[arg-type]

    assert found is None or not found.is_good(NAMES[0], NOW)


def test_a_key_of_another_kind_is_none_of_ours() -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

    assert read({**FILES, "tls.key": key}) is None


DER = {"tls.crt": ONE.certificate, "ca.crt": ONE.authority}


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=400)
@given(st.sampled_from(sorted(DER)), st.data())
def test_no_byte_of_a_certificate_that_is_another_raises(name: str, data: st.DataObject) -> None:
    der = bytearray(DER[name].public_bytes(serialization.Encoding.DER))
    for place in data.draw(st.lists(st.integers(0, len(der) - 1), min_size=1, max_size=3)):
        der[place] = data.draw(st.integers(0, 255))
    text = ssl.DER_cert_to_PEM_cert(bytes(der)).encode()

    found = read({**FILES, name: text})

    if found is not None:
        assert isinstance(found.is_good(NAMES[0], NOW), bool)
        assert isinstance(found.trusted(NOW), tuple)
        assert isinstance(found.is_due(NOW), bool)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=200)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 700), st.integers(0, 255))
def test_a_file_that_is_cut_or_damaged_raises_nothing(name: str, at: int, byte: int) -> None:
    whole = FILES[name]
    for content in (whole[:at], whole[:at] + bytes([byte]) + whole[at + 1 :]):
        found = read({**FILES, name: content})
        assert found is None or found.trusted(NOW) is not None


def test_python_s_tls_takes_it_from_the_authority_alone(tmp_path: Path) -> None:
    made = issue(NAMES, datetime.datetime.now(datetime.UTC))
    for name, content in made.files([issue(NAMES, NOW).authority, made.authority]).items():
        (tmp_path / name).write_bytes(content)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    trust.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.wrap_bio(to_server, to_client, server_side=True)
    other = trust.wrap_bio(to_client, to_server, server_hostname=NAMES[0])

    for side in (other, one, other, one):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue

    assert other.version() == "TLSv1.3"


def test_openssl_finds_no_fault_with_the_pair(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl on PATH")
    made = issue(NAMES, datetime.datetime.now(datetime.UTC))
    for name, content in made.files([made.authority]).items():
        (tmp_path / name).write_bytes(content)

    flags = ["-x509_strict", "-purpose", "sslserver", "-verify_hostname", NAMES[0]]
    done = subprocess.run(
        ["openssl", "verify", *flags, "-CAfile", tmp_path / "ca.crt", tmp_path / "tls.crt"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_half_of_the_life_counts_for_a_certificate_of_any_length() -> None:
    life = ONE.certificate.not_valid_after_utc - ONE.certificate.not_valid_before_utc

    assert renewal_time(ONE.certificate) == ONE.certificate.not_valid_before_utc + life / 2
    assert pem([ONE.certificate]) == FILES["tls.crt"]
