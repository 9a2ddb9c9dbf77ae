"""Names of authorities and workloads: what is refused, and how two authorities come to be told apart."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from certmgr.naming import check_common_name, check_dns_name, common_name, distinct_name, parse_subject
from mesh.errors import UserError


@pytest.mark.parametrize("subject", ["", "foo", "CN=", "CN=" + "x" * 65, "CN=a\x00b", "CN=\ud800", "9.9=1", "CN=\\zz"])
def test_a_subject_that_is_no_name_is_refused_with_an_example(subject: str) -> None:
    with pytest.raises(UserError, match="CN=Example root"):
        parse_subject(subject).public_bytes()


@given(st.one_of(st.text(), st.builds("{}={}".format, st.sampled_from(["CN", "O", "C", "DC"]), st.text())))
@example("1.2.840.113549.1.9.1=ä")
@example("CN=#0101")
@example("CN=a+O=b,CN=c")
def test_any_subject_is_a_name_or_one_line_for_its_user(subject: str) -> None:
    try:
        assert parse_subject(subject).rdns
    except UserError as error:
        assert str(error).isprintable()


def test_a_subject_keeps_its_order_and_a_leaf_may_have_none() -> None:
    assert parse_subject("CN=Root,O=Example").rfc4514_string() == "CN=Root,O=Example"
    assert common_name("") == x509.Name([])
    assert common_name("web").rfc4514_string() == "CN=web"


def test_a_common_name_has_at_most_64_bytes_of_utf_8() -> None:
    assert check_common_name("é" * 32) == "é" * 32
    for text in ("é" * 33, "x" * 65, "\ud800"):
        with pytest.raises(UserError, match="at most 64 bytes"):
            check_common_name(text)


@pytest.mark.parametrize("subject", ["O=Example", "CN=" + "x" * 64, "CN=" + "ü" * 32, "CN=a+O=b", "CN=a,CN=b"])
def test_any_name_gets_its_mark_once_and_keeps_what_else_is_in_it(subject: str) -> None:
    key = MLDSA87PrivateKey.generate().public_key()
    name = x509.Name.from_rfc4514_string(subject)
    marked = distinct_name(name, key)

    assert marked != name
    assert distinct_name(marked, key) == marked
    assert [one for one in name if one.oid != NameOID.COMMON_NAME] == [
        one for one in marked if one.oid != NameOID.COMMON_NAME
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "web.", ".web", "*.shop", "-web", "web-", "a_b", "wéb", "a b", "a\n", "10.0.0.7"),
        "x" * 64,
        ".".join(["x" * 63] * 4),
    ],
)
def test_a_dns_name_that_no_certificate_should_hold_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is no DNS name"):
        check_dns_name(name)


@pytest.mark.parametrize("name", ["web", "web.shop.svc.cluster.local", "x" * 63, "xn--bcher-kva.example", "4chan.a"])
def test_a_plain_dns_name_is_taken(name: str) -> None:
    assert check_dns_name(name) == name
