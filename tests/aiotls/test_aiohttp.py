"""aiohttp, server and client, over our TLS: what a program that wants both has to write, and that it works."""

from __future__ import annotations

import asyncio
import hashlib
import io
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_proto import ResponseHandler

import aiotls
from pqtls import Alert, AlertReceived, ClientConfig
from tests.aiotls.conftest import Run
from tests.support import pki

MIB = 2**20


class MeshConnector(aiohttp.BaseConnector):
    """Where an aiohttp client's connections come from: ours, one handshake for any number of requests."""

    def __init__(self, config: ClientConfig) -> None:
        super().__init__()
        self._config = config

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: Any, timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        try:
            _, protocol = await aiotls.create_connection(self._factory, req.url.host, req.url.port, self._config)
        except OSError as error:
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        return protocol


class MeshSite(web.BaseSite):
    """Where an aiohttp server's connections come from; `port` is known once it is started."""

    def __init__(self, runner: web.BaseRunner[Any], config: Any) -> None:
        super().__init__(runner)
        self._config = config

    @property
    def port(self) -> int:
        assert isinstance(self._server, aiotls.TlsServer)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def name(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def start(self) -> None:
        await super().start()
        assert self._runner.server is not None
        self._server = await aiotls.create_server(  # type: ignore[assignment]  # aiohttp only closes it
            self._runner.server, "127.0.0.1", 0, self._config
        )


async def whoami(request: web.Request) -> web.Response:
    return web.json_response({"you": request.get_extra_info("peer_identity"), "remote": request.remote})


async def checksum(request: web.Request) -> web.Response:
    digest = hashlib.sha256()
    async for chunk in request.content.iter_any():
        digest.update(chunk)
    return web.Response(text=digest.hexdigest())


async def echo_messages(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data[::-1])
    return socket


def application(folder: Path) -> web.Application:
    app = web.Application(client_max_size=256 * MIB)
    app.add_routes([web.get("/whoami", whoami), web.post("/checksum", checksum), web.get("/messages", echo_messages)])
    app.add_routes([web.static("/files", folder)])
    return app


def test_requests_of_all_kinds_and_the_identity_of_who_made_them(run: Run, tmp_path: Path) -> None:
    body = bytes(range(256)) * (16 * MIB // 256)
    (tmp_path / "file").write_bytes(body)

    async def main() -> None:
        runner = web.AppRunner(application(tmp_path))
        await runner.setup()
        site = MeshSite(runner, pki.server_config)
        await site.start()
        async with aiohttp.ClientSession(site.name, connector=MeshConnector(pki.client_config())) as session:
            for _ in range(20):
                async with session.get("/whoami") as answer:
                    assert await answer.json() == {"you": pki.identity("client"), "remote": "127.0.0.1"}
            async with session.post("/checksum", data=io.BytesIO(body)) as answer:
                assert await answer.text() == hashlib.sha256(body).hexdigest()
            async with session.get("/files/file") as answer:
                assert await answer.read() == body
            async with session.ws_connect("/messages") as messages:
                await messages.send_str("drawer")
                assert (await messages.receive()).data == "reward"
            answers = await asyncio.gather(*(session.get("/whoami") for _ in range(30)))
            for answer in answers:
                assert answer.status == 200
                answer.release()
        await runner.cleanup()

    run(main())


def test_a_client_that_is_not_of_the_mesh_gets_no_answer_but_a_reason(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        runner = web.AppRunner(application(tmp_path))
        await runner.setup()
        site = MeshSite(runner, pki.server_config)
        await site.start()
        config = pki.client_config(credential=pki.credential(pki.leaf("client", "Another Root")))
        async with aiohttp.ClientSession(site.name, connector=MeshConnector(config)) as session:
            with pytest.raises((aiohttp.ClientError, aiotls.PeerFailed)) as refused:
                await session.get("/whoami")
            causes: list[BaseException] = [refused.value]
            while (cause := causes[-1].__cause__) is not None:
                causes.append(cause)
            alerts = [cause.alert for cause in causes if isinstance(cause, AlertReceived)]
            alerts += [cause.peer_error.alert for cause in causes if isinstance(cause, aiotls.PeerFailed)]
            assert Alert.UNKNOWN_CA in alerts
        config = pki.client_config(trust=pki.trust(pki.root("Another Root")))
        async with aiohttp.ClientSession(site.name, connector=MeshConnector(config)) as session:
            with pytest.raises(aiohttp.ClientConnectorError, match="root"):
                await session.get("/whoami")
        await runner.cleanup()

    run(main())
