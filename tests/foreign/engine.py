"""Our engine over a blocking socket: for what a tunnel does not show, such as tickets, KeyUpdate and the exporter."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import pqtls
from tests.foreign.processes import DEADLINE

EXPORTER_LABEL: Final = "EXPORTER-qbitel-interop"
_READ: Final = 65536
_Kind = TypeVar("_Kind", bound=pqtls.Event)


def utc_now() -> datetime.datetime:
    """The present: foreign stacks have no other."""
    return datetime.datetime.now(datetime.UTC)


def common(folder: Path, profiles: tuple[str, ...]) -> dict[str, Any]:
    """What ClientConfig and ServerConfig share, from a folder of `qbitel ca issue`."""
    return {
        "credential": pqtls.Credential.from_pem((folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes()),
        "trust": pqtls.TrustAnchors.from_pem((folder / "ca.crt").read_bytes()),
        "now": utc_now,
        "profiles": tuple(pqtls.PROFILES[name] for name in profiles),
    }


class OurEnd:
    """A connection of ours on a socket that it owns."""

    def __init__(self, connection: pqtls.Connection, sock: socket.socket) -> None:
        self.connection = connection
        self._socket = sock
        self._events: list[pqtls.Event] = []
        self._plaintext = bytearray()
        sock.settimeout(DEADLINE)

    @classmethod
    def connect(cls, port: int, config: pqtls.ClientConfig) -> OurEnd:
        """A client, before its handshake."""
        return cls(pqtls.ClientConnection(config), socket.create_connection(("127.0.0.1", port), DEADLINE))

    @classmethod
    def accept(cls, listener: socket.socket, config: pqtls.ServerConfig) -> OurEnd:
        """A server for the next client of `listener`, before its handshake."""
        listener.settimeout(DEADLINE)
        return cls(pqtls.ServerConnection(config), listener.accept()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def handshake(self) -> pqtls.HandshakeCompleted:
        """Complete it. Raises PeerError after the alert has gone out."""
        return self.wait_for(pqtls.HandshakeCompleted)

    def wait_for(self, kind: type[_Kind]) -> _Kind:
        """The next event of this kind; the others stay in order."""
        while True:
            for position, event in enumerate(self._events):
                if isinstance(event, kind):
                    del self._events[position]
                    return event
            self._turn()

    def echo(self, data: bytes) -> bytes:
        """Send a length and `data` to a peer that sends it back, and return what comes."""
        self.send(len(data).to_bytes(8, "big") + data)
        return self.read(len(data))

    def serve_echo(self) -> int:
        """Be the echo; return how many bytes went through."""
        size = left = int.from_bytes(self.read(8), "big")
        while left:
            if not self._plaintext:
                self._plaintext += self.wait_for(pqtls.ApplicationData).data
            piece = self.read(min(left, len(self._plaintext)))
            left -= len(piece)
            self.send(piece)
        return size

    def send(self, data: bytes) -> None:
        """Send application data."""
        self.connection.send_data(data)
        self._flush()

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes of application data."""
        while len(self._plaintext) < size:
            self._plaintext += self.wait_for(pqtls.ApplicationData).data
        data = bytes(self._plaintext[:size])
        del self._plaintext[:size]
        return data

    def update_keys(self, *, request_peer: bool) -> None:
        """Change our keys, and ask the peer to change its own."""
        self.connection.update_keys(request_peer=request_peer)
        self._flush()

    def exporter(self) -> str:
        """48 bytes of the exporter, in hexadecimal, as the peers' scripts print theirs."""
        return self.connection.export_keying_material(EXPORTER_LABEL, b"context", 48).hex()

    def close(self) -> None:
        """Say close_notify."""
        self.connection.send_close_notify()
        self._flush()

    def _turn(self) -> None:
        self._flush()
        data = self._socket.recv(_READ)
        try:
            if data:
                self.connection.receive_data(data)
            else:
                self.connection.receive_eof()
                raise AssertionError(f"the peer closed; events at hand: {self._events}")
        finally:
            self._flush()
            self._events += self.connection.events()

    def _flush(self) -> None:
        if data := self.connection.data_to_send():
            self._socket.sendall(data)
