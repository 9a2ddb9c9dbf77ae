"""The handshake over real sockets: completed, refused, cut, late."""

from __future__ import annotations

import asyncio

import pytest

from pqtls import (
    Alert,
    AlertReceived,
    ApplicationData,
    CertificateRefused,
    ClientConnection,
    HandshakeCompleted,
    ServerConnection,
    Session,
    SessionReceived,
)
from proxy.handshake import HandshakeFailed, connection_id, handshake
from proxy.reactor import Reactor
from proxy.waits import Waits


def waits_here() -> Waits:
    loop = asyncio.get_running_loop()
    return Waits(loop, Reactor(loop))


@pytest.fixture
def both(run, tcp_pair):
    """Run client and server against each other; what each gave or raised."""

    def go(client, server, timeout=5.0):
        async def main():
            waits = waits_here()
            near, far = tcp_pair()
            return await asyncio.gather(
                handshake(waits, near, client, timeout=timeout),
                handshake(waits, far, server, timeout=timeout),
                return_exceptions=True,
            )

        return run(main())

    return go


def test_both_ends_learn_who_the_other_is(both, pki):
    client, server = both(
        ClientConnection(pki.bundle("web").client(True)), ServerConnection(pki.bundle("api").server(True))
    )
    assert client.event.peer_identity == pki.identity("api")
    assert server.event.peer_identity == pki.identity("web")
    assert client.event.group == server.event.group == "X25519MLKEM1024"
    assert 0 < client.seconds < 5
    assert client.first_plaintext == server.first_plaintext == b""


def test_who_refuses_raises_and_who_is_refused_hears_the_alert(both, pki):
    client, server = both(
        ClientConnection(pki.bundle("web").client(True)), ServerConnection(pki.bundle("expired").server(True))
    )
    assert isinstance(client, CertificateRefused)
    assert isinstance(server, AlertReceived)
    assert server.alert is Alert.CERTIFICATE_EXPIRED


@pytest.fixture
def alone(run, tcp_pair, pki):
    """Run a server's handshake while the scenario plays the client on the other socket."""

    def go(scenario, timeout=5.0):
        async def main():
            loop = asyncio.get_running_loop()
            near, far = tcp_pair()
            server = ServerConnection(pki.bundle("api").server(True))
            task = asyncio.ensure_future(handshake(waits_here(), far, server, timeout=timeout))
            await scenario(loop, near)
            return await task

        return run(main())

    return go


def test_a_silent_peer_is_given_up_in_time(alone):
    async def say_nothing(loop, sock):
        await asyncio.sleep(0)

    with pytest.raises(HandshakeFailed, match=r"within 0\.2 s") as caught:
        alone(say_nothing, timeout=0.2)
    assert caught.value.reason == "handshake_timeout"


def test_a_peer_that_leaves_is_a_broken_handshake(alone):
    async def leave(loop, sock):
        sock.close()

    with pytest.raises(HandshakeFailed) as caught:
        alone(leave)
    assert caught.value.reason == "handshake_reset"


def test_what_came_behind_the_last_flight_is_handed_on(alone, pki):
    async def eager(loop, sock):
        client = ClientConnection(pki.bundle("web").client(True))
        await loop.sock_sendall(sock, client.data_to_send())
        while not client.handshake_complete:
            client.receive_data(await loop.sock_recv(sock, 65536))
        finished = client.data_to_send()
        client.send_data(b"first ")
        client.send_data(b"words")
        await loop.sock_sendall(sock, finished + client.data_to_send())

    assert alone(eager).first_plaintext == b"first words"


def test_the_last_flight_can_be_left_to_whoever_sends_more_behind_it(run, tcp_pair, pki):
    async def main():
        waits = waits_here()
        near, far = tcp_pair()
        client = ClientConnection(pki.bundle("web").client(True))
        server = ServerConnection(pki.bundle("api").server(True))
        serving = asyncio.ensure_future(handshake(waits, far, server, timeout=30))
        result = await handshake(waits, near, client, timeout=30, hold_last=True)
        assert result.event.peer_identity == pki.identity("api")
        assert not serving.done()
        assert client.has_data_to_send
        client.send_data(b"and more")
        await waits.send_all(near, client.data_to_send())
        return await serving

    result = run(main())
    assert result.event.peer_identity == pki.identity("web")
    assert result.first_plaintext == b"and more"


class EagerServer:
    """In place of a connection to a server that asks for no certificate: it may send its tickets, and its first data,
    along with its Finished (RFC 8446 section 4.6.1). Ours always asks, so none of ours does.
    """

    def __init__(self, events) -> None:
        self._events = events

    def receive_data(self, data: bytes) -> None:
        raise AssertionError("nothing was sent")

    def data_to_send(self) -> bytes:
        return b""

    def events(self):
        return self._events


def test_tickets_and_data_that_come_along_with_the_handshake_are_kept(run, tcp_pair):
    completed = object.__new__(HandshakeCompleted)
    sessions = [object.__new__(Session) for _ in range(2)]
    events = [
        completed, SessionReceived(sessions[0]), ApplicationData(b"he"), SessionReceived(sessions[1]),
        ApplicationData(b"llo"),
    ]  # fmt: skip

    async def main():
        near, _ = tcp_pair()
        return await handshake(waits_here(), near, EagerServer(events), timeout=5)

    result = run(main())
    assert result.event is completed
    assert [id(session) for session in result.sessions] == [id(session) for session in sessions]
    assert result.first_plaintext == b"hello"


def test_each_step_waits_for_its_turn_and_the_wait_counts(run, tcp_pair, pki):
    async def main():
        waits = waits_here()
        near, far = tcp_pair()
        turns = []

        async def turn():
            turns.append(len(turns))

        client, server = (
            ClientConnection(pki.bundle("web").client(True)),
            ServerConnection(pki.bundle("api").server(True)),
        )
        await asyncio.gather(
            handshake(waits, near, client, timeout=5), handshake(waits, far, server, timeout=5, our_turn=turn)
        )
        assert len(turns) >= 2  # the ClientHello, and the client's last flight
        again, other = tcp_pair()
        hello = ClientConnection(pki.bundle("web").client(True)).data_to_send()
        again.send(hello)
        with pytest.raises(HandshakeFailed) as caught:
            await handshake(
                waits,
                other,
                ServerConnection(pki.bundle("api").server(True)),
                timeout=0.1,
                our_turn=asyncio.Event().wait,
            )
        return caught.value.reason

    assert run(main()) == "handshake_timeout"


def test_both_ends_know_a_connection_by_the_same_id_and_no_other_has_it(tls_pair):
    ids = [connection_id(end) for pair in (tls_pair(), tls_pair()) for end in pair]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert {len(one) for one in ids} == {16}
