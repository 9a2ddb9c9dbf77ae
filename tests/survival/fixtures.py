"""What the tests of survival share, whether they run in full or short."""

from __future__ import annotations

import os
import resource
import shutil

import pytest

from tests.survival.mesh import Mesh


@pytest.fixture
def folders(tmp_path, pki):
    """The certificate folders of the two sidecars, which a test may change."""
    for name in ("web", "api"):
        shutil.copytree(pki.base / name, tmp_path / "certs" / name)
    return tmp_path / "certs"


@pytest.fixture
def mesh(qbitel, folders):
    """Start a mesh that leads to the port `target`; `both`, `outbound` and `inbound` are further words for them."""

    def start(target: int, *both: object, outbound: tuple = (), inbound: tuple = (), **options) -> Mesh:
        common = ("--no-capture", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0", *both)
        server = qbitel(
            "proxy", *common, *inbound, "--certs", folders / "api",
            "--explicit-inbound", f"127.0.0.1:0=127.0.0.1:{target}", **options,
        )  # fmt: skip
        client = qbitel(
            "proxy", *common, *outbound, "--certs", folders / "web",
            "--explicit-outbound", f"127.0.0.1:0=127.0.0.1:{server.port('inbound')}", **options,
        )  # fmt: skip
        return Mesh(client, server)

    return start


@pytest.fixture
def many_descriptors():
    """As many descriptors for this process as it may have: the applications of a whole test live in it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def saw(request):
    """Print a line of what a test saw, for whoever runs it with -s."""

    def say(text: str) -> None:
        print(f"\n    {request.node.name}: {text}", flush=True)

    return say


@pytest.fixture
def needs_root():
    """Skip where network namespaces and mounts are out of reach."""
    if os.geteuid() != 0:
        pytest.skip("needs root on Linux: it makes namespaces")
