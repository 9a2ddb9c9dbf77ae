"""`qbitel ca bundle`: the public files, written again."""

from __future__ import annotations

from pathlib import Path

from tests.cli.ca.conftest import WEB, Ca

_FILES = ("ca.crt", "crl.pem", "intermediates.crt")


def test_the_public_files_come_back(authority: Path, ca: Ca) -> None:
    before = {name: (authority / name).read_bytes() for name in _FILES}
    for name in _FILES:
        (authority / name).unlink()

    data = ca.data("bundle", authority)
    assert {name: (authority / name).read_bytes() for name in _FILES} == before
    assert data["files"] == [f"{authority}/{name}" for name in _FILES]


def test_a_folder_elsewhere_gets_them_with_a_fresh_list(authority: Path, tmp_path: Path, ca: Ca) -> None:
    ca.good("issue", authority, "--spiffe", WEB)
    old = (authority / "crl.pem").read_bytes()
    ca.later(hours=1)
    outcome = ca.good("bundle", authority, "--out", tmp_path / "out")

    assert (tmp_path / "out" / "crl.pem").read_bytes() == (authority / "crl.pem").read_bytes() != old
    assert f"file         {tmp_path}/out/crl.pem\n" in outcome.output


def test_the_hashes_say_what_changed(authority: Path, ca: Ca) -> None:
    first = ca.data("bundle", authority)
    assert ca.data("bundle", authority) == first

    ca.good("revoke", authority, "--serial", "1234")
    revoked = ca.data("bundle", authority)
    assert (revoked["anchors"], revoked["generation"]) == (first["anchors"], first["generation"])
    assert revoked["etag"] != first["etag"]

    ca.good("rotate", authority, "--start")
    rotated = ca.data("bundle", authority)
    assert rotated["anchors"] != first["anchors"]
