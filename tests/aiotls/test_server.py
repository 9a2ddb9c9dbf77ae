"""Listening: many at once, silent crowds, credentials that change, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

import pytest

import aiotls
from aiotls.server import log_failure
from pqtls import ConfigurationError, ServerConfig
from tests.aiotls.conftest import Run
from tests.aiotls.rig import Recorder, rig
from tests.support import pki


def test_two_hundred_clients_at_once_are_all_answered(run: Run) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(6))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await aiotls.start_server(echo, "127.0.0.1", 0, pki.server_config)
        port = server.sockets[0].getsockname()[1]

        async def one(number: int) -> None:
            reader, writer = await aiotls.open_connection("127.0.0.1", port, pki.client_config(), handshake_timeout=50)
            writer.write(b"%6d" % number)
            assert await reader.read() == b"%6d" % number
            writer.close()
            await writer.wait_closed()

        await asyncio.gather(*(one(number) for number in range(200)))
        server.close()
        await server.wait_closed()

    run(main())


def test_new_credentials_serve_the_next_connection_and_old_connections_stay(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            before, accepted = await made.pair()
            made.config = pki.server_config(credential=pki.credential(pki.leaf("renewed")))
            after, _ = await made.pair()
            identities = [one.transport.get_extra_info("peer_identity") for one in (before, after) if one.transport]
            assert identities == [pki.identity("server"), pki.identity("renewed")]
            assert before.transport is not None
            assert accepted.transport is not None
            accepted.transport.write(b"as before")
            await before.received(9)
            for one in (before, after):
                assert one.transport is not None
                one.transport.close()
                assert await one.lost is None

    run(main())


def test_a_source_of_configurations_that_fails_costs_one_connection(run: Run) -> None:
    async def main() -> None:
        reports: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context["exception"]))
        broken = True

        def source() -> ServerConfig:
            if broken:
                raise ConfigurationError("the files are gone")
            return pki.server_config()

        server = await aiotls.create_server(Recorder, "127.0.0.1", 0, source)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError):
            await aiotls.create_connection(Recorder, "127.0.0.1", port, pki.client_config())
        broken = False
        transport, client = await aiotls.create_connection(Recorder, "127.0.0.1", port, pki.client_config())
        transport.close()
        assert await client.lost is None
        server.close()
        await server.wait_closed()
        assert [str(report) for report in reports] == ["the files are gone"]

    run(main())


def test_a_silent_crowd_does_not_keep_honest_clients_out(run: Run) -> None:
    async def main() -> None:
        async with rig(max_handshakes=8, handshake_timeout=30) as made:
            with contextlib.ExitStack() as crowd:
                for _ in range(50):
                    crowd.enter_context(made.raw())
                client, accepted = await made.pair()
                assert client.transport is not None
                client.transport.close()
                assert await accepted.lost is None
                evicted = [made.failures.get_nowait() for _ in range(made.failures.qsize())]
                assert len(evicted) >= 50 + 1 - 8
                assert {type(error) for error in evicted} == {aiotls.HandshakeEvicted}

    run(main())


def test_closing_stops_listening_gives_handshakes_up_and_waits_for_connections(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            client, accepted = await made.pair()
            with made.raw() as silent:
                await asyncio.sleep(0.1)
                port = made.port
                assert made.server.is_serving()
                made.server.close()
                assert not made.server.is_serving()
                assert made.server.sockets == ()
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", port)
                silent.settimeout(5)
                assert await asyncio.to_thread(silent.recv, 1) == b""
            waiting = asyncio.create_task(made.server.wait_closed())
            await asyncio.sleep(0.1)
            assert not waiting.done()
            made.server.close_clients()
            await waiting
            assert await accepted.lost is None
            assert await client.lost is None

    run(main())


def test_a_server_can_abort_its_clients(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            client, accepted = await made.pair()
            made.server.abort_clients()
            assert isinstance(await client.lost, ConnectionResetError)
            assert await accepted.lost is None

    run(main())


def test_serving_for_ever_ends_with_its_cancellation(run: Run) -> None:
    async def main() -> None:
        server = await aiotls.create_server(Recorder, "127.0.0.1", 0, pki.server_config, start_serving=False)
        assert not server.is_serving()
        task = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0.05)
        assert server.is_serving()
        assert server.get_loop() is asyncio.get_running_loop()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.sockets == ()
        with pytest.raises(RuntimeError, match="closed"):
            await server.start_serving()

    run(main())


def test_a_port_in_use_is_the_kernels_error_and_leaves_no_socket(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            with pytest.raises(OSError) as failed:
                await aiotls.create_server(Recorder, *other.getsockname(), pki.server_config)
            assert failed.value.errno == errno.EADDRINUSE

    run(main())


def test_a_bound_socket_can_be_given_and_both_address_families_are_served(run: Run) -> None:
    async def main() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        async with await aiotls.create_server(Recorder, None, None, pki.server_config, sock=sock) as server:
            assert server.sockets == (sock,)
        async with await aiotls.create_server(Recorder, "localhost", 0, pki.server_config) as server:
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                transport, client = await aiotls.create_connection(Recorder, host, port, pki.client_config())
                transport.close()
                assert await client.lost is None

    run(main())


def test_by_default_a_failed_handshake_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    log_failure(aiotls.HandshakeTimeout(3), ("192.0.2.1", 4))
    assert [record.getMessage() for record in caplog.records] == [
        "no TLS connection with ('192.0.2.1', 4): the TLS handshake did not complete within 3 s; "
        "the peer is silent, very slow or not a TLS peer"
    ]
