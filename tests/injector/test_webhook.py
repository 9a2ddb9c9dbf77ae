"""The webhook over real TLS, asked as the API server asks."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from injector import webhook
from injector.inject import Injector
from injector.webhook import LARGEST_REVIEW, ServingCertificate, ServingFiles
from injector.webhook_configuration import LABELLED_NAMESPACE_PATH, LABELLED_POD_PATH
from mesh.errors import UserError
from tests.injector.rig import injector, pod
from tests.injector.serving import write_certificate
from tests.injector.test_review import review

# Longer than any loaded machine needs.
PATIENCE = aiohttp.ClientTimeout(total=60)


@pytest.fixture
def files(tmp_path: Path) -> ServingFiles:
    return write_certificate(tmp_path)


class Client:
    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address

    async def ask(self, body: bytes, path: str = LABELLED_NAMESPACE_PATH, **headers: str) -> tuple[int, dict[str, Any]]:
        sent = {"Content-Type": "application/json", **headers}
        async with self._session.post(f"{self._address}{path}", data=io.BytesIO(body), headers=sent) as response:
            return response.status, json.loads(await response.read())

    async def get(self, path: str) -> tuple[int, str]:
        async with self._session.get(f"{self._address}{path}") as response:
            return response.status, await response.text()


@contextlib.asynccontextmanager
async def serving(files: ServingFiles, one: Injector | None = None) -> AsyncIterator[Client]:
    """A webhook that runs as in production, ended by a signal as in production."""
    certificate = ServingCertificate(files)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        running = asyncio.create_task(webhook.run(one or injector(), certificate, [sock]))
        trust = ssl.create_default_context(cafile=files.certificate)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust), timeout=PATIENCE) as session:
            yield Client(session, f"https://127.0.0.1:{sock.getsockname()[1]}")
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(running, 60) == 0


async def asked(
    files: ServingFiles, body: bytes, path: str = LABELLED_NAMESPACE_PATH, **headers: str
) -> tuple[int, Any]:
    async with serving(files) as client:
        # Taken as soon as it listens; the task may not have run yet.
        return await client.ask(body, path, **headers)


WHOLE = json.dumps(review(pod())).encode()


def test_a_pod_of_a_labelled_namespace_gets_its_patch(files: ServingFiles) -> None:
    status, answer = asyncio.run(asked(files, WHOLE))

    assert (status, answer["response"]["allowed"], answer["response"]["patchType"]) == (200, True, "JSONPatch")


def test_the_path_says_what_the_api_server_has_found(files: ServingFiles) -> None:
    _, answer = asyncio.run(asked(files, WHOLE, LABELLED_POD_PATH))

    assert "patch" not in answer["response"]


def test_ten_megabytes_are_refused_in_kubernetes_own_words(files: ServingFiles) -> None:
    status, answer = asyncio.run(asked(files, b" " * (10 << 20)))

    assert (status, answer["kind"], answer["reason"]) == (413, "Status", "RequestEntityTooLarge")


def test_the_largest_review_that_may_come_is_answered(files: ServingFiles) -> None:
    status, answer = asyncio.run(asked(files, WHOLE + b" " * (LARGEST_REVIEW - len(WHOLE))))

    assert (status, answer["response"]["allowed"]) == (200, True)


@pytest.mark.parametrize("kind", ["text/plain", "application/yaml", ""])
def test_another_content_type_is_refused(files: ServingFiles, kind: str) -> None:
    status, answer = asyncio.run(asked(files, WHOLE, **{"Content-Type": kind}))

    assert (status, answer["kind"]) == (415, "Status")


@pytest.mark.parametrize(("path", "expected"), [("/", 404), ("/inject", 404), ("/healthz/ready", 405)])
def test_another_path_or_method_is_refused(files: ServingFiles, path: str, expected: int) -> None:
    status, answer = asyncio.run(asked(files, WHOLE, path))

    assert (status, answer["kind"]) == (expected, "Status")


def test_garbage_and_a_bug_of_ours_refuse_the_pod_and_the_next_review_is_answered(
    files: ServingFiles, caplog: pytest.LogCaptureFixture
) -> None:
    fails = [True, False]

    def script(_: object) -> str:
        if fails.pop(0):
            raise ZeroDivisionError
        return "rules"

    sound = injector()
    broken = Injector(config=sound.config, render_script=script, version="0")

    async def talk() -> list[tuple[int, Any]]:
        async with serving(files, broken) as client:
            return [await client.ask(body) for body in (b"{", WHOLE, WHOLE)]

    with caplog.at_level(logging.INFO, logger="qbitel.injector"):
        garbage, bug, good = asyncio.run(talk())

    assert (garbage[0], garbage[1]["kind"]) == (400, "Status")
    assert (bug[0], bug[1]["kind"]) == (500, "Status")
    assert (good[0], good[1]["response"]["allowed"]) == (200, True)
    assert "a bug kept a review from being answered" in caplog.text
    assert "injected shop/web" in caplog.text


def test_the_kubelet_finds_it_alive_and_ready(files: ServingFiles) -> None:
    async def talk() -> list[tuple[int, str]]:
        async with serving(files) as client:
            return [await client.get("/healthz/live"), await client.get("/healthz/ready")]

    assert asyncio.run(talk()) == [(200, "ok\n"), (200, "ok\n")]


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


def test_nothing_older_than_tls_1_3_is_spoken(files: ServingFiles) -> None:
    assert ServingCertificate(files).context.minimum_version is ssl.TLSVersion.TLSv1_3
