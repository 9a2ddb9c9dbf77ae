"""The state as a value that cannot be wrong."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest
from cryptography import x509

from certmgr.authority import create_intermediate, create_root
from certmgr.founding import make_generation, new_state
from certmgr.revocation import revoke
from certmgr.state import (
    KEEP_ENDED,
    MAX_BARRED,
    MAX_INTERMEDIATES,
    MAX_REVOKED,
    MAX_TOKENS,
    AuthorityState,
    Barred,
    BootstrapToken,
    Generation,
    Phase,
    Revoked,
    forget_ended,
    short_hash,
)
from certmgr.tokens import add_token, find_token, spend_token
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
WEB = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web")


@pytest.fixture(scope="module")
def fresh() -> AuthorityState:
    return new_state("CN=Example", "cluster.local", NOON)


@pytest.fixture(scope="module")
def full(fresh: AuthorityState) -> AuthorityState:
    """A state that has one of everything."""
    state = dataclasses.replace(
        fresh, generations=(fresh.current, make_generation("CN=Example", NOON)), phase=Phase.SIGNING
    )
    state = add_token(state, "t" * 40, WEB, ["web.shop"], NOON + DAY, NOON)
    state = add_token(state, "u" * 40, WEB, [], NOON + DAY, NOON)
    state = spend_token(state, find_token(state, "u" * 40, NOON), "ab" * 32, NOON)
    state = dataclasses.replace(state, round=3)
    return revoke(state, 12345, NOON, identity=str(WEB), reason=x509.ReasonFlags.key_compromise)


def test_who_signs_follows_the_phase(full: AuthorityState) -> None:
    for phase, signer in (
        (Phase.PUBLISHING, full.generations[0]),
        (Phase.SIGNING, full.generations[1]),
        (Phase.ABORTING, full.generations[0]),
    ):
        assert dataclasses.replace(full, phase=phase).signer is signer


def test_a_generation_is_called_by_the_hash_of_its_root(fresh: AuthorityState) -> None:
    assert fresh.current.name == short_hash(fresh.current.root)
    assert len(fresh.current.name) == 16
    assert fresh.next is None


def test_no_repr_shows_a_key_or_the_hash_of_a_token(full: AuthorityState) -> None:
    shown = repr(full) + repr(full.current)

    assert "PrivateKey" not in shown
    assert full.tokens[0].digest not in shown


def test_certificates_that_do_not_belong_together_are_no_generation(fresh: AuthorityState) -> None:
    other = make_generation("CN=Other", NOON)
    current = fresh.current
    with pytest.raises(UserError, match="the intermediate is not signed by the root"):
        dataclasses.replace(current, intermediates=other.intermediates)
    with pytest.raises(UserError, match="does not belong"):
        dataclasses.replace(current, root_key=other.root_key)
    with pytest.raises(UserError, match="the root is not signed by the root"):
        Generation(current.issuer.certificate, None, current.intermediates)
    with pytest.raises(UserError, match="1 to 8 intermediates, not 0"):
        dataclasses.replace(current, intermediates=())
    with pytest.raises(UserError, match="not 9"):
        dataclasses.replace(current, intermediates=current.intermediates * (MAX_INTERMEDIATES + 1))


def test_two_authorities_of_one_name_are_refused(fresh: AuthorityState) -> None:
    with pytest.raises(UserError, match="give the new one a name of its own"):
        dataclasses.replace(fresh, generations=(fresh.current, fresh.current), phase=Phase.PUBLISHING)

    roots = [create_root("CN=Same", NOON) for _ in range(2)]
    generations = tuple(
        Generation(one.certificate, one.private_key, (create_intermediate("CN=Same", one, NOON),)) for one in roots
    )
    with pytest.raises(UserError, match="'CN=Same'"):
        dataclasses.replace(fresh, generations=generations, phase=Phase.PUBLISHING)


@pytest.mark.parametrize(
    "wrong",
    [
        {"trust_domain": "Not One"},
        {"phase": Phase.PUBLISHING},
        {"generations": ()},
        {"leaf_validity": datetime.timedelta(0)},
        {"leaf_validity": datetime.timedelta(days=399)},
    ],
)
def test_a_state_that_cannot_be_is_refused_as_one_line(fresh: AuthorityState, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        dataclasses.replace(fresh, **wrong)
    assert str(caught.value).isprintable()


def test_entries_are_bounded(fresh: AuthorityState) -> None:
    revoked = Revoked(7, fresh.current.name, NOON, NOON + DAY, "")
    token = BootstrapToken("ab" * 32, WEB, (), NOON + DAY)
    barred = Barred(WEB, NOON, x509.ReasonFlags.unspecified)
    with pytest.raises(UserError, match="10000 certificates are revoked already"):
        dataclasses.replace(fresh, revoked=(revoked,) * (MAX_REVOKED + 1))
    with pytest.raises(UserError, match="1000 bootstrap tokens are waiting"):
        dataclasses.replace(fresh, tokens=(token,) * (MAX_TOKENS + 1))
    with pytest.raises(UserError, match="1000 identities are barred already"):
        dataclasses.replace(fresh, barred=(barred,) * (MAX_BARRED + 1))


def test_what_has_ended_is_forgotten_but_revocations_only_a_day_later(fresh: AuthorityState) -> None:
    state = add_token(fresh, "t" * 40, WEB, [], NOON + DAY, NOON)
    entry = Revoked(7, fresh.current.name, NOON, NOON + DAY, "")
    state = dataclasses.replace(state, revoked=(entry,))

    assert forget_ended(state, NOON + DAY) is None
    later = forget_ended(state, NOON + DAY + datetime.timedelta(seconds=1))
    assert later is not None
    assert (later.tokens, later.revoked) == ((), (entry,))
    last = forget_ended(later, NOON + DAY + KEEP_ENDED + datetime.timedelta(seconds=1))
    assert last is not None
    assert last.revoked == ()
