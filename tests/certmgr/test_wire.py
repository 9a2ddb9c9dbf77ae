"""What the API reads and writes: strict where two readers could differ, and nothing but Refused for bad bytes."""

from __future__ import annotations

import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certmgr import wire
from certmgr.parts import Bundle
from certmgr.proofs import Reason, Refused

NOW = datetime.datetime(2026, 6, 1, 12, 0, 0, 999, tzinfo=datetime.UTC)


def asked(**members: object) -> wire.CertificateAsked:
    return wire.parse_certificate_request(json.dumps({"csr": "PEM", **members}).encode())


def refused(body: bytes) -> str:
    with pytest.raises(Refused) as caught:
        wire.parse_certificate_request(body)
    assert caught.value.reason is Reason.BAD_REQUEST
    return str(caught.value)


def test_a_request_with_everything_is_read():
    found = asked(instance="pod-1", anchors="ab" * 32, kem_public_key="KEM", time="2026-06-01T12:00:00Z")
    assert found == wire.CertificateAsked(b"PEM", "pod-1", "ab" * 32, b"KEM", "2026-06-01T12:00:00Z")


def test_only_the_csr_has_to_be_there():
    assert asked() == wire.CertificateAsked(b"PEM", "", "", None, "")
    assert asked(instance=None, anchors=None, kem_public_key=None, time=None) == asked()


def test_a_member_that_a_newer_sidecar_sends_is_passed_over():
    assert asked(colour={"of": ["the", "future"]}) == asked()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (json.dumps({"csr": "x"}).encode("utf-16"), "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b'{"csr": "x", "csr": "y"}', "given twice"),
        (b'{"csr": "x", "a": {"b": 1, "b": 2}}', "given twice"),
        (b'{"csr": "x", "a": NaN}', "NaN is no JSON"),
        (b'{"csr": "x", "a": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b"[]", "not an object"),
        (b'"csr"', "not an object"),
        (b"{}", "csr is missing"),
        (b'{"csr": ""}', "csr is missing"),
        (b'{"csr": 1}', "csr is no string"),
        ('{"csr": "é"}'.encode(), "csr is no PEM"),
        (b'{"csr": "\\ud800"}', "csr is no PEM"),
        (b'{"csr": "x", "instance": "a b"}', "instance is not at most 128 visible"),
        (b'{"csr": "x", "instance": "a\\n"}', "instance is not at most 128 visible"),
        (b'{"csr": "x", "instance": "' + b"a" * 254 + b'"}', "instance is not at most 128 visible"),
        (b'{"csr": "x", "anchors": "' + b"a" * 65 + b'"}', "anchors is not at most 64 lower-case hexadecimal"),
        (b'{"csr": "x", "kem_public_key": ["x"]}', "kem_public_key is no string"),
        (b'{"csr": "x", "time": "yesterday"}', "time is not in the form of RFC 3339"),
        (b'{"csr": "x", "time": "2026-06-01T12:00:00"}', "time is not in the form of RFC 3339"),
        (b'{"csr": "x", "time": "2026-W23-1T12:00:00Z"}', "time is not in the form of RFC 3339"),
        (b'{"csr": "x", "time": "2026-02-30T12:00:00Z"}', "time is not in the form of RFC 3339"),
        (b'{"csr": "x", "time": 1780315200}', "time is no string"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(body, expected):
    assert expected in refused(body)


def test_an_acknowledgement_needs_anchors():
    body = json.dumps({"anchors": "ab", "instance": "pod-1"}).encode()
    assert wire.parse_acknowledgement(body) == wire.Acknowledgement("ab", "pod-1")
    with pytest.raises(Refused, match="anchors is missing"):
        wire.parse_acknowledgement(b"{}")


@pytest.mark.parametrize(
    ("time", "is_right"),
    [
        ("", True),
        ("2026-06-01T12:05:00Z", True),
        ("2026-06-01T11:55:01Z", True),
        ("2026-06-01t14:04:59.123456789+02:00", True),
        ("2026-06-01T12:05:02Z", False),
        ("2026-06-01T11:54:59Z", False),
        ("2026-06-01T12:00:00+01:00", False),
        ("0001-01-01T00:00:00+23:59", False),
        ("9999-12-31T23:59:59-23:59", False),
    ],
)
def test_a_clock_may_be_five_minutes_off_and_a_refusal_names_both(time, is_right):
    request = asked(time=time)
    if is_right:
        wire.check_clock(request, NOW)
        return
    with pytest.raises(Refused) as caught:
        wire.check_clock(request, NOW)
    assert caught.value.reason is Reason.CLOCK_SKEW
    assert time in str(caught.value)
    assert "2026-06-01T12:00:00Z" in str(caught.value)


def test_times_are_in_utc_and_whole_seconds():
    assert wire.timestamp(NOW.astimezone(datetime.timezone(datetime.timedelta(hours=5)))) == "2026-06-01T12:00:00Z"


def test_an_answer_leaves_out_what_is_not_there():
    assert json.loads(wire.encode({"a": None, "b": "é"})) == {"b": "é"}
    assert json.loads(wire.refusal("clock_skew", "Set it.", NOW, "2026-06-01T13:00:00Z")) == {
        "error": "clock_skew", "message": "Set it.", "time": "2026-06-01T12:00:00Z",
        "your_time": "2026-06-01T13:00:00Z",
    }  # fmt: skip
    assert "your_time" not in json.loads(wire.refusal("no_proof", "Who?", NOW))


def test_a_bundle_is_encoded_once_and_put_into_any_answer():
    bundle = Bundle({"ca.crt": b"PEM\n"}, "anchors", "etag", "generation", 3)
    members = {
        "files": {"ca.crt": "PEM\n"}, "anchors": "anchors", "etag": "etag", "generation": "generation", "round": 3,
    }  # fmt: skip
    encoded = wire.encode_bundle(bundle)
    assert json.loads(encoded) == members
    assert json.loads(wire.with_member(encoded, "time", b'"now"')) == {**members, "time": "now"}
    assert json.loads(wire.with_member(b'{"a":1}', "bundle", encoded)) == {"a": 1, "bundle": members}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
MEMBERS = st.sampled_from(["csr", "instance", "anchors", "kem_public_key", "time", "other"])


def parse_both(body: bytes) -> None:
    for parse in (wire.parse_certificate_request, wire.parse_acknowledgement):
        try:
            found = parse(body)
        except Refused as error:
            assert error.reason is Reason.BAD_REQUEST
            assert str(error).isprintable()
        else:
            assert len(found.instance) <= wire.MAX_INSTANCE
            assert found.instance.isascii()
            if isinstance(found, wire.CertificateAsked):
                try:
                    wire.check_clock(found, NOW)
                except Refused as error:
                    assert error.reason is Reason.CLOCK_SKEW


@given(st.binary(max_size=2000))
def test_any_bytes_are_read_or_refused(body):
    parse_both(body)


@given(st.dictionaries(MEMBERS, JSON))
def test_any_object_is_read_or_refused(members):
    parse_both(json.dumps(members).encode())


@given(
    st.dictionaries(
        MEMBERS,
        st.text(alphabet="0123456789-+.:TZtz", max_size=40)
        | st.datetimes(timezones=st.timezones()).map(datetime.datetime.isoformat),
    )
)
def test_any_time_is_read_or_refused(members):
    parse_both(json.dumps({"csr": "x", "anchors": "ab", **members}).encode())
