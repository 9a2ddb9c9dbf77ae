"""The real authority over a real folder, for tests of what is in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from certmgr import founding
from certmgr.audit import file_journal
from certmgr.folder_store import FolderStore
from certmgr.parts import Parts
from certmgr.service import AuthorityService
from certmgr.state_document import encode_state
from certmgr.store import AUTHORITY_DOCUMENT
from tests.certmgr.stand_in import TRUST_DOMAIN, utc_now

AUDIT_FILE = "audit.log"


async def found(folder: Path) -> None:
    """Make an authority in `folder`."""
    state = founding.new_state("CN=Test authority,O=Example", TRUST_DOMAIN, utc_now())
    await FolderStore(folder).save(AUTHORITY_DOCUMENT, encode_state(state), None)


def parts(folder: Path, **changes: Any) -> Parts:
    """The outside of the authority in `folder`."""
    return Parts(store=FolderStore(folder), journal=file_journal(folder / AUDIT_FILE), replica="test", **changes)


def audit_log(folder: Path) -> list[dict[str, Any]]:
    """What was written down so far."""
    return [json.loads(line) for line in (folder / AUDIT_FILE).read_bytes().splitlines()]


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[AuthorityService]:
    """A new authority in `folder` with everything that runs beside the API."""
    await found(folder)
    service = await AuthorityService.open(parts(folder), now=utc_now)
    chores = asyncio.create_task(service.run())
    try:
        yield service
    finally:
        chores.cancel()
        await asyncio.gather(chores, return_exceptions=True)
