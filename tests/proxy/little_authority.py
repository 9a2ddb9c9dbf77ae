"""An authority that speaks the API of ADR 12 over real TLS, in a thread, and misbehaves when a test asks it to."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import aiotls
from certmgr.authority import sign_certificate
from certmgr.profiles import BACKDATE, key_identifier, workload_extensions
from mesh.anchors import anchors_of
from mesh.spiffe import SpiffeId
from pqtls import Credential, ServerConfig, TrustAnchors
from pqtls.config import ClientAuthentication
from tests.support import pki

DOMAIN = "cluster.local"
DAY = datetime.timedelta(days=1)


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Generation:
    """A root and the intermediate under it."""

    def __init__(self, name: str) -> None:
        dates = {"not_before": utc_now() - 400 * DAY, "not_after": utc_now() + 400 * DAY}
        self.name = name
        self.root = pki.make_certificate(issuer=None, subject=f"{name} root", is_ca=True, path_length=1, **dates)
        self.intermediate = pki.make_certificate(
            issuer=self.root, subject=f"{name} intermediate", is_ca=True, path_length=0, **dates
        )


class LittleAuthority:
    """Tests may change `generations` (the `signer` signs), `tokens`, `revoked`, `validity` and `broken` while it runs.

    `publish()` makes a change known to those who wait. `asked` and `acknowledged` are what sidecars said.
    """

    def __init__(self, now: Callable[[], datetime.datetime] = utc_now) -> None:
        self.now = now
        self.generations = [Generation("first")]
        self.signer = self.generations[0]
        self.round = 0
        self.server_identity = str(SpiffeId.of_authority(DOMAIN))
        self.server_generation = self.signer
        self.tokens = {"Bearer web-token": "web", "Bearer api-token": "api"}
        self.one_time = {"Bootstrap once": "web"}
        self.validity = DAY
        self.revoked: list[x509.Certificate] = []
        self.publishes_lists = True
        self.lists_signed = 0  # a number that changes when they are signed anew
        self.asked: list[dict[str, Any]] = []
        self.issued: dict[str, list[x509.Certificate]] = {}
        self.acknowledged: list[tuple[str, str, str]] = []
        self.polls = 0
        self.polled_with: list[bytes] = []  # certificates, b"" for none
        self.connections = 0
        # Given the path and the answer that is right, what is answered instead.
        self.broken: Callable[[str, web.Response], web.Response | Awaitable[web.Response]] | None = None
        self.port = 0
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- what it signs ------------------------------------------------------------------------------------------

    def sign(self, public_key: Any, name: str, *, issuer: pki.Issued | None = None) -> x509.Certificate:
        authority = issuer or self.signer.intermediate
        moment = self.now().replace(microsecond=0)
        identity = name if "://" in name else f"spiffe://{DOMAIN}/ns/default/sa/{name}"
        return sign_certificate(
            subject=x509.Name([]),
            issuer=authority.certificate.subject,
            public_key=public_key,
            not_before=moment - BACKDATE,
            not_after=moment + self.validity,
            extensions=workload_extensions(
                public_key,
                key_identifier(authority.certificate.public_key()),  # type: ignore[arg-type]
                [x509.UniformResourceIdentifier(identity)],
                subject_is_empty=True,
            ),
            signing_key=authority.key,
        )

    def pem_files(self) -> dict[str, str]:
        roots = b"".join(one.root.certificate_pem for one in self.generations)
        intermediates = b"".join(one.intermediate.certificate_pem for one in self.generations)
        files = {"ca.crt": roots, "intermediates.crt": intermediates}
        if self.publishes_lists:
            files["crl.pem"] = b"".join(self._list_of(one.intermediate) for one in self.generations)
        return {name: content.decode("ascii") for name, content in files.items()}

    def _list_of(self, authority: pki.Issued) -> bytes:
        now = self.now().replace(microsecond=0)
        builder = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
        builder = builder.last_update(now).next_update(now + DAY / 24)
        builder = builder.add_extension(x509.CRLNumber(1 + self.lists_signed + len(self.revoked)), critical=False)
        for one in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(authority.key, None).public_bytes(Encoding.PEM)

    @property
    def etag(self) -> str:
        lists = [one.serial_number for one in self.revoked] if self.publishes_lists else None
        facts = (self.signer.name, lists, self.anchors, self.lists_signed)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def bundle(self) -> dict[str, Any]:
        return {
            "files": self.pem_files(),
            "anchors": self.anchors,
            "etag": self.etag,
            "generation": self.signer.name,
            "round": self.round,
            "time": self.now().isoformat(),
        }

    @property
    def anchors(self) -> str:
        return anchors_of(self.round, [one.root.der for one in self.generations])

    def write_roots(self, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "ca.crt").write_bytes(b"".join(one.root.certificate_pem for one in self.generations))
        return folder

    # -- its API ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self, port: int = 0) -> Iterator[LittleAuthority]:
        """Serve in a thread of its own until the end of the block."""
        started, failure = threading.Event(), []

        def serve() -> None:
            try:
                asyncio.run(self._serve(started, port))
            except BaseException as error:  # noqa: BLE001  # told to the test
                failure.append(error)
                started.set()

        thread = threading.Thread(target=serve)
        thread.start()
        started.wait()
        if failure:
            raise failure[0]
        try:
            yield self
        finally:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._end.set)
            thread.join()
            self._loop = None

    async def _serve(self, started: threading.Event, port: int) -> None:
        self._loop, self._end, self._news = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        application = web.Application(middlewares=[self._misbehave])
        application.add_routes(
            [
                web.post("/v1/certificates", self._on_certificates),
                web.post("/v1/acknowledgements", self._on_acknowledgements),
                web.get("/v1/bundle", self._on_bundle),
            ]
        )
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
        await runner.setup()
        assert runner.server is not None
        server = await aiotls.create_server(
            runner.server, "127.0.0.1", port, self._config, on_handshake_failure=lambda *_: None
        )
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._end.wait()
        server.close()
        server.abort_clients()
        await runner.cleanup()

    def publish(self) -> None:
        """Answer those who wait for news."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _config(self) -> ServerConfig:
        self.connections += 1
        key = pki.mldsa.MLDSA87PrivateKey.generate()
        generation = self.server_generation
        leaf = self.sign(key.public_key(), self.server_identity, issuer=generation.intermediate)
        chain = leaf.public_bytes(Encoding.PEM) + generation.intermediate.certificate_pem
        files = self.pem_files()
        return ServerConfig(
            credential=Credential.from_pem(chain, pki.Issued(leaf, key).key_pem),
            trust=TrustAnchors.from_pem(
                files["ca.crt"].encode(),
                intermediates=files["intermediates.crt"].encode(),
                crls=files.get("crl.pem", "").encode(),
            ),
            now=self.now,
            client_authentication=ClientAuthentication.OPTIONAL,
        )

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: Any) -> web.StreamResponse:
        answer = await handler(request)
        if self.broken is None:
            return answer
        instead = self.broken(request.path, answer)
        return instead if isinstance(instead, web.StreamResponse) else await instead

    async def _on_certificates(self, request: web.Request) -> web.Response:
        body = await request.json()
        proof = request.headers.get("Authorization", "")
        peer = request.get_extra_info("peer_identity")
        self.asked.append({"proof": proof or peer, **body})
        name = self.tokens.get(proof) or self.one_time.pop(proof, None) or peer
        if not name:
            return refusal(401, "no_proof", "prove who you are")
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        assert csr.is_signature_valid
        leaf = self.sign(csr.public_key(), name)
        self.issued.setdefault(f"spiffe://{DOMAIN}/ns/default/sa/{name.rpartition('/')[2]}", []).append(leaf)
        chain = leaf.public_bytes(Encoding.PEM) + self.signer.intermediate.certificate_pem
        return web.json_response(
            {
                "certificate": chain.decode("ascii"),
                "identity": name,
                "generation": self.signer.name,
                "not_before": leaf.not_valid_before_utc.isoformat(),
                "not_after": leaf.not_valid_after_utc.isoformat(),
                "bundle": self.bundle(),
                "time": self.now().isoformat(),
            },
            status=201,
        )

    async def _on_acknowledgements(self, request: web.Request) -> web.Response:
        body = await request.json()
        peer = request.get_extra_info("peer_identity")
        if not peer:
            return refusal(401, "no_proof", "show a certificate")
        self.acknowledged.append((peer, body["instance"], body["anchors"]))
        return web.Response(status=204)

    async def _on_bundle(self, request: web.Request) -> web.Response:
        self.polled_with.append(request.get_extra_info("peer_certificate") or b"")
        known = {one.value for one in request.if_none_match or ()}
        if known:
            self.polls += 1
        if self.etag in known:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(float(request.headers["Prefer"].removeprefix("wait="))):
                    await self._news.wait()
        bundle = self.bundle()
        if bundle["etag"] in known:
            return web.Response(status=304)
        return web.json_response(bundle)


def refusal(status: int, error: str, message: str, **headers: str) -> web.Response:
    document = {"error": error, "message": message, "time": utc_now().isoformat()}
    return web.json_response(document, status=status, headers=headers)
