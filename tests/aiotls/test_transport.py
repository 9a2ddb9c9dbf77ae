"""The transport's promises, over real sockets, on both loops."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import tempfile
from typing import Any

import pytest

import aiotls
from pqtls import Alert, AlertReceived, ClientConnection, HandshakeCompleted, ProtocolViolation, TicketKeeper
from pqtls.provider import default_provider
from tests.aiotls.conftest import Run
from tests.aiotls.rig import Recorder, reset, rig
from tests.support import pki

MIB = 2**20
# Connections of the churn test. It is uvloop whose own transports cannot do this; under asyncio a few show the same.
CHURN = {"uvloop": 2000, "asyncio": 400}


async def send_all(recorder: Recorder, block: bytes, times: int) -> str:
    """Write with regard to pause_writing; return the checksum of what was sent."""
    checksum = hashlib.sha256()
    assert recorder.transport is not None
    for _ in range(times):
        await recorder.writable.wait()
        recorder.transport.write(block)
        checksum.update(block)
    return checksum.hexdigest()


class Hasher(Recorder):
    """Counts and hashes instead of keeping."""

    def __init__(self) -> None:
        super().__init__(half_open=True)
        self.checksum = hashlib.sha256()
        self.size = 0

    def data_received(self, data: bytes) -> None:
        self.size += len(data)
        self.checksum.update(data)


def test_a_hundred_megabytes_go_each_way_at_once_and_nothing_is_lost(run: Run) -> None:
    async def main() -> None:
        servers: asyncio.Queue[Hasher] = asyncio.Queue()

        def factory() -> Hasher:
            servers.put_nowait(hasher := Hasher())
            return hasher

        server = await aiotls.create_server(factory, "127.0.0.1", 0, pki.server_config)
        port = server.sockets[0].getsockname()[1]
        transport, client = await aiotls.create_connection(Hasher, "127.0.0.1", port, pki.client_config())
        accepted = await servers.get()
        block = bytes(range(256)) * 4001  # no multiple of a record's size

        async def one_way(sender: Hasher) -> str:
            checksum = await send_all(sender, block, 100)
            assert sender.transport is not None
            sender.transport.write_eof()
            return checksum

        sums = await asyncio.gather(one_way(client), one_way(accepted))
        await asyncio.gather(client.eof.wait(), accepted.eof.wait())

        assert (accepted.checksum.hexdigest(), client.checksum.hexdigest()) == tuple(sums)
        assert client.size == accepted.size == 100 * len(block)
        transport.close()
        assert accepted.transport is not None
        accepted.transport.close()
        assert await asyncio.gather(client.lost, accepted.lost) == [None, None]
        server.close()
        await server.wait_closed()

    run(main())


def test_a_reader_that_pauses_holds_the_writer_back_and_memory_stays_bounded(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            client, accepted = await made.pair()
            assert client.transport is not None
            assert accepted.transport is not None
            accepted.transport.pause_reading()
            assert not accepted.transport.is_reading()
            client.transport.set_write_buffer_limits(high=128 * 1024)
            block = b"x" * 65536
            sent = 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    while sent < 256 * MIB:
                        await client.writable.wait()
                        client.transport.write(block)
                        sent += len(block)
                        await asyncio.sleep(0)

            assert client.pauses
            assert sent < 64 * MIB, "the kernel's buffers, and nothing else, should have taken data"
            assert client.transport.get_write_buffer_size() < 128 * 1024 + 2 * len(block)
            assert not accepted.data
            accepted.transport.resume_reading()
            client.transport.close()
            assert await accepted.lost is None
            assert accepted.data == b"x" * sent

    run(main())


def test_a_half_closed_connection_still_carries_the_answer(run: Run) -> None:
    async def main() -> None:
        async with rig(half_open=True) as made:
            client, accepted = await made.pair()
            assert client.transport is not None
            assert accepted.transport is not None
            assert client.transport.can_write_eof()
            client.transport.writelines([b"que", b"stion"])
            client.transport.write_eof()
            client.transport.write_eof()
            await accepted.eof.wait()
            assert accepted.data == b"question"
            with pytest.raises(RuntimeError, match="after write_eof"):
                client.transport.write(b"more")
            accepted.transport.write(b"answer" * 100_000)
            accepted.transport.close()
            await client.eof.wait()
            assert client.data == b"answer" * 100_000
            client.transport.close()
            assert await client.lost is None
            assert await accepted.lost is None

    run(main())


def test_two_thousand_half_closed_connections_leave_nothing_behind(run: Run) -> None:
    """uvloop's own transports corrupt memory here. Resumption makes two thousand handshakes affordable."""

    async def main() -> None:
        churn = CHURN[type(asyncio.get_running_loop()).__module__.partition(".")[0]]
        tickets = TicketKeeper(default_provider())
        answered = 0

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal answered
            data = await reader.read()
            writer.write(data[::-1])
            answered += 1
            writer.close()
            await writer.wait_closed()

        server = await aiotls.start_server(answer, "127.0.0.1", 0, lambda: pki.server_config(tickets=tickets))
        port = server.sockets[0].getsockname()[1]
        sessions: list[Any] = []

        async def one(number: int) -> None:
            held = (sessions.pop(),) if sessions else ()
            config = pki.client_config(sessions=held)
            reader, writer = await aiotls.open_connection("127.0.0.1", port, config, on_session=sessions.append)
            writer.write(b"%d" % number)
            writer.write_eof()
            assert await reader.read() == (b"%d" % number)[::-1]
            writer.close()
            await writer.wait_closed()

        async def some(first: int) -> None:
            for number in range(first, churn, 8):
                await one(number)

        await asyncio.gather(*(some(first) for first in range(8)))
        assert answered == churn
        assert sessions
        server.close()
        await server.wait_closed()

    run(main())


def test_close_sends_all_that_waits_before_it_ends(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            client, accepted = await made.pair()
            assert client.transport is not None
            client.transport.write(b"y" * 20 * MIB)
            client.transport.close()
            assert client.transport.is_closing()
            client.transport.write(b"too late")
            assert await client.lost is None
            assert await accepted.lost is None
            assert accepted.data == b"y" * 20 * MIB

    run(main())


def test_close_waits_for_the_peers_close_notify_only_so_long(run: Run) -> None:
    async def main() -> None:
        async with rig(half_open=True) as made:
            client, accepted = await made.pair(shutdown_timeout=0.3)
            assert client.transport is not None
            client.transport.close()
            await accepted.eof.wait()
            started = asyncio.get_running_loop().time()
            assert await client.lost is None
            assert 0.2 < asyncio.get_running_loop().time() - started < 5

    run(main())


def test_close_gives_up_a_peer_that_reads_nothing_and_says_what_was_lost(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            client, accepted = await made.pair(shutdown_timeout=0.3)
            assert client.transport is not None
            assert accepted.transport is not None
            accepted.transport.pause_reading()
            client.transport.write(b"z" * 64 * MIB)
            client.transport.close()
            error = await client.lost
            assert isinstance(error, aiotls.ShutdownTimeout)
            assert error.reason == "shutdown_timeout"

    run(main())


def test_abort_arrives_as_a_reset(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            client, accepted = await made.pair()
            assert client.transport is not None
            client.transport.abort()
            client.transport.abort()
            assert await client.lost is None
            error = await accepted.lost
            assert isinstance(error, ConnectionResetError)
            assert not isinstance(error, aiotls.TlsConnectionError)

    run(main())


def shaken_hands(port: int) -> tuple[socket.socket, ClientConnection]:
    """A client on a blocking socket, after its handshake."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection = ClientConnection(pki.client_config())
    while not connection.handshake_complete:
        sock.sendall(connection.data_to_send())
        connection.receive_data(sock.recv(65536))
    sock.sendall(connection.data_to_send())
    return sock, connection


def test_a_stream_that_is_cut_is_an_error_and_not_an_end(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            sock, connection = await asyncio.to_thread(shaken_hands, made.port)
            accepted = await made.accepted.get()
            connection.send_data(b"transfer 100")
            sock.sendall(connection.data_to_send())
            await accepted.received(12)
            sock.close()
            error = await accepted.lost
            assert isinstance(error, aiotls.StreamTruncated)
            assert isinstance(error, ConnectionResetError)
            assert error.reason == "truncated"
            assert not accepted.eof.is_set()

    run(main())


def test_a_peer_that_breaks_tls_hears_why_though_it_has_sent_more(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            sock, connection = await asyncio.to_thread(shaken_hands, made.port)
            accepted = await made.accepted.get()
            sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32) * 1000)

            def hear() -> None:
                while data := sock.recv(65536):
                    connection.receive_data(data)

            with pytest.raises(AlertReceived) as heard:
                await asyncio.to_thread(hear)
            assert heard.value.alert is Alert.BAD_RECORD_MAC
            sock.close()
            error = await accepted.lost
            assert isinstance(error, aiotls.PeerFailed)
            assert isinstance(error.peer_error, ProtocolViolation)

    run(main())


def test_a_reset_peer_ends_a_connection_that_only_writes(run: Run) -> None:
    async def main() -> None:
        async with rig(half_open=True) as made:
            sock, connection = await asyncio.to_thread(shaken_hands, made.port)
            accepted = await made.accepted.get()
            connection.send_close_notify()
            sock.sendall(connection.data_to_send())
            await accepted.eof.wait()
            reset(sock)
            assert accepted.transport is not None
            while not accepted.lost.done():
                accepted.transport.write(b"anybody?")
                await asyncio.sleep(0.01)
            assert isinstance(accepted.lost.result(), (ConnectionResetError, BrokenPipeError))

    run(main())


def test_who_cannot_send_any_more_still_hears_why(run: Run) -> None:
    """The peer has sent an alert, and then its kernel a reset, while we were not reading."""

    async def main() -> None:
        async with rig() as made:
            sock, connection = await asyncio.to_thread(shaken_hands, made.port)
            accepted = await made.accepted.get()
            assert accepted.transport is not None
            await asyncio.sleep(0)
            accepted.transport.pause_reading()
            accepted.transport.write(b"not wanted")
            connection.abort(Alert.ACCESS_DENIED)
            sock.sendall(connection.data_to_send())
            sock.close()  # over unread bytes: RST
            while not accepted.lost.done():
                accepted.transport.write(b"anybody?")
                await asyncio.sleep(0.01)
            error = accepted.lost.result()
            assert isinstance(error, aiotls.PeerFailed)
            assert error.peer_error.alert is Alert.ACCESS_DENIED

    run(main())


def test_the_peers_identity_and_what_was_negotiated_can_be_asked_for(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            client, accepted = await made.pair()
            assert client.transport is not None
            assert accepted.transport is not None
            for recorder, name in ((client, "server"), (accepted, "client")):
                transport = recorder.transport
                assert transport is not None
                assert transport.get_extra_info("peer_identity") == pki.identity(name)
                completed = transport.get_extra_info("handshake")
                assert isinstance(completed, HandshakeCompleted)
                assert completed.group == "X25519MLKEM1024"
                assert transport.get_extra_info("cipher") == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
                assert transport.get_extra_info("nothing", 7) == 7
            assert client.transport.get_extra_info("peername") == accepted.transport.get_extra_info("sockname")
            sock = client.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            client.transport.close()
            await client.lost

    run(main())


def test_a_protocol_that_raises_loses_its_connection_and_the_loop_hears_of_it(run: Run) -> None:
    class Faulty(Recorder):
        def data_received(self, data: bytes) -> None:
            raise LookupError("a bug of the program's")

    async def main() -> None:
        reports: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context["exception"]))
        async with rig() as made:
            _, client = await aiotls.create_connection(Faulty, "127.0.0.1", made.port, pki.client_config())
            accepted = await made.accepted.get()
            assert accepted.transport is not None
            accepted.transport.write(b"!")
            assert isinstance(await client.lost, LookupError)
            assert isinstance(await accepted.lost, ConnectionResetError)
        assert [type(report) for report in reports] == [LookupError]

    run(main())


def test_a_buffered_protocol_gets_its_data_in_its_own_buffer(run: Run) -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(1000)
            self.data = bytearray()
            self.lost = asyncio.get_running_loop().create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.data += self.buffer[:nbytes]

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(exc)

    async def main() -> None:
        async with rig() as made:
            _, client = await aiotls.create_connection(Buffered, "127.0.0.1", made.port, pki.client_config())
            accepted = await made.accepted.get()
            assert accepted.transport is not None
            accepted.transport.write(bytes(range(200)) * 1000)
            accepted.transport.close()
            assert await client.lost is None
            assert client.data == bytes(range(200)) * 1000

    run(main())


def test_a_paused_protocol_hears_neither_data_nor_the_end_until_it_resumes(run: Run) -> None:
    class OneAtATime(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            assert self.transport is not None
            self.transport.pause_reading()

    async def main() -> None:
        async with rig() as made:
            _, client = await aiotls.create_connection(OneAtATime, "127.0.0.1", made.port, pki.client_config())
            accepted = await made.accepted.get()
            assert accepted.transport is not None
            accepted.transport.write(b"last words")
            accepted.transport.close()
            await client.received(10)
            await asyncio.sleep(0.1)
            assert not client.eof.is_set()
            assert client.transport is not None
            client.transport.resume_reading()
            assert await client.lost is None
            assert client.eof.is_set()

    run(main())


def test_what_is_no_bytes_is_refused(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            client, _ = await made.pair()
            assert client.transport is not None
            with pytest.raises(TypeError, match="must be bytes"):
                client.transport.write("text")  # type: ignore[arg-type]
            client.transport.abort()
            await client.lost

    run(main())


def test_a_file_can_be_sent_by_asyncios_sendfile() -> None:
    """uvloop has no sendfile at all, and programs know."""

    async def main() -> None:
        async with rig() as made:
            client, accepted = await made.pair()
            assert client.transport is not None
            with tempfile.TemporaryFile() as file:
                file.write(bytes(range(256)) * 4096)
                file.seek(0)
                await asyncio.get_running_loop().sendfile(client.transport, file)
            client.transport.close()
            assert await accepted.lost is None
            assert accepted.data == bytes(range(256)) * 4096

    asyncio.run(main())
