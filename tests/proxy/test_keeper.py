"""Files that are kept up with; the other Keeper is run by tests/proxy/test_enrolment_keeper.py."""

from __future__ import annotations

import shutil

import pytest
from prometheus_client import generate_latest

from pqtls import PROFILES
from proxy.config import CredentialFiles
from proxy.credential_files import CredentialStore
from proxy.credentials import TlsSettings
from proxy.identity import IdentityRule
from proxy.keeper import FileKeeper
from proxy.metrics import Metrics


@pytest.fixture
def folder(tmp_path, pki):
    shutil.copytree(pki.base / "api", tmp_path / "certs")
    return tmp_path / "certs"


def test_files_are_reloaded_when_they_change_or_when_asked_and_each_time_is_counted(folder, pki, run):
    settings = TlsSettings(profiles=(PROFILES["qbitel"],), accept_identity=IdentityRule(frozenset(), frozenset()))
    store, metrics = CredentialStore(CredentialFiles.in_folder(folder), settings), Metrics()
    keeper = FileKeeper(store, metrics)

    def reloads(result: str) -> float | None:
        assert generate_latest(metrics.registry)
        return metrics.registry.get_sample_value("qbitel_cert_reloads_total", {"result": result})

    async def main() -> None:
        keeper.start(lambda _task: None)
        await keeper.has_credentials()
        assert keeper.is_usable
        keeper.tend()
        assert reloads("ok") is None
        shutil.copytree(pki.base / "web", folder, dirs_exist_ok=True)
        keeper.tend()
        assert store.current.identity == pki.identity("web")
        keeper.refresh()
        assert reloads("ok") == 2
        (folder / "tls.crt").unlink()
        keeper.tend()
        assert reloads("failed") == 1
        await keeper.close()

    run(main())


def test_an_older_revocation_list_is_counted(folder, pki):
    settings = TlsSettings(profiles=(PROFILES["qbitel"],), accept_identity=IdentityRule(frozenset(), frozenset()))
    (folder / "crl.pem").write_bytes(pki.revocations(number=7))
    store, metrics = CredentialStore(CredentialFiles.in_folder(folder), settings), Metrics()
    keeper = FileKeeper(store, metrics)
    (folder / "crl.pem").write_bytes(pki.revocations(number=6))
    keeper.tend()
    assert metrics.registry.get_sample_value("qbitel_crl_older_refused_total") == 1
    assert metrics.registry.get_sample_value("qbitel_cert_reloads_total", {"result": "failed"}) == 1
