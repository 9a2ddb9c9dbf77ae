"""One authority and one workload, made once: their times are fixed, so that tests can name the second."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from certmgr.authority import CertificateAndKey, WorkloadRequest, create_root, issue_workload
from certmgr.files import write_authority, write_workload
from mesh.spiffe import SpiffeId

_NOW = datetime.datetime(2030, 5, 17, 12, 0, 0, 987654, tzinfo=datetime.UTC)


@pytest.fixture(scope="session")
def now() -> datetime.datetime:
    return _NOW


@pytest.fixture(scope="session")
def root() -> CertificateAndKey:
    return create_root("CN=Test root,O=Example", _NOW)


@pytest.fixture(scope="session")
def request_web() -> WorkloadRequest:
    return WorkloadRequest(spiffe_id=SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web"))


@pytest.fixture(scope="session")
def web(root: CertificateAndKey, request_web: WorkloadRequest) -> CertificateAndKey:
    return issue_workload(request_web, root, _NOW)


@pytest.fixture
def authority_folder(tmp_path: Path, root: CertificateAndKey) -> Path:
    write_authority(tmp_path / "ca", root)
    return tmp_path / "ca"


@pytest.fixture
def workload_folder(tmp_path: Path, root: CertificateAndKey, web: CertificateAndKey) -> Path:
    write_workload(tmp_path / "web", web, [root.certificate])
    return tmp_path / "web"
