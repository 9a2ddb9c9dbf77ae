from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from cli.demo.relay import relay


async def through_relay(target: int, talk: object) -> list[tuple[str, bytes]]:
    """Run `talk(port)` on a thread against a relay to `target`; return what the relay saw."""
    seen: list[tuple[str, bytes]] = []
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay(reader, writer, ("127.0.0.1", target), lambda side, data: seen.append((side, data)))
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        await asyncio.to_thread(talk, server.sockets[0].getsockname()[1])
        await asyncio.wait_for(ended.wait(), 5)
    return seen


def test_both_directions_pass_and_are_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk(port: int) -> None:
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                client.sendall(b"ping")
                served, _ = listener.accept()
                with served:
                    assert served.recv(10) == b"ping"
                    served.sendall(b"pong")
                    assert client.recv(10) == b"pong"

        seen = asyncio.run(through_relay(listener.getsockname()[1], talk))
    assert seen == [("client", b"ping"), ("server", b"pong")]


def test_a_reset_of_the_server_reaches_the_client_as_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk(port: int) -> None:
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                served, _ = listener.accept()
                served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                served.close()
                with pytest.raises(ConnectionResetError):
                    client.recv(1)

        asyncio.run(through_relay(listener.getsockname()[1], talk))


def test_a_server_that_is_not_there_is_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()[1]

    def talk(port: int) -> None:
        with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", port), 5) as client:
            client.recv(1)

    asyncio.run(through_relay(nobody, talk))


def test_small_writes_are_not_held_back_on_either_side() -> None:
    """A relay of ours that waits for acknowledgements would add its 40 ms to what is measured."""
    options: list[int] = []
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay(reader, writer, address, lambda _side, _data: options.append(nodelay(writer)))
        ended.set()

    def nodelay(writer: asyncio.StreamWriter) -> int:
        option: int = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        return option

    async def main(front: socket.socket) -> None:
        async with await asyncio.start_server(serve, sock=front):
            reader, writer = await asyncio.open_connection(*front.getsockname())
            writer.write(b"ping")
            served, _ = await asyncio.get_running_loop().sock_accept(listener)
            with served:
                await asyncio.get_running_loop().sock_recv(served, 10)
            writer.close()
            await reader.read()
            await asyncio.wait_for(ended.wait(), 5)

    # A listener of socket.create_server, as the tap has it: what it accepts is no IPPROTO_TCP socket to asyncio.
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as front:
        listener.setblocking(False)
        address = listener.getsockname()
        asyncio.run(main(front))
    assert options == [1]
