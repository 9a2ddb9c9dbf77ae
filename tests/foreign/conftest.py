"""Fixtures of the suites against other people's TLS stacks: `make interop`, or `pytest tests/foreign`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.main import main as qbitel
from tests.foreign import stacks

_HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """These suites fetch packages and take minutes: they run only when they are asked for by name."""
    asked_for = any(
        _HERE in (path := Path(config.invocation_params.dir, argument.partition("::")[0]).resolve()).parents
        or path == _HERE
        for argument in config.args
    )
    return None if asked_for else _HERE in collection_path.parents or None


@dataclass(frozen=True, slots=True)
class Mesh:
    """Folders of `qbitel ca issue`: a server, a client, and a stranger under a root of its own."""

    server: Path
    client: Path
    stranger: Path


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Mesh:
    # Without an intermediate: rustls, as this package drives it, stalls at a flight with two such certificates.
    return _issued(tmp_path_factory.mktemp("mesh"), "--root-only")


@pytest.fixture(scope="session")
def whole_mesh(tmp_path_factory: pytest.TempPathFactory) -> Mesh:
    """The same of authorities as they run: with intermediates, and with revocation lists."""
    return _issued(tmp_path_factory.mktemp("whole-mesh"))


def _issued(folder: Path, *words: str) -> Mesh:
    for authority, names in (("ca", ("server", "client")), ("other", ("stranger",))):
        assert qbitel(["ca", "init", str(folder / authority), *words]) == 0
        for name in names:
            arguments = ["--spiffe", identity(name), "--dns", "localhost", "--ip", "127.0.0.1"]
            assert qbitel(["ca", "issue", str(folder / authority), *arguments]) == 0
    return Mesh(folder / "ca" / "server", folder / "ca" / "client", folder / "other" / "stranger")


def identity(name: str) -> str:
    """The SPIFFE id of the folder `name`."""
    return f"spiffe://cluster.local/ns/interop/sa/{name}"


@pytest.fixture(scope="session")
def node() -> tuple[Path, ...]:
    return (_or_skip(stacks.node_program), _HERE / "peers" / "node_peer.js")


@pytest.fixture(scope="session")
def tlslite() -> tuple[Path, ...]:
    return (_or_skip(stacks.tlslite_python), _HERE / "peers" / "tlslite_peer.py")


@pytest.fixture(scope="session")
def rtls() -> tuple[Path, ...]:
    return (_or_skip(stacks.rtls_python), _HERE / "peers" / "rtls_peer.py")


@pytest.fixture(scope="session")
def tlsfuzzer() -> tuple[Path, ...]:
    folder = _or_skip(stacks.tlsfuzzer_folder)
    return (_or_skip(stacks.tlslite_python), _HERE / "peers" / "tlsfuzzer_driver.py", folder)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def _or_skip(program: Callable[[], Path]) -> Path:
    found = stacks.attempt(program)
    if isinstance(found, stacks.NotInstallable):
        pytest.skip(str(found))
    return found
