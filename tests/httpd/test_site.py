"""Where connections come from: in the clear, over TLS, and the address as a person writes it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from httpd.connection import Limits, Terms
from httpd.connection_table import ConnectionTable
from httpd.site import Site, address_of
from tests.httpd.rig import ASK, PATIENCE, Errors, run, served
from tests.injector.serving import write_certificate


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's, and that of a client which trusts it."""
    files = write_certificate(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    return context, ssl.create_default_context(cafile=files.certificate)


def test_over_tls_where_there_is_a_context(tmp_path: Path) -> None:
    context, trust = contexts(tmp_path)

    async def main() -> None:
        async with served(context=context, handshake_seconds=PATIENCE) as made:
            await made.open()
            reader, writer = await made.open(trust)
            writer.write(ASK)
            await reader.readuntil(b"hello")
            assert len(made.table) == 1, "who makes no handshake is no connection yet"

    run(main())


def test_a_handshake_that_never_comes_is_given_up(tmp_path: Path) -> None:
    context, _ = contexts(tmp_path)

    async def main() -> None:
        async with served(context=context, handshake_seconds=0.2) as made:
            silent, _ = await made.open()
            assert await silent.read() == b""

    run(main())


def test_after_its_end_the_port_is_free() -> None:
    async def main() -> None:
        async with served() as made:
            assert made.site.name == f"127.0.0.1:{made.port}"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", made.port)

    run(main())


def test_a_runner_that_is_not_set_up_makes_no_connections() -> None:
    async def main() -> None:
        table = ConnectionTable(1)
        terms = Terms(Limits(idle_seconds=1.0), Errors(), lambda _transport: table)
        runner = web.AppRunner(web.Application())
        await runner.setup()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            site = Site(runner, sock, terms)
            await runner.cleanup()
            with pytest.raises(RuntimeError, match="not set up"):
                site.make_protocol()

    run(main())


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]")])
def test_an_address_is_shown_as_a_person_writes_it(family: socket.AddressFamily, host: str) -> None:
    try:
        sock = socket.create_server((host.strip("[]"), 0), family=family)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with sock:
        assert address_of(sock) == f"{host}:{sock.getsockname()[1]}"
