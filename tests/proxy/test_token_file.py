"""The token: read anew each time, bounded, and never in a message."""

from __future__ import annotations

import pytest

from mesh.errors import UserError
from proxy.config import Endpoint, EnrolmentConfig, TrustFiles
from proxy.token_file import MAX_TOKEN, read_authorization


def config(folder, *, bootstrap: bool = False) -> EnrolmentConfig:
    file = {"bootstrap_token": folder / "token"} if bootstrap else {"token": folder / "token"}
    return EnrolmentConfig(authority=Endpoint("a", 1), roots=TrustFiles.in_folder(folder), instance="pod", **file)


def test_a_token_that_was_replaced_is_read_anew(tmp_path):
    for word in ("first.token", "second.token"):
        (tmp_path / "token").write_text(f"{word}\n")
        assert read_authorization(config(tmp_path)) == f"Bearer {word}"


def test_a_bootstrap_token_is_of_another_kind_and_only_for_us(tmp_path):
    (tmp_path / "token").write_text("once")
    (tmp_path / "token").chmod(0o600)
    assert read_authorization(config(tmp_path, bootstrap=True)) == "Bootstrap once"
    (tmp_path / "token").chmod(0o644)
    assert read_authorization(config(tmp_path)) == "Bearer once"
    with pytest.raises(UserError, match="chmod 600"):
        read_authorization(config(tmp_path, bootstrap=True))


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"s3cr3t\nline", b"s3cr3t\x00", "s3cr3t-ä".encode()])
def test_what_is_no_token_is_refused_and_not_shown(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(UserError, match="holds no token") as refused:
        read_authorization(config(tmp_path))
    assert "s3cr3t" not in str(refused.value)


def test_a_file_that_is_missing_or_too_long_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="project a service-account token there"):
        read_authorization(config(tmp_path))
    with pytest.raises(UserError, match="qbitel ca token"):
        read_authorization(config(tmp_path, bootstrap=True))
    (tmp_path / "token").write_bytes(b"x" * (MAX_TOKEN + 1))
    with pytest.raises(UserError, match="more than 16 KiB"):
        read_authorization(config(tmp_path))
