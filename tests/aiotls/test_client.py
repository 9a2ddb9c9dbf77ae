"""Connecting: addresses, given sockets, streams, sessions, and cancellation at any moment."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

import aiotls
from pqtls import Alert, ClientAuthentication, HandshakeCompleted, Session, TicketKeeper
from pqtls.provider import default_provider
from tests.aiotls.conftest import Run
from tests.aiotls.rig import Recorder, rig
from tests.support import pki


def test_streams_work_as_asyncios_own_do(run: Run) -> None:
    async def main() -> None:
        async with rig(half_open=True) as made:
            reader, writer = await aiotls.open_connection("127.0.0.1", made.port, pki.client_config())
            accepted = await made.accepted.get()
            assert accepted.transport is not None
            writer.write(b"a line\n")
            await writer.drain()
            writer.write_eof()
            await accepted.eof.wait()
            accepted.transport.write(accepted.data + b"and another\n")
            accepted.transport.close()
            assert await reader.readline() == b"a line\n"
            assert await reader.readline() == b"and another\n"
            assert await reader.read() == b""
            assert writer.get_extra_info("peer_identity") == pki.identity("server")
            writer.close()
            await writer.wait_closed()

    run(main())


def test_a_truncated_stream_is_an_error_to_who_reads_it(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            reader, writer = await aiotls.open_connection("127.0.0.1", made.port, pki.client_config())
            accepted = await made.accepted.get()
            assert accepted.transport is not None
            accepted.transport.write(b"half of")
            # FIN without close_notify, as somebody on the way could make it.
            sock = socket.socket(fileno=socket.dup(accepted.transport.get_extra_info("socket").fileno()))
            sock.shutdown(socket.SHUT_WR)
            sock.close()
            with pytest.raises(aiotls.StreamTruncated):
                await reader.read()
            with pytest.raises(aiotls.StreamTruncated):
                await writer.wait_closed()

    run(main())


def test_a_refused_port_is_the_kernels_error(run: Run) -> None:
    async def main() -> None:
        with socket.socket() as unheard:
            unheard.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets the port
            with pytest.raises(ConnectionRefusedError):
                await aiotls.create_connection(Recorder, *unheard.getsockname(), pki.client_config())

    run(main())


def test_the_next_address_of_a_name_is_tried_when_the_first_refuses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with rig() as made:
            found = [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1)),  # tcpmux: nobody listens there
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", made.port)),
            ]

            genuine = loop.getaddrinfo

            async def resolve(host: str, *arguments: Any, **options: Any) -> Any:
                # uvloop's sock_connect resolves addresses too.
                return found if host == "two.example" else await genuine(host, *arguments, **options)

            monkeypatch.setattr(loop, "getaddrinfo", resolve)
            transport, client = await aiotls.create_connection(Recorder, "two.example", made.port, pki.client_config())
            transport.close()
            assert await client.lost is None

    run(main())


def test_a_connected_socket_can_be_taken_over(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            sock = made.raw()
            transport, client = await aiotls.create_connection(Recorder, None, None, pki.client_config(), sock=sock)
            transport.close()
            assert await client.lost is None
            assert sock.fileno() == -1

    run(main())


def test_a_session_resumes_the_next_connection(run: Run) -> None:
    async def main() -> None:
        tickets = TicketKeeper(default_provider())
        async with rig(config=pki.server_config(tickets=tickets)) as made:
            sessions: asyncio.Queue[Session] = asyncio.Queue()
            for resumed in (False, True):
                held = () if sessions.empty() else (sessions.get_nowait(),)
                config = pki.client_config(sessions=held)
                transport, client = await made.client(config, on_session=sessions.put_nowait)
                accepted = await made.accepted.get()
                assert accepted.transport is not None
                completed = transport.get_extra_info("handshake")
                assert isinstance(completed, HandshakeCompleted)
                assert completed.resumed is resumed
                accepted.transport.close()
                await client.lost
                assert not sessions.empty()

    run(main())


def test_a_client_without_a_certificate_is_nobody_to_a_server_that_serves_such_and_another_is_who_it_is(
    run: Run,
) -> None:
    async def main() -> None:
        server = pki.server_config(client_authentication=ClientAuthentication.OPTIONAL)
        async with rig(config=server) as made:
            for config, identity, certificate, shown in (
                (pki.client_config(credential=None), "", b"", "anonymous"),
                (pki.client_config(), pki.identity("client"), pki.leaf("client").der, pki.identity("client")),
            ):
                transport, client = await made.client(config)
                accepted = await made.accepted.get()
                assert accepted.transport is not None
                assert accepted.transport.get_extra_info("peer_identity") == identity
                assert accepted.transport.get_extra_info("peer_certificate") == certificate
                assert repr(accepted.transport) == f"<TlsTransport open peer={shown}>"
                assert transport.get_extra_info("peer_identity") == pki.identity("server")
                assert transport.get_extra_info("peer_certificate") == pki.leaf("server").der
                transport.write(b"data all the same")
                await accepted.received(17)
                transport.close()
                assert await client.lost is None

    run(main())


def test_a_client_without_a_certificate_hears_from_a_server_that_requires_one_why_it_goes(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            _, client = await made.client(pki.client_config(credential=None))
            lost = await client.lost
            assert isinstance(lost, aiotls.PeerFailed)
            assert lost.peer_error.alert is Alert.CERTIFICATE_REQUIRED
            assert str(lost).endswith("certificate_required (the server demands a certificate of its clients)")
            refused = await made.failures.get()
            assert isinstance(refused, aiotls.PeerFailed)
            assert refused.reason == "no_certificate"
            assert made.accepted.empty()

    run(main())


def test_a_factory_that_raises_leaves_no_socket(run: Run) -> None:
    def factory() -> asyncio.Protocol:
        raise LookupError("a bug of the program's")

    async def main() -> None:
        async with rig() as made:
            with pytest.raises(LookupError):
                await aiotls.create_connection(factory, "127.0.0.1", made.port, pki.client_config())
            accepted = await made.accepted.get()
            assert isinstance(await accepted.lost, ConnectionError)

    run(main())


def test_cancelling_at_any_moment_leaves_nothing_behind(run: Run) -> None:
    """Cancelled after each number of turns of the loop until it comes through uncancelled: each await has its turn."""

    async def main() -> None:
        async with rig(handshake_timeout=5) as made:
            cancelled = 0
            for turns in range(1000):
                task = asyncio.create_task(made.client())
                for _ in range(turns):
                    await asyncio.sleep(0)
                    if task.done():
                        break
                task.cancel()
                try:
                    transport, client = await task
                except asyncio.CancelledError:
                    cancelled += 1
                else:
                    transport.abort()
                    await client.lost
                    break
            else:
                pytest.fail("the connection never came through")
            # getaddrinfo, connect, and at least one read and one write
            assert cancelled >= 4
            # Nothing is left half done: an honest connection is served at once.
            while not made.accepted.empty():
                made.accepted.get_nowait()
            client, accepted = await made.pair()
            assert client.transport is not None
            client.transport.close()
            assert await accepted.lost is None

    run(main())


def test_cancelling_a_reader_and_a_writer_of_streams_leaves_the_connection_usable(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            reader, writer = await aiotls.open_connection("127.0.0.1", made.port, pki.client_config())
            accepted = await made.accepted.get()
            assert accepted.transport is not None
            accepted.transport.pause_reading()

            async def write_for_ever() -> None:
                while True:
                    writer.write(bytes(65536))
                    await writer.drain()

            for stuck in (reader.read(1), write_for_ever()):
                task = asyncio.ensure_future(stuck)
                await asyncio.sleep(0.3)
                assert not task.done()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            accepted.transport.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            accepted.transport.resume_reading()
            writer.close()
            await writer.wait_closed()

    run(main())
