"""`qbitel ca show`: whatever a file holds."""

from __future__ import annotations

import io
import os
import sys
import types
from pathlib import Path

import pytest

from cli.ca.reading import MAX_FILE_SIZE
from tests.cli.ca.conftest import WEB, Ca


def test_a_certificate_is_shown_as_a_person_reads_it(authority: Path, ca: Ca) -> None:
    ca.good("issue", authority, "--spiffe", WEB)
    ca.later(hours=12, minutes=30)
    output = ca.good("show", authority / "web" / "tls.crt").output

    assert output.startswith(f"{authority}/web/tls.crt (1 of 2)\ncertificate: {WEB}\n")
    assert "ends in 11 hours" in output
    assert "TLS server, TLS client" in output
    assert "yes, signs leaves only" in output


def test_every_kind_of_file_is_told_apart(root: Path, authority: Path, tmp_path: Path, ca: Ca) -> None:
    ca.good("request", tmp_path / "new")
    files = [authority / "crl.pem", root / "ca.key", tmp_path / "new" / "intermediate.csr", root / "ca.crt"]

    found = ca.data("show", *files)["found"]
    assert [one["kind"] for one in found] == [
        *("revocation list", "revocation list", "private key", "certificate request", "certificate")
    ]
    assert [one["file"] for one in found] == [
        f"{files[0]} (1 of 2)",
        f"{files[0]} (2 of 2)",
        *map(str, files[1:]),
    ]


def test_an_authority_s_folder_is_summed_up_and_its_files_are_shown(authority: Path, ca: Ca) -> None:
    ca.good("issue", authority, "--spiffe", WEB)
    before = {path.name: path.read_bytes() for path in authority.iterdir() if path.is_file()}
    output = ca.good("show", authority).output

    assert "authority of the trust domain cluster.local" in output
    assert "peers        1 live certificate\n" in output
    assert f"{authority}/ca.crt\n" in output
    assert f"{authority}/crl.pem (1 of 2)\n" in output
    # Looking changes nothing.
    assert {path.name: path.read_bytes() for path in authority.iterdir() if path.is_file()} == before


def test_a_workload_s_folder_is_shown_file_by_file(root: Path, ca: Ca) -> None:
    ca.good("issue", root, "--spiffe", WEB)

    found = ca.data("show", root / "web")["found"]
    assert [Path(one["file"]).name for one in found] == ["tls.crt", "tls.key", "ca.crt"]


def test_standard_input_is_shown_too(root: Path, ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO((root / "ca.crt").read_bytes())
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=content))

    assert ca.good("show", "-").output.startswith("standard input\ncertificate: CN=QBITEL mesh root,O=QBITEL\n")


# Hostile files


def test_what_is_no_file_of_x509_gets_one_line_at_once(tmp_path: Path, ca: Ca) -> None:
    place = tmp_path / "file"

    def refusal() -> str:
        return ca("show", place).refusal

    assert "does not exist" in refusal()
    place.write_bytes(b"")
    assert "neither PEM" in refusal()
    place.write_bytes(os.urandom(10_000_000))
    assert "neither PEM" in refusal()
    place.write_bytes(b"-----BEGIN CERTIFICATE-----\n" * 300_000)
    assert "cut short" in refusal()
    place.write_bytes(b"\0" * (MAX_FILE_SIZE + 1))
    assert f"more than {MAX_FILE_SIZE} bytes" in refusal()
    place.unlink()
    os.mkfifo(place)
    assert "no regular file" in refusal()
    place.unlink()
    place.symlink_to(place)
    assert str(place) in refusal()
    place.unlink()
    place.mkdir()
    assert "holds none of tls.crt" in refusal()


def test_a_device_without_an_end_gets_one_line(ca: Ca) -> None:
    assert "no regular file" in ca("show", "/dev/zero").refusal


def test_a_name_that_would_act_on_a_terminal_is_escaped(tmp_path: Path, ca: Ca) -> None:
    folder = tmp_path / "a\x1b[2Jb"
    ca.good("init", folder, "--root-only", "--subject", "CN=red\x1b[31m\u202e,O=x")

    output = ca.good("show", folder / "ca.crt").output
    assert all(line.isprintable() for line in output.split("\n"))
    assert "\\x1b[31m\\u202e" in output
    assert all(line.isprintable() for line in ca.good("show", folder, "--json").output.split("\n"))
