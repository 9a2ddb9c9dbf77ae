"""What a session rests on, and when it no longer may."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from pqtls.errors import Alert, CertificateRefused, DecodeError
from pqtls.profiles import COMPAT, HYBRID_L5, QBITEL
from pqtls.sessions import Session, SessionFacts
from pqtls.signatures import MLDSA87
from pqtls.suites import TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384
from pqtls.wire import Reader
from pqtls.x509_reading import path_id
from tests.support import pki

NOW = pki.NOW
SECOND = datetime.timedelta(seconds=1)
FACTS = SessionFacts(
    profile=QBITEL.name,
    suite=TLS_AES_256_GCM_SHA384,
    identity=pki.identity("server"),
    signature_scheme=MLDSA87,
    path_ids=(path_id(pki.root().certificate.subject, pki.leaf("server").certificate.serial_number),),
    valid_until=NOW + pki.DAY,
    anchors_identifier=pki.trust().anchors_identifier,
)


def _session(**changes: object) -> Session:
    values = {"facts": FACTS, "ticket": b"t" * 40, "psk": b"secret" * 8, "age_add": 7, "received_at": NOW}
    return Session(**(values | {"lifetime": 3600} | changes))  # type: ignore[arg-type]


def _refused(facts: SessionFacts, now: datetime.datetime = NOW, **changes: object) -> tuple[Alert | None, str]:
    arguments = {"profile": QBITEL, "trust": pki.trust(), "now": now} | changes
    with pytest.raises(CertificateRefused) as caught:
        facts.check(**arguments)  # type: ignore[arg-type]
    return caught.value.alert, caught.value.reason


def test_facts_come_back_as_they_were_written() -> None:
    many = replace(FACTS, path_ids=(b"1" * 16, b"2" * 16, b"3" * 16), identity="spiffe://x/" + "y" * 2000)
    for facts in (FACTS, many, replace(FACTS, path_ids=())):
        reader = Reader(facts.encode(), "facts")
        assert SessionFacts.read(reader) == facts
        reader.finish()


def test_facts_that_are_cut_short_are_a_decode_error() -> None:
    raw = FACTS.encode()
    for length in range(len(raw)):
        with pytest.raises(DecodeError):
            SessionFacts.read(Reader(raw[:length], "facts"))


def test_facts_that_hold_today_are_accepted_to_the_last_second_of_the_path() -> None:
    FACTS.check(QBITEL, pki.trust(), NOW)
    FACTS.check(QBITEL, pki.trust(), FACTS.valid_until)
    assert _refused(FACTS, FACTS.valid_until + SECOND) == (Alert.CERTIFICATE_EXPIRED, "expired")


def test_another_profile_or_a_suite_that_it_does_not_list_is_refused() -> None:
    assert _refused(FACTS, profile=HYBRID_L5)[1] == "session"
    assert _refused(FACTS, profile=COMPAT)[1] == "session"
    assert _refused(replace(FACTS, suite=TLS_AES_128_GCM_SHA256))[1] == "session"


def test_other_roots_are_refused_and_another_list_of_revocations_is_not() -> None:
    more = pki.trust(pki.root(), pki.root("Another Root"))
    assert _refused(FACTS, trust=more) == (Alert.UNKNOWN_CA, "session")
    FACTS.check(QBITEL, pki.trust_with_crl(pki.leaf("client")), NOW)


def test_a_certificate_that_was_revoked_since_is_refused() -> None:
    refusal = _refused(FACTS, trust=pki.trust_with_crl(pki.leaf("server")))
    assert refusal == (Alert.CERTIFICATE_REVOKED, "revoked")


def test_a_list_that_went_stale_since_is_refused() -> None:
    trust = pki.trust_with_crl(pki.leaf("client"))
    late = replace(FACTS, valid_until=NOW + 9 * pki.DAY)
    late.check(QBITEL, trust, trust.usable_until)
    assert _refused(late, trust.usable_until + SECOND, trust=trust) == (Alert.CERTIFICATE_UNKNOWN, "stale_crl")


def test_a_session_is_usable_within_its_lifetime_and_that_of_the_certificate() -> None:
    session = _session()
    assert session.is_usable(NOW)
    assert session.is_usable(NOW + 3599 * SECOND)
    assert not session.is_usable(NOW + 3600 * SECOND)
    assert not session.is_usable(NOW - SECOND)
    short = _session(facts=replace(FACTS, valid_until=NOW + 10 * SECOND))
    assert short.is_usable(NOW + 10 * SECOND)
    assert not short.is_usable(NOW + 11 * SECOND)


def test_the_age_is_in_milliseconds_and_wraps_at_32_bits() -> None:
    session = _session()
    assert session.obfuscated_age(NOW) == 7
    assert session.obfuscated_age(NOW + datetime.timedelta(milliseconds=1500)) == 1507
    assert _session(age_add=2**32 - 1).obfuscated_age(NOW + datetime.timedelta(milliseconds=3)) == 2


def test_neither_ticket_nor_secret_is_printed() -> None:
    text = repr(_session())
    assert "secret" not in text
    assert "tttt" not in text


@pytest.mark.parametrize(
    ("place", "what"),
    [(1, b"\xff"), (7, b"\xff\xff"), (-41, b"\xff" * 8)],
    ids=["a profile that is not ASCII", "an unknown suite", "a time that no calendar has"],
)
def test_facts_that_another_version_of_ours_wrote_are_a_decode_error(place: int, what: bytes) -> None:
    encoded = bytearray(FACTS.encode())
    encoded[place : place + len(what) or None] = what
    with pytest.raises(DecodeError):
        SessionFacts.read(Reader(bytes(encoded), "ticket"))
