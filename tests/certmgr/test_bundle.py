"""What is published: everything that peers need, under two hashes that change when they should."""

from __future__ import annotations

import dataclasses
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certmgr.bundle import bundle_of
from certmgr.founding import make_generation, new_state
from certmgr.revocation import sign_lists
from certmgr.state import AuthorityState, Phase
from certmgr.state_document import decode_state, encode_state
from mesh.anchors import anchors_of
from mesh.names import INTERMEDIATES_FILE, REVOCATION_FILE, ROOTS_FILE
from pqtls.trust import TrustAnchors

NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def stable() -> AuthorityState:
    return new_state("CN=Example", "cluster.local", NOON)


@pytest.fixture(scope="module")
def publishing(stable: AuthorityState) -> AuthorityState:
    generations = (stable.current, make_generation("CN=Example", NOON))
    return sign_lists(dataclasses.replace(stable, generations=generations, phase=Phase.PUBLISHING), NOON)


def trust(state: AuthorityState) -> TrustAnchors:
    files = bundle_of(state).files
    return TrustAnchors.from_pem(
        files[ROOTS_FILE], intermediates=files[INTERMEDIATES_FILE], crls=files[REVOCATION_FILE]
    )


def test_a_bundle_holds_all_roots_and_intermediates_and_a_list_of_each(publishing: AuthorityState) -> None:
    bundle = bundle_of(publishing)
    trusted = trust(publishing)

    assert trusted.roots == tuple(one.root for one in publishing.generations)
    assert trusted.intermediates == tuple(one.issuer.certificate for one in publishing.generations)
    assert bundle.files[REVOCATION_FILE].count(b"BEGIN X509 CRL") == 4
    assert not any(b"PRIVATE" in content for content in bundle.files.values())
    assert bundle.generation == publishing.current.name


def test_the_same_state_makes_the_same_bundle(publishing: AuthorityState) -> None:
    assert bundle_of(publishing) == bundle_of(decode_state(encode_state(publishing)))


def test_new_lists_change_the_etag_and_not_the_anchors(stable: AuthorityState) -> None:
    before, after = bundle_of(stable), bundle_of(sign_lists(stable, NOON))

    assert before.anchors == after.anchors
    assert before.etag != after.etag


def test_the_next_root_changes_both_and_the_phase_alone_the_etag(
    stable: AuthorityState, publishing: AuthorityState
) -> None:
    signing = bundle_of(dataclasses.replace(publishing, phase=Phase.SIGNING))

    assert bundle_of(publishing).anchors != bundle_of(stable).anchors
    assert signing.anchors == bundle_of(publishing).anchors
    assert signing.etag != bundle_of(publishing).etag
    assert publishing.next is not None
    assert signing.generation == publishing.next.name


def test_a_round_has_anchors_and_an_etag_of_its_own(stable: AuthorityState) -> None:
    before, after = bundle_of(stable), bundle_of(dataclasses.replace(stable, round=1))

    assert (before.round, after.round) == (0, 1)
    assert before.files == after.files
    assert before.anchors != after.anchors
    assert before.etag != after.etag


def test_the_anchors_are_what_a_peer_finds_in_what_it_trusts(publishing: AuthorityState) -> None:
    roots = [one.public_bytes(Encoding.DER) for one in trust(publishing).roots]

    assert bundle_of(publishing).anchors == anchors_of(publishing.round, roots)


def test_a_list_goes_out_only_together_with_its_issuer(stable: AuthorityState, publishing: AuthorityState) -> None:
    # As a rotation that ends leaves it, until the lists are signed again.
    left = dataclasses.replace(publishing, generations=(stable.current,), phase=Phase.STABLE)

    assert bundle_of(left).files[REVOCATION_FILE].count(b"BEGIN X509 CRL") == 2
    names = {x509.load_pem_x509_crl(pem).issuer for pem in left.crls if pem in bundle_of(left).files[REVOCATION_FILE]}
    assert names == {one.subject for one in left.authorities}
    assert trust(left).roots == (stable.current.root,)
