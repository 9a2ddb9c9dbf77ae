"""Certificates and lists as checks see them."""

from __future__ import annotations

import contextlib
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.checks.certificates import seen
from cli.checks.findings import Unknown
from mesh import names
from tests.cli.checks.rig import HOME, NOW, ago, files, serving


def test_a_certificate_shows_names_and_times() -> None:
    (one,) = seen(serving().certificate, "tls.crt", NOW)
    assert f"{names.WEBHOOK_NAME}.{HOME}.svc" in one.dns_names
    assert one.begins <= NOW < one.ends
    assert len(one.sha256) == 64


def test_a_list_ends_when_the_next_is_due() -> None:
    for one in seen(files()[names.REVOCATION_FILE].encode(), "crl.pem", NOW):
        assert one.kind == "revocation list"
        assert ago(minutes=20) < one.begins < NOW < one.ends < NOW + datetime.timedelta(hours=2)


@given(st.binary(max_size=200))
def test_what_cannot_be_read_is_not_known(text: bytes) -> None:
    with pytest.raises(Unknown, match=r"ca\.crt"):
        seen(text, "ca.crt", NOW)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_text_is_read_or_not_known(place: int, value: int) -> None:
    text = bytearray(serving().certificate)
    text[place % len(text)] = value
    with contextlib.suppress(Unknown):
        assert seen(bytes(text), "tls.crt", NOW)
