from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest

from certmgr.files import read_workload
from cli.demo.identities import make_identities

NOW = datetime.datetime.now(datetime.UTC)


def test_each_pod_gets_its_own_identity_below_one_root(tmp_path: Path) -> None:
    first, second = make_identities(tmp_path, ("pod-a", "pod-b"), os.geteuid(), NOW)
    assert first.spiffe_id == "spiffe://cluster.local/ns/demo/sa/pod-a"
    assert second.spiffe_id == "spiffe://cluster.local/ns/demo/sa/pod-b"
    assert (first.folder / "ca.crt").read_bytes() == (second.folder / "ca.crt").read_bytes()
    assert (first.folder / "tls.key").read_bytes() != (second.folder / "tls.key").read_bytes()
    read_workload(first.folder)
    read_workload(second.folder)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_the_keys_belong_to_the_sidecar_alone(tmp_path: Path) -> None:
    (identity,) = make_identities(tmp_path, ("pod-a",), 2102, NOW)
    assert identity.folder.stat().st_mode & 0o777 == 0o700
    for path in (identity.folder, *identity.folder.iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == (2102, 2102)
    assert (identity.folder / "tls.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ca" / "ca.key").stat().st_uid == 0
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
