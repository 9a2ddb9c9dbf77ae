"""Files of the command line: bounded, and named in what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.ca import reading
from mesh.errors import UserError


@pytest.mark.parametrize(
    "read", [reading.certificates_in, reading.certificates_pem_in, reading.lists_pem_in, reading.request_in]
)
def test_the_file_is_named_once_in_what_is_wrong_with_it(tmp_path: Path, read: object) -> None:
    file = tmp_path / "some file"
    for content in (b"nothing of the kind", b"-----BEGIN CERTIFICATE-----"):
        file.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read(file)  # type: ignore[operator]
        assert str(caught.value).count(str(file)) == 1


def test_a_file_is_read_up_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_FILE_SIZE", 100)
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="neither PEM"):
        reading.found_in(str(file))

    file.write_bytes(b"x" * 101)
    with pytest.raises(UserError, match="more than 100 bytes"):
        reading.found_in(str(file))
