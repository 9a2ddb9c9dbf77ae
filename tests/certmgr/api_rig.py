"""The API over real sockets and real TLS, with whatever authority stands behind it, and clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import io
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

import aiotls
from certmgr import wire
from certmgr.api import Api
from certmgr.authority import CertificateAndKey
from certmgr.connections import terms_of
from certmgr.https import MeshSite, TlsConfigs
from certmgr.metrics import Metrics
from certmgr.proofs import Method, ProvenIdentity, Reason, Refused
from certmgr.refusals import Refusals
from httpd.connection_table import ConnectionTable
from mesh import names
from pqtls import PROFILES, ClientConfig, Credential, TrustAnchors
from tests.certmgr.stand_in import StandIn, utc_now, workload_id
from tests.support.running import PATIENCE, run, until

__all__ = ["PATIENCE", "run", "until"]

QBITEL = (PROFILES["qbitel"],)


class Tokens:
    """A verifier of tokens that are the names of workloads; two of them are told apart by what is wrong with them."""

    def __init__(self) -> None:
        self.hold: asyncio.Event | None = None
        self.asked = 0

    async def identify(self, token: str) -> ProvenIdentity:
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        match token:
            case "expired":
                raise Refused(Reason.TOKEN_EXPIRED, "the token has expired")
            case "audience":
                raise Refused(Reason.TOKEN_AUDIENCE, "the token is for another audience than qbitel")
        return ProvenIdentity(spiffe_id=workload_id(token), method=Method.TOKEN, instance=f"pod-of-{token}")


class MeshConnector(aiohttp.BaseConnector):
    """Where an aiohttp client's connections come from."""

    def __init__(self, port: int, config: ClientConfig) -> None:
        super().__init__()
        self._port = port
        self._config = config

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> ResponseHandler:
        loop = asyncio.get_running_loop()
        _, protocol = await aiotls.create_connection(
            lambda: ResponseHandler(loop), "127.0.0.1", self._port, self._config
        )
        return protocol


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        return self.status, self.json["error"]


@dataclass
class Rig:
    """A running API."""

    service: Any
    port: int
    api: Api
    metrics: Metrics
    tokens: Tokens
    identified: ConnectionTable
    anonymous: ConnectionTable
    site: Any = None
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def config(self, workload: CertificateAndKey | None = None, **changes: Any) -> ClientConfig:
        credential = None
        if workload is not None:
            credential = Credential.from_pem(workload.certificate_pem, workload.private_key_pem)
        trust = TrustAnchors.from_pem(self.service.bundle().files[names.ROOTS_FILE])
        return ClientConfig(credential=credential, trust=trust, now=utc_now, profiles=QBITEL, **changes)

    def client(self, workload: CertificateAndKey | None = None) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            f"http://127.0.0.1:{self.port}", connector=MeshConnector(self.port, self.config(workload))
        )
        self.sessions.append(session)
        return session

    async def ask(
        self,
        method: str,
        path: str,
        *,
        workload: CertificateAndKey | None = None,
        client: aiohttp.ClientSession | None = None,
        token: str = "",
        bootstrap: str = "",
        body: Any = None,
        headers: Any = None,
    ) -> Answer:
        headers = dict(headers or {})
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if bootstrap:
            headers["Authorization"] = f"Bootstrap {bootstrap}"
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        if isinstance(body, bytes):
            body = io.BytesIO(body)  # aiohttp warns of large bodies that are bytes
        async with (client or self.client(workload)).request(method, path, data=body, headers=headers) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def certificate(self, body: Any = None, **proof: Any) -> Answer:
        return await self.ask("POST", "/v1/certificates", body={"csr": make_csr()} if body is None else body, **proof)

    async def raw(self, config: ClientConfig | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TLS connection that speaks whatever the test writes."""
        reader, writer = await aiotls.open_connection("127.0.0.1", self.port, config or self.config())
        self.writers.append(writer)
        return reader, writer

    def count(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def rig(
    service: Any = None, *, max_connections: int = 100, per_source: int = 100, **options: Any
) -> AsyncIterator[Rig]:
    """Serve until the end of the block."""
    service = service or StandIn()
    metrics, tokens = Metrics(), Tokens()
    refusals = Refusals(
        metrics, lambda refused, method, source: service.note_refusal(refused, method=method, source=source)
    )
    api = Api(service, tokens, metrics, refusals, utc_now, **options)
    identified, anonymous = (ConnectionTable(max_connections, per_source) for _ in range(2))
    terms = terms_of(identified, anonymous, utc_now, lambda refused, source: refusals.of_request(refused, None, source))
    writing = asyncio.create_task(refusals.run())
    runner = web.AppRunner(api.application(), shutdown_timeout=PATIENCE)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    site = MeshSite(runner, sock, terms, TlsConfigs(service, QBITEL, utc_now), refusals.of_connection)
    await site.start()
    made = Rig(service, sock.getsockname()[1], api, metrics, tokens, identified, anonymous, site)
    try:
        yield made
    finally:
        for session in made.sessions:
            await session.close()
        for writer in made.writers:
            writer.transport.abort()
        api.drain()
        await runner.cleanup()
        await site.farewell()
        await asyncio.gather(*(writer.wait_closed() for writer in made.writers), return_exceptions=True)
        refusals.close()
        await writing


def make_csr(key: Any = None, *extensions: x509.ExtensionType) -> str:
    """A CSR that names nobody, unless told to, in PEM."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key or MLDSA87PrivateKey.generate(), None).public_bytes(Encoding.PEM).decode()


def stamp(seconds: float = 0) -> str:
    """The present, or so many seconds from it, as a request says it."""
    return wire.timestamp(utc_now() + datetime.timedelta(seconds=seconds))
