"""How files get to disk and back: modes, interrupted writes, places that refuse, what is no file to read."""

from __future__ import annotations

import itertools
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from certmgr import storage
from certmgr.authority import CertificateAndKey, WorkloadRequest, create_root, issue_workload
from certmgr.files import read_authority, read_workload, write_authority, write_workload
from mesh.errors import UserError, shown
from mesh.spiffe import SpiffeId
from pqtls import Credential

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it changes owners")
NOBODY = 65534


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(call: Callable[[], object]) -> str:
    """The one line that `call` gives its user."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_keys_are_private_and_certificates_readable_whatever_the_umask(
    tmp_path: Path, root: CertificateAndKey, web: CertificateAndKey, umask: int
) -> None:
    before = os.umask(umask)
    try:
        write_authority(tmp_path / "deep" / "ca", root)
        write_workload(tmp_path / "deep" / "web", web, [root.certificate])
    finally:
        os.umask(before)

    for private in ("ca/ca.key", "web/tls.key"):
        assert mode(tmp_path / "deep" / private) == 0o600
    for public in ("ca/ca.crt", "web/tls.crt", "web/ca.crt"):
        assert mode(tmp_path / "deep" / public) == 0o644
    for folder in ("deep", "deep/ca", "deep/web"):
        assert mode(tmp_path / folder) == 0o700


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path, root: CertificateAndKey) -> None:
    tmp_path.chmod(0o755)
    write_authority(tmp_path, root)

    assert mode(tmp_path) == 0o755


@pytest.mark.root
@is_root
def test_what_root_renews_in_a_sidecar_s_folder_belongs_to_the_sidecar(
    tmp_path: Path, root: CertificateAndKey, web: CertificateAndKey
) -> None:
    os.chown(tmp_path, 2102, 2102)
    write_workload(tmp_path, web, [root.certificate])

    for path in tmp_path.iterdir():
        assert (path.stat().st_uid, path.stat().st_gid) == (2102, 2102)


def test_of_two_that_make_a_root_at_once_one_is_refused_and_no_file_is_lost(
    tmp_path: Path, root: CertificateAndKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = create_root("CN=next", root.certificate.not_valid_before_utc)
    stage = storage._stage

    def stage_while_another_finishes(folder: Path, *rest: object) -> Path:
        monkeypatch.setattr(storage, "_stage", stage)
        write_authority(folder, root)
        return stage(folder, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(storage, "_stage", stage_while_another_finishes)
    assert "exists already" in refusal(lambda: write_authority(tmp_path, other))
    assert contents(tmp_path) == {"ca.crt": root.certificate_pem, "ca.key": root.private_key_pem}


@pytest.mark.parametrize(("call", "which"), [*itertools.product(["fsync", "fchmod"], [1, 2, 3])])
def test_a_write_that_fails_at_any_file_leaves_the_old_ones_and_nothing_else(
    workload_folder: Path,
    root: CertificateAndKey,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    which: int,
) -> None:
    renewal = WorkloadRequest(spiffe_id=SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web"))
    renewed = issue_workload(renewal, root, root.certificate.not_valid_before_utc)
    before = contents(workload_folder)
    calls = 0

    def fail_at_the_chosen_file(*_arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == which:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, call, fail_at_the_chosen_file)
    message = refusal(lambda: write_workload(workload_folder, renewed, [root.certificate]))

    assert "No space left on device" in message
    assert calls == which
    assert contents(workload_folder) == before


def test_a_kill_while_bytes_are_written_leaves_the_old_authority(
    authority_folder: Path, root: CertificateAndKey
) -> None:
    program = textwrap.dedent(
        """
        import datetime, os, sys, time
        from pathlib import Path
        from certmgr import files, storage
        from certmgr.authority import create_root

        def stop_here(_descriptor):
            print("writing", flush=True)
            time.sleep(60)

        storage.os.fsync = stop_here
        files.write_authority(
            Path(sys.argv[1]), create_root("CN=next", datetime.datetime.now(datetime.UTC)), replace=True
        )
        """
    )
    with subprocess.Popen([sys.executable, "-c", program, str(authority_folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)

    assert read_authority(authority_folder) == root
    (leftover,) = set(authority_folder.iterdir()) - {authority_folder / "ca.crt", authority_folder / "ca.key"}
    assert mode(leftover) == 0o600


_RENEW = """
    import os, pathlib, sys
    from certmgr import files
    from certmgr.authority import WorkloadRequest, create_root, issue_workload
    from mesh.spiffe import SpiffeId
    folder, kind, deadly = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    renames, replace = 0, pathlib.Path.replace
    def counted(path, target):
        global renames
        if renames == deadly:
            os._exit(9)
        renames += 1
        return replace(path, target)
    pathlib.Path.replace = counted
    root = files.read_authority(pathlib.Path(sys.argv[4]))
    now = root.certificate.not_valid_before_utc
    if kind == "authority":
        files.write_authority(folder, create_root("CN=next", now), replace=True)
    else:
        request = WorkloadRequest(spiffe_id=SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web"))
        files.write_workload(folder, issue_workload(request, root, now), [root.certificate], beside={"crl.pem": b"x"})
    print(renames)
"""


def renew(folder: Path, kind: str, deadly: int, authority: Path) -> subprocess.CompletedProcess[str]:
    """Renew what is in `folder` in a process that is killed in front of the rename of this number."""
    words = [sys.executable, "-c", textwrap.dedent(_RENEW), folder, kind, str(deadly), authority]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("is_second_kill", [False, True])
def test_a_renewal_that_is_killed_between_any_two_renames_leaves_a_certificate_with_its_key(
    workload_folder: Path, authority_folder: Path, is_second_kill: bool
) -> None:
    seen = set()
    for deadly in range(6):
        if is_second_kill:  # on top of what a kill has left already
            assert renew(workload_folder, "workload", 3, authority_folder).returncode == 9
        done = renew(workload_folder, "workload", deadly, authority_folder)
        assert (done.returncode, done.stdout) == ((9, "") if deadly < 5 else (0, "5\n")), done.stderr

        workload = read_workload(workload_folder).credential
        credential = Credential.from_pem(
            (workload_folder / "tls.crt").read_bytes(), (workload_folder / "tls.key").read_bytes()
        )
        assert credential.private_key.public_key() == workload.certificate.public_key()  # type: ignore[attr-defined]
        assert mode(workload_folder / "tls.key") == 0o600
        seen.add(workload.certificate.serial_number)
    assert len(seen) >= 3
    assert (workload_folder / "tls.key").read_bytes() == workload.private_key_pem


@pytest.mark.parametrize("deadly", [0, 1, 2, 3])
def test_a_root_that_is_replaced_and_killed_between_any_two_renames_has_its_key(
    authority_folder: Path, root: CertificateAndKey, deadly: int
) -> None:
    done = renew(authority_folder, "authority", deadly, authority_folder)
    assert (done.returncode, done.stdout) == ((9, "") if deadly < 3 else (0, "3\n")), done.stderr
    assert (read_authority(authority_folder) == root) is (deadly < 2)


def test_a_pair_that_nobody_could_use_is_replaced_as_if_there_were_none(
    workload_folder: Path, authority_folder: Path
) -> None:
    (workload_folder / "tls.key").write_bytes(b"")
    done = renew(workload_folder, "workload", 9, authority_folder)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
    assert read_workload(workload_folder)


def test_a_file_in_the_folder_s_place_is_refused(tmp_path: Path, root: CertificateAndKey) -> None:
    (tmp_path / "ca").touch()

    assert "is no folder" in refusal(lambda: write_authority(tmp_path / "ca", root))
    assert "is no folder" in refusal(lambda: write_authority(tmp_path / "ca" / "deeper", root))


def test_a_folder_in_a_file_s_place_is_refused_before_anything_changes(
    workload_folder: Path, root: CertificateAndKey, web: CertificateAndKey
) -> None:
    (workload_folder / "tls.key").unlink()
    (workload_folder / "tls.key").mkdir()

    message = refusal(lambda: write_workload(workload_folder, web, [root.certificate]))
    assert "tls.key is a folder where a file should be" in message
    assert {path.name for path in workload_folder.iterdir()} == {"tls.crt", "tls.key", "ca.crt"}


def test_a_folder_without_permission_is_refused(root: CertificateAndKey) -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o500)
        if user == 0:
            # Permissions do not hold root back: for this one call, be the user that nothing belongs to.
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            message = refusal(lambda: write_authority(folder, root))
        finally:
            os.seteuid(user)

        assert message.startswith(f"no permission to write to {folder};")
        assert not any(folder.iterdir())


@pytest.mark.root
@is_root
def test_a_key_of_another_user_is_refused(root: CertificateAndKey) -> None:
    with tempfile.TemporaryDirectory() as name:
        write_authority(Path(name), root)
        Path(name).chmod(0o755)
        os.seteuid(NOBODY)
        try:
            message = refusal(lambda: read_authority(Path(name)))
        finally:
            os.seteuid(0)

        assert message.startswith(f"no permission to read {name}/ca.key;")


def test_a_file_system_that_takes_no_files_is_refused(root: CertificateAndKey) -> None:
    assert "/proc/self" in refusal(lambda: write_authority(Path("/proc/self/qbitel"), root))


@pytest.mark.parametrize("bits", [0o604, 0o602, 0o601, 0o644])
def test_a_key_open_to_every_user_is_refused_with_the_command_that_closes_it(workload_folder: Path, bits: int) -> None:
    key = workload_folder / "tls.key"
    key.chmod(bits)

    assert refusal(lambda: read_workload(workload_folder)).endswith(f"run: chmod 600 {key}")


@pytest.mark.parametrize("bits", [0o400, 0o440, 0o640])
def test_a_key_that_a_group_may_read_is_taken_as_kubernetes_gives_it(workload_folder: Path, bits: int) -> None:
    (workload_folder / "tls.key").chmod(bits)

    read_workload(workload_folder)


def test_symbolic_links_are_followed_as_kubernetes_makes_them(workload_folder: Path, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (mount / name).symlink_to(workload_folder / name)

    assert read_workload(mount) == read_workload(workload_folder)


def test_what_is_no_regular_file_is_refused_without_waiting(workload_folder: Path) -> None:
    key = workload_folder / "tls.key"
    key.unlink()
    os.mkfifo(key)
    begun = time.monotonic()
    assert "is no regular file" in refusal(lambda: read_workload(workload_folder))
    assert time.monotonic() - begun < 5

    key.unlink()
    key.mkdir()
    assert "is no regular file" in refusal(lambda: read_workload(workload_folder))


def test_a_file_of_more_than_a_megabyte_is_not_read(workload_folder: Path) -> None:
    with (workload_folder / "ca.crt").open("r+b") as stream:
        stream.truncate(1 << 30)

    assert "has more than 1048576 bytes" in refusal(lambda: read_workload(workload_folder))


def test_a_path_with_line_breaks_is_quoted_in_messages() -> None:
    assert shown(Path("/etc/qbitel")) == "/etc/qbitel"
    assert shown(Path("/a\nb")) == "'/a\\nb'"
    assert shown(Path("/\udcff")) == "'/\\udcff'"
