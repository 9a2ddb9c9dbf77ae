"""`qbitel ca request`, `sign` and `import`: an authority whose root's key is kept on another machine.

    qbitel ca request DIR                        here: DIR/intermediate.csr, and the key stays in DIR
    qbitel ca sign ROOT --csr … --out …          there, with the root of `qbitel ca init --root-only`
    qbitel ca import DIR --certificate … --root …   here again

Each can be given again after it was interrupted, and does then what is left to do.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Any, Final

from certmgr import rotation
from certmgr.authority import CertificateAndKey, sign_intermediate
from certmgr.describe import describe_certificate
from certmgr.files import read_authority
from certmgr.folder_store import FolderStore
from certmgr.founding import add_intermediate, imported_generation, imported_state
from certmgr.pending import PENDING_DOCUMENT, PendingIntermediate
from certmgr.profiles import INTERMEDIATE_VALIDITY, WORKLOAD_VALIDITY
from certmgr.state import AuthorityState
from certmgr.state_document import decode_state
from certmgr.storage import PUBLIC_MODE, File, write_files
from certmgr.store import AUTHORITY_DOCUMENT, StoreConflict
from certmgr.wording import ends, shown_time
from certmgr.x509_files import Certificate, pem_of
from cli.ca import arguments
from cli.ca.answers import Answer, row
from cli.ca.init import add_authority_options, founded, keep_new, leaf_validity
from cli.ca.places import Clock, Place, add_place, is_authority_folder, place_of, run
from cli.ca.reading import certificates_in, request_in
from cli.ca.rotate import take
from mesh.errors import UserError, shown
from mesh.names import DEFAULT_TRUST_DOMAIN

REQUEST_FILE: Final = "intermediate.csr"
_SUBJECT: Final = "CN=QBITEL mesh intermediate,O=QBITEL"


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """All three."""
    request = commands.add_parser("request", parents=[common], help="make an intermediate's key and request")
    add_place(request, "the authority's folder, made when missing")
    request.add_argument("--subject", default=_SUBJECT, help="the intermediate's name in RFC 4514's form")
    request.add_argument("--out", type=Path, metavar="FILE", help=f"default: DIR/{REQUEST_FILE}")
    request.add_argument("--force", action="store_true", help="a new key, though another waits to be signed")
    request.set_defaults(run=_request)

    sign = commands.add_parser(
        "sign", parents=[common], help="sign an intermediate's request with a root kept off line"
    )
    sign.add_argument("folder", type=Path, metavar="DIR", help="the root's folder, of `qbitel ca init --root-only`")
    sign.add_argument("--csr", type=Path, required=True, metavar="FILE", help="of `qbitel ca request`")
    sign.add_argument("--out", type=Path, required=True, metavar="FILE", help="for the intermediate's certificate")
    sign.add_argument(
        "--years", type=arguments.years, default=1, metavar="N", help="validity, the root's at most (default: 1)"
    )
    sign.add_argument("--force", action="store_true", help="replace the certificate that is there")
    sign.set_defaults(run=_sign)

    bring = commands.add_parser("import", parents=[common], help="take up the intermediate that was signed elsewhere")
    add_place(bring, "the authority's folder, of `qbitel ca request`")
    bring.add_argument("--certificate", type=Path, required=True, metavar="FILE", help="of `qbitel ca sign`")
    bring.add_argument("--root", type=Path, metavar="FILE", help="the root's certificate, for a new root")
    bring.add_argument("--next", action="store_true", help="begin a rotation to this root")
    add_authority_options(bring)
    bring.set_defaults(run=_import)


def _request(options: argparse.Namespace, _clock: Clock) -> int:
    return run(_ask(options)).tell(options)


async def _ask(options: argparse.Namespace) -> Answer:
    """A request that waits is given out again: only its key's certificate can be imported."""
    async with place_of(options) as place:
        if options.out is None and place.folder is None:
            raise UserError("say where the request shall be written: --out FILE")
        out: Path = options.out or options.folder / REQUEST_FILE
        stored = await place.store.load(PENDING_DOCUMENT)
        is_new = stored is None or options.force
        if stored is None or options.force:
            pending = PendingIntermediate.new(options.subject)
            try:
                await place.store.save(PENDING_DOCUMENT, pending.encode(), stored.version if stored else None)
            except StoreConflict:
                raise UserError(f"another `qbitel ca request` was at work in {place.name}; give it again") from None
        else:
            pending = PendingIntermediate.decode(stored.document)
    write_files(out.parent, [File(out.name, pending.request_pem, PUBLIC_MODE)], replace=True)
    lines = [
        "made a key and a request for an intermediate, ML-DSA-87"
        if is_new
        else "a request waits already: here it is again (--force makes a new key)",
        row("request", shown(out)),
        row("next", f"there: qbitel ca sign ROOT --csr {shown(out.name)} --out intermediate.crt"),
        row("then", "here: qbitel ca import … --certificate intermediate.crt --root ca.crt"),
    ]
    return Answer(lines, {"request": str(out), "is_new": is_new})


def _sign(options: argparse.Namespace, clock: Clock) -> int:
    now, out = clock(), options.out
    root = run(_root(options.folder))
    # A year as intermediates count it: INTERMEDIATE_VALIDITY.
    certificate = sign_intermediate(request_in(options.csr), root, now, options.years * INTERMEDIATE_VALIDITY)
    write_files(out.parent, [File(out.name, pem_of([certificate]), PUBLIC_MODE)], replace=options.force)
    lines = [
        f"signed an intermediate: {shown(certificate.subject.rfc4514_string())}",
        row("certificate", shown(out)),
        row("until", f"{shown_time(certificate.not_valid_after_utc)}: {ends(certificate.not_valid_after_utc, now)}"),
    ]
    return Answer(lines, {"file": str(out), "certificate": describe_certificate(certificate, now).data}).tell(options)


async def _root(folder: Path) -> CertificateAndKey:
    if not is_authority_folder(folder):
        return read_authority(folder)
    stored = await FolderStore(folder).load(AUTHORITY_DOCUMENT)
    current = decode_state(stored.document).current if stored else None
    if current is None or current.root_key is None:
        raise UserError(f"the root's key is not in {shown(folder)}; sign where it is kept")
    return CertificateAndKey(current.root, current.root_key)


def _import(options: argparse.Namespace, clock: Clock) -> int:
    certificate = _only(certificates_in(options.certificate), options.certificate)
    root = None if options.root is None else _only(certificates_in(options.root), options.root)
    return run(_take_up(options, certificate, root, clock)).tell(options)


def _only(certificates: tuple[Certificate, ...], path: Path) -> Certificate:
    if len(certificates) != 1:
        raise UserError(f"{shown(path)} holds {len(certificates)} certificates; give the one that is meant")
    return certificates[0]


async def _take_up(
    options: argparse.Namespace, certificate: Certificate, root: Certificate | None, clock: Clock
) -> Answer:
    async with place_of(options) as place:
        waiting = await place.store.load(PENDING_DOCUMENT)
        if waiting is None:
            return await _already(place, certificate, clock())
        pair = PendingIntermediate.decode(waiting.document).answered_by(certificate)
        make = _add if await place.has_authority() else _found
        answer = await make(options, place, pair, root, clock)
        # Last: until here it can all be done again.
        await place.store.delete(PENDING_DOCUMENT, waiting.version)
    return answer


async def _found(
    options: argparse.Namespace, place: Place, pair: CertificateAndKey, root: Certificate | None, clock: Clock
) -> Answer:
    if root is None or options.next:
        raise UserError("this is a new authority: give its root's certificate with --root, and leave out --next")
    now = clock()
    state = imported_state(
        root,
        pair,
        options.trust_domain or DEFAULT_TRUST_DOMAIN,
        now,
        leaf_validity=leaf_validity(options) or WORKLOAD_VALIDITY,
    )
    await keep_new(place, state, force=False)
    await place.note(now, "founded", generation=state.current.name, trust_domain=state.trust_domain)
    place.export(state)
    return founded(state, place, now)


async def _add(
    options: argparse.Namespace, place: Place, pair: CertificateAndKey, root: Certificate | None, clock: Clock
) -> Answer:
    service = await place.service(clock)
    now = clock()
    if not _has(service.state, pair.certificate):
        if options.trust_domain is not None or leaf_validity(options) is not None:
            raise UserError("this authority has a trust domain and a life of leaves already: leave out those options")
        if options.next:
            if root is None:
                raise UserError("--next wants the next root's certificate: --root FILE")
            generation = imported_generation(root, pair, now)
            await take(place, service, clock, "start", lambda state: rotation.start(state, generation, now))
        else:
            add_intermediate(service.state, pair, now)
            await place.note(now, "intermediate imported", serial=f"{pair.certificate.serial_number:x}")
            await service.change(lambda state: add_intermediate(state, pair, now))
    place.export(service.state)
    return _imported(pair.certificate, now, begun=options.next)


async def _already(place: Place, certificate: Certificate, now: datetime.datetime) -> Answer:
    """Nothing waits: this was done before, or the request was never made here."""
    stored = await place.store.load(AUTHORITY_DOCUMENT)
    if stored is None or not _has(state := decode_state(stored.document), certificate):
        raise UserError(f"no request waits in {place.name}: make one with `qbitel ca request`")
    place.export(state)
    return _imported(certificate, now, begun=False)


def _has(state: AuthorityState, certificate: Certificate) -> bool:
    return certificate in state.authorities


def _imported(certificate: Certificate, now: datetime.datetime, *, begun: bool) -> Answer:
    lines = [
        f"took up an intermediate: {shown(certificate.subject.rfc4514_string())}",
        row("until", f"{shown_time(certificate.not_valid_after_utc)}: {ends(certificate.not_valid_after_utc, now)}"),
    ]
    if begun:
        lines.append(row("next", "the rotation began: qbitel ca rotate … --status"))
    return Answer(lines, {"certificate": describe_certificate(certificate, now).data, "rotation_began": begun})
