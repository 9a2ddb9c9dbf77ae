"""The certificate of the authority's own API: who it names, how long it serves, and what is told of its key."""

from __future__ import annotations

import dataclasses
import datetime

from cryptography import x509

from certmgr.authority import spiffe_id_of
from certmgr.founding import new_state
from certmgr.own_credential import OwnCredential
from mesh.spiffe import SpiffeId
from tests.certmgr.authority_rig import TRUST_DOMAIN, Clock

HOUR = datetime.timedelta(hours=1)


def test_it_names_the_authority_and_its_service() -> None:
    now = Clock()()
    leaf = x509.load_pem_x509_certificates(OwnCredential.make(new_state("CN=Test", TRUST_DOMAIN, now), now).chain)[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert spiffe_id_of(leaf) == SpiffeId.of_authority(TRUST_DOMAIN)
    assert "qbitel-certmgr.qbitel-system.svc" in names.get_values_for_type(x509.DNSName)


def test_it_serves_until_half_of_its_life_is_over() -> None:
    now = Clock()()
    state = new_state("CN=Test", TRUST_DOMAIN, now)
    own = OwnCredential.make(state, now)
    assert own.serves(state, now + 11 * HOUR)
    assert not own.serves(state, now + 13 * HOUR)


def test_it_serves_no_longer_when_another_generation_signs() -> None:
    now = Clock()()
    state, other = (new_state("CN=Test", TRUST_DOMAIN, now) for _ in range(2))
    own = OwnCredential.make(state, now)
    assert not own.serves(dataclasses.replace(state, generations=other.generations), now)


def test_its_key_is_not_in_what_is_shown() -> None:
    now = Clock()()
    assert "PRIVATE" not in repr(OwnCredential.make(new_state("CN=Test", TRUST_DOMAIN, now), now))
