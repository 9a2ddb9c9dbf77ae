"""`qbitel ca init`: a new authority in a folder, or a root alone that is kept off line."""

from __future__ import annotations

import argparse
import datetime
import os
from pathlib import Path
from typing import Any, Final

from certmgr.authority import CertificateAndKey, create_root
from certmgr.describe import describe_certificate
from certmgr.files import AUTHORITY_KEY_FILE, write_authority
from certmgr.founding import new_state
from certmgr.profiles import ROOT_VALIDITY, WORKLOAD_VALIDITY
from certmgr.state import AuthorityState
from certmgr.state_document import decode_state, encode_state
from certmgr.store import AUTHORITY_DOCUMENT, PEERS_PREFIX, StoreConflict
from certmgr.wording import shown_time, span
from cli.ca import arguments
from cli.ca.answers import Answer, row
from cli.ca.places import Clock, Place, add_place, is_authority_folder, place_of, run, state_file
from mesh.errors import UserError, shown
from mesh.names import DEFAULT_TRUST_DOMAIN, ROOTS_FILE

_SUBJECT: Final = "CN=QBITEL mesh root,O=QBITEL"
_OR_FORCE: Final = ", or --force to replace what is there"


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """`init DIR`."""
    parser = commands.add_parser(
        "init",
        parents=[common],
        help="make an authority: root, intermediate and all that it needs to run",
        description="Make an authority: a root, an intermediate that signs certificates, and their state, which holds "
        "both keys. With --root-only the root's certificate and key alone, for a machine that is kept off line.",
    )
    add_place(parser, "made when missing, with mode 0700")
    parser.add_argument("--subject", default=_SUBJECT, help="the root's name in RFC 4514's form")
    parser.add_argument("--root-only", action="store_true", help=f"only {ROOTS_FILE} and {AUTHORITY_KEY_FILE}")
    parser.add_argument("--years", type=arguments.years, help="validity of a root made with --root-only (default: 10)")
    add_authority_options(parser)
    present = parser.add_mutually_exclusive_group()
    present.add_argument("--force", action="store_true", help="replace what is there: what it issued stops working")
    present.add_argument("--if-absent", action="store_true", help="leave an authority that is there as it is; no error")
    parser.set_defaults(run=_run)


def add_authority_options(parser: argparse.ArgumentParser) -> None:
    """What an authority knows besides its certificates."""
    parser.add_argument(
        "--trust-domain", type=arguments.trust_domain, metavar="NAME", help=f"default: {DEFAULT_TRUST_DOMAIN}"
    )
    leaf = parser.add_mutually_exclusive_group()
    leaf.add_argument("--leaf-hours", type=arguments.hours, metavar="N", help="life of certificates (default: 24)")
    leaf.add_argument("--leaf-days", type=arguments.days, metavar="N", help="the same in days")


def leaf_validity(options: argparse.Namespace) -> datetime.timedelta | None:
    """What was asked for; None: nothing."""
    if options.leaf_hours is not None:
        return datetime.timedelta(hours=options.leaf_hours)
    return None if options.leaf_days is None else datetime.timedelta(days=options.leaf_days)


def _run(options: argparse.Namespace, clock: Clock) -> int:
    if options.root_only:
        return _root_only(options, clock()).tell(options)
    return run(_authority(options, clock)).tell(options)


def _root_only(options: argparse.Namespace, now: datetime.datetime) -> Answer:
    folder: Path | None = options.folder
    if folder is None or options.kubernetes:
        raise UserError("a root alone is made in a folder: give DIR, without --kubernetes")
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"{shown(folder)} is no folder; give a folder, or the name of a new one")
    if options.if_absent:
        raise UserError("--if-absent is for an authority; leave it out with --root-only")
    if options.trust_domain is not None or leaf_validity(options) is not None:
        raise UserError("a root alone has no trust domain and issues as it is told; leave out --trust-domain, --leaf-…")
    if is_authority_folder(folder):
        raise UserError(_wording(shown(folder / state_file())))
    years = options.years or arguments.whole_years(ROOT_VALIDITY)
    root = create_root(options.subject, now, datetime.timedelta(days=(years * arguments.YEAR).days))
    write_authority(folder, root, replace=options.force)
    lines = [
        f"made a root of trust, ML-DSA-87: {shown(root.certificate.subject.rfc4514_string())}",
        *rows_of(root, folder / ROOTS_FILE, folder / AUTHORITY_KEY_FILE),
    ]
    files = {"certificate": str(folder / ROOTS_FILE), "private_key": str(folder / AUTHORITY_KEY_FILE)}
    return Answer(lines, {"files": files, "root": describe_certificate(root.certificate, now).data})


async def _authority(options: argparse.Namespace, clock: Clock) -> Answer:
    if options.years is not None:
        raise UserError("an authority's root lives ten years and is replaced while it runs: --years is for --root-only")
    async with place_of(options) as place:
        if not options.if_absent:
            return await _found(options, place, clock())
        # Replicas that start together all find nothing. One of them founds; the others come too late, and look again.
        present = await _present(options, place)
        try:
            return present or await _found(options, place, clock())
        except AuthorityExists:
            return await _present(options, place) or await _found(options, place, clock())


async def _found(options: argparse.Namespace, place: Place, now: datetime.datetime) -> Answer:
    state = new_state(
        options.subject,
        options.trust_domain or DEFAULT_TRUST_DOMAIN,
        now,
        leaf_validity=leaf_validity(options) or WORKLOAD_VALIDITY,
    )
    await keep_new(place, state, force=options.force)
    await place.note(now, "founded", generation=state.current.name, trust_domain=state.trust_domain)
    place.export(state)
    return founded(state, place, now)


async def _present(options: argparse.Namespace, place: Place) -> Answer | None:
    """The authority that is there; None: there is none. UserError where it is of another trust domain than asked for.

    Of the rest that can be asked for, its life will have changed some: nothing else is compared.
    """
    stored = await place.store.load(AUTHORITY_DOCUMENT)
    if stored is None:
        return None
    state = decode_state(stored.document)
    if options.trust_domain not in (None, state.trust_domain):
        raise UserError(
            f"{_state_of(place)} is of the trust domain {state.trust_domain}, not {options.trust_domain}; give that, "
            "or another place for a new one"
        )
    lines = [f"{_state_of(place)} is there already, and stays as it is", row("trust domain", state.trust_domain)]
    return Answer(lines, {"place": place.name, "trust_domain": state.trust_domain, "generation": state.current.name})


class AuthorityExists(UserError):
    """There is an authority where a new one was to be."""


async def keep_new(place: Place, state: AuthorityState, *, force: bool) -> None:
    """Store a new authority.

    AuthorityExists where there is one already, unless `force`; UserError where a root is in the way.
    """
    store, folder = place.store, place.folder
    if folder is not None and os.path.lexists(folder / AUTHORITY_KEY_FILE):
        raise UserError(_wording(shown(folder / AUTHORITY_KEY_FILE)))
    present = await store.load(AUTHORITY_DOCUMENT)
    if not force and present is not None:
        raise AuthorityExists(_wording(_state_of(place), _OR_FORCE))
    if not force and folder is not None and os.path.lexists(folder / ROOTS_FILE):
        raise UserError(_wording(shown(folder / ROOTS_FILE), _OR_FORCE))
    # Whoever holds certificates of an authority that was here is nobody to this one. Looked for before the new one
    # stands: from then on other replicas serve it, and write down peers of their own.
    strangers = [name for name in await store.names() if name.startswith(PEERS_PREFIX)]
    try:
        await store.save(AUTHORITY_DOCUMENT, encode_state(state), present.version if present else None)
    except StoreConflict:
        raise AuthorityExists(_wording(_state_of(place))) from None
    for name in strangers:
        if (stored := await store.load(name)) is not None:
            await store.delete(name, stored.version)


def founded(state: AuthorityState, place: Place, now: datetime.datetime) -> Answer:
    """What there is to know of a new authority."""
    root = describe_certificate(state.current.root, now).data
    off_line = state.current.root_key is None
    keys = "the intermediate's key" if off_line else "both keys"
    lines = [
        f"made an authority, ML-DSA-87: {shown(root['subject'])}",
        row("trust domain", state.trust_domain),
        row("state", f"{_state_of(place)} (has {keys}: keep it secret)"),
        *([row("roots", shown(place.folder / ROOTS_FILE))] if place.folder else []),
        row("valid", _validity(state.current.root.not_valid_before_utc, state.current.root.not_valid_after_utc)),
        row("leaves live", span(state.leaf_validity)),
        row("SHA-256", root["sha256"]),
    ]
    data = {
        "place": place.name,
        "trust_domain": state.trust_domain,
        "generation": state.current.name,
        "root": root,
        "root_key_is_here": not off_line,
        "leaf_seconds": int(state.leaf_validity.total_seconds()),
    }
    return Answer(lines, data)


def _state_of(place: Place) -> str:
    return f"the authority in {place.name}" if place.folder is None else shown(place.folder / state_file())


def rows_of(made: CertificateAndKey, certificate: Path, key: Path) -> list[str]:
    """Where the two are, until when, and the fingerprint to compare."""
    return [
        row("certificate", shown(certificate)),
        row("private key", f"{shown(key)} (keep it secret)"),
        row("valid", _validity(made.certificate.not_valid_before_utc, made.certificate.not_valid_after_utc)),
        row("SHA-256", made.fingerprint),
    ]


def _validity(begin: datetime.datetime, end: datetime.datetime) -> str:
    return f"{begin:%Y-%m-%d %H:%M:%S} to {shown_time(end)}"


def _wording(what: str, else_what: str = "") -> str:
    return f"{what} exists already; use another place{else_what}"
