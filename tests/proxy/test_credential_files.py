"""Certificates from files: one-line refusals, reloads, and the last good ones kept."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import os
import shutil

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certmgr.manager import QuantumCertificateManager
from cli.sealed import open_sealed_key
from mesh.errors import UserError
from pqtls import PROFILES, ChainCache, ClientConnection, HandshakeCompleted, ServerConnection, TicketKeeper
from pqtls.provider import default_provider
from proxy.config import CredentialFiles, TrustFiles
from proxy.credential_files import CredentialStore, load
from proxy.credentials import TlsSettings
from proxy.enrolment import make_request
from proxy.identity import IdentityRule
from tests.proxy.little_authority import Generation, LittleAuthority


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


def test_an_older_revocation_list_is_refused_said_once_and_counted_and_a_newer_one_is_taken(
    folder, settings, pki, caplog
):
    (folder / "crl.pem").write_bytes(pki.revocations("web", number=7))
    store = CredentialStore(CredentialFiles.in_folder(folder), settings)
    counted = []
    store.count_older_list = lambda: counted.append(1)
    (folder / "crl.pem").write_bytes(pki.revocations(number=6))
    for _ in range(3):
        assert store.has_changed()
        assert not store.reload()
        assert len(store.current.trust.revoked) == 1
    assert len(counted) == 3
    assert caplog.text.count("has the number 6, but number 7 is in use already") == 1
    assert "crl.pem" in caplog.text
    (folder / "crl.pem").write_bytes(pki.revocations("web", "api", number=8))
    assert store.reload()
    assert len(store.current.trust.revoked) == 2


def test_a_process_that_starts_takes_the_list_that_it_finds(folder, settings, pki):
    (folder / "crl.pem").write_bytes(pki.revocations("web", number=7))
    CredentialStore(CredentialFiles.in_folder(folder), settings)
    (folder / "crl.pem").write_bytes(pki.revocations(number=6))
    assert CredentialStore(CredentialFiles.in_folder(folder), settings).current.trust.revoked == frozenset()


def test_a_revocation_list_that_was_named_must_be_there(folder, settings):
    trust = TrustFiles(folder / "ca.crt", folder / "list.pem")
    files = CredentialFiles(folder / "tls.crt", folder / "tls.key", trust)
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


# Intermediates


def with_intermediate(folder) -> Generation:
    """Write the credential of "web" under an intermediate into `folder`, whose tls.crt has both certificates."""
    authority = LittleAuthority()
    request = make_request()
    leaf = authority.sign(x509.load_pem_x509_csr(request.csr).public_key(), "web")
    intermediate = authority.signer.intermediate
    folder.mkdir()
    (folder / "tls.crt").write_bytes(leaf.public_bytes(Encoding.PEM) + intermediate.certificate_pem)
    (folder / "tls.key").write_bytes(request.private_key)
    (folder / "tls.key").chmod(0o600)
    (folder / "ca.crt").write_bytes(authority.signer.root.certificate_pem)
    return authority.signer


@pytest.mark.parametrize("held", [True, False])
def test_the_intermediate_is_sent_only_to_a_peer_that_does_not_hold_it(tmp_path, settings, held):
    generation = with_intermediate(tmp_path / "certs")
    files = CredentialFiles.in_folder(tmp_path / "certs")
    sender = load(files, settings)
    if held:
        (tmp_path / "certs" / "intermediates.crt").write_bytes(generation.intermediate.certificate_pem)
    receiver = load(files, settings)
    assert len(receiver.trust.intermediates) == held
    client, server = ClientConnection(sender.client(True)), ServerConnection(receiver.server(True))
    exchange_bytes(client, server)
    (event,) = [one for one in server.events() if isinstance(one, HandshakeCompleted)]
    assert len(event.peer_chain) == (1 if held else 2)


def exchange_bytes(client, server) -> None:
    for _ in range(10):
        if data := client.data_to_send():
            server.receive_data(data)
        if data := server.data_to_send():
            client.receive_data(data)


def test_intermediates_are_optional_seen_when_they_come_and_named_when_broken(store, folder, settings, pki):
    assert store.current.trust.intermediates == ()
    (folder / "intermediates.crt").write_bytes(Generation("some").intermediate.certificate_pem)
    assert store.has_changed()
    assert store.reload()
    assert len(store.current.trust.intermediates) == 1
    (folder / "intermediates.crt").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"intermediates\.crt: "):
        load(CredentialFiles.in_folder(folder), settings)
    assert not store.reload()
    assert len(store.current.trust.intermediates) == 1
    (folder / "intermediates.crt").unlink()
    assert store.reload()


# Sealed keys


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A folder as a Secret with a sealed key is mounted, and the ML-KEM key beside it."""
    base = tmp_path_factory.mktemp("sealed")
    manager = QuantumCertificateManager()
    root = manager.generate_root_ca("CN=Sealed root")
    certificate = manager.generate_service_certificate("web", "shop", root, root["private_key_pem"])
    secret = manager.create_kubernetes_secret(certificate, "web-tls", "shop", seal_private_key=True)
    (base / "certs").mkdir()
    for name, content in secret["data"].items():
        (base / "certs" / name).write_bytes(base64.b64decode(content))
    (base / "kem.key").write_text(certificate["kem_private_key_pem"])
    (base / "kem.key").chmod(0o600)
    return base


@pytest.fixture
def sealed_files(sealed, tmp_path):
    shutil.copytree(sealed, tmp_path / "sealed")
    return CredentialFiles.in_folder(
        tmp_path / "sealed" / "certs", kem_key=tmp_path / "sealed" / "kem.key", open_sealed=open_sealed_key
    )


def test_a_sealed_key_is_opened_by_the_workloads_ml_kem_key(sealed_files, settings):
    assert sealed_files.key.read_bytes().startswith(b"QBSEAL")
    bundle = load(sealed_files, settings)
    assert bundle.identity == "spiffe://cluster.local/ns/shop/sa/web"


def test_an_envelope_that_everybody_can_read_is_no_fault_but_its_ml_kem_key_is(sealed_files, settings):
    sealed_files.key.chmod(0o644)
    load(sealed_files, settings)
    sealed_files.kem_key.chmod(0o644)
    with pytest.raises(UserError, match=r"kem\.key; chmod 600"):
        load(sealed_files, settings)


def test_a_sealed_key_without_what_opens_it_says_what_to_give(sealed_files, settings):
    for files in (
        dataclasses.replace(sealed_files, kem_key=None),
        dataclasses.replace(sealed_files, open_sealed=None),
        dataclasses.replace(sealed_files, kem_key=sealed_files.chain.parent / "nowhere"),
    ):
        with pytest.raises(UserError, match=r"is sealed.*--kem-key"):
            load(files, settings)


def test_a_sealed_key_does_not_open_for_another_key_or_another_identity(sealed_files, settings, pki):
    good = sealed_files.kem_key.read_bytes()
    sealed_files.kem_key.write_bytes(
        MLKEM1024PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    with pytest.raises(UserError, match="does not open for this workload"):
        load(sealed_files, settings)
    sealed_files.kem_key.write_bytes(good)
    shutil.copy(pki.base / "api" / "tls.crt", sealed_files.chain)
    with pytest.raises(UserError, match="does not open for this workload"):
        load(sealed_files, settings)
    sealed_files.kem_key.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="the ML-KEM key cannot be read"):
        load(sealed_files, settings)


@pytest.mark.parametrize("chain", [b"nonsense", None])
def test_a_sealed_key_beside_what_names_nobody_is_refused(sealed_files, settings, chain):
    root = sealed_files.trust.roots.read_bytes()
    sealed_files.chain.write_bytes(root if chain is None else chain)
    with pytest.raises(UserError, match=r"tls\.crt"):
        load(sealed_files, settings)


def test_a_new_ml_kem_key_is_noticed(sealed_files, settings):
    store = CredentialStore(sealed_files, settings)
    sealed_files.kem_key.write_bytes(sealed_files.kem_key.read_bytes() + b"\n")
    assert store.has_changed()
    assert store.reload()
