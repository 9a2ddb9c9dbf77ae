"""Handshakes of strangers, in any number, and the flows that are up beside them."""

from __future__ import annotations

import selectors
import threading

import pytest

from pqtls import ClientConnection

FLOOD = 300


@pytest.fixture
def flow(inbound_sidecar, outbound_sidecar, application, dial):
    """(inbound sidecar, client, application's end) of a connection that stands."""
    inbound = inbound_sidecar(application.getsockname()[1])
    outbound = outbound_sidecar(inbound.port("inbound"))
    client = dial(outbound.port("outbound"))
    with application.accept()[0] as accepted:
        accepted.settimeout(15)
        client.sendall(b"up")
        assert accepted.recv(10) == b"up"
        yield inbound, client, accepted


def test_a_flow_goes_on_between_the_steps_of_hundreds_of_handshakes(flow, dial, pki):
    """Counted, not timed: while the ClientHellos are worked off, messages go to and fro, one for every few of them."""
    inbound, client, accepted = flow
    hello = ClientConnection(pki.bundle("web").client(True)).data_to_send()
    strangers = [dial(inbound.port("inbound")) for _ in range(FLOOD)]
    answered = threading.Event()
    threading.Thread(target=until_answered, args=(strangers, answered), daemon=True).start()
    for stranger in strangers:
        stranger.sendall(hello)
    rounds = 0
    while not answered.is_set():
        client.sendall(b"ping")
        assert accepted.recv(10) == b"ping"
        accepted.sendall(b"pong")
        assert client.recv(10) == b"pong"
        rounds += 1
    # Where nothing holds them apart, a turn of the loop works off all that are there, and there are a handful of turns.
    assert rounds >= FLOOD / 30
    assert inbound.metric("qbitel_handshake_queue") == 0


def until_answered(strangers, answered) -> None:
    """Set `answered` when every stranger has heard something."""
    with selectors.DefaultSelector() as selector:
        for stranger in strangers:
            selector.register(stranger, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                selector.unregister(key.fileobj)
    answered.set()
