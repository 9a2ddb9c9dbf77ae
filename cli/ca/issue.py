"""`qbitel ca issue`: a workload's key and certificate in a folder."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Any

from certmgr.authority import WorkloadRequest, issue_workload
from certmgr.describe import describe_certificate
from certmgr.files import read_authority, write_workload
from certmgr.folder_issue import WrittenFolder, instance_of, issue_into
from certmgr.profiles import WORKLOAD_VALIDITY
from certmgr.wording import rfc3339, shown_time
from cli.ca import arguments
from cli.ca.answers import Answer, row
from cli.ca.init import rows_of
from cli.ca.places import Clock, add_place, is_authority_folder, opened, run
from mesh.errors import UserError, shown
from mesh.names import CERTIFICATE_FILE, PRIVATE_KEY_FILE, ROOTS_FILE
from mesh.spiffe import SpiffeId


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """`issue DIR --spiffe ID`."""
    parser = commands.add_parser(
        "issue",
        parents=[common],
        help="make a workload's certificate: tls.crt, tls.key, ca.crt and what else it needs",
        description="Make a key and a certificate for a workload and write them into a folder, with the roots, "
        "intermediates and revocation lists that it judges its peers by. Issuing again renews.",
    )
    add_place(parser, "the authority's folder, or a root's, of `qbitel ca init`")
    parser.add_argument(
        "--spiffe", type=arguments.spiffe_id, required=True, metavar="ID", help="spiffe://TRUST-DOMAIN/PATH"
    )
    parser.add_argument(
        "--dns", type=arguments.dns_name, action="extend", nargs="+", default=[], metavar="NAME", help="further name"
    )
    parser.add_argument(
        "--ip",
        type=arguments.ip_address,
        action="extend",
        nargs="+",
        default=[],
        metavar="ADDRESS",
        help="further name",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: DIR/<last segment of the SPIFFE id>")
    parser.add_argument("--hours", type=arguments.hours, help="validity (default: the authority's, 24)")
    parser.add_argument(
        "--instance",
        default="",
        metavar="NAME",
        help="what the authority calls this holder (default: the folder's path)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, clock: Clock) -> int:
    authority: Path | None = options.folder
    if options.out is None and authority is None:
        raise UserError("say where the certificate shall be written: --out FOLDER")
    folder: Path = options.out or authority / options.spiffe.segments[-1]
    if authority is None or options.kubernetes or is_authority_folder(authority):
        return run(_by_authority(options, folder, clock)).tell(options)
    return _by_root(options, folder, clock()).tell(options)


def _by_root(options: argparse.Namespace, folder: Path, now: datetime.datetime) -> Answer:
    """A root alone keeps no record: whoever has its key answers for what is issued."""
    request = _request(options, WORKLOAD_VALIDITY)
    issuer = read_authority(options.folder)
    workload = issue_workload(request, issuer, now)
    write_workload(folder, workload, [issuer.certificate])
    lines = [
        f"issued a certificate, ML-DSA-87: {request.spiffe_id}",
        *rows_of(workload, folder / CERTIFICATE_FILE, folder / PRIVATE_KEY_FILE),
        row("roots", shown(folder / ROOTS_FILE)),
    ]
    if workload.certificate.not_valid_after_utc < now.replace(microsecond=0) + request.validity:
        lines.append(row("note", "it ends with its root, which is earlier than was asked for"))
    data = {"folder": str(folder), "certificate": describe_certificate(workload.certificate, now).data}
    return Answer(lines, data)


async def _by_authority(options: argparse.Namespace, folder: Path, clock: Clock) -> Answer:
    instance = instance_of(folder, options.instance)
    async with opened(options) as place:
        service = await place.service(clock)
        request = _request(options, service.state.leaf_validity)
        written = await issue_into(folder, request, service, instance)
        place.export(service.state)
    return _answer(request, written, folder, instance, service.trust_domain, clock())


def _answer(
    request: WorkloadRequest,
    written: WrittenFolder,
    folder: Path,
    instance: str,
    trust_domain: str,
    now: datetime.datetime,
) -> Answer:
    spiffe_id: SpiffeId = request.spiffe_id
    certificate = written.workload.certificate
    ending = certificate.not_valid_after_utc
    lines = [
        f"issued a certificate, ML-DSA-87: {spiffe_id}",
        *rows_of(written.workload, folder / CERTIFICATE_FILE, folder / PRIVATE_KEY_FILE),
        row("roots", shown(folder / ROOTS_FILE)),
    ]
    notes = []
    if ending < now.replace(microsecond=0) - datetime.timedelta(minutes=1) + request.validity:
        notes.append("it ends with its issuer, which is earlier than was asked for")
    if spiffe_id.trust_domain != trust_domain:
        notes.append(
            f"{spiffe_id.trust_domain} is not this authority's trust domain, {trust_domain}: no server renews it"
        )
    until = written.list_until
    if until is None:
        notes.append(
            "it has no revocation list, which would go out of use before the certificate ends; where something runs "
            "`qbitel ca bundle DIR --out FOLDER` each hour, that brings one"
        )
    elif until < ending:
        notes.append(f"its revocation list goes out of use at {shown_time(until)}: renew it with `qbitel ca bundle`")
    data = {
        "folder": str(folder),
        "instance": instance,
        "generation": written.generation,
        "anchors": written.bundle.anchors,
        "revocation_list_until": rfc3339(until) if until else None,
        "notes": notes,
        "certificate": describe_certificate(certificate, now).data,
    }
    return Answer([*lines, *(row("note", note) for note in notes)], data)


def _request(options: argparse.Namespace, validity: datetime.timedelta) -> WorkloadRequest:
    return WorkloadRequest(
        spiffe_id=options.spiffe,
        dns_names=tuple(options.dns),
        ip_addresses=tuple(options.ip),
        validity=validity if options.hours is None else options.hours * arguments.HOUR,
    )
