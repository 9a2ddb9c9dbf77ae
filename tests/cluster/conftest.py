"""The mesh, installed once for all of these tests into the cluster that KUBECONFIG names (`make e2e`)."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import cluster
from tests.cluster.installation import Mesh, installed
from tests.cluster.workloads import HTTP_PORT, Running, Workload, nginx, start

_FOLDER = Path(__file__).parent


def _missing() -> str:
    if os.environ.get("QBITEL_E2E") != "1":
        return "installs a mesh into a cluster: `make e2e`"
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG names no cluster"
    return "" if shutil.which("kubectl") else "kubectl is not on PATH"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that want a cluster are skipped without one, and those that take the mesh away come last."""
    for item in items:
        if item.path.parent == _FOLDER and "mesh" in getattr(item, "fixturenames", ()) and (reason := _missing()):
            item.add_marker(pytest.mark.skip(reason=reason))
    items.sort(key=lambda item: item.path == _FOLDER / "test_uninstall.py")


@pytest.fixture
def saw(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line of what a test saw."""

    def say(text: str) -> None:
        print(f"\n    {request.node.name}: {text}", flush=True)

    return say


@pytest.fixture(scope="session")
def mesh() -> Iterator[Mesh]:
    """The mesh."""
    with installed() as one:
        yield one


@dataclass(frozen=True)
class Shop:
    """A namespace of the mesh with a web server and who calls it, and a stranger outside."""

    namespace: str
    web: Running
    client: Running
    outside: str
    stranger: Running


@pytest.fixture(scope="session")
def shop(mesh: Mesh) -> Iterator[Shop]:
    """What most tests look at."""
    with contextlib.ExitStack() as undo:
        inside = undo.enter_context(cluster.new_namespace("shop", qbitel_injection="enabled"))
        outside = undo.enter_context(cluster.new_namespace("outside"))
        web, client = start(inside, Workload(name="web", command=nginx(), port=HTTP_PORT), Workload(name="client"))
        (stranger,) = start(outside, Workload(name="stranger"))
        yield Shop(inside, web, client, outside, stranger)


@pytest.fixture
def namespace(mesh: Mesh, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the mesh for one test."""
    failed = request.session.testsfailed
    with cluster.new_namespace("test", qbitel_injection="enabled") as name:
        yield name
        if request.session.testsfailed > failed:
            print(cluster.diagnosis(name))


@pytest.fixture
def outside(mesh: Mesh) -> Iterator[str]:
    """A namespace without the mesh for one test."""
    with cluster.new_namespace("outside") as name:
        yield name
