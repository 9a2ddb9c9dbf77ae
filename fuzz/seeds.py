"""Writes fuzz/corpus/: for each target what a real handshake sends (`python -m fuzz.seeds`)."""

from __future__ import annotations

from pathlib import Path

import pqtls
from pqtls.extensions import ExtensionType, write_offered_psk
from pqtls.framing import HandshakeJoiner, HandshakeType
from pqtls.messages import Certificate, ClientHello
from pqtls.provider import default_provider
from pqtls.sessions import Session
from tests.support.pki import client_config, pump, server_config

CORPUS = Path(__file__).parent / "corpus"


class _Spy(HandshakeJoiner):
    """Keeps every message that passes."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, bytes]] = []

    def next_message(self):  # type: ignore[no-untyped-def]
        message = super().next_message()
        if message is not None:
            self.seen.append((message.type, message.body))
        return message


def _handshake(client: pqtls.ClientConfig, server: pqtls.ServerConfig) -> tuple[list[tuple[int, bytes]], bytes, bytes]:
    """Every message of one handshake, and both sides' first flights as bytes."""
    ends = (pqtls.ClientConnection(client), pqtls.ServerConnection(server))
    spies = (_Spy(), _Spy())
    for end, spy in zip(ends, spies, strict=True):
        end.effects.joiner = spy
    to_server = to_client = b""
    while ends[0].has_data_to_send or ends[1].has_data_to_send:
        data = ends[0].data_to_send()
        to_server += data
        ends[1].receive_data(data)
        data = ends[1].data_to_send()
        to_client += data
        ends[0].receive_data(data)
    events = ends[0].events()
    sessions = tuple(event.session for event in events if isinstance(event, pqtls.SessionReceived))
    messages = [message for spy in spies for message in spy.seen]
    messages += [(-1, session.ticket) for session in sessions[:1]]
    return messages, to_server, to_client


def main() -> None:
    """Write the corpus."""
    names = {kind: kind.name.lower() for kind in HandshakeType}
    keeper = pqtls.TicketKeeper(default_provider())
    server = server_config(tickets=keeper, alpn=(b"qbitel-tcp/1",))
    found, to_server, to_client = _handshake(client_config(alpn=(b"qbitel-tcp/1",), server_name="localhost"), server)
    seeds: dict[str, list[bytes]] = {"server": [to_server], "client": [to_client], "sniff": [to_server[:2048]]}
    for kind, body in found:
        if kind == -1:
            seeds["ticket"] = [body]
            continue
        seeds.setdefault(names[HandshakeType(kind)], []).append(body)
        if kind == HandshakeType.CLIENT_HELLO:
            seeds["key_shares"] = [ClientHello.parse(body).extensions[ExtensionType.KEY_SHARE]]
        if kind == HandshakeType.CERTIFICATE:
            seeds["chain"] = [Certificate.parse(body).entries[0].certificate]
    seeds["server_name"] = [b"\x00\x0c\x00\x00\x09localhost"]
    seeds["spiffe"] = [b"spiffe://cluster.local/ns/default/sa/web", b"spiffe://", b"https://example.org/"]
    seeds["interception"] = [b"80,443,8000:8100", b"10.0.0.0/8,fd00::/8", _SAVED]
    session = _session()
    seeds["session_facts"] = [session.facts.encode()]
    seeds["offered_psks"] = [write_offered_psk(session.ticket, 0, bytes(48))]
    for name, bodies in seeds.items():
        if name in ("finished", "key_update", "end_of_early_data"):
            continue
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, body in enumerate(bodies):
            (folder / f"seed-{number}").write_bytes(body)


_SAVED = b"""*nat
:PREROUTING ACCEPT [0:0]
:QBITEL_OUTPUT - [0:0]
-A QBITEL_OUTPUT -d 127.0.0.1/32 -m comment --comment "a \\"reason\\"" -j RETURN
COMMIT
"""


def _session() -> Session:
    """A session as a client keeps it."""
    client = pqtls.ClientConnection(client_config())
    server = pqtls.ServerConnection(server_config(tickets=pqtls.TicketKeeper(default_provider())))
    pump(client, server)
    return next(event.session for event in client.events() if isinstance(event, pqtls.SessionReceived))


if __name__ == "__main__":
    main()
