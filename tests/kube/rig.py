"""Where the tests of this folder run: against the stand-in, and a real API server where KUBECONFIG names one."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import secrets
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kube.client import ApiRefused, Cluster, connect, resource
from mesh.names import CONTROL_NAMESPACE
from tests.kube.stand_in_server import StandInServer, stand_in_server
from tests.support.running import PATIENCE, run, until

__all__ = ["PATIENCE", "run", "until"]


@contextlib.asynccontextmanager
async def beside(*tasks: Coroutine[Any, Any, Any]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Run `tasks` beside the body; one that fails makes the test fail."""
    running = [asyncio.ensure_future(task) for task in tasks]
    try:
        yield running
    finally:
        for task in running:
            task.cancel()
        for outcome in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass
class Place:
    """A cluster, a namespace of it and a folder that are the test's alone, and the stand-in where it is that."""

    cluster: Cluster
    namespace: str
    kubeconfig: str
    folder: Path
    server: StandInServer | None = None

    @property
    def stand_in(self) -> StandInServer:
        assert self.server is not None
        return self.server

    async def new_namespace(self, **labels: str) -> str:
        """Make one more, with these labels ('_' for '-')."""
        name = f"qbitel-test-{secrets.token_hex(4)}"
        metadata = {"name": name, "labels": {label.replace("_", "-"): value for label, value in labels.items()}}
        await self.cluster.create(resource("namespaces"), {"metadata": metadata})
        return name

    async def find(self, plural: str, namespace: str, name: str) -> Any:
        """An object, or None."""
        try:
            return await self.cluster.get(resource(plural, namespace=namespace, name=name))
        except ApiRefused as error:
            assert error.status == 404, error
            return None


def kubeconfig_file(folder: Path, port: int) -> str:
    """A kubeconfig for the stand-in. YAML takes JSON."""
    path = folder / f"kubeconfig-{port}"
    cluster = {"name": "stand-in", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    user = {"name": "tester", "user": {"token": "secret-of-the-tester"}}
    context = {"name": "tests", "context": {"cluster": "stand-in", "user": "tester"}}
    path.write_text(
        json.dumps({"clusters": [cluster], "users": [user], "contexts": [context], "current-context": "tests"})
    )
    return str(path)


@contextlib.asynccontextmanager
async def stand_in(folder: Path) -> AsyncIterator[Place]:
    async with stand_in_server() as server:
        kubeconfig = kubeconfig_file(folder, server.port)
        async with connect(kubeconfig) as cluster:
            yield Place(cluster, "qbitel-test", kubeconfig, folder, server)


@contextlib.asynccontextmanager
async def real_cluster(folder: Path) -> AsyncIterator[Place]:
    """The cluster that KUBECONFIG names, with namespaces that are deleted at the end."""
    kubeconfig = needs_cluster()
    async with connect(kubeconfig) as cluster:
        place = Place(cluster, "", kubeconfig, folder)
        if await place.find("secrets", CONTROL_NAMESPACE, "qbitel-authority"):
            pytest.skip("the cluster of KUBECONFIG runs an authority, whose work these tests would disturb")
        made: list[str] = []
        new_namespace = place.new_namespace

        async def remembered(**labels: str) -> str:
            made.append(await new_namespace(**labels))
            return made[-1]

        place.new_namespace = remembered  # type: ignore[method-assign]
        try:
            place.namespace = await place.new_namespace()
            yield place
        finally:
            for namespace in made:
                await cluster.delete(resource("namespaces", name=namespace), {})


def needs_cluster() -> str:
    """The kubeconfig of KUBECONFIG; the test is skipped where there is none."""
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if not kubeconfig:
        pytest.skip("KUBECONFIG names no cluster (make test-cluster)")
    return kubeconfig
