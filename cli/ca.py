"""`qbitel ca`: a root of trust and the certificates under it, in folders.

qbitel ca init DIR                             make DIR/ca.crt and DIR/ca.key
qbitel ca issue DIR --spiffe spiffe://…        make FOLDER/tls.crt, tls.key and ca.crt
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from certmgr.authority import (
    CertificateAndKey,
    IPAddress,
    WorkloadRequest,
    check_dns_name,
    create_root,
    issue_workload,
)
from certmgr.files import AUTHORITY_KEY_FILE, read_authority, write_authority, write_workload
from certmgr.profiles import MAX_ROOT_VALIDITY, MAX_WORKLOAD_VALIDITY, ROOT_VALIDITY, WORKLOAD_VALIDITY
from certmgr.storage import shown
from cli.arguments import Parser, positive_int
from mesh.errors import UserError
from mesh.names import CERTIFICATE_FILE, PRIVATE_KEY_FILE, ROOTS_FILE
from mesh.spiffe import InvalidSpiffeId, SpiffeId

_HOUR: Final = datetime.timedelta(hours=1)
# A year of a root, with the leap day rounded: ten of them are ROOT_VALIDITY to the day.
_YEAR: Final = datetime.timedelta(days=365, hours=6)


def main(arguments: Sequence[str]) -> int:
    """Run `qbitel ca` with `arguments` and return its exit code. UserError for what the user can mend."""
    options = _parser().parse_args(arguments)
    now = datetime.datetime.now(datetime.UTC)
    if options.command == "init":
        _init(options, now)
    else:
        _issue(options, now)
    return 0


def _init(options: argparse.Namespace, now: datetime.datetime) -> None:
    folder: Path = options.folder
    validity = datetime.timedelta(days=(options.years * _YEAR).days)
    root = create_root(options.subject, now, validity)
    write_authority(folder, root, replace=options.force)
    print(f"made a root of trust, ML-DSA-87: {shown(root.certificate.subject.rfc4514_string())}")
    _print_certificate(root, folder / ROOTS_FILE, folder / AUTHORITY_KEY_FILE)


def _issue(options: argparse.Namespace, now: datetime.datetime) -> None:
    authority_folder: Path = options.folder
    spiffe_id: SpiffeId = options.spiffe
    folder: Path = options.out or authority_folder / spiffe_id.segments[-1]
    request = WorkloadRequest(
        spiffe_id=spiffe_id,
        dns_names=tuple(options.dns),
        ip_addresses=tuple(options.ip),
        validity=options.hours * _HOUR,
    )
    issuer = read_authority(authority_folder)
    workload = issue_workload(request, issuer, now)
    write_workload(folder, workload, [issuer.certificate])
    print(f"issued a certificate, ML-DSA-87: {spiffe_id}")
    _print_certificate(workload, folder / CERTIFICATE_FILE, folder / PRIVATE_KEY_FILE)
    print(f"  roots        {shown(folder / ROOTS_FILE)}")
    if workload.certificate.not_valid_after_utc < now.replace(microsecond=0) + request.validity:
        print("  note         it ends with its root, which is earlier than was asked for")


def _print_certificate(made: CertificateAndKey, certificate_path: Path, key_path: Path) -> None:
    certificate = made.certificate
    print(f"  certificate  {shown(certificate_path)}")
    print(f"  private key  {shown(key_path)} (keep it secret)")
    print(
        f"  valid        {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} to "
        f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    )
    print(f"  SHA-256      {made.fingerprint}")


def _parser() -> Parser:
    parser = Parser(prog="qbitel ca", description="Make a root of trust and certificates under it, in folders.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    init = commands.add_parser("init", help="make a root: DIR/ca.crt and DIR/ca.key")
    init.add_argument("folder", type=Path, metavar="DIR", help="made when missing, with mode 0700")
    init.add_argument("--subject", default="CN=QBITEL mesh root,O=QBITEL", help="name in RFC 4514's form")
    init.add_argument("--years", type=_years, default=_whole_years(ROOT_VALIDITY), help="validity (default: 10)")
    init.add_argument("--force", action="store_true", help="replace a root: what it issued stops working")

    issue = commands.add_parser("issue", help="make a workload's certificate: tls.crt, tls.key and ca.crt")
    issue.add_argument("folder", type=Path, metavar="DIR", help="the root's folder, of `qbitel ca init`")
    issue.add_argument("--spiffe", type=_spiffe_id, required=True, metavar="ID", help="spiffe://TRUST-DOMAIN/PATH")
    issue.add_argument(
        "--dns", type=_dns_name, action="extend", nargs="+", default=[], metavar="NAME", help="further name"
    )
    issue.add_argument(
        "--ip", type=_ip_address, action="extend", nargs="+", default=[], metavar="ADDRESS", help="further name"
    )
    issue.add_argument("--out", type=Path, metavar="FOLDER", help="default: DIR/<last segment of the SPIFFE id>")
    issue.add_argument("--hours", type=_hours, default=WORKLOAD_VALIDITY // _HOUR, help="validity (default: 24)")
    return parser


def _years(text: str) -> int:
    return _at_most(positive_int(text), _whole_years(MAX_ROOT_VALIDITY), "years")


def _hours(text: str) -> int:
    return _at_most(positive_int(text), MAX_WORKLOAD_VALIDITY // _HOUR, "hours")


def _at_most(number: int, limit: int, unit: str) -> int:
    if number > limit:
        raise argparse.ArgumentTypeError(f"at most {limit} {unit}")
    return number


def _whole_years(validity: datetime.timedelta) -> int:
    return round(validity / _YEAR)


def _spiffe_id(text: str) -> SpiffeId:
    try:
        return SpiffeId.parse(text)
    except InvalidSpiffeId as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _dns_name(text: str) -> str:
    try:
        return check_dns_name(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _ip_address(text: str) -> IPAddress:
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        parsed = None
    # A zone (fe80::1%eth0) means something on one machine only; a certificate has no place for it.
    if parsed is None or (isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id is not None):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no IP address, such as 10.0.0.7 or fd00::7")
    return parsed
