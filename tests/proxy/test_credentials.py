"""Certificates from files: one-line refusals, reloads, and the last good ones kept."""

from __future__ import annotations

import dataclasses
import datetime
import os
import shutil

import pytest

from mesh.errors import UserError
from pqtls import PROFILES, ChainCache, TicketKeeper
from pqtls.provider import default_provider
from proxy.config import CredentialFiles
from proxy.credentials import CredentialStore, TlsSettings, load
from proxy.identity import IdentityRule


@pytest.fixture
def settings():
    return TlsSettings(profiles=(PROFILES["qbitel"],), accept_identity=IdentityRule(frozenset(), frozenset()))


@pytest.fixture
def folder(tmp_path, pki):
    shutil.copytree(pki.base / "api", tmp_path / "certs")
    return tmp_path / "certs"


@pytest.fixture
def store(folder, settings):
    return CredentialStore(CredentialFiles.in_folder(folder), settings)


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt"])
def test_each_missing_file_is_named(folder, settings, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name} does not exist; `qbitel ca issue`"):
        load(CredentialFiles.in_folder(folder), settings)


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt"])
def test_each_broken_file_is_named(folder, settings, name):
    (folder / name).write_text("nonsense")
    with pytest.raises(UserError, match=name):
        load(CredentialFiles.in_folder(folder), settings)


def test_mesh_connections_demand_our_alpn_and_foreign_ones_do_not(store):
    bundle = store.current
    assert bundle.client(True).require_alpn
    assert bundle.server(True).require_alpn
    assert not bundle.client(False).require_alpn
    assert not bundle.server(False).require_alpn
    assert bundle.client(True) is bundle.client(True)


def test_nothing_is_reloaded_while_nothing_changes(store):
    assert not store.has_changed()


def test_a_rotation_is_seen_and_used(store, folder, pki):
    shutil.copytree(pki.base / "web", folder, dirs_exist_ok=True)
    assert store.has_changed()
    assert store.reload()
    assert store.current.identity == pki.identity("web")
    assert not store.has_changed()


def test_a_rotation_by_symbolic_link_is_seen(tmp_path, pki, settings):
    (tmp_path / "..data").symlink_to(pki.base / "api")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).symlink_to(tmp_path / "..data" / name)
    store = CredentialStore(CredentialFiles.in_folder(tmp_path), settings)
    (tmp_path / "..new").symlink_to(pki.base / "web")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert store.has_changed()
    assert store.reload()
    assert store.current.identity == pki.identity("web")


def test_a_half_done_rotation_keeps_the_last_good_ones_says_so_once_and_is_tried_again(store, folder, pki, caplog):
    good = store.current
    (folder / "tls.crt").write_bytes((pki.base / "web" / "tls.crt").read_bytes())
    assert not store.reload()
    assert not store.reload()
    assert store.current is good
    assert caplog.text.count("the last good ones stay in use") == 1
    assert store.has_changed()
    (folder / "tls.key").write_bytes((pki.base / "web" / "tls.key").read_bytes())
    assert store.reload()
    assert store.current.identity == pki.identity("web")


def test_files_that_vanish_keep_the_last_good_ones(store, folder):
    shutil.rmtree(folder)
    assert store.has_changed()
    assert not store.reload()
    assert store.current.identity != "-"


def test_our_own_expired_certificate_is_a_warning(folder, caplog):
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)
    settings = TlsSettings(
        profiles=(PROFILES["qbitel"],), accept_identity=IdentityRule(frozenset(), frozenset()), now=lambda: later
    )
    CredentialStore(CredentialFiles.in_folder(folder), settings)
    assert "every peer will refuse us" in caplog.text


def test_a_revocation_list_is_read_where_there_is_one(store, folder, pki):
    assert store.current.trust.revoked == frozenset()
    (folder / "crl.pem").write_bytes(pki.revocations("web"))
    assert store.has_changed()
    assert store.reload()
    assert len(store.current.trust.revoked) == 1


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n"])
def test_a_broken_revocation_list_is_named_and_changes_nothing(store, folder, settings, content):
    (folder / "crl.pem").write_bytes(content)
    with pytest.raises(UserError, match=r"crl\.pem"):
        load(CredentialFiles.in_folder(folder), settings)
    good = store.current
    assert not store.reload()
    assert store.current is good


def test_a_list_that_is_cut_short_behind_a_whole_one_is_not_passed_over(folder, settings, pki):
    whole = pki.revocations("web")
    (folder / "crl.pem").write_bytes(whole + pki.revocations("api")[:-30])
    with pytest.raises(UserError, match="is cut short"):
        load(CredentialFiles.in_folder(folder), settings)
    (folder / "crl.pem").write_bytes(whole + pki.revocations("api"))
    assert len(load(CredentialFiles.in_folder(folder), settings).trust.revoked) == 2


def test_a_revocation_list_that_vanishes_stays_in_use(folder, settings, pki, caplog):
    (folder / "crl.pem").write_bytes(pki.revocations("web"))
    store = CredentialStore(CredentialFiles.in_folder(folder), settings)
    (folder / "crl.pem").unlink()
    assert not store.reload()
    assert len(store.current.trust.revoked) == 1
    assert "restart without a list" in caplog.text


def test_a_revocation_list_that_was_named_must_be_there(folder, settings):
    files = CredentialFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt", folder / "list.pem")
    with pytest.raises(UserError, match=r"list\.pem does not exist"):
        load(files, settings)


def test_tickets_and_cached_chains_outlive_a_reload_but_tickets_not_another_identity(folder, settings, pki):
    keeper, cache = TicketKeeper(default_provider()), ChainCache(8)
    settings = dataclasses.replace(settings, tickets=keeper, chain_cache=cache)
    store = CredentialStore(CredentialFiles.in_folder(folder), settings)
    assert store.reload()
    for config in (store.current.server(True), store.current.server(False)):
        assert config.tickets is keeper
        assert config.chain_cache is cache
    shutil.copytree(pki.base / "web", folder, dirs_exist_ok=True)
    assert store.reload()
    assert store.current.server(True).tickets not in (None, keeper)
    assert store.current.server(True).chain_cache is cache


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601])
def test_a_key_that_others_can_use_in_any_way_is_refused(folder, settings, mode):
    (folder / "tls.key").chmod(mode)
    with pytest.raises(UserError, match="chmod 600"):
        load(CredentialFiles.in_folder(folder), settings)


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt", "crl.pem"])
def test_a_pipe_in_a_files_place_is_refused_at_once(folder, settings, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name, 0o600)
    with pytest.raises(UserError, match=f"{name} is no regular file"):
        load(CredentialFiles.in_folder(folder), settings)


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt", "crl.pem"])
def test_a_file_without_end_is_refused(folder, settings, name):
    with (folder / name).open("wb") as file:
        file.truncate(1 << 30)  # a hole: it takes no room on the disk
    with pytest.raises(UserError, match=f"{name} has more than 16 MiB"):
        load(CredentialFiles.in_folder(folder), settings)


def test_a_list_that_cannot_be_looked_for_is_a_refusal_and_keeps_the_last_good_one(store, folder, monkeypatch):
    def no_permission(path, **_options):
        raise PermissionError(13, "Permission denied", str(path))

    good = store.current
    monkeypatch.setattr(type(folder), "stat", no_permission)
    assert not store.reload()
    assert store.current is good
