"""Handshakes that fail: who is told what, on both loops."""

from __future__ import annotations

import asyncio
import datetime
import socket
from typing import Any

import pytest

import aiotls
from aiotls.handshake import shake_hands
from pqtls import (
    Alert,
    AlertReceived,
    ClientConnection,
    HandshakeCompleted,
    IdentityRefused,
    PeerError,
    ServerConnection,
)
from pqtls.profiles import PROFILES
from tests.aiotls.conftest import Run
from tests.aiotls.rig import rig
from tests.support import pki


def stranger() -> Any:
    return pki.credential(pki.leaf("client", "Another Root"))


def expired() -> Any:
    long_ago = pki.NOW - 3 * pki.DAY
    leaf = pki.make_certificate(
        issuer=pki.root(),
        subject="old",
        names=(pki.uri(pki.identity("old")),),
        not_before=long_ago,
        not_after=long_ago + datetime.timedelta(hours=1),
    )
    return pki.credential(leaf)


def refuse(uri: str) -> None:
    raise IdentityRefused(f"{uri} is not welcome")


@pytest.mark.parametrize(
    ("changes", "reason", "alert"),
    [
        ({"credential": stranger}, "unknown_root", Alert.UNKNOWN_CA),
        ({"credential": expired}, "expired", Alert.CERTIFICATE_EXPIRED),
    ],
    ids=["unknown root", "expired"],
)
def test_a_client_that_the_server_refuses_hears_why(run: Run, changes: Any, reason: str, alert: Alert) -> None:
    """The client's handshake is complete when the server refuses it, and it may have sent data already."""

    async def main() -> None:
        async with rig() as made:
            _, client = await made.client(pki.client_config(**{name: make() for name, make in changes.items()}))
            assert client.transport is not None
            client.transport.write(b"GET / HTTP/1.1\r\n\r\n" * 1000)
            error = await client.lost
            assert isinstance(error, aiotls.PeerFailed)
            assert isinstance(error.peer_error, AlertReceived)
            assert error.peer_error.alert is alert
            failure = await made.failures.get()
            assert isinstance(failure, aiotls.PeerFailed)
            assert failure.reason == reason
            assert made.accepted.empty(), "a protocol was made for a peer that is not verified"

    run(main())


@pytest.mark.parametrize(
    ("server", "client", "reason", "alert"),
    [
        ({"credential": stranger}, {}, "unknown_root", Alert.UNKNOWN_CA),
        ({}, {"accept_identity": lambda: refuse}, "identity_refused", Alert.ACCESS_DENIED),
    ],
    ids=["unknown root", "unwelcome identity"],
)
def test_a_server_that_the_client_refuses_is_never_spoken_to(
    run: Run, server: Any, client: Any, reason: str, alert: Alert
) -> None:
    async def main() -> None:
        config = pki.server_config(**{name: make() for name, make in server.items()})
        async with rig(config=config) as made:
            with pytest.raises(aiotls.PeerFailed) as refused:
                await made.client(pki.client_config(**{name: make() for name, make in client.items()}))
            assert refused.value.reason == reason
            failure = await made.failures.get()
            assert isinstance(failure, aiotls.PeerFailed)
            assert isinstance(failure.peer_error, AlertReceived)
            assert failure.peer_error.alert is alert

    run(main())


def test_a_client_with_nothing_in_common_is_refused_on_both_ends(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            with pytest.raises(aiotls.PeerFailed) as refused:
                await made.client(pki.client_config(profiles=(PROFILES["cnsa2"],)))
            assert isinstance(refused.value.peer_error, AlertReceived)
            assert refused.value.peer_error.alert is Alert.HANDSHAKE_FAILURE
            failure = await made.failures.get()
            assert isinstance(failure, aiotls.PeerFailed)
            assert failure.reason == "nothing_in_common"

    run(main())


def test_who_speaks_no_tls_is_told_so(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.read())[:1] == b"\x15"  # an alert record
            writer.close()
            await writer.wait_closed()
            failure = await made.failures.get()
            assert isinstance(failure, aiotls.PeerFailed)
            assert failure.reason == "not_tls"

    run(main())


def test_a_silent_peer_and_one_that_sends_a_byte_now_and_then_are_both_given_up(run: Run) -> None:
    async def main() -> None:
        async with rig(handshake_timeout=0.5) as made:
            hello = ClientConnection(pki.client_config()).data_to_send()
            with made.raw(), made.raw() as slow:

                async def drip() -> None:
                    for byte in hello:
                        await asyncio.sleep(0.05)
                        slow.send(bytes((byte,)))

                with pytest.raises((BrokenPipeError, ConnectionResetError)):
                    await drip()
            for _ in range(2):
                assert isinstance(await made.failures.get(), aiotls.HandshakeTimeout)
            client, accepted = await made.pair()
            assert client.transport is not None
            client.transport.close()
            assert await accepted.lost is None

    run(main())


def test_a_silent_server_is_given_up_by_the_client(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(aiotls.HandshakeTimeout):
            await aiotls.create_connection(
                asyncio.Protocol, *listener.getsockname(), pki.client_config(), handshake_timeout=0.2
            )

    run(main())


def test_a_peer_that_leaves_in_the_middle_is_a_cut_stream(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            with made.raw() as sock:
                sock.send(ClientConnection(pki.client_config()).data_to_send()[:100])
            assert isinstance(await made.failures.get(), aiotls.StreamTruncated)

    run(main())


def test_data_and_a_ticket_that_come_with_the_last_flight_are_kept(run: Run) -> None:
    """The client's Finished, its first data and its close_notify in one segment."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            client = ClientConnection(pki.client_config())
            server = asyncio.create_task(shake_hands(loop, theirs, ServerConnection(pki.server_config()), timeout=10))
            await loop.sock_sendall(ours, client.data_to_send())
            while not client.handshake_complete:
                client.receive_data(await loop.sock_recv(ours, 65536))
            client.send_data(b"at once")
            client.send_close_notify()
            await loop.sock_sendall(ours, client.data_to_send())
            established = await server
            assert established.plaintext == b"at once"
            assert established.connection.peer_closed
            assert established.completed.peer_identity == pki.identity("client")

    run(main())


def test_a_refused_client_that_sends_on_is_parted_from_by_alert_and_fin_not_by_reset(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with rig() as made:
            with made.raw() as sock:
                sock.setblocking(False)
                client = ClientConnection(pki.client_config(credential=stranger()))
                await loop.sock_sendall(sock, client.data_to_send())
                while not client.handshake_complete:
                    client.receive_data(await loop.sock_recv(sock, 65536))
                client.send_data(bytes(200_000))
                await loop.sock_sendall(sock, client.data_to_send())
                assert isinstance(client.events()[0], HandshakeCompleted)
                with pytest.raises(AlertReceived, match="unknown_ca"):
                    while data := await loop.sock_recv(sock, 65536):
                        client.receive_data(data)
                await asyncio.sleep(0.2)
                # Linux says EPIPE here when a reset came behind the FIN.
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            await made.failures.get()

    run(main())


def test_the_errors_of_the_engine_stay_reachable(run: Run) -> None:
    async def main() -> None:
        async with rig() as made:
            with pytest.raises(aiotls.PeerFailed) as refused:
                await made.client(pki.client_config(trust=pki.trust(pki.root("Another Root"))))
            assert isinstance(refused.value.__cause__, PeerError)
            assert refused.value.__cause__ is refused.value.peer_error
            await made.failures.get()

    run(main())
