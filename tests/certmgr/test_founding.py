"""Authorities that are made or imported, and intermediates that follow one another."""

from __future__ import annotations

import dataclasses
import datetime

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from certmgr.authority import (
    CertificateAndKey,
    WorkloadRequest,
    create_intermediate,
    create_root,
    issue_workload,
    request_intermediate,
    sign_intermediate,
)
from certmgr.founding import (
    add_intermediate,
    imported_generation,
    imported_state,
    make_generation,
    new_state,
    renew_intermediate,
    renewal_due,
)
from certmgr.profiles import INTERMEDIATE_VALIDITY
from certmgr.state import AuthorityState, Phase
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
DAY = datetime.timedelta(days=1)
WEB = WorkloadRequest(spiffe_id=SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web"))


@pytest.fixture(scope="module")
def state() -> AuthorityState:
    return new_state("CN=Example,O=Shop", "cluster.local", NOON)


def common_name(certificate: x509.Certificate) -> str:
    (attribute,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)


def test_a_new_authority_is_stable_holds_its_keys_and_has_a_list_of_each(state: AuthorityState) -> None:
    assert state.phase is Phase.STABLE
    assert state.phase_since == NOON
    assert len(state.signers) == len(state.crls) == 2
    assert state.crl_number == NOON.timestamp()
    assert state.leaf_validity == DAY
    assert not state.current.root.issuer.rfc4514_string().endswith("CN=Example")


def test_every_authority_made_of_one_subject_has_a_name_of_its_own(state: AuthorityState) -> None:
    other = make_generation("CN=Example,O=Shop", NOON)
    both = dataclasses.replace(state, generations=(state.current, other), phase=Phase.PUBLISHING)

    assert len({one.subject for one in both.authorities}) == 4
    assert common_name(other.root).startswith("Example ")
    assert common_name(other.issuer.certificate).startswith(common_name(other.root))


def test_an_imported_authority_signs_leaves_without_the_root_s_key() -> None:
    root = create_root("CN=Off line", NOON)
    key, request = request_intermediate("CN=Mesh")
    intermediate = CertificateAndKey(sign_intermediate(request, root, NOON), key)
    state = imported_state(root.certificate, intermediate, "cluster.local", NOON)

    assert state.current.root_key is None
    assert len(state.crls) == 1
    leaf = issue_workload(WEB, state.signer.issuer, NOON).certificate
    leaf.verify_directly_issued_by(intermediate.certificate)
    assert renew_intermediate(state, NOON + 300 * DAY) is None


def test_what_cannot_sign_is_not_imported(state: AuthorityState) -> None:
    root = create_root("CN=Off line", NOON)
    intermediate = create_intermediate("CN=Mesh", root, NOON)
    with pytest.raises(UserError, match="not signed by the root"):
        imported_generation(state.current.root, intermediate, NOON)
    with pytest.raises(UserError, match="path length of 0"):
        imported_generation(root.certificate, root, NOON)
    with pytest.raises(UserError, match="no authority"):
        imported_generation(root.certificate, issue_workload(WEB, root, NOON), NOON)
    with pytest.raises(UserError, match="ended"):
        imported_generation(root.certificate, intermediate, NOON + 400 * DAY)


def test_an_intermediate_that_is_brought_signs_from_then_on_beside_the_old_one() -> None:
    root = create_root("CN=Off line", NOON)
    first, second = (create_intermediate("CN=Mesh", root, NOON) for _ in range(2))
    state = imported_state(root.certificate, first, "cluster.local", NOON)
    changed = add_intermediate(state, second, NOON + DAY)

    assert changed.current.intermediates == (second, first)
    assert len(changed.crls) == 2
    with pytest.raises(UserError, match="a name of its own"):
        add_intermediate(changed, second, NOON + DAY)
    stranger = create_intermediate("CN=Mesh", create_root("CN=Stranger", NOON), NOON)
    with pytest.raises(UserError, match="none of this authority's roots"):
        add_intermediate(changed, stranger, NOON + DAY)
    namesake = create_intermediate("CN=Mesh", create_root("CN=Off line", NOON), NOON)
    with pytest.raises(UserError, match="not signed by the root"):
        add_intermediate(changed, namesake, NOON + DAY)


def test_an_intermediate_is_renewed_when_a_third_of_its_days_is_left(state: AuthorityState) -> None:
    certificate = state.signer.issuer.certificate
    third = (certificate.not_valid_after_utc - certificate.not_valid_before_utc) / 3
    due = certificate.not_valid_after_utc - third

    assert renew_intermediate(state, due) is None
    renewed = renew_intermediate(state, due + SECOND)
    assert renewed is not None
    new, old = renewed.current.intermediates
    assert old == state.signer.issuer
    assert new.certificate.not_valid_after_utc - due == INTERMEDIATE_VALIDITY + SECOND
    assert len(renewed.crls) == 3
    assert renew_intermediate(renewed, due + 2 * SECOND) is None
    again = renew_intermediate(renewed, old.certificate.not_valid_after_utc + 200 * DAY)
    assert again is not None
    assert old not in again.current.intermediates


def test_no_intermediate_outlives_its_root_and_none_is_made_for_nothing() -> None:
    state = new_state("CN=Example", "cluster.local", NOON)
    end = state.current.root.not_valid_after_utc
    last = renew_intermediate(state, end - DAY)
    assert last is not None
    assert last.signer.issuer.certificate.not_valid_after_utc == end
    assert not renewal_due(last.current, end - SECOND)
    assert renew_intermediate(state, end + SECOND) is None
