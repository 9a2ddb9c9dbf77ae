"""A real API server, a real injector and the authority's chore: a new certificate under a stream of new pods.

QBITEL_WEBHOOK_ADDRESS is an address of this machine at which the API server of KUBECONFIG's cluster reaches it, through
a Service whose endpoint it is. Nothing runs: pods are made by dry runs, in a namespace of their own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from certmgr.kubernetes import webhook_certificates
from kube import reconciler
from kube.client import ApiRefused, ApiUnavailable, resource
from mesh import names
from tests.certmgr.kubernetes.test_webhook_certificates import (
    AUTHORITY,
    bundles_of,
    chore,
    configuration_path,
    files_of,
    good,
    registered,
    secret_where,
    webhook_of,
)
from tests.kube.places import Where
from tests.kube.rig import Place, beside, run

ADDRESS: Final = os.environ.get("QBITEL_WEBHOOK_ADDRESS", "")
_PROGRAM: Final = "import sys; from cli.main import main; sys.exit(main())"
_PATIENCE: Final = 180.0
pytestmark = pytest.mark.skipif(
    not ADDRESS, reason="QBITEL_WEBHOOK_ADDRESS (where KUBECONFIG's API server reaches this machine) is needed"
)


def write(secret: Any, folder: Path) -> None:
    """As the kubelet does: a folder that is whole, and a link that is swapped."""
    version = folder / secret["metadata"]["resourceVersion"]
    if version.exists():
        return
    version.mkdir()
    for name, content in files_of(secret).items():
        (version / name).write_bytes(content)
    (folder / "next").symlink_to(version)
    (folder / "next").rename(folder / "now")


async def mounting(place: Place, folder: Path) -> None:
    while True:
        found = await place.find("secrets", place.namespace, names.WEBHOOK_SECRET)
        if found is not None:
            write(found, folder)
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def injector(folder: Path) -> AsyncIterator[int]:
    """The real program over what is mounted, for classic sidecars, which every cluster takes; its port."""
    flags = ["--tls-cert", str(folder / "now" / "tls.crt"), "--tls-key", str(folder / "now" / "tls.key")]
    ports = ["--listen", f"{ADDRESS}:0", "--metrics", "127.0.0.1:0", "--drain-seconds", "0"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM, "injector", "serve", "--kubernetes-version", "1.20", *flags, *ports),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    reading = None
    try:
        while not (found := re.search(rb"the webhook is on port (\d+)", line := await process.stderr.readline())):
            assert line
        reading = asyncio.create_task(process.stderr.read())
        yield int(found[1])
    finally:
        process.terminate()
        await process.wait()
        if reading is not None:
            await reading


async def lead_to(place: Place, port: int) -> None:
    """The Service that the webhook's configuration names, and this machine behind it."""
    name = webhook_of(place)
    ports = [{"name": "https", "port": 443, "targetPort": port}]
    service = {"metadata": {"name": name}, "spec": {"ports": ports}}
    await place.cluster.create(resource("services", namespace=place.namespace), service)
    subsets = [{"addresses": [{"ip": ADDRESS}], "ports": [{"name": "https", "port": port}]}]
    endpoints = {"metadata": {"name": name}, "subsets": subsets}
    await place.cluster.create(resource("endpoints", namespace=place.namespace), endpoints)


async def created(place: Place) -> bool:
    """Whether a pod that is made now is made, and with its sidecar. Raises ApiRefused, ApiUnavailable."""
    metadata = {"generateName": "web-", "labels": {"qbitel-test": place.namespace}}
    pod = {"metadata": metadata, "spec": {"containers": [{"name": "web", "image": "registry.invalid/none"}]}}
    path = resource("pods", namespace=place.namespace)
    made = await place.cluster.create(path, pod, dry_run=True, seconds=30.0)
    spec = made["spec"]
    return any(one["name"] == "qbitel-proxy" for one in [*spec["containers"], *spec.get("initContainers", ())])


async def works(place: Place) -> None:
    """Wait until pods get their sidecar."""
    while True:
        with contextlib.suppress(ApiRefused, ApiUnavailable):
            if await created(place):
                return
        await asyncio.sleep(0.1)


def shown(port: int) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((ADDRESS, port), timeout=60))


def test_no_pod_is_refused_while_the_certificate_and_its_authority_are_replaced(
    real: Where, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(reconciler, "_REVIEW_SECONDS", 0.5)
    monkeypatch.setattr(webhook_certificates, "TAKE_UP_SECONDS", 5.0)
    failures: list[str] = []
    made = 0

    async def creating(place: Place) -> None:
        nonlocal made
        while True:
            try:
                assert await created(place), "a pod was made without its sidecar"
                made += 1
            except (ApiRefused, ApiUnavailable) as error:
                failures.append(str(error))
            await asyncio.sleep(0.02)

    async def main() -> None:
        async with real() as place, contextlib.AsyncExitStack() as undo:
            path = await undo.enter_async_context(registered(place))
            body = await place.cluster.get(path)
            # For the pods of this test alone: `registered` selects them by their label.
            kept = {**body["webhooks"][0], "namespaceSelector": {}}
            await place.cluster.patch(path, {"webhooks": [kept]})
            await undo.enter_async_context(beside(chore(place).run(AUTHORITY), mounting(place, tmp_path)))
            secret = await good(place)
            while not (tmp_path / "now" / "tls.crt").exists():
                await asyncio.sleep(0.05)
            port = await undo.enter_async_context(injector(tmp_path))
            await lead_to(place, port)
            await works(place)
            async with beside(creating(place), creating(place)):
                before = await asyncio.to_thread(shown, port)
                await place.cluster.delete(
                    f"{resource('secrets', namespace=place.namespace)}/{names.WEBHOOK_SECRET}", {}
                )
                await secret_where(place, lambda found: found["data"] != secret["data"])
                while await asyncio.to_thread(shown, port) == before:
                    await asyncio.sleep(0.1)
                enough = made + 30
                while made < enough:
                    await asyncio.sleep(0.05)
            assert failures == []

            emptied = await place.cluster.get(configuration_path(place))
            emptied["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(b"").decode()
            await place.cluster.patch(path, {"webhooks": emptied["webhooks"]})
            await works(place)
            assert bundles_of(await place.cluster.get(path)) != [b""]

    run(main(), _PATIENCE)
    assert made >= 30
