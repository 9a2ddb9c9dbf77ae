"""The embedded authority: one root and one leaf per pod, in the demo's private folder."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from certmgr.authority import WorkloadRequest, create_root, issue_workload
from certmgr.files import write_authority, write_workload
from mesh.names import DEFAULT_TRUST_DOMAIN
from mesh.spiffe import SpiffeId

NAMESPACE: Final = "demo"
# The demo's certificates die with it; a day is what a workload gets anyway.
ROOT_VALIDITY: Final = datetime.timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a pod is, and the folder with its tls.crt, tls.key and ca.crt."""

    spiffe_id: str
    folder: Path


def make_identities(folder: Path, names: tuple[str, ...], owner: int, now: datetime.datetime) -> tuple[Identity, ...]:
    """Write a root to `folder`/ca and a leaf per name to `folder`/<name>, readable by the user `owner` alone."""
    root = create_root("CN=QBITEL mesh demo root", now, ROOT_VALIDITY)
    write_authority(folder / "ca", root)
    identities = []
    for name in names:
        spiffe_id = SpiffeId.for_service_account(NAMESPACE, name, DEFAULT_TRUST_DOMAIN)
        leaf = issue_workload(WorkloadRequest(spiffe_id=spiffe_id), root, now)
        place = folder / name
        place.mkdir(mode=0o700)
        write_workload(place, leaf, [root.certificate])
        # Given away only when it is complete: nobody but us could put anything in its way before.
        for path in (*place.iterdir(), place):
            os.chown(path, owner, owner)
        identities.append(Identity(str(spiffe_id), place))
    return tuple(identities)
