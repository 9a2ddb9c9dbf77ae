"""`qbitel ca revoke`: a certificate that nobody is to accept any more, from this moment."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from certmgr.describe import describe_certificate
from certmgr.revocation import revoke
from certmgr.service import AuthorityService
from certmgr.state import REASONS, AuthorityState
from cli.ca import arguments
from cli.ca.answers import Answer, row
from cli.ca.places import Clock, add_place, opened, run
from cli.ca.reading import certificates_in
from mesh.errors import UserError

_REASONS = {reason.value: reason for reason in REASONS}


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """`revoke DIR FILE | --serial HEX | --spiffe ID`."""
    parser = commands.add_parser(
        "revoke",
        parents=[common],
        help="put a certificate on the revocation lists",
        description="Put a certificate on the revocation lists, which are published at once: a running `qbitel certmgr "
        "serve` on this authority has them within a second. There is no way back; issue a new certificate instead.",
    )
    add_place(parser)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="its first certificate is revoked")
    parser.add_argument("--serial", type=arguments.serial, metavar="HEX", help="a leaf's serial number")
    parser.add_argument(
        "--spiffe", type=arguments.spiffe_id, metavar="ID", help="all certificates of this identity that have not ended"
    )
    parser.add_argument("--reason", choices=sorted(_REASONS), default="unspecified", help="default: %(default)s")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, clock: Clock) -> int:
    if options.kubernetes and options.file is None:
        options.file, options.folder = options.folder, None
    given = [one for one in (options.file, options.serial, options.spiffe) if one is not None]
    if len(given) != 1:
        raise UserError("say which: a FILE, --serial HEX or --spiffe ID, one of the three")
    return run(_revoke(options, clock)).tell(options)


async def _revoke(options: argparse.Namespace, clock: Clock) -> Answer:
    now, reason = clock(), _REASONS[options.reason]
    certificate = None if options.file is None else certificates_in(options.file)[0]
    async with opened(options) as place:
        service = await place.service(clock)
        serials = await _serials(options, service)

        def revoked(state: AuthorityState) -> AuthorityState:
            if certificate is not None:
                return revoke(state, certificate, now, reason=reason)
            for serial, identity in serials.items():
                state = revoke(state, serial, now, identity=identity, reason=reason)
            return state

        named = {certificate.serial_number: ""} if certificate is not None else serials
        words = [f"{serial:x}" for serial in named]
        is_new = revoked(service.state) != service.state
        if is_new:
            await place.note(now, "revoked", serials=words, reason=reason.value, identity=_identity(options))
            await service.change(revoked)
        place.export(service.state)
        folder = place.name
    done = f"revoked {len(words)} certificate{'' if len(words) == 1 else 's'}"
    lines = [
        done if is_new else "revoked already: nothing was changed",
        *(row("serial", word) for word in words),
        *([row("certificate", describe_certificate(certificate, now).title.partition(": ")[2])] if certificate else []),
        row("lists", f"number {service.state.crl_number}, in {folder}"),
    ]
    data = {"revoked": words, "changed": is_new, "reason": reason.value, "list_number": service.state.crl_number}
    return Answer(lines, data)


def _identity(options: argparse.Namespace) -> str | None:
    return str(options.spiffe) if options.spiffe is not None else None


async def _serials(options: argparse.Namespace, service: AuthorityService) -> dict[int, str]:
    """Which leaves, with their identities as far as they are known."""
    peers = await service.ledger.everyone()
    live = {int(peer.serial, 16): peer.identity for peer in peers}
    if options.serial is not None:
        return {options.serial: live.get(options.serial, "")}
    if options.spiffe is None:
        return {}
    found = {serial: identity for serial, identity in live.items() if identity == str(options.spiffe)}
    if not found:
        raise UserError(f"no certificate of {options.spiffe} is known that has not ended; give its file or --serial")
    return found
