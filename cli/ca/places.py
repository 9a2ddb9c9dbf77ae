"""Where `qbitel ca` finds an authority, and how it changes one: the same store and audit log that the server uses."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from certmgr.audit import Journal, file_journal, stream_journal
from certmgr.bundle import bundle_of
from certmgr.folder_store import SUFFIX, FolderStore
from certmgr.founding import renew_intermediate
from certmgr.parts import Parts
from certmgr.proofs import Refused
from certmgr.revocation import lists_due, sign_lists
from certmgr.secrets import check_label
from certmgr.service import AuthorityService
from certmgr.state import AuthorityState
from certmgr.storage import PUBLIC_MODE, File, write_files
from certmgr.store import AUTHORITY_DOCUMENT, Store, StoreUnavailable
from certmgr.wording import rfc3339
from mesh.errors import UserError, shown
from mesh.names import CONTROL_NAMESPACE

AUDIT_FILE: Final = "audit.log"
# The document of peers that commands share; each change to it is conditional, so that none is lost.
_REPLICA: Final = "cli"
_USUAL_KUBECONFIG: Final = "~/.kube/config"

Clock = Callable[[], datetime.datetime]
_Result = TypeVar("_Result")


@dataclass(slots=True)
class Place:
    """An authority's store. `folder` gets the public files; None where it is in a cluster. `name` is for people."""

    store: Store
    folder: Path | None
    name: str
    _journal: Journal | None = field(default=None, init=False)

    async def has_authority(self) -> bool:
        """Whether there is one."""
        return await self.store.load(AUTHORITY_DOCUMENT) is not None

    async def service(self, clock: Clock) -> AuthorityService:
        """The authority, with fresh revocation lists and intermediates: no server may be running that made them.

        UserError where there is none.
        """
        parts = Parts(store=self.store, journal=self.journal(), replica=_REPLICA)
        service = await AuthorityService.open(parts, now=clock)
        await service.change(lambda state: upkeep(state, clock()))
        return service

    def journal(self) -> Journal:
        """The audit log; in a cluster, where it is the pods' output, a command's part of it is our stderr."""
        if self._journal is None:
            self._journal = (
                stream_journal(sys.stderr.fileno()) if self.folder is None else file_journal(self.folder / AUDIT_FILE)
            )
        return self._journal

    async def note(self, now: datetime.datetime, event: str, **facts: object) -> None:
        """Write into the audit log what is about to be done. Raises StoreUnavailable: then it must not be."""
        await self.journal().append({"time": rfc3339(now), "event": event, "by": "command line", **facts})

    def export(self, state: AuthorityState) -> None:
        """Bring the public files of the folder up to date."""
        if self.folder is not None:
            write_public(self.folder, state)


def upkeep(state: AuthorityState, now: datetime.datetime) -> AuthorityState | None:
    """The state with what is due renewed; None where nothing is."""
    renewed = renew_intermediate(state, now)
    if renewed is not None:
        return renewed
    return sign_lists(state, now) if lists_due(state, now) else None


def write_public(folder: Path, state: AuthorityState) -> None:
    """Write what peers judge each other by into `folder`: roots, intermediates and revocation lists."""
    files = bundle_of(state).files
    write_files(folder, [File(name, content, PUBLIC_MODE) for name, content in files.items()], replace=True)


def add_place(parser: argparse.ArgumentParser, what: str = "the authority's folder, of `qbitel ca init`") -> None:
    """The arguments that say where the authority is."""
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help=what)
    add_cluster(parser)


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """The arguments for an authority in a cluster."""
    cluster = parser.add_argument_group("in a cluster, instead of DIR")
    cluster.add_argument("--kubernetes", action="store_true", help="the authority's state is a Secret")
    cluster.add_argument(
        "--namespace", type=namespace, default=CONTROL_NAMESPACE, metavar="NAME", help="default: %(default)s"
    )
    cluster.add_argument(
        "--kubeconfig", metavar="FILE", help=f"default: $KUBECONFIG, or {_USUAL_KUBECONFIG}, or this pod's own account"
    )


def namespace(text: str) -> str:
    """Parse a namespace's name for argparse: it becomes a part of paths."""
    try:
        return check_label("namespace", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@asynccontextmanager
async def place_of(options: argparse.Namespace) -> AsyncIterator[Place]:
    """The place that the arguments of `add_place` name, whether an authority is there or not."""
    folder: Path | None = options.folder
    if (folder is None) != options.kubernetes:
        raise UserError("say where the authority is: give its folder, DIR, or --kubernetes")
    if folder is not None:
        if os.path.lexists(folder) and not folder.is_dir():
            raise UserError(f"{shown(folder)} is no folder; give a folder, or the name of a new one")
        yield Place(FolderStore(folder), folder, shown(folder))
        return
    try:
        from certmgr.kubernetes.parts import cluster_store  # noqa: PLC0415  # an optional dependency
    except ImportError as error:
        raise UserError(f"--kubernetes wants the package {error.name}: pip install 'qbitel-mesh[kubernetes]'") from None
    async with cluster_store(_kubeconfig(options), options.namespace) as store:
        yield Place(store, None, f"namespace {shown(options.namespace)}")


def _kubeconfig(options: argparse.Namespace) -> str | None:
    """As kubectl looks for it; None: the account of the pod that we are in."""
    given: str | None = options.kubeconfig or os.environ.get("KUBECONFIG")
    if given:  # an empty variable is none, as for kubectl
        return given
    usual = Path(_USUAL_KUBECONFIG).expanduser()
    return str(usual) if usual.exists() else None


@asynccontextmanager
async def opened(options: argparse.Namespace) -> AsyncIterator[Place]:
    """The place of an authority that is there. UserError where it is not."""
    async with place_of(options) as place:
        if not await place.has_authority():
            raise UserError(f"{place.name} holds no authority; make one with `qbitel ca init`")
        yield place


def is_authority_folder(folder: Path) -> bool:
    """Whether an authority's state is in `folder`; a root alone (ca.crt and ca.key) is none."""
    return os.path.lexists(folder / state_file())


def state_file() -> str:
    """The name of the file that an authority's state is in."""
    return AUTHORITY_DOCUMENT + SUFFIX


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run `work`; whatever a store or an authority refuses is a UserError."""
    try:
        return asyncio.run(work)
    except StoreUnavailable as error:
        raise UserError(f"{error}; give the command again when that is mended") from None
    except Refused as error:
        raise UserError(str(error)) from None
