"""A webhook on this machine: its certificate, as an operator's own authority would make it, and how it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import io
import ipaddress
import json
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from injector import serving as server
from injector.inject import Injector
from injector.serving import Listening
from injector.serving_certificate import ServingCertificate, ServingFiles
from injector.webhook_configuration import LABELLED_NAMESPACE_PATH
from tests.injector.rig import injector

# Longer than any loaded machine needs.
PATIENCE: Final = 60.0
LOOPBACK: Final = ipaddress.IPv4Address("127.0.0.1")


def write_certificate(folder: Path, address: ipaddress.IPv4Address | ipaddress.IPv6Address = LOOPBACK) -> ServingFiles:
    """A key and its own certificate for `address`, another pair at each call."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "webhook")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(address), x509.DNSName("localhost")]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = ServingFiles(folder / "tls.crt", folder / "tls.key")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Client:
    """Asks as the API server does."""

    def __init__(self, session: aiohttp.ClientSession, port: int, metrics_port: int, trust: ssl.SSLContext) -> None:
        self._session = session
        self.port = port
        self.metrics_port = metrics_port
        self._trust = trust

    async def ask(self, body: bytes, path: str = LABELLED_NAMESPACE_PATH, **headers: str) -> tuple[int, dict[str, Any]]:
        sent = {"Content-Type": "application/json", **headers}
        url = f"https://127.0.0.1:{self.port}{path}"
        async with self._session.post(url, data=io.BytesIO(body), headers=sent) as response:
            return response.status, json.loads(await response.read())

    async def get(self, path: str) -> tuple[int, str]:
        async with self._session.get(f"https://127.0.0.1:{self.port}{path}") as response:
            return response.status, await response.text()

    async def metrics(self) -> str:
        async with self._session.get(f"http://127.0.0.1:{self.metrics_port}/metrics") as response:
            return await response.text()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection for bytes of the test's own."""
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self._trust)


@contextlib.asynccontextmanager
async def serving(
    files: ServingFiles, one: Injector | None = None, drain_seconds: float = 0.0
) -> AsyncIterator[Client]:
    """A webhook that runs as in production, ended by a signal as in production."""
    certificate = ServingCertificate(files)
    with socket.create_server(("127.0.0.1", 0)) as sock, socket.create_server(("127.0.0.1", 0)) as metrics:
        # It is asked as soon as it listens; the task may not have run yet, and connections wait.
        running = asyncio.create_task(
            server.run(
                one or injector(),
                certificate,
                Listening([sock], [metrics]),
                now=utc_now,
                drain_seconds=drain_seconds,
            )
        )
        trust = ssl.create_default_context(cafile=files.certificate)
        connector = aiohttp.TCPConnector(ssl=trust, limit=0)
        patience = aiohttp.ClientTimeout(total=PATIENCE)
        async with aiohttp.ClientSession(connector=connector, timeout=patience) as session:
            client = Client(session, sock.getsockname()[1], metrics.getsockname()[1], trust)
            await client.get("/healthz/ready")  # now it would hear the signal
            yield client
        if not running.done():
            os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(running, PATIENCE) == 0
