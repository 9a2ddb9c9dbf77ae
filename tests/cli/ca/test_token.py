"""`qbitel ca token`: a secret that is told once."""

from __future__ import annotations

import asyncio
import base64
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey

from certmgr.audit import file_journal
from certmgr.folder_store import FolderStore
from certmgr.parts import Parts
from certmgr.proofs import ProvenIdentity, Refused
from certmgr.requests import CheckedRequest
from certmgr.service import AuthorityService
from tests.cli.ca.conftest import WEB, Ca


def redeem(authority: Path, ca: Ca, token: str) -> ProvenIdentity:
    """What the server of this authority makes of `token`."""

    async def at_the_server() -> ProvenIdentity:
        journal = file_journal(authority / "audit.log")
        parts = Parts(store=FolderStore(authority), journal=journal, replica="server")
        service = await AuthorityService.open(parts, now=ca.clock)
        return await service.redeem(token, lambda _: CheckedRequest(MLDSA87PrivateKey.generate().public_key()))

    return asyncio.run(at_the_server())


def test_a_token_is_256_bits_and_serves_once(authority: Path, ca: Ca) -> None:
    data = ca.data("token", authority, "--spiffe", WEB, "--dns", "web.example", "--minutes", "10")

    token = data["token"]
    assert len(base64.urlsafe_b64decode(f"{token}=")) == 32
    proven = redeem(authority, ca, token)
    assert (str(proven.spiffe_id), proven.dns_names) == (WEB, ("web.example",))
    with pytest.raises(Refused):
        redeem(authority, ca, token)


def test_a_token_ends(authority: Path, ca: Ca) -> None:
    token = ca.data("token", authority, "--spiffe", WEB, "--minutes", "10")["token"]

    ca.later(minutes=11)
    with pytest.raises(Refused):
        redeem(authority, ca, token)


def test_people_read_it_on_a_line_of_its_own(authority: Path, ca: Ca) -> None:
    output = ca.good("token", authority, "--spiffe", WEB).output

    (line,) = [line for line in output.splitlines() if line.startswith("  token ")]
    assert str(redeem(authority, ca, line.split()[1]).spiffe_id) == WEB
    assert ", for 60 minutes" in output


def test_a_token_in_a_file_is_private_and_not_printed(authority: Path, tmp_path: Path, ca: Ca) -> None:
    file = tmp_path / "token"
    outcome = ca.good("token", authority, "--spiffe", WEB, "--out", file)

    token = file.read_text().strip()
    assert token not in outcome.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "exists already" in ca("token", authority, "--spiffe", WEB, "--out", file).refusal
    assert str(redeem(authority, ca, token).spiffe_id) == WEB


def test_the_authority_keeps_neither_the_token_nor_tells_it(authority: Path, ca: Ca) -> None:
    token = ca.data("token", authority, "--spiffe", WEB)["token"]

    for path in authority.iterdir():
        assert token.encode() not in path.read_bytes()
    assert '"event":"token made"' in (authority / "audit.log").read_text()


def test_an_identity_that_no_token_may_prove_gets_one_line(authority: Path, ca: Ca) -> None:
    own = "spiffe://cluster.local/ns/qbitel-system/sa/qbitel-certmgr"

    assert "authority's own" in ca("token", authority, "--spiffe", own).refusal
    assert "trust domain" in ca("token", authority, "--spiffe", "spiffe://example.org/a").refusal
    assert "token made" not in (authority / "audit.log").read_text()
