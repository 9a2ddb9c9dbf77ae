"""What was revoked, and the lists that tell peers so (RFC 5280 §5).

Each authority signs a list of its own, as only the issuer of a certificate may speak of it here (no indirect lists).
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from certmgr.authority import CertificateAndKey, create_intermediate, issuer_key_identifier, spiffe_id_of, whole_second
from certmgr.profiles import BACKDATE, MAX_WORKLOAD_VALIDITY
from certmgr.state import (
    KEEP_ENDED,
    MAX_SERIAL,
    REASONS,
    AuthorityState,
    Generation,
    Revoked,
    forget_ended,
    is_list_of,
    short_hash,
)
from mesh.errors import UserError

# nextUpdate. Whoever withholds a list from a peer gains this, and the grace that the peer adds.
LIST_VALIDITY: Final = datetime.timedelta(hours=1)
# New lists come this long after the last ones, so that two may fail before the third is late.
LIST_REFRESH: Final = datetime.timedelta(minutes=20)


def revoke(
    state: AuthorityState,
    what: x509.Certificate | int,
    now: datetime.datetime,
    *,
    identity: str = "",
    reason: x509.ReasonFlags = x509.ReasonFlags.unspecified,
) -> AuthorityState:
    """Return the state in which `what`, a certificate of ours or a leaf's serial number, is revoked and on the lists.

    An intermediate is replaced by a new one in the same step. The same state comes back where it is revoked already.
    `identity` is for the record where only a number is known. Raises UserError for a certificate that is not of this
    authority, has ended or is a root, for an intermediate whose root's key is not here, and where there is no room.
    """
    moment = whole_second(now)
    check_reason(reason)
    if isinstance(what, int):
        what = _authority_of(state, what) or what
    if isinstance(what, int):
        return _with_entries(state, _entries_of_serial(state, what, moment, identity, reason), moment)
    return _with_entries(state, (_entry_of(state, what, moment, reason),), moment, left_out=what)


def revoke_leaves(
    state: AuthorityState,
    leaves: Mapping[int, datetime.datetime],
    now: datetime.datetime,
    *,
    identity: str,
    reason: x509.ReasonFlags = x509.ReasonFlags.unspecified,
) -> AuthorityState:
    """As revoke() of each of these leaves, all of one `identity`, with one signing of the lists.

    `leaves` are serial numbers, with the moment at which each certificate ends: its entry needs no room beyond that.
    """
    check_reason(reason)
    moment = whole_second(now)
    entries = tuple(
        entry
        for serial, end in leaves.items()
        for entry in _entries_of_serial(state, serial, moment, identity, reason, end)
    )
    return _with_entries(state, entries, moment)


def check_reason(reason: x509.ReasonFlags) -> None:
    """Raise UserError where `reason` is none to revoke for good."""
    if reason not in REASONS:
        raise UserError(f"{reason.value} is no reason to revoke for good; give another, or none")


def _with_entries(
    state: AuthorityState,
    entries: tuple[Revoked, ...],
    moment: datetime.datetime,
    *,
    left_out: x509.Certificate | None = None,
) -> AuthorityState:
    """The state with what of `entries` is new on its lists, or the same one; `left_out` signs nothing any more."""
    known = {(one.serial, one.issuer) for one in state.revoked}
    new = tuple(one for one in entries if (one.serial, one.issuer) not in known)
    if not new:
        return state
    generations = state.generations
    if left_out is not None:
        generations = tuple(_without(one, left_out, moment) for one in generations)
    state = forget_ended(state, moment) or state
    return sign_lists(dataclasses.replace(state, generations=generations, revoked=(*state.revoked, *new)), moment)


def is_revoked(state: AuthorityState, certificate: x509.Certificate) -> bool:
    """Whether `certificate`, of one of the authorities of this state, is on its list."""
    serial = certificate.serial_number
    suspects = {one.issuer for one in state.revoked if one.serial == serial}
    # Hashing the authorities costs more than all the rest, and is for those few whose number is on a list.
    return bool(suspects) and any(
        one.subject == certificate.issuer and short_hash(one) in suspects for one in state.authorities
    )


def sign_lists(state: AuthorityState, now: datetime.datetime) -> AuthorityState:
    """Return the state with a new list of each authority whose key is here, under the next number.

    Entries whose certificates ended more than KEEP_ENDED ago are dropped.
    """
    moment = whole_second(now)
    state = forget_ended(state, moment) or state
    # By the clock, so that an authority that was restored from a backup does not fall behind its own numbers: peers
    # refuse a list with a lower one (RFC 5280 §5.2.3). A clock that goes back costs nothing.
    number = max(state.crl_number + 1, int(moment.timestamp()))
    crls = tuple(_sign_list(one, state.revoked, number, moment) for one in state.signers)
    return dataclasses.replace(state, crl_number=number, crls=crls)


def lists_due(state: AuthorityState, now: datetime.datetime) -> bool:
    """Whether it is time for sign_lists: LIST_REFRESH has passed, or an authority has no list.

    Also where a list is of the future: the clock was wrong when it was signed, and peers must not wait for that time.
    """
    lists = [x509.load_pem_x509_crl(one) for one in state.crls]
    if any(not any(crl.issuer == one.certificate.subject for crl in lists) for one in state.signers):
        return True
    return any(not now - LIST_REFRESH - BACKDATE < one.last_update_utc <= now for one in lists)


def published_lists(state: AuthorityState) -> tuple[bytes, ...]:
    """The lists, PEM, whose authority is in the state: a peer refuses a list of somebody whom it does not hold."""
    return tuple(
        pem
        for pem in state.crls
        if any(is_list_of(x509.load_pem_x509_crl(pem), authority) for authority in state.authorities)
    )


def _authority_of(state: AuthorityState, serial: int) -> x509.Certificate | None:
    return next((one for one in state.authorities if one.serial_number == serial), None)


def _entry_of(
    state: AuthorityState, certificate: x509.Certificate, moment: datetime.datetime, reason: x509.ReasonFlags
) -> Revoked:
    issuer = _issuer_of(state, certificate)
    until = certificate.not_valid_after_utc
    if moment > until + KEEP_ENDED:
        raise UserError(f"the certificate ended at {until:%Y-%m-%d %H:%M:%S} UTC: nobody accepts it any more")
    try:
        identity = str(spiffe_id_of(certificate))
    except UserError:  # an intermediate, or a leaf for no SPIFFE id
        identity = ""
    return Revoked(certificate.serial_number, short_hash(issuer), moment, until, identity, reason)


def _issuer_of(state: AuthorityState, certificate: x509.Certificate) -> x509.Certificate:
    if any(certificate == one.root for one in state.generations):
        raise UserError("a root is not revoked but replaced: use `qbitel ca rotate --start`")
    for generation in state.generations:
        for authority in generation.authorities:
            if not _is_signed_by(certificate, authority):
                continue
            if authority == generation.root and generation.root_key is None:
                raise UserError("the root's key, which would have to sign that, is kept off line: rotate the root")
            return authority
    raise UserError("the certificate is not of this authority; revoke it where it was issued")


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _entries_of_serial(
    state: AuthorityState,
    serial: int,
    moment: datetime.datetime,
    identity: str,
    reason: x509.ReasonFlags,
    end: datetime.datetime | None = None,
) -> tuple[Revoked, ...]:
    """Nobody says which intermediate signed it: it is on all their lists, until `end` or for as long as may be.

    Serial numbers have 159 random bits, so that no other certificate is hit.
    """
    if not 1 <= serial <= MAX_SERIAL:
        raise UserError("that is no serial number: a positive one of at most 20 bytes (RFC 5280 §4.1.2.2)")
    longest = moment + MAX_WORKLOAD_VALIDITY if end is None else whole_second(end)
    return tuple(
        Revoked(
            serial,
            short_hash(one.certificate),
            moment,
            min(longest, one.certificate.not_valid_after_utc),
            identity,
            reason,
        )
        for generation in state.generations
        for one in generation.intermediates
    )


def _without(generation: Generation, revoked: x509.Certificate, moment: datetime.datetime) -> Generation:
    """What is left of `generation`; where it was the one that signs leaves, a new one does from now on.

    Nothing that the revoked one signed is accepted any more, so that it needs no list either.
    """
    left = tuple(one for one in generation.intermediates if one.certificate != revoked)
    if generation.intermediates[0] in left:
        return dataclasses.replace(generation, intermediates=left)
    if generation.root_key is None:
        raise UserError("the root's key, which would have to sign that, is kept off line: rotate the root")
    root = CertificateAndKey(generation.root, generation.root_key)
    new = create_intermediate(generation.root.subject, root, moment)
    return dataclasses.replace(generation, intermediates=(new, *left))


def _sign_list(
    signer: CertificateAndKey, revoked: tuple[Revoked, ...], number: int, moment: datetime.datetime
) -> bytes:
    issuer = short_hash(signer.certificate)
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=signer.certificate.subject,
        last_update=moment - BACKDATE,
        next_update=moment + LIST_VALIDITY,
        revoked_certificates=[_list_entry(one) for one in revoked if one.issuer == issuer],
    )
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_identifier(signer)), critical=False
    ).add_extension(x509.CRLNumber(number), critical=False)
    return builder.sign(signer.private_key, None).public_bytes(Encoding.PEM)


def _list_entry(one: Revoked) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(one.at)
    # RFC 5280 §5.3.1: "unspecified" is said by saying nothing.
    if one.reason is not x509.ReasonFlags.unspecified:
        builder = builder.add_extension(x509.CRLReason(one.reason), critical=False)
    return builder.build()
