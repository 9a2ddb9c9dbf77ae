"""Revocation as peers see it: with pqtls, which reads the lists that are published and refuses by them."""

from __future__ import annotations

import dataclasses
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certmgr.authority import CertificateAndKey, WorkloadRequest, create_root, issue_workload
from certmgr.bundle import bundle_of
from certmgr.founding import new_state
from certmgr.kem import issue_kem
from certmgr.profiles import BACKDATE
from certmgr.revocation import LIST_REFRESH, LIST_VALIDITY, is_revoked, lists_due, revoke, revoke_leaves, sign_lists
from certmgr.state import KEEP_ENDED, AuthorityState, short_hash
from certmgr.state_document import decode_state, encode_state
from mesh.errors import UserError
from mesh.names import INTERMEDIATES_FILE, REVOCATION_FILE, ROOTS_FILE
from mesh.spiffe import SpiffeId
from pqtls import PROFILES, CertificateRefused, TrustAnchors
from pqtls.certificates import Purpose, validate_chain

NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
DAY = datetime.timedelta(days=1)
WEB = WorkloadRequest(spiffe_id=SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web"))
SCHEMES = next(iter(PROFILES.values())).signature_schemes


@pytest.fixture(scope="module")
def fresh() -> AuthorityState:
    return new_state("CN=Example", "cluster.local", NOON)


@pytest.fixture(scope="module")
def leaf(fresh: AuthorityState) -> x509.Certificate:
    return issue_workload(WEB, fresh.signer.issuer, NOON).certificate


def check(state: AuthorityState, *chain: x509.Certificate, at: datetime.datetime = NOON) -> str:
    """The identity that a peer finds which holds what this state publishes."""
    files = bundle_of(state).files
    trust = TrustAnchors.from_pem(
        files[ROOTS_FILE], intermediates=files[INTERMEDIATES_FILE], crls=files[REVOCATION_FILE]
    )
    ders = tuple(one.public_bytes(Encoding.DER) for one in chain)
    return validate_chain(ders, trust, Purpose.SERVER, at, SCHEMES).identity


def lists(state: AuthorityState) -> dict[str, x509.CertificateRevocationList]:
    loaded = [x509.load_pem_x509_crl(one) for one in state.crls]
    return {short_hash(one): crl for one in state.authorities for crl in loaded if crl.issuer == one.subject}


def test_a_revoked_leaf_is_refused_and_its_neighbour_is_not(fresh: AuthorityState, leaf: x509.Certificate) -> None:
    neighbour = issue_workload(WEB, fresh.signer.issuer, NOON).certificate
    assert check(fresh, leaf) == str(WEB.spiffe_id)
    state = revoke(fresh, leaf, NOON)

    with pytest.raises(CertificateRefused, match="revoked"):
        check(state, leaf)
    assert check(state, neighbour) == str(WEB.spiffe_id)
    assert is_revoked(state, leaf)
    assert not is_revoked(state, neighbour)
    (entry,) = state.revoked
    assert (entry.serial, entry.identity) == (leaf.serial_number, str(WEB.spiffe_id))
    assert (entry.at, entry.until) == (NOON, leaf.not_valid_after_utc)


def test_a_leaf_of_which_only_the_number_is_known_is_refused_too(fresh: AuthorityState, leaf: x509.Certificate) -> None:
    state = revoke(fresh, leaf.serial_number, NOON, identity=str(WEB.spiffe_id))
    with pytest.raises(CertificateRefused, match="revoked"):
        check(state, leaf)


def test_a_revoked_intermediate_is_refused_with_all_its_leaves_and_a_new_one_signs(
    fresh: AuthorityState, leaf: x509.Certificate
) -> None:
    old = fresh.signer.issuer.certificate
    for what in (old, old.serial_number):
        state = revoke(fresh, what, NOON, reason=x509.ReasonFlags.ca_compromise)
        with pytest.raises(CertificateRefused, match="revoked"):
            check(state, leaf, old)
        new = issue_workload(WEB, state.signer.issuer, NOON).certificate
        assert check(state, new) == str(WEB.spiffe_id)
        assert decode_state(encode_state(state)) == state


def test_revoking_twice_changes_nothing(fresh: AuthorityState, leaf: x509.Certificate) -> None:
    state = revoke(fresh, leaf, NOON)
    assert revoke(state, leaf, NOON + SECOND) is state
    assert revoke(state, leaf.serial_number, NOON + SECOND) is state


def test_an_encryption_certificate_is_revoked_as_any_other(fresh: AuthorityState) -> None:
    certificate = issue_kem(WEB, fresh.signer.issuer, NOON).certificate
    assert is_revoked(revoke(fresh, certificate, NOON), certificate)


def test_what_is_not_ours_to_revoke_is_refused(fresh: AuthorityState, leaf: x509.Certificate) -> None:
    stranger = issue_workload(WEB, create_root("CN=Stranger", NOON), NOON).certificate
    with pytest.raises(UserError, match="not of this authority"):
        revoke(fresh, stranger, NOON)
    for root in (fresh.current.root, fresh.current.root.serial_number):
        with pytest.raises(UserError, match="not revoked but replaced"):
            revoke(fresh, root, NOON)
    with pytest.raises(UserError, match="nobody accepts it any more"):
        revoke(fresh, leaf, leaf.not_valid_after_utc + KEEP_ENDED + SECOND)
    for serial in (0, -1, 1 << 160):
        with pytest.raises(UserError, match="no serial number"):
            revoke(fresh, serial, NOON)
    with pytest.raises(UserError, match="no reason to revoke for good"):
        revoke(fresh, leaf, NOON, reason=x509.ReasonFlags.certificate_hold)
    off_line = dataclasses.replace(fresh, generations=(dataclasses.replace(fresh.current, root_key=None),))
    with pytest.raises(UserError, match="kept off line"):
        revoke(off_line, fresh.signer.issuer.certificate, NOON)


def test_a_list_says_what_rfc_5280_wants(fresh: AuthorityState, leaf: x509.Certificate) -> None:
    state = revoke(fresh, leaf, NOON, reason=x509.ReasonFlags.key_compromise)
    issuer: CertificateAndKey = state.signer.issuer
    crl = lists(state)[short_hash(issuer.certificate)]

    assert crl.last_update_utc == NOON - BACKDATE
    assert crl.next_update_utc == NOON + LIST_VALIDITY
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == state.crl_number
    identifier = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == identifier
    (entry,) = crl
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    (silent,) = lists(revoke(fresh, leaf, NOON))[short_hash(issuer.certificate)]
    assert len(silent.extensions) == 0
    assert len(lists(state)[fresh.current.name]) == 0


def test_an_entry_stays_a_day_longer_than_its_certificate(fresh: AuthorityState, leaf: x509.Certificate) -> None:
    state = revoke(fresh, leaf, NOON)
    last = leaf.not_valid_after_utc + KEEP_ENDED

    assert sign_lists(state, last).revoked == state.revoked
    after = sign_lists(state, last + SECOND)
    assert after.revoked == ()
    assert all(len(crl) == 0 for crl in lists(after).values())


def test_lists_are_due_when_they_age_are_missing_or_of_the_future(fresh: AuthorityState) -> None:
    assert not lists_due(fresh, NOON)
    assert not lists_due(fresh, NOON + LIST_REFRESH - SECOND)
    assert lists_due(fresh, NOON + LIST_REFRESH)
    assert not lists_due(sign_lists(fresh, NOON + LIST_REFRESH), NOON + LIST_REFRESH)
    assert lists_due(dataclasses.replace(fresh, crls=fresh.crls[:1]), NOON)
    assert lists_due(fresh, NOON - BACKDATE - SECOND)


def test_several_leaves_are_revoked_with_one_signing(fresh: AuthorityState) -> None:
    leaves = [issue_workload(WEB, fresh.signer.issuer, NOON).certificate for _ in range(3)]
    ends = {one.serial_number: one.not_valid_after_utc for one in leaves}
    state = revoke_leaves(fresh, ends, NOON + SECOND, identity=str(WEB.spiffe_id))

    assert all(is_revoked(state, one) for one in leaves)
    assert {one.identity for one in state.revoked} == {str(WEB.spiffe_id)}
    assert state.crl_number == fresh.crl_number + 1
    assert {one.until for one in state.revoked} == {leaves[0].not_valid_after_utc}
    assert revoke_leaves(state, {leaves[0].serial_number: NOON + DAY}, NOON, identity="") is state
    with pytest.raises(UserError, match="no reason to revoke"):
        revoke_leaves(fresh, {7: NOON}, NOON, identity="", reason=x509.ReasonFlags.certificate_hold)


def test_the_number_of_a_list_grows_whatever_the_clock_does_and_however_old_a_backup_is(fresh: AuthorityState) -> None:
    number = fresh.crl_number
    for moment in (NOON, NOON, NOON - DAY):  # at once again, and by a clock that went back
        fresh = sign_lists(fresh, moment)
        number += 1
        assert fresh.crl_number == number
    backup = fresh
    for _ in range(30):
        fresh = sign_lists(fresh, NOON + SECOND)
    assert sign_lists(backup, NOON + 60 * SECOND).crl_number > fresh.crl_number
