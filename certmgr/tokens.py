"""Bootstrap tokens: a secret that a machine shows once, for its first certificate. Only hashes are kept."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from certmgr.authority import WorkloadRequest, whole_second
from certmgr.proofs import Reason, Refused
from certmgr.state import AuthorityState, BootstrapToken, forget_ended
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

# A plain hash guards a token as long as nobody can guess it: 32 characters of base64 are 192 bits.
MIN_TOKEN_LENGTH: Final = 32
# A token lies in a file until its machine starts for the first time.
MAX_TOKEN_VALIDITY: Final = datetime.timedelta(days=30)


def add_token(
    state: AuthorityState,
    token: str,
    spiffe_id: SpiffeId,
    dns_names: Sequence[str],
    until: datetime.datetime,
    now: datetime.datetime,
) -> AuthorityState:
    """Return the state in which `token` proves `spiffe_id`, once and until then; tokens that ended are forgotten.

    Raises UserError for an identity that is the authority's own or of another trust domain, names that cannot stand in
    a certificate, an end that has passed or is beyond MAX_TOKEN_VALIDITY, a token that is short or known already, and
    where too many are waiting.
    """
    moment, end = whole_second(now), whole_second(until)
    if spiffe_id.trust_domain != state.trust_domain:
        raise UserError(f"{str(spiffe_id)[:200]} is not of this trust domain; give one of {state.trust_domain}")
    if spiffe_id == SpiffeId.of_authority(state.trust_domain):
        raise UserError(f"{spiffe_id} is the authority's own identity; give the workload's")
    names = WorkloadRequest(spiffe_id=spiffe_id, dns_names=tuple(dns_names)).dns_names
    if not moment < end <= moment + MAX_TOKEN_VALIDITY:
        raise UserError(f"a token is good for at most {MAX_TOKEN_VALIDITY.days} days, and must not have ended already")
    if len(token) < MIN_TOKEN_LENGTH:
        raise UserError(f"the token is easily guessed: give {MIN_TOKEN_LENGTH} random characters or more")
    digest = _digest(token)
    waiting = (forget_ended(state, moment) or state).tokens
    if any(one.digest == digest for one in waiting):
        raise UserError("the token is known already; make a new one")
    return dataclasses.replace(state, tokens=(*waiting, BootstrapToken(digest, spiffe_id, names, end)))


def redeem_token(state: AuthorityState, token: str, now: datetime.datetime) -> tuple[AuthorityState, BootstrapToken]:
    """Return what `token` proves, and the state in which it is used up: only who stores that has redeemed it.

    Raises Refused, BOOTSTRAP_REFUSED, without saying whether it was used, has ended or never was.
    """
    moment = whole_second(now)
    digest = _digest(token)
    waiting = (forget_ended(state, moment) or state).tokens
    # All are compared, each in constant time.
    found = [one for one in waiting if hmac.compare_digest(one.digest, digest)]
    if not found:
        raise Refused(
            Reason.BOOTSTRAP_REFUSED,
            "the bootstrap token is not known here, was used, or has ended; make a new one with `qbitel ca token`",
        )
    return dataclasses.replace(state, tokens=tuple(one for one in waiting if one is not found[0])), found[0]


def _digest(token: str) -> str:
    # "surrogatepass": a command line's stray bytes are a wrong token like any other.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
