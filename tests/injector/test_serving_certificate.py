"""The webhook's certificate: followed while its files change; the last good one stays."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from injector import serving_certificate
from injector.serving_certificate import ServingCertificate, ServingFiles
from mesh.errors import UserError
from tests.injector.serving import utc_now, write_certificate
from tests.support.openssl_program import openssl_program


@pytest.fixture
def files(tmp_path: Path) -> ServingFiles:
    return write_certificate(tmp_path)


def test_a_new_certificate_is_shown_without_a_restart_and_a_bad_one_never(
    files: ServingFiles, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = ServingCertificate(files)
    first = shown(certificate)
    files.key.write_text("no key")
    certificate.refresh()
    assert shown(certificate) == first

    write_certificate(files.certificate.parent)
    with caplog.at_level(logging.INFO, logger="qbitel.injector"):
        certificate.refresh()

    assert shown(certificate) == ssl.PEM_cert_to_DER_cert(files.certificate.read_text()) != first
    assert "a new certificate is in use" in caplog.text
    files.key.unlink()
    certificate.refresh()
    assert shown(certificate) != first


def shown(certificate: ServingCertificate) -> bytes:
    """The certificate of a real handshake."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname = False
    trust.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = certificate.context.wrap_bio(to_server, to_client, server_side=True)
    client = trust.wrap_bio(to_client, to_server)
    for _ in range(3):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    found = client.getpeercert(binary_form=True)
    assert found is not None
    return found


@pytest.mark.parametrize("spoil", ["missing", "garbage", "mismatch"])
def test_without_a_usable_certificate_it_does_not_start(files: ServingFiles, spoil: str, tmp_path: Path) -> None:
    if spoil == "missing":
        files.certificate.unlink()
    elif spoil == "garbage":
        files.certificate.write_text("garbage")
    else:
        (tmp_path / "other").mkdir()
        files.key.write_bytes(write_certificate(tmp_path / "other").key.read_bytes())

    with pytest.raises(UserError) as refused:
        ServingCertificate(files)

    assert str(files.certificate) in str(refused.value)


# In a mount namespace of its own, and without /proc, as in a chroot where nobody has mounted it.
IN_A_SYSTEM_WITHOUT_PROC = """
import ctypes, sys
from pathlib import Path
CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x4000, 0x40000, 2
from injector.serving_certificate import ServingCertificate, ServingFiles
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(CLONE_NEWNS) != 0:
    sys.exit(77)
assert libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0, "private"
assert libc.umount2(b"/proc", MNT_DETACH) == 0, "umount"
assert not Path("/proc/self").exists()
try:
    ServingCertificate(ServingFiles(*map(Path, sys.argv[1:])))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_proc_it_is_said_what_is_missing(files: ServingFiles) -> None:
    command = [sys.executable, "-c", IN_A_SYSTEM_WITHOUT_PROC, str(files.certificate), str(files.key)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode == 77:
        pytest.skip("to be without /proc takes a mount namespace, which this user may not make")

    assert found.stdout.startswith("UserError /proc is not mounted"), found.stderr
    assert found.stdout.endswith("mount it (mount -t proc proc /proc)\n")


def test_where_a_sandbox_forbids_memory_files_that_is_said(
    files: ServingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_name: str, _flags: int) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "memfd_create", forbidden)

    with pytest.raises(UserError, match="memfd_create: Operation not permitted"):
        ServingCertificate(files)


def test_nothing_older_than_tls_1_3_is_spoken(files: ServingFiles) -> None:
    assert ServingCertificate(files).context.minimum_version is ssl.TLSVersion.TLSv1_3


def test_a_failure_that_goes_on_is_told_once(files: ServingFiles, caplog: pytest.LogCaptureFixture) -> None:
    certificate = ServingCertificate(files)
    files.key.write_text("no key")
    for _ in range(3):
        certificate.refresh()

    assert caplog.text.count("the last one stays") == 1


def test_a_pair_that_is_half_written_is_taken_when_it_is_whole(files: ServingFiles, tmp_path: Path) -> None:
    (tmp_path / "next").mkdir()
    following = write_certificate(tmp_path / "next")
    certificate = ServingCertificate(files)
    first = shown(certificate)

    following.certificate.replace(files.certificate)
    certificate.refresh()
    assert shown(certificate) == first
    following.key.replace(files.key)
    certificate.refresh()

    assert shown(certificate) == ssl.PEM_cert_to_DER_cert(files.certificate.read_text())


def test_its_end_is_that_of_the_certificate_in_use(files: ServingFiles) -> None:
    assert 86_000 < (ServingCertificate(files).end - utc_now()).total_seconds() <= 86_400


def test_a_file_that_is_far_too_large_is_not_read(files: ServingFiles) -> None:
    with files.certificate.open("ab") as file:
        file.truncate(serving_certificate._LARGEST_FILE + 1)

    with pytest.raises(UserError, match="it is no certificate"):
        ServingCertificate(files)


def test_the_key_exchange_is_the_one_that_no_quantum_computer_breaks_where_openssl_has_it(files: ServingFiles) -> None:
    """Python names no groups before 3.15, and need not: from OpenSSL 3.5 on X25519MLKEM768 comes first by default."""
    if ssl.OPENSSL_VERSION_INFO < (3, 5):
        pytest.skip(f"this Python's {ssl.OPENSSL_VERSION} has no ML-KEM; from 3.5 on it is offered by default")
    program = openssl_program()
    certificate = ServingCertificate(files)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [program, "s_client", "-connect", f"127.0.0.1:{listening.getsockname()[1]}", "-brief"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as client:
            listening.settimeout(60)
            accepted, _ = listening.accept()
            with (
                certificate.context.wrap_socket(accepted, server_side=True) as connection,
                contextlib.suppress(OSError),
            ):
                connection.recv(1)
            said = client.communicate(timeout=60)[1]

    assert "X25519MLKEM768" in said
