"""Bootstrap tokens: a secret that a machine shows once, for its first certificate. Only hashes are kept."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from certmgr.authority import WorkloadRequest, whole_second
from certmgr.barring import find_bar
from certmgr.proofs import Reason, Refused
from certmgr.state import AuthorityState, BootstrapToken, forget_ended
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

# A plain hash guards a token as long as nobody can guess it: 32 characters of base64 are 192 bits.
MIN_TOKEN_LENGTH: Final = 32
# A token lies in a file until its machine starts for the first time.
MAX_TOKEN_VALIDITY: Final = datetime.timedelta(days=30)
# How long after it was spent a token serves the same key once more: the asker's back-off reaches five minutes.
REDEEM_AGAIN: Final = datetime.timedelta(minutes=10)


def add_token(
    state: AuthorityState,
    token: str,
    spiffe_id: SpiffeId,
    dns_names: Sequence[str],
    until: datetime.datetime,
    now: datetime.datetime,
) -> AuthorityState:
    """Return the state in which `token` proves `spiffe_id`, once and until then; tokens that ended are forgotten.

    Raises UserError for an identity that is the authority's own, of another trust domain or barred, names that cannot
    stand in a certificate, an end that has passed or is beyond MAX_TOKEN_VALIDITY, a token that is short or known
    already, and where too many are waiting.
    """
    moment, end = whole_second(now), whole_second(until)
    if spiffe_id.trust_domain != state.trust_domain:
        raise UserError(f"{str(spiffe_id)[:200]} is not of this trust domain; give one of {state.trust_domain}")
    if spiffe_id == SpiffeId.of_authority(state.trust_domain):
        raise UserError(f"{spiffe_id} is the authority's own identity; give the workload's")
    if find_bar(state, spiffe_id) is not None:
        raise UserError(f"{spiffe_id} is barred: lift that first (`qbitel ca revoke --lift`)")
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


def find_token(state: AuthorityState, token: str, now: datetime.datetime) -> BootstrapToken:
    """Return what `token` proves. It is not used up by that: see spend_token.

    Raises Refused, BOOTSTRAP_REFUSED, without saying whether it has ended or never was.
    """
    digest = _digest(token)
    waiting = (forget_ended(state, whole_second(now)) or state).tokens
    # All are compared, each in constant time.
    found = [one for one in waiting if hmac.compare_digest(one.digest, digest)]
    if not found:
        raise _refused()
    return found[0]


def spend_token(state: AuthorityState, token: BootstrapToken, key: str, now: datetime.datetime) -> AuthorityState:
    """Return the state in which `token` (of find_token) is used up: only who stores that has redeemed it.

    `key` is the SHA-256 of the key that it is spent for (SubjectPublicKeyInfo in DER), in hexadecimal digits. For
    REDEEM_AGAIN the same key may redeem it again, because the answer may have been lost on its way, and whoever has not
    its private key can do nothing with the certificate; the state then stays as it is. Raises Refused,
    BOOTSTRAP_REFUSED, for any other key.
    """
    if token.key:
        if not hmac.compare_digest(token.key, key):
            raise _refused()
        return state
    moment = whole_second(now)
    spent = dataclasses.replace(token, key=key, until=min(token.until, moment + REDEEM_AGAIN))
    present = (forget_ended(state, moment) or state).tokens
    return dataclasses.replace(state, tokens=tuple(spent if one == token else one for one in present))


def _refused() -> Refused:
    return Refused(
        Reason.BOOTSTRAP_REFUSED,
        "the bootstrap token is not known here, was used, or has ended; make a new one with `qbitel ca token`",
    )


def _digest(token: str) -> str:
    # "surrogatepass": a command line's stray bytes are a wrong token like any other.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
