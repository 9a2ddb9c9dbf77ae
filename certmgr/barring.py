"""Bars: identities that get no certificate until somebody lifts the bar, whatever they prove.

Revoking alone takes certificates away; who has stolen a token, or asks for a new certificate in between, has another
one a moment later. A bar comes first, and then there is nothing left that could.
"""

from __future__ import annotations

import dataclasses
import datetime

from cryptography import x509

from certmgr.authority import whole_second
from certmgr.proofs import Reason, Refused
from certmgr.revocation import check_reason
from certmgr.state import AuthorityState, Barred
from mesh.errors import UserError
from mesh.spiffe import SpiffeId


def bar(
    state: AuthorityState,
    spiffe_id: SpiffeId,
    now: datetime.datetime,
    *,
    reason: x509.ReasonFlags = x509.ReasonFlags.unspecified,
) -> AuthorityState:
    """Return the state in which `spiffe_id` is barred, and its bootstrap tokens are forgotten: one may be in any hands.

    The same state comes back where it is barred already. Raises UserError for the authority's own identity, for what is
    no reason to revoke, and where too many are barred.
    """
    check_reason(reason)
    if spiffe_id == SpiffeId.of_authority(state.trust_domain):
        raise UserError(f"{spiffe_id} is the authority's own identity: replace its root (`qbitel ca rotate --start`)")
    if find_bar(state, spiffe_id) is not None:
        return state
    tokens = tuple(one for one in state.tokens if one.spiffe_id != spiffe_id)
    barred = (*state.barred, Barred(spiffe_id, whole_second(now), reason))
    return dataclasses.replace(state, barred=barred, tokens=tokens)


def lift(state: AuthorityState, spiffe_id: SpiffeId) -> AuthorityState:
    """Return the state in which `spiffe_id` may get certificates again. What was revoked stays revoked.

    Raises UserError where it is not barred.
    """
    if find_bar(state, spiffe_id) is None:
        raise UserError(f"{str(spiffe_id)[:200]} is not barred; `qbitel ca show` says who is")
    return dataclasses.replace(state, barred=tuple(one for one in state.barred if one.spiffe_id != spiffe_id))


def find_bar(state: AuthorityState, spiffe_id: SpiffeId) -> Barred | None:
    """The bar of `spiffe_id`, if there is one."""
    return next((one for one in state.barred if one.spiffe_id == spiffe_id), None)


def check_not_barred(state: AuthorityState, spiffe_id: SpiffeId) -> None:
    """Raise Refused, BARRED, where `spiffe_id` is barred."""
    found = find_bar(state, spiffe_id)
    if found is not None:
        raise Refused(
            Reason.BARRED,
            f"{spiffe_id} is barred since {found.since:%Y-%m-%dT%H:%M:%SZ} and gets no certificate until an operator "
            "lifts that (`qbitel ca revoke --lift`)",
            identity=spiffe_id,
        )
