"""Tickets: sealed, rotated, bounded, used once."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest

from pqtls.profiles import QBITEL
from pqtls.provider_cryptography import PROVIDER
from pqtls.sessions import SessionFacts
from pqtls.signatures import MLDSA87
from pqtls.suites import TLS_AES_256_GCM_SHA384
from pqtls.tickets import DEFAULT_LIFETIME, TicketKeeper
from tests.support import pki
from tests.support.resumption import Mesh, meet

NOW = pki.NOW
SECOND = datetime.timedelta(seconds=1)
MINUTE = datetime.timedelta(minutes=1)
PSK = bytes(range(48))
FACTS = SessionFacts(
    profile=QBITEL.name,
    suite=TLS_AES_256_GCM_SHA384,
    identity=pki.identity("client"),
    signature_scheme=MLDSA87,
    path_ids=(b"a" * 16, b"b" * 16),
    valid_until=NOW + pki.DAY,
    anchors_identifier=b"c" * 32,
)


def _keeper(**changes: Any) -> TicketKeeper:
    return TicketKeeper(PROVIDER, **changes)


def test_a_ticket_opens_to_what_was_sealed() -> None:
    keeper = _keeper()
    content = keeper.open(keeper.seal(FACTS, PSK, NOW), NOW)
    assert content is not None
    assert (content.facts, content.psk, content.issued_at) == (FACTS, PSK, NOW)


def test_a_ticket_shows_nothing_of_what_is_in_it() -> None:
    ticket = _keeper().seal(FACTS, PSK, NOW)
    for secret in (PSK, FACTS.identity.encode(), FACTS.path_ids[0], FACTS.anchors_identifier):
        assert secret[:12] not in ticket


def test_no_secret_is_printed() -> None:
    keeper = _keeper()
    content = keeper.open(keeper.seal(FACTS, PSK, NOW), NOW)
    assert "psk" not in repr(content)
    assert repr(PSK)[2:20] not in repr(content)


def test_two_tickets_of_the_same_facts_have_nothing_in_common_but_their_key() -> None:
    keeper = _keeper()
    one, other = (keeper.seal(FACTS, PSK, NOW) for _ in range(2))
    assert one[:8] == other[:8]
    assert sum(a == b for a, b in zip(one[8:], other[8:], strict=True)) < 16


def test_a_ticket_holds_no_certificate_and_is_shorter_than_300_bytes() -> None:
    mesh = Mesh()
    chain = (pki.leaf("client").der, pki.root().der)
    for session in meet(mesh.client(), mesh.server()).sessions:
        assert len(session.ticket) < 300
        content = mesh.tickets.open(session.ticket, NOW)
        assert content is not None
        plaintext = content.facts.encode()
        assert len(plaintext) < 250
        key = pki.leaf("client").key.public_key().public_bytes_raw()
        # No stretch of eight bytes of the certificates' signatures and keys is in it.
        pieces = {der[place : place + 8] for der in (*chain, key) for place in range(len(der) - 8)}
        identity = content.facts.identity.encode()
        without_identity = plaintext.replace(bytes((len(identity),)) + identity, b"")
        found = [piece for piece in pieces if piece in without_identity]
        assert found == []


@pytest.mark.parametrize("pattern", [0x01, 0x80])
def test_a_ticket_with_any_byte_changed_does_not_open(pattern: int) -> None:
    keeper = _keeper()
    ticket = keeper.seal(FACTS, PSK, NOW)
    for place in range(len(ticket)):
        forged = ticket[:place] + bytes((ticket[place] ^ pattern,)) + ticket[place + 1 :]
        assert keeper.open(forged, NOW) is None, place
    assert keeper.open(ticket, NOW) is not None


def test_a_ticket_cut_anywhere_or_longer_does_not_open() -> None:
    keeper = _keeper()
    ticket = keeper.seal(FACTS, PSK, NOW)
    assert all(keeper.open(ticket[:length], NOW) is None for length in range(len(ticket)))
    assert keeper.open(ticket + b"\0", NOW) is None
    assert keeper.open(ticket + bytes(5000), NOW) is None
    assert keeper.open(ticket, NOW) is not None


def test_another_keeper_opens_nothing() -> None:
    ticket = _keeper().seal(FACTS, PSK, NOW)
    other = _keeper()
    other.seal(FACTS, PSK, NOW)
    assert other.open(ticket, NOW) is None
    assert not other.claim(ticket, NOW)


def test_a_ticket_opens_to_the_end_of_its_lifetime_and_not_before_it_was_made() -> None:
    keeper = _keeper()
    ticket = keeper.seal(FACTS, PSK, NOW)
    assert keeper.open(ticket, NOW + DEFAULT_LIFETIME) is not None
    assert keeper.open(ticket, NOW + DEFAULT_LIFETIME + SECOND) is None
    assert keeper.open(ticket, NOW - SECOND) is None


def test_the_key_rotates_and_a_ticket_of_the_key_before_lives_as_long_as_it_says() -> None:
    keeper = _keeper(lifetime=10 * MINUTE)
    first = keeper.seal(FACTS, PSK, NOW)
    late = keeper.seal(FACTS, PSK, NOW + 9 * MINUTE)
    assert first[:8] == late[:8]
    rotated = keeper.seal(FACTS, PSK, NOW + 10 * MINUTE)
    assert rotated[:8] != first[:8]
    assert keeper.open(late, NOW + 19 * MINUTE) is not None
    assert keeper.open(late, NOW + 19 * MINUTE + SECOND) is None
    assert keeper.open(rotated, NOW + 20 * MINUTE) is not None


def test_a_key_is_forgotten_after_two_lifetimes() -> None:
    keeper = _keeper(lifetime=10 * MINUTE)
    ticket = keeper.seal(FACTS, PSK, NOW)
    assert keeper.claim(ticket, NOW + 20 * MINUTE - SECOND)
    keeper = _keeper(lifetime=10 * MINUTE)
    ticket = keeper.seal(FACTS, PSK, NOW)
    assert not keeper.claim(ticket, NOW + 20 * MINUTE)
    # Asked for an earlier time once more: the key is gone, not only out of use.
    assert keeper.open(ticket, NOW) is None


def test_a_ticket_is_claimed_once_and_does_not_open_after_it() -> None:
    keeper = _keeper()
    ticket = keeper.seal(FACTS, PSK, NOW)
    assert keeper.claim(ticket, NOW)
    assert not keeper.claim(ticket, NOW)
    assert keeper.open(ticket, NOW) is None


def test_a_rotation_does_not_make_a_used_ticket_good_again() -> None:
    keeper = _keeper(lifetime=10 * MINUTE)
    ticket = keeper.seal(FACTS, PSK, NOW + 5 * MINUTE - 5 * MINUTE)
    assert keeper.claim(ticket, NOW)
    keeper.seal(FACTS, PSK, NOW + 10 * MINUTE)
    assert keeper.open(ticket, NOW + 10 * MINUTE) is None
    assert not keeper.claim(ticket, NOW + 10 * MINUTE)


def test_without_single_use_a_ticket_may_be_claimed_again() -> None:
    keeper = _keeper(single_use=False)
    ticket = keeper.seal(FACTS, PSK, NOW)
    assert keeper.claim(ticket, NOW)
    assert keeper.claim(ticket, NOW)
    assert keeper.open(ticket, NOW) is not None


def test_a_full_record_refuses_claims_until_the_key_rotates() -> None:
    keeper = _keeper(capacity=2, lifetime=10 * MINUTE)
    tickets = [keeper.seal(FACTS, PSK, NOW) for _ in range(3)]
    assert [keeper.claim(ticket, NOW) for ticket in tickets] == [True, True, False]
    assert keeper.open(tickets[2], NOW) is not None, "not used up: it could not be written down"
    later = NOW + 10 * MINUTE
    assert keeper.claim(keeper.seal(FACTS, PSK, later), later)


def test_facts_that_another_version_wrote_do_not_open() -> None:
    keeper = _keeper()
    unknown = replace(FACTS, suite=replace(TLS_AES_256_GCM_SHA384, code_point=0x13FF))
    assert keeper.open(keeper.seal(unknown, PSK, NOW), NOW) is None


def test_the_stated_lifetime_is_in_seconds_and_by_default_six_hours() -> None:
    assert _keeper().lifetime_seconds == 6 * 3600
    assert _keeper(lifetime=10 * MINUTE).lifetime_seconds == 600
