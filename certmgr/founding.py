"""How authorities and their generations come to be, and how intermediates follow one another."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Final

from cryptography import x509

from certmgr.authority import CertificateAndKey, check_issuer, create_intermediate, create_root, whole_second
from certmgr.profiles import INTERMEDIATE_PATH_LENGTH, WORKLOAD_VALIDITY
from certmgr.revocation import sign_lists
from certmgr.state import AuthorityState, Generation, Phase
from mesh.errors import UserError

# An intermediate is replaced when less than this part of its days is left: four months of the year for whoever has to
# bring a new one from a root that is kept off line.
RENEWAL_PART: Final = 3


def new_state(
    subject: str, trust_domain: str, now: datetime.datetime, *, leaf_validity: datetime.timedelta = WORKLOAD_VALIDITY
) -> AuthorityState:
    """Return a new authority whose keys, the root's too, are all in the state.

    Raises UserError for a subject that is none (`CN=…,O=…`), a trust domain that is none or a validity out of range.
    """
    return _founded(make_generation(subject, now), trust_domain, now, leaf_validity)


def imported_state(
    root: x509.Certificate,
    intermediate: CertificateAndKey,
    trust_domain: str,
    now: datetime.datetime,
    *,
    leaf_validity: datetime.timedelta = WORKLOAD_VALIDITY,
) -> AuthorityState:
    """Return a new authority under a root whose key is kept off line. Raises UserError as new_state does, and where the
    intermediate is not the root's or is not valid now.
    """
    return _founded(imported_generation(root, intermediate, now), trust_domain, now, leaf_validity)


def make_generation(subject: str, now: datetime.datetime) -> Generation:
    """Return a new root and an intermediate under it, each with a name of its own made from `subject`."""
    root = create_root(subject, now, distinct=True)
    return Generation(root.certificate, root.private_key, (create_intermediate(root.certificate.subject, root, now),))


def imported_generation(root: x509.Certificate, intermediate: CertificateAndKey, now: datetime.datetime) -> Generation:
    """Return the generation of a root whose key is kept off line. UserError where these are not valid, or no pair."""
    moment = whole_second(now)
    check_issuer(root, moment)
    _check_intermediate(intermediate, moment)
    return Generation(root, None, (intermediate,))


def add_intermediate(state: AuthorityState, intermediate: CertificateAndKey, now: datetime.datetime) -> AuthorityState:
    """Return the state in which `intermediate` signs the leaves of its root's generation from now on.

    Raises UserError where it is of none of the roots, is not valid now, or has the name of another authority.
    """
    moment = whole_second(now)
    _check_intermediate(intermediate, moment)
    for generation in state.generations:
        if generation.root.subject == intermediate.certificate.issuer:
            return sign_lists(_replaced(state, generation, intermediate, moment), moment)
    raise UserError("the intermediate is of none of this authority's roots; sign its request with one of them")


def renew_intermediate(state: AuthorityState, now: datetime.datetime) -> AuthorityState | None:
    """Return the state with a new intermediate wherever one is due and the root's key is here; None: nowhere."""
    moment = whole_second(now)
    renewed = state
    for generation in state.generations:
        if generation.root_key is not None and renewal_due(generation, moment):
            root = CertificateAndKey(generation.root, generation.root_key)
            new = create_intermediate(generation.root.subject, root, moment)
            renewed = _replaced(renewed, generation, new, moment)
    return None if renewed is state else sign_lists(renewed, moment)


def renewal_due(generation: Generation, now: datetime.datetime) -> bool:
    """Whether the intermediate should be replaced: a third of its days is left, and its root has more than that."""
    certificate = generation.issuer.certificate
    end = certificate.not_valid_after_utc
    third = (end - certificate.not_valid_before_utc) / RENEWAL_PART
    return (
        now > end - third and now <= generation.root.not_valid_after_utc and end < generation.root.not_valid_after_utc
    )


def _founded(
    generation: Generation, trust_domain: str, now: datetime.datetime, leaf_validity: datetime.timedelta
) -> AuthorityState:
    state = AuthorityState(
        trust_domain=trust_domain,
        generations=(generation,),
        phase=Phase.STABLE,
        phase_since=whole_second(now),
        revoked=(),
        tokens=(),
        crl_number=0,
        crls=(),
        leaf_validity=leaf_validity,
    )
    return sign_lists(state, now)


def _check_intermediate(intermediate: CertificateAndKey, moment: datetime.datetime) -> None:
    check_issuer(intermediate.certificate, moment)
    constraints = intermediate.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    if constraints.path_length != INTERMEDIATE_PATH_LENGTH:
        raise UserError("the intermediate may sign further authorities; have it signed with a path length of 0")
    usage = intermediate.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    if not usage.crl_sign:
        raise UserError("the intermediate may not sign revocation lists; have it signed with cRLSign")


def _replaced(
    state: AuthorityState, generation: Generation, new: CertificateAndKey, moment: datetime.datetime
) -> AuthorityState:
    """`new` in front; what has ended is dropped, as no leaf outlives its issuer."""
    alive = (one for one in generation.intermediates if one.certificate.not_valid_after_utc >= moment)
    changed = dataclasses.replace(generation, intermediates=(new, *alive))
    generations = tuple(changed if one is generation else one for one in state.generations)
    return dataclasses.replace(state, generations=generations)
