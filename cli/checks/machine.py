"""This machine: what it has of what a sidecar, the demonstration and interception need, and its certificates.

A check imports what it looks at only when it runs, so that a library that is broken becomes a failure here, and not a
traceback.
"""

from __future__ import annotations

import asyncio
import datetime
import importlib.metadata
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.checks.findings import Check, Finding, Group, Status, skipped
from mesh import names
from mesh.errors import UserError

_PYTHON: Final = (3, 11)
# The first release whose wheels carry an OpenSSL with ML-KEM and ML-DSA, and X.509 with both.
_CRYPTOGRAPHY: Final = 50
# A rotation renews after half of a certificate's life; what has less than a tenth left was not renewed.
_LITTLE_LEFT: Final = 0.1
_UNSHARE_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Subject:
    """What the checks look at besides the machine itself. `root` is where the kernel shows itself (tests: a folder)."""

    certs: Path | None
    environment: Mapping[str, str]
    now: datetime.datetime
    root: Path = Path("/")


def check_python(_subject: Subject) -> Finding:
    """The interpreter's version."""
    version = platform.python_version()
    if sys.version_info < _PYTHON:
        return Finding(Status.FAILURE, f"Python {version}", "use Python 3.11 or newer")
    return Finding(Status.PASS, f"Python {version}")


def check_uvloop(_subject: Subject) -> Finding:
    """That uvloop is there and runs something."""
    fix = "reinstall it: python -m pip install --force-reinstall uvloop"
    try:
        from proxy import loop  # noqa: PLC0415  # see the top of the file

        loop.run(asyncio.sleep(0))
    except (ImportError, OSError) as error:
        return Finding(Status.FAILURE, f"uvloop does not work: {error}", fix)
    return Finding(Status.PASS, f"uvloop {importlib.metadata.version('uvloop')}")


def check_cryptography(subject: Subject) -> Finding:
    """The version of `cryptography`, and that its OpenSSL has ML-KEM-1024 and ML-DSA-87: both are used once."""
    fix = f"python -m pip install 'cryptography>={_CRYPTOGRAPHY}', from a wheel, which brings its own OpenSSL"
    try:
        version = importlib.metadata.version("cryptography")
    except importlib.metadata.PackageNotFoundError:
        return Finding(Status.FAILURE, "cryptography is not installed", fix)
    if int(version.partition(".")[0]) < _CRYPTOGRAPHY:
        return Finding(Status.FAILURE, f"cryptography {version} is too old", fix)
    try:
        from certmgr.authority import create_root  # noqa: PLC0415  # see the top of the file
        from pqtls.provider import Agreement  # noqa: PLC0415
        from pqtls.provider_cryptography import PROVIDER  # noqa: PLC0415
        from pqtls.x509_reading import UNREADABLE  # noqa: PLC0415  # with what `cryptography` raises for algorithms that it lacks
    except ImportError as error:
        return Finding(Status.FAILURE, f"cryptography {version} cannot be loaded: {error}", fix)
    try:
        share = PROVIDER.generate_share(Agreement.ML_KEM_1024)
        answer = PROVIDER.answer_share(Agreement.ML_KEM_1024, share.public)
        agreed = share.finish(answer.share) == answer.secret
        create_root("CN=check", subject.now)
    except UNREADABLE as error:
        return Finding(Status.FAILURE, f"cryptography {version} lacks ML-KEM-1024 or ML-DSA-87: {error}", fix)
    if not agreed:
        return Finding(Status.FAILURE, f"ML-KEM-1024 of cryptography {version} gives two different secrets", fix)
    return Finding(Status.PASS, f"cryptography {version}, with ML-KEM-1024 and ML-DSA-87")


def check_liboqs(subject: Subject) -> Finding:
    """Whether the second provider can be used. Nothing is ever fetched or built for it."""
    from proxy.providers import LiboqsAbsent, load_liboqs  # noqa: PLC0415  # see the top of the file

    try:
        provider = load_liboqs(subject.environment)
    except LiboqsAbsent as reason:
        return Finding(
            Status.WARNING, f"not usable: {reason}", "nothing, if you do not want --provider liboqs: it is optional"
        )
    return Finding(Status.PASS, f"liboqs {provider.library_version}, for --provider liboqs")


def check_iptables(_subject: Subject) -> Finding:
    """Which packet filters interception could use."""
    from init import backend  # noqa: PLC0415  # see the top of the file

    fix = "only `qbitel init` and the pods of `qbitel demo` need it: install the iptables package"
    try:
        filters = backend.find_filters()
        refusals = {one: one.refusal() for one in filters}
    except UserError as error:
        return Finding(Status.WARNING, str(error), fix)
    if not filters:
        return Finding(Status.WARNING, "iptables is not installed", fix)
    usable = [f"{one.lister} ({one.kind.value})" for one, refusal in refusals.items() if refusal is None]
    if usable:
        return Finding(Status.PASS, ", ".join(usable))
    return Finding(
        Status.WARNING,
        "; ".join(dict.fromkeys(str(refusal) for refusal in refusals.values())),
        "interception needs root, or NET_ADMIN and NET_RAW, and the kernel's nat table",
    )


def check_kernel_modules(subject: Subject) -> Finding:
    """Whether the kernel has what the rules of interception are made of: as modules that are loaded, or built in."""
    have = {module: _has_module(subject.root, module) for module in dict.fromkeys((*_MODULES, *_REDIRECTS))}
    if not any(have.values()):
        return Finding(
            Status.WARNING,
            "none of the kernel's packet filter is loaded",
            "it is loaded by the first rule where the kernel has it; else: modprobe nf_conntrack nf_nat xt_REDIRECT",
        )
    missing = [module for module in _MODULES if not have[module]]
    if not any(have[module] for module in _REDIRECTS):
        missing.append(" or ".join(_REDIRECTS))
    if missing:
        return Finding(
            Status.WARNING,
            f"not loaded: {', '.join(missing)}",
            "the first rule loads what the kernel has; on a node where pods cannot load modules: modprobe them",
        )
    return Finding(Status.PASS, ", ".join(module for module, there in have.items() if there))


def _has_module(root: Path, module: str) -> bool:
    if (root / "sys/module" / module).is_dir():
        return True
    # What is built in and has no parameters shows itself only in the list that the kernel's package brings.
    builtin = root / "lib/modules" / platform.release() / "modules.builtin"
    try:
        return f"/{module}.ko" in builtin.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


# Connection tracking and NAT, which every form of the rules needs, and the two forms of a redirection.
_MODULES: Final = ("nf_conntrack", "nf_nat")
_REDIRECTS: Final = ("xt_REDIRECT", "nft_redir")


def check_namespaces(_subject: Subject) -> Finding:
    """Whether this user may make a network namespace: one is made, and gone with its process."""
    fix = "only the pods of `qbitel demo` need it (it says so and uses loopback): run it as root"
    unshare, true = shutil.which("unshare"), shutil.which("true")
    if unshare is None or true is None:
        return Finding(Status.WARNING, "unshare (util-linux) is not installed, so it cannot be tried", fix)
    try:
        ended = subprocess.run(  # noqa: S603  # absolute paths, no shell
            [unshare, "--net", true], capture_output=True, text=True, timeout=_UNSHARE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(Status.WARNING, f"making one did not end within {_UNSHARE_SECONDS} s", fix)
    if ended.returncode:
        return Finding(Status.WARNING, ended.stderr.strip() or f"unshare ended with {ended.returncode}", fix)
    return Finding(Status.PASS, "network namespaces can be made")


def check_certificates(subject: Subject) -> Finding:
    """The folder as a sidecar loads it, and its certificate as a peer with the same roots would judge it."""
    from cli.sealed import open_sealed_key  # noqa: PLC0415
    from pqtls.certificates import Purpose, validate_chain  # noqa: PLC0415  # see the top of the file
    from pqtls.errors import CertificateRefused  # noqa: PLC0415
    from pqtls.profiles import QBITEL  # noqa: PLC0415
    from proxy.config import CredentialFiles  # noqa: PLC0415
    from proxy.credential_files import load  # noqa: PLC0415
    from proxy.credentials import TlsSettings  # noqa: PLC0415
    from proxy.identity import IdentityRule  # noqa: PLC0415

    if subject.certs is None:
        return skipped(f"no folder was given (--certs {names.CERTIFICATE_FOLDER})")
    folder = subject.certs
    renew = f"issue a new one: qbitel ca issue --help, or look at what should have renewed {folder}"
    settings = TlsSettings(profiles=(QBITEL,), accept_identity=IdentityRule(frozenset(), frozenset()))
    try:
        bundle = load(CredentialFiles.in_folder(folder, open_sealed=open_sealed_key), settings)
    except UserError as error:
        return Finding(Status.FAILURE, str(error), f"mend what is in {folder}")
    try:
        for purpose in Purpose:
            found = validate_chain(
                bundle.credential.chain, bundle.trust, purpose, subject.now, QBITEL.signature_schemes
            )
    except CertificateRefused as error:
        return Finding(Status.FAILURE, f"peers would refuse it: {error}".replace("the peer's", "our"), renew)
    left, life = found.valid_until - subject.now, found.valid_until - found.valid_from
    detail = f"{bundle.identity}, matches its key and roots, valid for {_days(left)} more"
    if left < life * _LITTLE_LEFT:
        return Finding(Status.WARNING, detail, renew)
    return Finding(Status.PASS, detail)


def _days(span: datetime.timedelta) -> str:
    days = span / datetime.timedelta(days=1)
    return f"{days:.1f} days" if days >= 2 else f"{days * 24:.1f} hours"


CHECKS: Final = (
    Check("python", Group.MACHINE, "the version of Python", check_python),
    Check("uvloop", Group.MACHINE, "uvloop works", check_uvloop),
    Check("cryptography", Group.MACHINE, "cryptography has ML-KEM-1024 and ML-DSA-87", check_cryptography),
    Check("liboqs", Group.MACHINE, "whether --provider liboqs can be used", check_liboqs),
    Check("iptables", Group.MACHINE, "which packet filters interception could use", check_iptables),
    Check("kernel-modules", Group.MACHINE, "the kernel has what rules of interception need", check_kernel_modules),
    Check("namespaces", Group.MACHINE, "network namespaces can be made (qbitel demo)", check_namespaces),
    Check("certificates", Group.MACHINE, "the certificates of --certs are good", check_certificates),
)
