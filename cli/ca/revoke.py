"""`qbitel ca revoke`: certificates that nobody is to accept any more, and identities that are to get none."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certmgr.audit import read_journal
from certmgr.authority import spiffe_id_of
from certmgr.barring import bar, find_bar, lift
from certmgr.describe import describe_certificate
from certmgr.revocation import revoke, revoke_leaves
from certmgr.service import AuthorityService
from certmgr.state import REASONS, AuthorityState
from certmgr.wording import rfc3339
from certmgr.x509_files import Certificate
from cli.ca import arguments
from cli.ca.answers import Answer, row
from cli.ca.places import AUDIT_FILE, Clock, Place, add_place, opened, run
from cli.ca.reading import certificates_in
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

# What reading a line raises that looks like ours and is not.
_NO_ENTRY_OF_OURS = (KeyError, TypeError, AttributeError, argparse.ArgumentTypeError)
_REASONS = {reason.value: reason for reason in REASONS}


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """`revoke DIR FILE | --serial HEX | --spiffe ID | --lift ID`."""
    parser = commands.add_parser(
        "revoke",
        parents=[common],
        help="put a certificate on the revocation lists, or bar an identity",
        description="Put a certificate on the revocation lists, which are published at once: a running `qbitel certmgr "
        "serve` on this authority has them within a second. There is no way back; issue a new certificate instead. "
        "With --spiffe the identity is barred as well: it gets no new certificate, whatever it proves, until --lift. "
        "With --instance beside it, what processes hold that are gone for good is taken away, and nobody is barred: "
        "the root's rotation waits for them no longer.",
    )
    add_place(parser)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="its first certificate is revoked")
    parser.add_argument("--serial", type=arguments.serial, metavar="HEX", help="a leaf's serial number")
    parser.add_argument(
        "--spiffe", type=arguments.spiffe_id, metavar="ID", help="all certificates of this identity that have not ended"
    )
    parser.add_argument(
        "--instance",
        action="append",
        default=[],
        metavar="NAME",
        help="with --spiffe: those of this process alone, by its name (in Kubernetes the pod's UID); repeatable",
    )
    parser.add_argument(
        "--lift", type=arguments.spiffe_id, metavar="ID", help="let this identity have certificates again"
    )
    parser.add_argument(
        "--bar",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether the identity gets no new certificate (with --spiffe: yes; with FILE, --serial or --instance: no)",
    )
    parser.add_argument(
        "--audit",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="with --spiffe: an audit log in which its certificates are looked for as well, such as a rotated one, or "
        f"what `kubectl logs` says; repeatable (DIR/{AUDIT_FILE} always is)",
    )
    parser.add_argument("--reason", choices=sorted(_REASONS), default="unspecified", help="default: %(default)s")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, clock: Clock) -> int:
    if options.kubernetes and options.file is None:
        options.file, options.folder = options.folder, None
    given = [one for one in (options.file, options.serial, options.spiffe, options.lift) if one is not None]
    if len(given) != 1:
        raise UserError("say which: a FILE, --serial HEX, --spiffe ID or --lift ID, one of the four")
    if options.audit and options.spiffe is None:
        raise UserError("--audit goes with --spiffe: it is where certificates of an identity are looked for")
    if options.instance:
        if options.spiffe is None:
            raise UserError("--instance goes with --spiffe: it names processes of that identity")
        if options.bar:
            raise UserError("--instance takes from some processes, --bar from all of the identity: leave out one")
        options.bar = False
    if options.lift is not None:
        if options.bar is not None:
            raise UserError("--lift takes a bar away: leave out --bar and --no-bar")
        return run(_lift(options, clock)).tell(options)
    return run(_revoke(options, clock)).tell(options)


@dataclass(frozen=True, slots=True)
class _Doomed:
    """What is revoked: leaves by number, or one certificate; and whose they are, as far as that is known.

    `ends` are the serial numbers, with when each certificate ends, where somebody knows that.
    """

    ends: Mapping[int, datetime.datetime | None]
    certificate: Certificate | None
    identity: SpiffeId | None

    @property
    def words(self) -> list[str]:
        return [f"{serial:x}" for serial in self.ends]


async def _revoke(options: argparse.Namespace, clock: Clock) -> Answer:
    now = clock()
    certificate = None if options.file is None else certificates_in(options.file)[0]
    async with opened(options) as place:
        service = await place.service(clock)
        barred = False
        if options.spiffe is not None and options.bar is not False:
            # Before anything is looked up: whatever is issued after this look is refused by the bar.
            barred = await _bar(place, service, options.spiffe, options, now)
        doomed = await _doomed(options, place, service, certificate, now)
        if options.spiffe is None and options.bar:
            barred = await _bar(place, service, _identity_to_bar(doomed), options, now)
        is_new = bool(doomed.ends) and await _put_on_lists(place, service, doomed, options, now)
        place.export(service.state)
        return _answer(place, service, doomed, options, now, is_new=is_new, barred=barred)


async def _bar(
    place: Place, service: AuthorityService, identity: SpiffeId, options: argparse.Namespace, now: datetime.datetime
) -> bool:
    """Whether there was no bar before."""
    reason = _REASONS[options.reason]
    if bar(service.state, identity, now, reason=reason) == service.state:
        return False
    await place.note(now, "barred", identity=str(identity), reason=reason.value)
    return await service.change(lambda state: bar(state, identity, now, reason=reason))


async def _put_on_lists(
    place: Place, service: AuthorityService, doomed: _Doomed, options: argparse.Namespace, now: datetime.datetime
) -> bool:
    """Whether any of them was not on the lists before."""
    reason, certificate = _REASONS[options.reason], doomed.certificate
    identity = "" if doomed.identity is None else str(doomed.identity)

    def revoked(state: AuthorityState) -> AuthorityState:
        if certificate is not None:
            return revoke(state, certificate, now, reason=reason)
        if options.serial is not None:  # it may be an intermediate's
            return revoke(state, options.serial, now, identity=identity, reason=reason)
        ends = {serial: end for serial, end in doomed.ends.items() if end is not None}
        return revoke_leaves(state, ends, now, identity=identity, reason=reason)

    if revoked(service.state) == service.state:
        return False
    named = str(options.spiffe) if options.spiffe is not None else None
    instances = {"instances": options.instance} if options.instance else {}
    await place.note(now, "revoked", serials=doomed.words, reason=reason.value, identity=named, **instances)
    return await service.change(revoked)


async def _doomed(
    options: argparse.Namespace,
    place: Place,
    service: AuthorityService,
    certificate: Certificate | None,
    now: datetime.datetime,
) -> _Doomed:
    """What the arguments name, of what is known."""
    if certificate is not None:
        return _Doomed({certificate.serial_number: None}, certificate, _identity_in(certificate))
    peers = {int(peer.serial, 16): peer for peer in await service.ledger.everyone()}
    if options.serial is not None:
        known = peers.get(options.serial)
        return _Doomed({options.serial: None}, None, SpiffeId.parse(known.identity) if known else None)
    found = {
        serial: peer.not_after
        for serial, peer in peers.items()
        if peer.identity == str(options.spiffe) and (not options.instance or peer.instance in options.instance)
    }
    _check_known(options, {peer.instance for serial, peer in peers.items() if serial in found})
    # The list of peers is bounded, and who has the identity's proof could have had more than it remembers.
    own = [] if place.folder is None else [place.folder / AUDIT_FILE]
    for log in (*(one for one in own if one.exists()), *options.audit):
        found.update(await asyncio.to_thread(_issued_in, log, options, now))
    if not found and options.bar is False:
        raise UserError(f"no certificate of {options.spiffe} is known that has not ended; give its file or --serial")
    return _Doomed(found, None, options.spiffe)


def _check_known(options: argparse.Namespace, known: set[str]) -> None:
    """Raise UserError for an instance of which nothing is known: a name that was misspelt must not look like done."""
    strange = [one for one in options.instance if one not in known]
    if strange:
        raise UserError(
            f"no certificate of {options.spiffe} with the instance {strange[0][:200]!r} is known that has not ended; "
            "`qbitel ca rotate … --status --json` names those that are waited for"
        )


def _issued_in(log: Path, options: argparse.Namespace, now: datetime.datetime) -> dict[int, datetime.datetime]:
    """The certificates that `log` says were issued to whom the arguments name and have not ended: serial numbers, and
    their ends.
    """
    found = {}
    for entry in read_journal(log):
        is_theirs = entry.get("identity") == str(options.spiffe) and (
            not options.instance or entry.get("instance") in options.instance
        )
        if entry.get("event") == "issued" and is_theirs:
            with contextlib.suppress(*_NO_ENTRY_OF_OURS):
                end = arguments.moment(entry["not_after"])
                if end >= now.replace(microsecond=0):
                    found[arguments.serial(entry["serial"])] = end
    return found


def _identity_in(certificate: Certificate) -> SpiffeId | None:
    try:
        return spiffe_id_of(certificate)
    except UserError:  # an intermediate
        return None


def _identity_to_bar(doomed: _Doomed) -> SpiffeId:
    if doomed.identity is None:
        raise UserError("nobody knows whose certificate that is: bar the identity by name, with --spiffe ID")
    return doomed.identity


def _answer(
    place: Place,
    service: AuthorityService,
    doomed: _Doomed,
    options: argparse.Namespace,
    now: datetime.datetime,
    *,
    is_new: bool,
    barred: bool,
) -> Answer:
    words, identity, number = doomed.words, doomed.identity, service.state.crl_number
    if is_new:
        done = f"revoked {len(words)} certificate{'' if len(words) == 1 else 's'}"
    elif words:
        done = "revoked already: nothing was changed" if not barred else "revoked already"
    else:
        done = f"no certificate of {identity} is known that has not ended"
    lines = [done, *(row("serial", word) for word in words)]
    if doomed.certificate is not None:
        lines.append(row("certificate", describe_certificate(doomed.certificate, now).title.partition(": ")[2]))
    is_barred = identity is not None and find_bar(service.state, identity) is not None
    if is_barred:
        lines.append(row("barred", f"{identity} gets no certificate until `qbitel ca revoke … --lift {identity}`"))
    elif identity is not None and options.spiffe is not None:
        lines.append(
            row("note", "whoever can prove this identity gets a new certificate at once (--bar prevents that)")
        )
    lines.append(row("lists", f"number {number}, in {place.name}"))
    data = {
        "revoked": words,
        "changed": is_new or barred,
        "reason": options.reason,
        "list_number": number,
        "identity": None if identity is None else str(identity),
        "barred": is_barred,
    }
    return Answer(lines, data)


async def _lift(options: argparse.Namespace, clock: Clock) -> Answer:
    now, identity = clock(), options.lift
    async with opened(options) as place:
        service = await place.service(clock)
        found = find_bar(service.state, identity)
        lift(service.state, identity)  # tried before it is written down as done
        await place.note(now, "bar lifted", identity=str(identity))
        await service.change(lambda state: lift(state, identity))
        place.export(service.state)
    since = rfc3339(found.since) if found else None
    lines = [
        f"lifted the bar: {identity} may have certificates again",
        row("since", since),
        row("note", "what was revoked stays revoked; sidecars ask again within five minutes"),
    ]
    return Answer(lines, {"lifted": str(identity), "barred_since": since})
