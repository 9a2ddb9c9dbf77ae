"""Files that are kept up with; the other Keeper is run by tests/proxy/test_enrolment_keeper.py."""

from __future__ import annotations

import datetime
import shutil

import pytest
from prometheus_client import generate_latest

from pqtls import PROFILES
from proxy import keeper
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
    kept = FileKeeper(store, metrics)

    def reloads(result: str) -> float | None:
        assert generate_latest(metrics.registry)
        return metrics.registry.get_sample_value("qbitel_cert_reloads_total", {"result": result})

    async def main() -> None:
        kept.start(lambda _task: None)
        await kept.has_credentials()
        assert kept.is_usable
        kept.tend()
        assert reloads("ok") is None
        shutil.copytree(pki.base / "web", folder, dirs_exist_ok=True)
        kept.tend()
        assert store.current.identity == pki.identity("web")
        kept.refresh()
        assert reloads("ok") == 2
        (folder / "tls.crt").unlink()
        kept.tend()
        assert reloads("failed") == 1
        await kept.close()

    run(main())


def test_it_is_usable_as_long_as_its_certificate(folder, monkeypatch):
    settings = TlsSettings(profiles=(PROFILES["qbitel"],), accept_identity=IdentityRule(frozenset(), frozenset()))
    kept = FileKeeper(CredentialStore(CredentialFiles.in_folder(folder), settings), Metrics())
    end = kept._store.current.credential.not_valid_after
    second = datetime.timedelta(seconds=1)
    for now, expected in ((end - second, True), (end, False), (end + second, False)):
        monkeypatch.setattr(keeper, "utc_now", lambda now=now: now)
        assert kept.is_usable is expected


def test_an_older_revocation_list_is_counted(folder, pki):
    settings = TlsSettings(profiles=(PROFILES["qbitel"],), accept_identity=IdentityRule(frozenset(), frozenset()))
    (folder / "crl.pem").write_bytes(pki.revocations(number=7))
    store, metrics = CredentialStore(CredentialFiles.in_folder(folder), settings), Metrics()
    kept = FileKeeper(store, metrics)
    (folder / "crl.pem").write_bytes(pki.revocations(number=6))
    kept.tend()
    assert metrics.registry.get_sample_value("qbitel_crl_older_refused_total") == 1
    assert metrics.registry.get_sample_value("qbitel_cert_reloads_total", {"result": "failed"}) == 1
