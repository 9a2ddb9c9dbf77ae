"""`qbitel ca request`, `sign`, `import`: a root whose key stays on another machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from certmgr.files import read_authority
from cli.ca import offline
from mesh.errors import UserError
from tests.cli.ca.conftest import WEB, Ca


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


def signed(ca: Ca, here: Path, root: Path, *flags: str) -> Path:
    ca.good("request", here)
    certificate = here.parent / "intermediate.crt"
    ca.good("sign", root, "--csr", here / "intermediate.csr", "--out", certificate, "--force", *flags)
    return certificate


def bring(ca: Ca, here: Path, root: Path, certificate: Path, *flags: str) -> str:
    return ca.good("import", here, "--certificate", certificate, "--root", root / "ca.crt", *flags).output


def test_an_authority_comes_to_be_without_its_root_s_key(root: Path, here: Path, ca: Ca) -> None:
    output = bring(ca, here, root, signed(ca, here, root), "--trust-domain", "example.org", "--leaf-hours", "2")

    assert "has the intermediate's key: keep it secret" in output
    assert (here / "ca.crt").read_bytes() == (root / "ca.crt").read_bytes()
    ca.good("issue", here, "--spiffe", "spiffe://example.org/web")
    verdict = ca.data("verify", here / "web", "--roots", root / "ca.crt")
    assert verdict["identity"] == "spiffe://example.org/web"
    key = read_authority(root).private_key_pem
    assert all(key not in path.read_bytes() for path in here.iterdir() if path.is_file())
    assert ca.data("show", here)["found"][0]["generations"][0]["root_key_is_here"] is False


def test_a_request_that_waits_is_given_out_again(here: Path, ca: Ca) -> None:
    ca.good("request", here)
    first = (here / "intermediate.csr").read_bytes()
    (here / "intermediate.csr").unlink()

    assert "waits already" in ca.good("request", here).output
    assert (here / "intermediate.csr").read_bytes() == first
    ca.good("request", here, "--force", "--out", here / "other.csr")
    assert (here / "other.csr").read_bytes() != first


def test_an_import_goes_on_where_it_was_interrupted(
    root: Path, here: Path, ca: Ca, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = signed(ca, here, root)
    flags = ("--trust-domain", "example.org")

    def interrupted(*_: object) -> None:
        raise UserError("interrupted")

    with monkeypatch.context() as patched:
        # The state is stored; nothing else was done yet.
        patched.setattr(offline, "founded", interrupted)
        assert ca("import", here, "--certificate", certificate, "--root", root / "ca.crt", *flags).code == 2
    state = (here / "authority.state").read_bytes()

    assert "took up an intermediate" in bring(ca, here, root, certificate, *flags)
    assert "took up an intermediate" in bring(ca, here, root, certificate, *flags)
    assert (here / "authority.state").read_bytes() == state
    assert not (here / "request.state").exists()
    ca.good("issue", here, "--spiffe", "spiffe://example.org/web")


def test_a_new_intermediate_takes_over(root: Path, here: Path, ca: Ca) -> None:
    bring(ca, here, root, signed(ca, here, root))
    ca.good("issue", here, "--spiffe", WEB)
    ca.later(days=300)
    ca.good("import", here, "--certificate", signed(ca, here, root))

    intermediates = x509.load_pem_x509_certificates((here / "intermediates.crt").read_bytes())
    assert len(intermediates) == 2
    ca.good("issue", here, "--spiffe", WEB)
    assert ca.good("verify", here / "web").output.startswith("accepted")


def test_the_next_root_comes_from_off_line_too(root: Path, here: Path, tmp_path: Path, ca: Ca) -> None:
    bring(ca, here, root, signed(ca, here, root))
    assert "import --next" in ca("rotate", here, "--start").refusal

    ca.good("init", tmp_path / "root2", "--root-only", "--subject", "CN=Second")
    output = bring(ca, here, tmp_path / "root2", signed(ca, here, tmp_path / "root2"), "--next")
    assert "the rotation began" in output
    assert ca.data("rotate", here, "--status")["phase"] == "publishing"
    assert len(x509.load_pem_x509_certificates((here / "ca.crt").read_bytes())) == 2


def test_an_authority_with_its_own_root_signs_for_another(authority: Path, here: Path, ca: Ca) -> None:
    bring(ca, here, authority, signed(ca, here, authority, "--years", "2"))
    ca.good("issue", here, "--spiffe", WEB)

    assert ca.good("verify", here / "web", "--roots", authority / "ca.crt").output.startswith("accepted")


def test_a_signed_certificate_is_not_overwritten(root: Path, here: Path, ca: Ca) -> None:
    certificate = signed(ca, here, root)

    refusal = ca("sign", root, "--csr", here / "intermediate.csr", "--out", certificate).refusal
    assert "exists already" in refusal


Attempt = Callable[[Ca, Path, Path, Path], str]


def test_what_does_not_fit_gets_one_line_and_the_request_still_waits(
    root: Path, authority: Path, here: Path, tmp_path: Path, ca: Ca
) -> None:
    certificate = signed(ca, here, root)
    ca.good("request", tmp_path / "other")
    other = tmp_path / "other.crt"
    ca.good("sign", root, "--csr", tmp_path / "other" / "intermediate.csr", "--out", other)
    own_root = ("--root", root / "ca.crt")

    assert "not for the key that waits" in ca("import", here, "--certificate", other, *own_root).refusal
    assert "--root" in ca("import", here, "--certificate", certificate).refusal
    assert "leave out --next" in ca("import", here, "--certificate", certificate, *own_root, "--next").refusal
    wrong_root = ("--root", authority / "ca.crt")
    assert "not signed by the root" in ca("import", here, "--certificate", certificate, *wrong_root).refusal
    assert "no request waits" in ca("import", authority, "--certificate", certificate, *own_root).refusal
    assert "holds no certificate" in ca("import", here, "--certificate", here / "intermediate.csr").refusal
    assert "0 certificate requests" in ca("sign", root, "--csr", certificate, "--out", tmp_path / "x").refusal
    assert "is no subject" in ca("request", tmp_path / "third", "--subject", "me").refusal

    bring(ca, here, root, certificate)


def test_a_rotation_cannot_begin_without_its_root(root: Path, here: Path, ca: Ca) -> None:
    bring(ca, here, root, signed(ca, here, root))
    certificate = signed(ca, here, root)

    assert "--root FILE" in ca("import", here, "--certificate", certificate, "--next").refusal
    refusal = ca("import", here, "--certificate", certificate, "--leaf-days", "3").refusal
    assert "leave out those options" in refusal


def test_a_damaged_request_gets_one_line(here: Path, ca: Ca) -> None:
    ca.good("request", here)
    state = here / "request.state"
    state.write_bytes(state.read_bytes()[:-50])

    assert "damaged" in ca("request", here).refusal
    ca.good("request", here, "--force")


def test_an_authority_without_its_root_s_key_cannot_sign_for_another(root: Path, here: Path, ca: Ca) -> None:
    bring(ca, here, root, signed(ca, here, root))
    ca.good("request", here.parent / "third")

    csr = here.parent / "third" / "intermediate.csr"
    assert "is not in" in ca("sign", here, "--csr", csr, "--out", here.parent / "x").refusal
