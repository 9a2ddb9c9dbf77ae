"""`qbitel uninject` as a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import main as qbitel
from tests.cli.test_inject import DEPLOYMENT


def test_what_inject_did_is_undone_to_the_byte(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(DEPLOYMENT)
    assert qbitel(["inject", "-f", str(path)]) == 0
    path.write_bytes(capfdbinary.readouterr().out)

    assert qbitel(["uninject", "-f", str(path)]) == 0

    assert capfdbinary.readouterr().out.decode() == DEPLOYMENT


def test_a_file_without_our_sidecar_is_written_as_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(DEPLOYMENT + "---\napiVersion: v1\nkind: Service\n")

    assert qbitel(["uninject", "-f", str(path)]) == 0

    assert capfd.readouterr().out == path.read_text()


def test_a_status_that_cannot_be_read_is_told_with_its_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(DEPLOYMENT.replace("exclude-inbound-ports", "status"))

    assert qbitel(["uninject", "-f", str(path)]) == 2

    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"qbitel uninject: {path}:1: deployment/web: its annotation qbitel.io/status")
