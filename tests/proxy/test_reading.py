"""Small files from the outside; what credentials make of them is tests/proxy/test_credential_files.py's."""

from __future__ import annotations

import os

import pytest

from mesh.errors import UserError
from proxy.reading import exists, read_file, signature_of


def test_a_regular_file_within_its_limit_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345678")
    assert read_file(tmp_path / "file", if_missing="make it", limit=8) == b"12345678"
    with pytest.raises(UserError, match="more than 0 KiB; is it the right file"):
        read_file(tmp_path / "file", if_missing="make it", limit=7)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="file does not exist; make it"):
        read_file(tmp_path / "file", if_missing="make it")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ""):
        with pytest.raises(UserError):
            read_file(tmp_path / name, if_missing="make it")


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601])
def test_a_secret_for_everybody_is_refused(tmp_path, mode):
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "secret").chmod(mode)
    assert read_file(tmp_path / "secret", if_missing="make it") == b"s"
    with pytest.raises(UserError, match="chmod 600"):
        read_file(tmp_path / "secret", if_missing="make it", secret=True)


def test_existence_is_told_from_not_being_let_to_look(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert exists(tmp_path / "file")
    assert not exists(tmp_path / "other")
    assert not exists(tmp_path / "file" / "below")

    def no_permission(path, **_options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(tmp_path), "stat", no_permission)
    with pytest.raises(UserError, match="cannot look for"):
        exists(tmp_path / "file")


def test_a_signature_changes_with_its_files(tmp_path):
    paths = (tmp_path / "a", tmp_path / "b")
    assert signature_of(paths) == (None, None)
    paths[0].write_text("1")
    first = signature_of(paths)
    assert first[0] is not None
    assert first[1] is None
    paths[0].unlink()
    paths[0].write_text("12")
    assert signature_of(paths) != first
