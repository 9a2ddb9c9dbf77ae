"""`qbitel ca verify`: the mesh's own judgement, and OpenSSL's of the same files."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from certmgr.x509_files import lists_of
from tests.cli.ca.conftest import DB, WEB, Ca


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


def openssl_program() -> str:
    """An openssl on PATH that knows ML-DSA (3.5 or newer), or skip."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl on PATH")
    version = subprocess.run([program, "version"], capture_output=True, text=True, check=True, timeout=30).stdout
    found = re.match(r"OpenSSL (\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < (3, 5):
        pytest.skip(f"openssl on PATH does not know ML-DSA: {version.strip()}")
    return program


def test_openssl_verify_accepts_the_chain_and_heeds_the_lists(authority: Path, web: Path, ca: Ca) -> None:
    program = openssl_program()

    def verify() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(program, "verify", "-crl_check_all", "-purpose", "sslserver", "-x509_strict"),
                *("-CAfile", web / "ca.crt", "-untrusted", web / "tls.crt", "-CRLfile", authority / "crl.pem"),
                web / "tls.crt",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    good = verify()
    assert (good.returncode, good.stdout) == (0, f"{web}/tls.crt: OK\n"), good.stderr
    ca.good("revoke", authority, web / "tls.crt")
    assert "certificate revoked" in verify().stderr
