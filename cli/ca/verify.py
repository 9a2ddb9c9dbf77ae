"""`qbitel ca verify`: a certificate judged as a sidecar would judge a peer's, by the same code."""

from __future__ import annotations

import argparse
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from certmgr.wording import ends, rfc3339, shown_time
from certmgr.x509_files import der_of
from cli.ca import arguments
from cli.ca.answers import EXIT_NO, Answer, row
from cli.ca.places import Clock
from cli.ca.reading import certificates_in, certificates_pem_in, lists_pem_in
from mesh import names
from mesh.errors import UserError, shown
from pqtls import PROFILES, CertificateRefused, ConfigurationError, TrustAnchors
from pqtls.certificates import Purpose, ValidatedChain, validate_chain

_PURPOSES: Final = {purpose.name.lower(): purpose for purpose in Purpose}


@dataclass(frozen=True, slots=True)
class _Files:
    """What is judged, and by what."""

    certificate: Path
    roots: Path
    intermediates: Path | None
    crl: Path | None


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """`verify FILE --roots ca.crt …`."""
    parser = commands.add_parser(
        "verify",
        parents=[common],
        help="judge a certificate as a sidecar would; exit code 1 where it is refused",
        description="Judge a certificate, and what stands behind it in the same file, as a sidecar judges its peer's. "
        "Exit code 0: it is accepted; 1: it is refused, with the reason on one line; 2: that cannot be said.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the chain, leaf first; or a folder of `issue`")
    parser.add_argument("--roots", type=Path, metavar="FILE", help=f"default: {names.ROOTS_FILE} of that folder")
    parser.add_argument("--intermediates", type=Path, metavar="FILE", help="what the peer holds beside the roots")
    parser.add_argument("--crl", type=Path, metavar="FILE", help="revocation lists")
    parser.add_argument("--purpose", choices=sorted(_PURPOSES), help="default: both")
    parser.add_argument("--identity", type=arguments.spiffe_id, metavar="ID", help="whose it must be")
    parser.add_argument("--at", type=arguments.moment, metavar="TIME", help="as of this time (default: now)")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="qbitel", help="default: %(default)s")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, clock: Clock) -> int:
    files = _files(options)
    chain = der_of(certificates_in(files.certificate))
    trust = _trust(files)
    at = options.at or clock()
    purposes = [_PURPOSES[options.purpose]] if options.purpose else list(Purpose)
    try:
        for purpose in purposes:
            found = validate_chain(chain, trust, purpose, at, PROFILES[options.profile].signature_schemes)
    except CertificateRefused as error:
        return _refusal(error.reason, str(error).replace("the peer's certificate", "the certificate")).tell(options)
    if options.identity is not None and found.identity != str(options.identity):
        return _refusal("unexpected_identity", f"it is {found.identity}, not {options.identity}").tell(options)
    return _acceptance(found, purposes, at, files).tell(options)


def _acceptance(found: ValidatedChain, purposes: list[Purpose], at: datetime.datetime, files: _Files) -> Answer:
    roles = [purpose.name.lower() for purpose in purposes]
    lines = [
        f"accepted: {found.identity}",
        row("good for", " and ".join(f"TLS {role}" for role in roles)),
        row("until", f"{shown_time(found.valid_until)}: {ends(found.valid_until, at)}"),
    ]
    if files.crl is None:
        lines.append(row("note", "no revocation list was given, so that nobody counts as revoked (--crl)"))
    data = {
        "accepted": True,
        "identity": found.identity,
        "purposes": roles,
        "valid_until": rfc3339(found.valid_until),
        "at": rfc3339(at),
        "revocation_checked": files.crl is not None,
    }
    return Answer(lines, data)


def _refusal(reason: str, message: str) -> Answer:
    data = {"accepted": False, "reason": reason, "message": message}
    return Answer([f"refused ({reason}): {message}"], data, EXIT_NO)


def _files(options: argparse.Namespace) -> _Files:
    """In a workload's folder everything has its name; what is given by hand comes first."""
    path: Path = options.file
    if not path.is_dir():
        if options.roots is None:
            raise UserError("give the roots to judge it by: --roots ca.crt")
        return _Files(path, options.roots, options.intermediates, options.crl)

    def beside(name: str) -> Path | None:
        return path / name if (path / name).exists() else None

    return _Files(
        path / names.CERTIFICATE_FILE,
        options.roots or path / names.ROOTS_FILE,
        options.intermediates or beside(names.INTERMEDIATES_FILE),
        options.crl or beside(names.REVOCATION_FILE),
    )


def _trust(files: _Files) -> TrustAnchors:
    try:
        return TrustAnchors.from_pem(
            certificates_pem_in(files.roots),
            intermediates=certificates_pem_in(files.intermediates) if files.intermediates else b"",
            crls=lists_pem_in(files.crl) if files.crl else b"",
        )
    except ConfigurationError as error:
        raise UserError(f"{shown(files.crl or files.roots)}: {error}") from None
