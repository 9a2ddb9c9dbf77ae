"""`qbitel ca verify`: the mesh's own judgement, and OpenSSL's of the same files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from certmgr.x509_files import lists_of
from tests.cli.ca.conftest import DB, WEB, Ca
from tests.support.openssl_program import openssl


@pytest.fixture
def web(authority: Path, ca: Ca) -> Path:
    ca.good("issue", authority, "--spiffe", WEB)
    return authority / "web"


def files(web: Path) -> list[str | Path]:
    return [
        web / "tls.crt",
        *("--roots", web / "ca.crt"),
        *("--intermediates", web / "intermediates.crt"),
        *("--crl", web / "crl.pem"),
    ]


def refused(ca: Ca, *arguments: str | Path) -> str:
    """The reason of a refusal: exit code 1 and one line."""
    outcome = ca("verify", *arguments)
    assert (outcome.code, outcome.errors, outcome.output.count("\n")) == (1, "", 1), outcome
    data = ca("verify", *arguments, "--json").data
    assert outcome.output == f"refused ({data['reason']}): {data['message']}\n"
    return str(data["reason"])


def test_a_folder_is_judged_by_what_lies_in_it(web: Path, ca: Ca) -> None:
    output = ca.good("verify", web).output

    assert output.startswith(f"accepted: {WEB}\n")
    assert "TLS server and TLS client" in output
    assert "ends in 23 hours" in output
    assert ca.data("verify", web) == ca.data("verify", *files(web))


def test_without_a_list_it_says_that_nobody_counts_as_revoked(web: Path, ca: Ca) -> None:
    outcome = ca.good("verify", web / "tls.crt", "--roots", web / "ca.crt")

    assert "no revocation list was given" in outcome.output
    assert ca.data("verify", web)["revocation_checked"] is True


def test_der_is_judged_as_pem_is(web: Path, tmp_path: Path, ca: Ca) -> None:
    leaf, *_ = x509.load_pem_x509_certificates((web / "tls.crt").read_bytes())
    (tmp_path / "leaf.der").write_bytes(leaf.public_bytes(Encoding.DER))

    assert ca.data("verify", tmp_path / "leaf.der", *files(web)[1:])["identity"] == WEB


def test_each_refusal_has_its_reason(web: Path, root: Path, ca: Ca) -> None:
    ca.good("issue", root, "--spiffe", WEB)
    leaf = x509.load_pem_x509_certificates((web / "tls.crt").read_bytes())[0]
    (web / "leaf.crt").write_bytes(leaf.public_bytes(Encoding.PEM))

    assert refused(ca, web, "--identity", DB) == "unexpected_identity"
    assert refused(ca, root / "web", "--roots", web / "ca.crt") == "unknown_root"
    assert refused(ca, web / "leaf.crt", "--roots", web / "ca.crt") == "unknown_root"
    assert refused(ca, web, "--at", f"{ca.now.year + 1}-01-01") == "expired"
    assert refused(ca, web, "--at", "2020-01-01") == "not_yet_valid"
    assert refused(ca, web / "ca.crt", "--roots", web / "ca.crt")
    assert ca.good("verify", web, "--identity", WEB, "--purpose", "server", "--profile", "cnsa2")


def test_a_revoked_certificate_is_refused(authority: Path, web: Path, ca: Ca) -> None:
    ca.good("revoke", authority, web / "tls.crt")

    assert ca.good("verify", web).output.startswith("accepted")  # by the list that lies there
    assert refused(ca, web, "--crl", authority / "crl.pem") == "revoked"


def test_a_list_that_is_too_old_refuses_everybody(authority: Path, ca: Ca) -> None:
    ca.good("issue", authority, "--spiffe", WEB)
    old = (authority / "crl.pem").read_bytes()
    ca.later(hours=20)
    ca.good("issue", authority, "--spiffe", WEB)
    (authority / "web" / "crl.pem").write_bytes(old)
    ca.later(hours=6)

    assert refused(ca, authority / "web") == "stale_crl"


def test_what_cannot_be_judged_is_an_error_and_no_verdict(web: Path, root: Path, ca: Ca) -> None:
    assert "does not exist" in ca("verify", web / "none", "--roots", web / "ca.crt").refusal
    assert "holds no certificate" in ca("verify", web / "tls.key", "--roots", web / "ca.crt").refusal
    assert "holds no revocation list" in ca("verify", web, "--crl", web / "ca.crt").refusal
    assert "signed by none of our authorities" in ca("verify", web, "--roots", root / "ca.crt").refusal


# OpenSSL


def pyopenssl_store(folder: Path) -> crypto.X509Store:
    store = crypto.X509Store()
    for one in x509.load_pem_x509_certificates((folder / "ca.crt").read_bytes()):
        store.add_cert(crypto.X509.from_cryptography(one))
    return store


def verify_by_openssl(store: crypto.X509Store, chain: Sequence[x509.Certificate]) -> None:
    leaf, *others = map(crypto.X509.from_cryptography, chain)
    crypto.X509StoreContext(store, leaf, others).verify_certificate()


def test_the_openssl_of_the_wheel_accepts_the_chain_and_heeds_the_lists(authority: Path, web: Path, ca: Ca) -> None:
    chain = x509.load_pem_x509_certificates((web / "tls.crt").read_bytes())
    verify_by_openssl(pyopenssl_store(web), chain)

    def checking_lists() -> crypto.X509Store:
        store = pyopenssl_store(web)
        for crl in lists_of((authority / "crl.pem").read_bytes()):
            store.add_crl(crl)
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
        return store

    verify_by_openssl(checking_lists(), chain)
    ca.good("revoke", authority, web / "tls.crt")
    with pytest.raises(crypto.X509StoreContextError, match="revoked"):
        verify_by_openssl(checking_lists(), chain)


def accepted_by_openssl(*words: str | Path) -> None:
    done = openssl("verify", "-x509_strict", *words)
    assert (done.returncode, done.stdout) == (0, f"{words[-1]}: OK\n"), done.stderr


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_verify_accepts_the_chain_and_heeds_the_lists(authority: Path, web: Path, ca: Ca, purpose: str) -> None:
    def words() -> list[str | Path]:
        return [
            *("-crl_check_all", "-purpose", purpose),
            *("-CAfile", web / "ca.crt", "-untrusted", web / "tls.crt", "-CRLfile", authority / "crl.pem"),
            web / "tls.crt",
        ]

    accepted_by_openssl(*words())
    ca.good("revoke", authority, web / "tls.crt")
    assert "certificate revoked" in openssl("verify", "-x509_strict", *words()).stderr


def test_openssl_verify_accepts_a_root_alone_its_leaves_and_both_roots_of_a_rotation(
    root: Path, authority: Path, ca: Ca
) -> None:
    ca.good("issue", root, "--spiffe", WEB)
    accepted_by_openssl("-CAfile", root / "ca.crt", root / "ca.crt")
    accepted_by_openssl("-CAfile", root / "web" / "ca.crt", root / "web" / "tls.crt")
    ca.good("rotate", authority, "--start")
    ca.good("issue", authority, "--spiffe", WEB)
    web = authority / "web"
    accepted_by_openssl("-CAfile", web / "ca.crt", "-untrusted", web / "intermediates.crt", web / "tls.crt")


def test_openssl_accepts_the_request_for_an_intermediate_and_what_a_root_off_line_makes_of_it(
    root: Path, tmp_path: Path, ca: Ca
) -> None:
    there = tmp_path / "authority"
    ca.good("request", there)
    asked = openssl("req", "-verify", "-noout", "-in", there / "intermediate.csr")
    assert asked.returncode == 0
    assert "verify OK" in asked.stdout + asked.stderr
    ca.good("sign", root, "--csr", there / "intermediate.csr", "--out", there / "signed.crt")
    ca.good("import", there, "--certificate", there / "signed.crt", "--root", root / "ca.crt")
    ca.good("issue", there, "--spiffe", WEB)
    accepted_by_openssl("-CAfile", there / "ca.crt", "-untrusted", there / "signed.crt", there / "web" / "tls.crt")


def test_openssl_reads_the_private_key_of_a_certificate(web: Path) -> None:
    of_key = openssl("pkey", "-in", web / "tls.key", "-pubout").stdout
    assert of_key.startswith("-----BEGIN PUBLIC KEY-----")
    assert openssl("x509", "-in", web / "tls.crt", "-noout", "-pubkey").stdout == of_key
