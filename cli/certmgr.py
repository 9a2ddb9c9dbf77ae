"""`qbitel certmgr serve`: the mesh's certificate authority as a service."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import re
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from certmgr import server
from certmgr.audit import file_journal, stream_journal
from certmgr.folder_store import FolderStore
from certmgr.parts import Parts
from certmgr.server import Listening
from certmgr.state_document import decode_state
from certmgr.store import AUTHORITY_DOCUMENT, Store, StoreUnavailable
from cli.arguments import Address, Parser, address, seconds
from cli.ca.places import namespace
from cli.proxy import DEFAULT_PROFILE, add_log_level, endpoint, set_up_logging
from mesh import names
from mesh.errors import UserError, shown
from proxy import config, loop, sockets
from proxy.credentials import utc_now

# Requests take milliseconds; what is slower than this at the end has a client that does not read.
_DRAIN_SECONDS = 10.0
_AUDIT_FILE = "audit.log"
# One label of a subdomain, or several; Linux' longest name of a host.
_REPLICA_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*\Z")
_LONGEST_REPLICA = 64
_LONGEST_SHOWN_HOST = 40
# In a folder there is one; a second one beside it is a mistake that costs nothing, since every change is conditional.
_REPLICA = "folder"


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    options = _parser().parse_args(arguments)
    set_up_logging(options.log_level)
    return loop.run(_serve(options))


def _parser() -> Parser:
    parser = Parser(prog="qbitel certmgr", description="The certificate authority of the mesh, as a service.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser(
        "serve",
        help="issue and renew certificates over HTTPS",
        description="Issue and renew certificates over HTTPS with the mesh's own TLS, in the foreground. Who asks "
        "proves who it is by a certificate that is still valid, by a one-time token of `qbitel ca token` or, in "
        "Kubernetes, by a service-account token. SIGTERM finishes what is under way and ends it; a second one ends it "
        "at once.",
    )
    serve.add_argument(
        "folder", type=Path, nargs="?", metavar="DIR", help="the authority's folder, of `qbitel ca init`"
    )
    serve.add_argument(
        "--kubernetes",
        action="store_true",
        help="instead of DIR: Secrets, service accounts and ConfigMaps of a cluster",
    )
    serve.add_argument("--kubeconfig", metavar="FILE", help="the cluster (the one that this pod is in)")
    serve.add_argument(
        "--namespace",
        metavar="N",
        type=namespace,
        help=f"of the Secrets that hold the authority ({names.CONTROL_NAMESPACE})",
    )
    serve.add_argument(
        "--replica",
        metavar="NAME",
        help="with --kubernetes: what no other replica is called at the same time (the host's name, which is a pod's)",
    )
    serve.add_argument(
        "--service-secrets",
        action="store_true",
        help="issue into Secrets of service accounts that ask for it by annotation",
    )
    serve.add_argument(
        "--no-webhook-certificate",
        action="store_true",
        help=f"with --kubernetes: do not keep the injector's certificate, the Secret {names.WEBHOOK_SECRET}",
    )
    serve.add_argument(
        "--listen", metavar="ADDR", type=address, help=f"where the API is served ({names.AUTHORITY_PORT}, everywhere)"
    )
    serve.add_argument(
        "--profile",
        metavar="P[,P…]",
        action="append",
        default=[],
        help=f"what may be negotiated; several in order of preference, with commas or repeated ({DEFAULT_PROFILE})",
    )
    serve.add_argument("--metrics", metavar="ADDR", type=address, help=f"GET /metrics ({names.METRICS_PORT})")
    serve.add_argument(
        "--health", metavar="ADDR", type=address, help=f"GET /healthz/ready and /healthz/live ({names.HEALTH_PORT})"
    )
    serve.add_argument(
        "--audit",
        metavar="FILE",
        type=Path,
        help=f"the audit log, only ever appended to (DIR/{_AUDIT_FILE}; with --kubernetes standard output)",
    )
    serve.add_argument(
        "--drain-seconds",
        metavar="S",
        type=seconds,
        default=_DRAIN_SECONDS,
        help="how long SIGTERM waits for requests to end (%(default)g)",
    )
    add_log_level(serve)
    return parser


async def _serve(options: argparse.Namespace) -> int:
    profiles = config.profiles_named(options.profile or [DEFAULT_PROFILE])
    async with _parts(options) as parts:
        with contextlib.closing(_listening(options)) as listening:
            return await server.run(
                parts, listening, profiles=profiles, drain_seconds=options.drain_seconds, now=utc_now
            )


def _parts(options: argparse.Namespace) -> AbstractAsyncContextManager[Parts]:
    """The outside of the authority, for as long as it serves."""
    if options.kubernetes:
        if options.folder is not None:
            raise UserError(f"--kubernetes and the folder {options.folder} are two stores; give one")
        return _cluster_parts(options)
    if options.folder is None:
        raise UserError("give the authority's folder, or --kubernetes")
    for flag in ("kubeconfig", "namespace", "replica", "service_secrets", "no_webhook_certificate"):
        if getattr(options, flag):
            raise UserError(f"--{flag.replace('_', '-')} is for --kubernetes; leave it out with a folder")
    return contextlib.nullcontext(_folder_parts(options))


def _folder_parts(options: argparse.Namespace) -> Parts:
    folder: Path = options.folder
    # The journal makes its file; a folder that was mistyped must not come into being by that.
    if not folder.is_dir():
        raise UserError(f"{shown(folder)} is no folder; make an authority with `qbitel ca init`")
    return Parts(
        store=FolderStore(folder), journal=file_journal(options.audit or folder / _AUDIT_FILE), replica=_REPLICA
    )


@contextlib.asynccontextmanager
async def _cluster_parts(options: argparse.Namespace) -> AsyncIterator[Parts]:
    try:
        # The client of the API server comes with an extra, and only this needs it.
        from certmgr.kubernetes import parts as kubernetes  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            f"--kubernetes needs the Python package {error.name}: pip install 'qbitel-mesh[kubernetes]'"
        ) from None
    home = options.namespace or names.CONTROL_NAMESPACE
    async with kubernetes.cluster_store(options.kubeconfig, home) as store:
        trust_domain = await _trust_domain(store)
    journal = file_journal(options.audit) if options.audit else stream_journal(sys.stdout.fileno())
    async with kubernetes.cluster_parts(
        kubeconfig=options.kubeconfig,
        trust_domain=trust_domain,
        replica=replica_name(options.replica or socket.gethostname()),
        journal=journal,
        now=utc_now,
        namespace=home,
        service_secrets=options.service_secrets,
        webhook_name=None if options.no_webhook_certificate else names.WEBHOOK_NAME,
    ) as parts:
        yield parts


def replica_name(host: str) -> str:
    """`host` where it can be a part of an object's name, as every pod's can; else one that is like it, and no other's.

    An object's name is a subdomain of RFC 1123, and more than the replica's name stands in it.
    """
    if len(host) <= _LONGEST_REPLICA and _REPLICA_NAME.match(host):
        return host
    readable = re.sub(r"[^a-z0-9]+", "-", host.lower())[:_LONGEST_SHOWN_HOST].strip("-")
    return f"{readable or 'replica'}-{hashlib.sha256(host.encode()).hexdigest()[:12]}"


async def _trust_domain(store: Store) -> str:
    """Of the authority in `store`: tokens are judged for it, too."""
    try:
        stored = await store.load(AUTHORITY_DOCUMENT)
    except StoreUnavailable as error:
        raise UserError(f"the store of the authority does not answer: {error}") from None
    if stored is None:
        raise UserError("there is no authority in the cluster yet; make one with `qbitel ca init --kubernetes`")
    return decode_state(stored.document).trust_domain


def _listening(options: argparse.Namespace) -> Listening:
    """Bind every port, or raise UserError and leave nothing bound."""
    ipv6 = sockets.ipv6_available()
    with contextlib.ExitStack() as undo:

        def bind(given: Address | None, port: int) -> list[socket.socket]:
            where = config.everywhere(port, ipv6) if given is None else (endpoint(given),)
            return [undo.enter_context(contextlib.closing(sockets.listen(one))) for one in where]

        listening = Listening(
            bind(options.listen, names.AUTHORITY_PORT),
            bind(options.metrics, names.METRICS_PORT),
            bind(options.health, names.HEALTH_PORT),
        )
        undo.pop_all()
    return listening
