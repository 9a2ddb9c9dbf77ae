"""What is found of this machine and its certificates."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

import pytest

from certmgr.authority import WorkloadRequest, create_root, issue_workload
from certmgr.files import write_workload
from cli.checks import machine as check
from cli.checks.findings import Finding, Status
from cli.checks.machine import Subject
from mesh.spiffe import SpiffeId

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
HERE = Subject(None, os.environ, NOW)


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    """A folder whose certificate is valid for ten hours from NOW."""
    folder = tmp_path_factory.mktemp("certs") / "web"
    root = create_root("CN=root", NOW)
    request = WorkloadRequest(
        spiffe_id=SpiffeId.parse("spiffe://cluster.local/ns/a/sa/web"), validity=datetime.timedelta(hours=10)
    )
    write_workload(folder, issue_workload(request, root, NOW), [root.certificate])
    return folder


@pytest.fixture
def certs(issued, tmp_path) -> Path:
    return Path(shutil.copytree(issued, tmp_path / "certs"))


def looked_at(certs: Path, **later: float) -> Finding:
    return check.check_certificates(Subject(certs, {}, NOW + datetime.timedelta(**later)))


def test_an_old_python_fails(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 9))
    assert check.check_python(HERE).status is Status.FAILURE


def test_a_uvloop_that_cannot_be_loaded_fails(monkeypatch):
    monkeypatch.setitem(sys.modules, "proxy.loop", None)
    monkeypatch.delattr("proxy.loop", raising=False)
    found = check.check_uvloop(HERE)
    assert found.status is Status.FAILURE
    assert "uvloop" in found.fix


@pytest.mark.parametrize(("version", "word"), [("49.0.1", "too old"), (None, "not installed")])
def test_a_cryptography_that_is_old_or_missing_fails(monkeypatch, version, word):
    def asked(_name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError
        return version

    monkeypatch.setattr(importlib.metadata, "version", asked)
    found = check.check_cryptography(HERE)
    assert found.status is Status.FAILURE
    assert word in found.detail
    assert "cryptography>=50" in found.fix


def test_a_cryptography_without_the_algorithms_fails(monkeypatch):
    from cryptography.exceptions import UnsupportedAlgorithm

    def lacking(*_arguments):
        raise UnsupportedAlgorithm("ML-DSA is not supported by this OpenSSL")

    monkeypatch.setattr("certmgr.authority.create_root", lacking)
    found = check.check_cryptography(HERE)
    assert found.status is Status.FAILURE
    assert "lacks ML-KEM-1024 or ML-DSA-87" in found.detail


def test_a_missing_liboqs_is_one_line_and_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("ctypes.util.find_library", lambda _name: None)
    found = check.check_liboqs(dataclasses.replace(HERE, environment={"HOME": str(tmp_path)}))
    assert found.status is Status.WARNING
    assert "optional" in found.fix
    assert "\n" not in found.detail
    assert list(tmp_path.iterdir()) == []


def test_without_iptables_interception_is_what_one_goes_without(monkeypatch):
    monkeypatch.setattr("init.backend.find_filters", lambda: ())
    found = check.check_iptables(HERE)
    assert (found.status, found.detail) == (Status.WARNING, "iptables is not installed")


@pytest.mark.parametrize(("there", "word"), [(True, "Operation not permitted"), (False, "cannot be tried")])
def test_no_permission_for_namespaces_is_a_warning(monkeypatch, tmp_path, there, word):
    unshare = tmp_path / "unshare"
    if there:
        unshare.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
        unshare.chmod(0o755)
        (tmp_path / "true").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check.check_namespaces(HERE)
    assert found.status is Status.WARNING
    assert word in found.detail


def test_good_certificates_pass_and_say_how_long_they_last(certs):
    found = looked_at(certs)
    assert found.status is Status.PASS
    assert found.detail == "spiffe://cluster.local/ns/a/sa/web, matches its key and roots, valid for 10.0 hours more"


def test_certificates_about_to_expire_are_a_warning(certs):
    found = looked_at(certs, hours=9.5)
    assert found.status is Status.WARNING
    assert "30" in found.detail or "0.5 hours" in found.detail
    assert "qbitel ca issue" in found.fix


def test_expired_certificates_fail(certs):
    found = looked_at(certs, hours=11)
    assert found.status is Status.FAILURE
    assert "peers would refuse it: our certificate" in found.detail


def test_certificates_of_a_root_that_is_not_in_the_folder_fail(certs):
    (certs / "ca.crt").write_bytes(create_root("CN=other", NOW).certificate_pem)
    found = looked_at(certs)
    assert found.status is Status.FAILURE
    assert "no root that we trust made it" in found.detail


def test_a_key_that_is_another_certificates_fails_and_is_not_shown(certs):
    (certs / "tls.key").write_bytes(create_root("CN=other", NOW).private_key_pem)
    found = looked_at(certs)
    assert found.status is Status.FAILURE
    assert "does not belong to" in found.detail
    assert "PRIVATE" not in found.detail


def test_without_a_folder_certificates_are_skipped():
    assert check.check_certificates(HERE).status is Status.SKIPPED


@pytest.mark.parametrize(
    ("modules", "status", "word"),
    [
        ([], Status.WARNING, "none of"),
        (["nf_conntrack"], Status.WARNING, "nf_nat, xt_REDIRECT or nft_redir"),
        (["nf_conntrack", "nf_nat", "nft_redir"], Status.PASS, "nft_redir"),
    ],
)
def test_what_the_kernel_has_of_a_packet_filter_is_told(tmp_path, modules, status, word):
    for module in modules:
        (tmp_path / "sys/module" / module).mkdir(parents=True)
    found = check.check_kernel_modules(dataclasses.replace(HERE, root=tmp_path))
    assert found.status is status
    assert word in found.detail


def test_what_is_built_into_the_kernel_counts(tmp_path):
    folder = tmp_path / "lib/modules" / platform.release()
    folder.mkdir(parents=True)
    built_in = [f"kernel/net/netfilter/{one}.ko" for one in ("nf_conntrack", "nf_nat", "xt_REDIRECT")]
    (folder / "modules.builtin").write_text("\n".join(built_in))
    assert check.check_kernel_modules(dataclasses.replace(HERE, root=tmp_path)).status is Status.PASS
