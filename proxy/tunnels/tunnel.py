"""A tunnel: one TLS connection to another sidecar, and the streams in it.

What comes is opened once and handed to each stream straight from the buffer; what goes is outgoing.py's.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from itertools import repeat
from typing import Final, Protocol

from pqtls import Session
from pqtls.errors import PeerError
from pqtls.events import SessionReceived
from proxy import sockets
from proxy.config import Endpoint
from proxy.engine import READ_SIZE, Engine
from proxy.reactor import Reactor
from proxy.relay import End
from proxy.tunnels.buffers import TunnelBuffers
from proxy.tunnels.frames import (
    HEADER,
    HEADER_SIZE,
    LENGTH_MASK,
    MAX_DATA,
    MAX_STREAM_ID,
    FrameType,
    Opening,
    ResetCode,
    TunnelViolation,
    address_frame,
    control_type,
    frame,
    open_frame,
    read_address,
    read_credit,
    read_open,
    read_reset,
    reset_frame,
)
from proxy.tunnels.outgoing import Outgoing
from proxy.tunnels.stream import Stream

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_BROKEN: Final = select.EPOLLERR | select.EPOLLHUP
# What is handled in one go, 4 ms of work either way: 4 us a DATA frame, 65 us an OPEN with its RESET. One read may
# bring a hundred times as much, and others would wait for it.
_FRAMES_AT_ONCE: Final = 1024
_CONTROLS_AT_ONCE: Final = 64
# Asked for by name, a member of an Enum costs more than all that is done about its frame.
_OPEN: Final = FrameType.OPEN
_OPENED: Final = FrameType.OPENED
_CREDIT: Final = FrameType.CREDIT
_FIN: Final = FrameType.FIN
_RESET: Final = FrameType.RESET


class Owner(Protocol):
    """Who made the tunnel, and is told of what only it can decide."""

    def on_open(self, tunnel: Tunnel, stream_id: int, opening: Opening) -> ResetCode | None:
        """The other side opens a stream: `adopt` it, or return why not. Only a server's tunnel asks."""

    def on_session(self, session: Session) -> None:
        """The server sent a ticket."""

    def on_address(self, address: Endpoint) -> None:
        """The server says where it itself can be dialled. Only a client's tunnel hears that."""

    def on_draining(self, tunnel: Tunnel) -> None:
        """The other side wants no more streams in here."""

    def on_empty(self, tunnel: Tunnel) -> None:
        """The last stream has gone."""

    def on_end(self, tunnel: Tunnel, end: End, error: Exception | None) -> None:
        """The tunnel is no more, and neither is any stream of it."""


class Tunnel:
    """Owns `sock` and its streams from `start()` on. Lives on the reactor's loop."""

    __slots__ = (
        "_buffers", "_carry", "_engine", "_events", "_fd", "_is_client", "_last_id", "_owner", "_partial", "_postponed",
        "_reactor", "_rest", "_rest_id", "_sock", "draining", "ended", "heard", "outgoing", "streams",
    )  # fmt: skip

    def __init__(
        self,
        reactor: Reactor,
        buffers: TunnelBuffers,
        sock: socket.socket,
        engine: Engine,
        owner: Owner,
        *,
        is_client: bool,
    ) -> None:
        self._reactor = reactor
        self._buffers = buffers
        self._sock = sock
        self._fd = sock.fileno()
        self._engine = engine
        self._owner = owner
        self._is_client = is_client
        self._events = 0
        self.streams: dict[int, Stream] = {}
        self._last_id = 0
        self.outgoing = Outgoing(reactor, buffers, sock, engine, self)
        self._carry = b""  # ciphertext of a record that is not whole yet
        # Plaintext of a header, or of a frame that is no DATA, that is not whole yet; or whole frames, where
        # `_postponed`: they are handled in the loop's next turn, and nothing is read before.
        self._partial = b""
        self._postponed = False
        self._rest = 0  # bytes of a DATA frame that are still to come, of the stream `_rest_id`
        self._rest_id = 0
        self.draining = False
        self.ended = False
        self.heard = False  # since somebody last looked (see ping)

    def start(self, first: bytes = b"") -> None:
        """Begin. `first` is plaintext that came along with the handshake."""
        self._events = _IN
        self._reactor.register(self._fd, _IN, self)
        try:
            if first:
                plain = self._buffers.plain
                plain[: len(first)] = first
                self._take(plain, len(first))
            if not self.ended and (buffered := self._engine.take_buffered()):
                self._buffers.read[: len(buffered)] = buffered
                self._open(len(buffered))
        except (PeerError, TunnelViolation) as error:
            self._end(End.TLS_ERROR, error)

    # -- for the owner ------------------------------------------------------------------------------------------

    def open(self, opening: Opening, make: Callable[[int], Stream]) -> Stream:
        """Open a stream: a client's. `make` gets its number and returns it, not yet started."""
        self._last_id += 1
        if self._last_id == MAX_STREAM_ID:
            self.draining = True
        stream = make(self._last_id)
        self.streams[stream.id] = stream
        self.outgoing.put(open_frame(stream.id, opening))
        stream.start()
        stream.read_at_once()
        return stream

    def adopt(self, stream: Stream) -> None:
        """Take in a stream that the other side opened."""
        self.streams[stream.id] = stream
        stream.start()

    def say_address(self, address: Endpoint) -> None:
        """A server's: tell the client where this sidecar itself can be dialled."""
        self.outgoing.put(address_frame(address))

    def tidy(self) -> None:
        """Send what has waited for a next frame; every few seconds."""
        self.outgoing.tidy()

    def ping(self) -> None:
        """Ask for a sign of life: `heard` will be True when anything has come."""
        self.heard = False
        self.outgoing.put(frame(0, FrameType.PING, bytes(8)))

    def drain(self) -> None:
        """Tell the other side to open no more streams. Those that are under way are taken still."""
        if not self.draining:
            self.draining = True
            self.outgoing.put(frame(0, FrameType.DRAIN))

    def close(self) -> None:
        """End it in order: close_notify and FIN. It must be without streams."""
        self.outgoing.flush()  # which may find that the wire is broken
        if self.ended:
            return
        self._engine.send_close_notify()
        try:
            self._sock.send(self._engine.data_to_send())
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._end(End.RESET_BY_PEER, error)
            return
        self._end(End.CLOSED)

    def abort(self, end: End, error: Exception | None = None) -> None:
        """End it, and every stream in it, by RST."""
        if not self.ended:
            self._end(end, error)

    # -- for its streams ----------------------------------------------------------------------------------------

    def forget(self, stream_id: int) -> None:
        """A stream has ended."""
        self.streams.pop(stream_id, None)
        if not self.streams and not self.ended:
            self._owner.on_empty(self)

    # -- the wire -----------------------------------------------------------------------------------------------

    def on_ready(self, _fd: int, mask: int) -> None:
        """The reactor's call."""
        if mask & _OUT and self.outgoing.is_blocked:
            self.outgoing.send_pending()
        if mask & (_IN | _BROKEN) and not self._postponed and not self.ended:
            try:
                self._read()
            except (PeerError, TunnelViolation) as error:
                self._end(End.TLS_ERROR, error)

    def on_crash(self, error: Exception) -> None:
        """A bug of ours: this tunnel ends, and not the process."""
        if not self.ended:
            self._end(End.INTERNAL_ERROR, error)

    def _read(self) -> None:
        read = self._buffers.read
        start = len(self._carry)
        if start:
            read[:start] = self._carry
        try:
            length = self._sock.recv_into(read[start : start + READ_SIZE])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(End.RESET_BY_PEER, error)
            return
        if not length:
            self._engine.receive_eof()  # raises TruncatedStream
            self._peer_closed()
            return
        self.heard = True
        self._carry = b""
        self._open(start + length)

    def _open(self, length: int) -> None:
        read, plain = self._buffers.read, self._buffers.plain
        head = len(self._partial)
        if head:
            plain[:head] = self._partial
            self._partial = b""
        consumed, produced = self._engine.open_into(read[:length], plain[head:])
        if consumed < length:
            self._carry = bytes(read[consumed:length])
        for event in self._engine.events():
            if isinstance(event, SessionReceived):
                self._owner.on_session(event.session)
        if produced:
            self._take(plain, head + produced)
        elif head:
            self._partial = bytes(plain[:head])
        self.outgoing.send_engines_own()
        if self._engine.peer_closed and not self._postponed and not self.ended:
            self._peer_closed()

    def _postpone(self) -> None:
        """What is left in `_partial` waits until others have had their turn."""
        if not self._postponed:
            self._postponed = True
            self._reactor.soon(self._go_on, self)
            self.wants_to_write(self.outgoing.is_blocked)

    def _go_on(self) -> None:
        if self.ended:
            return
        self._postponed = False
        plain, end = self._buffers.plain, len(self._partial)
        plain[:end] = self._partial
        self._partial = b""
        try:
            self._take(plain, end)
        except (PeerError, TunnelViolation) as error:
            self._end(End.TLS_ERROR, error)
        if self._postponed or self.ended:
            return
        self.wants_to_write(self.outgoing.is_blocked)
        if self._engine.peer_closed:
            self._peer_closed()

    def _take(self, plain: memoryview, end: int) -> None:
        """Hand out `plain[:end]`, whole frames and pieces of DATA; keep what is neither, and what is too much."""
        at = 0
        controls = 0
        postpone = False
        streams = self.streams
        if self._rest:
            at = min(self._rest, end)
            self._rest -= at
            stream = streams.get(self._rest_id)
            if stream is not None:
                stream.deliver(plain[:at])
        unpack_from = HEADER.unpack_from
        for _ in repeat(None, _FRAMES_AT_ONCE):
            if end - at < HEADER_SIZE or self.ended:
                break
            stream_id, word = unpack_from(plain, at)
            body = at + HEADER_SIZE
            if 0 < word <= MAX_DATA:  # DATA, whose type is 0
                at = body + word
                if at > end:
                    self._rest = at - end
                    self._rest_id = stream_id
                    at = end
                stream = streams.get(stream_id)
                if stream is not None:
                    stream.deliver(plain[body:at])
                else:
                    self._check_known(stream_id)
                continue
            frame_type = control_type(stream_id, word)
            after = body + (word & LENGTH_MASK)
            if after > end or controls == _CONTROLS_AT_ONCE:
                postpone = after <= end
                break
            controls += 1
            at = after
            self._on_control(frame_type, stream_id, bytes(plain[body:after]))
        else:
            postpone = at < end
        if at < end:
            self._partial = bytes(plain[at:end])
            if postpone and not self.ended:
                self._postpone()

    def _check_known(self, stream_id: int) -> None:
        """A frame to a stream that is over was under way; one to a stream that never was is a violation."""
        if not 0 < stream_id <= self._last_id:
            raise TunnelViolation(f"a frame for stream {stream_id}, which was never opened")

    def _on_control(self, frame_type: FrameType, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            self._on_own(frame_type, payload)
            return
        if frame_type is _OPEN:
            self._on_open(stream_id, read_open(payload))
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
        elif frame_type is _FIN:
            stream.finish()
        elif frame_type is _OPENED:
            stream.opened()
        elif frame_type is _CREDIT:
            stream.add_credit(read_credit(payload))
        elif frame_type is _RESET:
            stream.reset_by_peer(read_reset(payload))
        else:
            stream.peer_moved()

    def _on_own(self, frame_type: FrameType, payload: bytes) -> None:
        """A frame of the tunnel itself, whose stream is 0."""
        match frame_type:
            case FrameType.PING:
                self.outgoing.put(frame(0, FrameType.PONG, payload))
            case FrameType.PONG:
                pass
            case FrameType.ADDRESS:
                if not self._is_client:
                    raise TunnelViolation("an ADDRESS of a client, which nobody dials")
                self._owner.on_address(read_address(payload))
            case FrameType.DRAIN:
                self.draining = True
                self._owner.on_draining(self)

    def _on_open(self, stream_id: int, opening: Opening) -> None:
        if self._is_client or stream_id != self._last_id + 1:
            raise TunnelViolation(f"OPEN for stream {stream_id} where {self._last_id + 1} is the next of the client")
        self._last_id = stream_id
        refusal = self._owner.on_open(self, stream_id, opening)
        if refusal is not None:
            self.outgoing.put(reset_frame(stream_id, refusal))

    # -- the end ------------------------------------------------------------------------------------------------

    def _peer_closed(self) -> None:
        """close_notify. With streams open that is an end of the tunnel only, never of their data."""
        self._end(End.CLOSED if not self.streams else End.RESET_BY_PEER)

    def wants_to_write(self, yes: bool) -> None:
        """Watch the wire for room, or not any more; for what comes, unless there is enough to do."""
        events = (0 if self._postponed else _IN) | (_OUT if yes else 0)
        if self._events != events and not self.ended:
            self._events = events
            self._reactor.modify(self._fd, events)

    def wire_broke(self, error: OSError) -> None:
        """Nothing can be sent any more."""
        if not self.ended:
            self._end(End.RESET_BY_PEER, error)

    def overrun(self) -> None:
        """The other side asks for more answers than it takes."""
        self._end(End.TLS_ERROR, TunnelViolation("the other side asks for answers and does not read them"))

    def _end(self, end: End, error: Exception | None = None) -> None:
        self.ended = True
        can_tell = isinstance(error, PeerError) and not self.outgoing.is_blocked
        alert = self._engine.data_to_send() if can_tell else b""
        self.outgoing.close()
        self._reactor.unregister(self._fd)
        if end is End.CLOSED:
            sockets.close(self._sock)
        else:
            self._tell(alert)
        for stream in tuple(self.streams.values()):
            stream.tunnel_gone(End.RESET_BY_PEER if end is End.CLOSED else end, error)
        owner = self._owner
        # They know each other, and what the owner holds is heavy: a credential is 47 KB of OpenSSL's memory, of which
        # the garbage collector sees nothing, so that it would let hundreds pile up before it looks.
        del self._owner
        owner.on_end(self, end, error)

    def _tell(self, alert: bytes) -> None:
        """The peer hears why, if that can still be told; then RST, or FIN behind the alert."""
        if alert:
            try:
                if self._sock.send(alert) == len(alert):
                    self._sock.shutdown(socket.SHUT_WR)
                    sockets.close(self._sock)
                    return
            except OSError:
                pass  # the peer is gone already: nothing is lost, the record says what happened
        sockets.reset(self._sock)
