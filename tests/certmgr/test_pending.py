"""An intermediate that was asked for: kept whole, answered by its own certificate only."""

from __future__ import annotations

import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certmgr.authority import CertificateAndKey, sign_intermediate
from certmgr.pending import PendingIntermediate, read_request
from mesh.errors import UserError

_NAME = "CN=An intermediate"


@pytest.fixture(scope="module")
def pending() -> PendingIntermediate:
    return PendingIntermediate.new(_NAME)


def test_it_is_kept_and_answered(pending: PendingIntermediate, root: CertificateAndKey, now: datetime.datetime) -> None:
    again = PendingIntermediate.decode(pending.encode())
    assert again == pending

    certificate = sign_intermediate(read_request(again.request_pem), root, now)
    pair = again.answered_by(certificate)
    assert pair.certificate == certificate
    assert certificate.subject.rfc4514_string().startswith(_NAME)


def test_a_certificate_for_another_key_is_no_answer(
    pending: PendingIntermediate, root: CertificateAndKey, now: datetime.datetime
) -> None:
    other = sign_intermediate(read_request(PendingIntermediate.new(_NAME).request_pem), root, now)

    with pytest.raises(UserError, match="not for the key that waits"):
        pending.answered_by(other)


def test_the_key_is_in_the_document_and_nowhere_else(pending: PendingIntermediate) -> None:
    key = json.loads(pending.encode())["key"].splitlines()[1]

    assert key not in repr(pending)
    with pytest.raises(UserError) as caught:
        PendingIntermediate.decode(pending.encode().replace(b'"version": 1', b'"version": 2'))
    assert key not in str(caught.value)


def test_a_key_that_is_not_the_request_s_is_refused(pending: PendingIntermediate) -> None:
    mine, other = json.loads(pending.encode()), json.loads(PendingIntermediate.new(_NAME).encode())

    with pytest.raises(UserError, match="damaged"):
        PendingIntermediate.decode(json.dumps({**mine, "key": other["key"]}).encode())


def test_one_request_is_wanted(pending: PendingIntermediate, root: CertificateAndKey) -> None:
    for content, count in ((root.certificate_pem, 0), (pending.request_pem * 2, 2)):
        with pytest.raises(UserError, match=f"holds {count} certificate requests"):
            read_request(content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_any_document_is_read_or_refused(pending: PendingIntermediate, data: st.DataObject) -> None:
    good = pending.encode()
    at = data.draw(st.integers(0, len(good) - 1))
    document = data.draw(
        st.one_of(
            st.binary(max_size=100),
            st.integers(0, 255).map(lambda byte: good[:at] + bytes([byte]) + good[at + 1 :]),
            st.just(good[:at]),
            json_values.map(lambda value: json.dumps(value).encode()),
            json_values.map(lambda value: json.dumps({"version": 1, "request": value, "key": value}).encode()),
            st.just(b"[" * 100_000),
        )
    )
    try:
        assert isinstance(PendingIntermediate.decode(document), PendingIntermediate)
    except UserError as error:
        assert str(error).isprintable()
