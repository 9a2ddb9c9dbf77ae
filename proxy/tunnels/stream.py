"""One stream of a tunnel: an application's socket on one side, frames on the other, and nobody else's trouble.

Reads go straight into the tunnel's outgoing buffer; what comes goes straight from the tunnel's incoming buffer to the
socket. What the application does not take is kept, at most a stream's credit. FIN, RST and credit are its own.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy import sockets
from proxy.relay import End, Outcome
from proxy.tunnels.frames import (
    CREDIT,
    HEADER,
    HEADER_SIZE,
    MAX_DATA,
    FrameType,
    ResetCode,
    TunnelViolation,
    credit_frame,
    frame,
    reset_frame,
)

if TYPE_CHECKING:
    from proxy.reactor import Reactor
    from proxy.tunnels.tunnel import Tunnel

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_BROKEN: Final = select.EPOLLERR | select.EPOLLHUP
# Given back in halves: the sender always has the other half, and a small answer costs no CREDIT at all.
_CREDIT_STEP: Final = CREDIT // 2
# Four of these with their headers fill the outgoing buffer, and are a stream's whole credit: so much is read in a turn.
_READ_LIMIT: Final = MAX_DATA + 1 - HEADER_SIZE
_READS_PER_TURN: Final = 4


class Stream:
    """Owns `sock` from `start()` on, and closes it. `on_end` is called exactly once, from the loop."""

    __slots__ = (
        "_connecting", "_credit", "_events", "_expects_opened", "_fin_wanted", "_finished_reading",
        "_finished_writing", "_on_connected", "_on_end", "_owed", "_pending", "_reactor", "_registered", "_room",
        "_sock", "_tunnel", "ended", "fd", "id", "moved",
    )  # fmt: skip

    def __init__(
        self,
        reactor: Reactor,
        tunnel: Tunnel,
        stream_id: int,
        sock: socket.socket,
        on_end: Callable[[Outcome], None],
        on_connected: Callable[[], None],
        *,
        connecting: bool,
    ) -> None:
        """`connecting`: `sock` is a server's, on its way. `on_connected` is called when the application is there."""
        self._reactor = reactor
        self._tunnel = tunnel
        self.id = stream_id
        self._sock = sock
        self.fd = sock.fileno()
        self._on_end = on_end
        self._on_connected = on_connected
        self._connecting = connecting
        self._expects_opened = not connecting
        self._registered = False
        self._events = 0  # what the reactor watches for; 0 where it does not, too
        self._credit = CREDIT  # bytes that we may still send
        self._room = CREDIT  # bytes that the other side may still send
        self._owed = 0  # bytes that our application has taken and the other side was not told of
        self._pending = bytearray()
        self._finished_reading = False
        self._fin_wanted = False
        self._finished_writing = False
        self.ended = False
        # Plaintext bytes so far: [from the application, from the wire], as a relay counts them.
        self.moved = [0, 0]

    def start(self) -> None:
        """Begin to watch the application's socket."""
        self._watch(_OUT if self._connecting else _IN)

    @property
    def is_connecting(self) -> bool:
        """Whether a server's application has not answered yet."""
        return self._connecting

    # -- from the application -----------------------------------------------------------------------------------

    def on_ready(self, _fd: int, mask: int) -> None:
        """The reactor's call."""
        if self._connecting:
            self._connected()
        elif mask & _OUT:
            self._send_pending()
        if self.ended:
            return
        if mask & (_IN | _BROKEN) and self._events & _IN:
            self._read()
        elif mask & _BROKEN:
            self._broken()

    def on_crash(self, error: Exception) -> None:
        """A bug of ours: end this stream, and let the others live."""
        if not self.ended:
            self._tell(ResetCode.INTERNAL_ERROR)
            self._end(End.INTERNAL_ERROR, error)

    def resume(self) -> None:
        """The tunnel has room again."""
        if not self.ended and not self._finished_reading and self._credit > 0 and not self._connecting:
            self._watch(self._events | _IN)

    def _read(self) -> None:
        for _ in range(_READS_PER_TURN):
            limit = self._credit
            if limit <= 0:  # CREDIT resumes
                self._watch(self._events & ~_IN)
                return
            if limit > _READ_LIMIT:  # noqa: PLR1730  # min() costs three times as much here
                limit = _READ_LIMIT
            tunnel = self._tunnel
            out = tunnel.reserve(HEADER_SIZE + limit)
            if out is None:
                self._watch(self._events & ~_IN)
                tunnel.wait(self)
                return
            at = tunnel.used
            body = at + HEADER_SIZE
            try:
                length = self._sock.recv_into(out[body : body + limit])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._application_gone(error)
                return
            if not length:
                self._application_finished()
                return
            HEADER.pack_into(out, at, self.id, length)  # the type DATA is 0
            tunnel.used = body + length
            self._credit -= length
            self.moved[0] += length
            if length < limit:
                return

    def _application_finished(self) -> None:
        self._finished_reading = True
        self._tunnel.put(frame(self.id, FrameType.FIN))
        if self._finished_writing:
            self._end(End.CLOSED)
        else:
            self._watch(self._events & ~_IN)

    def _application_gone(self, error: OSError) -> None:
        self._tell(ResetCode.RESET_BY_APPLICATION)
        self._end(End.RESET_BY_APPLICATION, error)

    def _broken(self) -> None:
        """EPOLLERR or EPOLLHUP while the socket is not being read."""
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._application_gone(OSError(code, os.strerror(code)))
        else:
            # HUP alone: FIN went both ways. epoll cannot be told to keep quiet about it (relay.py).
            self._unwatch()

    def _connected(self) -> None:
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._tell(ResetCode.CONNECT_TIMEOUT if code == errno.ETIMEDOUT else ResetCode.CONNECT_FAILED)
            self._end(End.CONNECT_FAILED, OSError(code, os.strerror(code)))
            return
        self._connecting = False
        self._tunnel.put(frame(self.id, FrameType.OPENED))
        self._on_connected()
        self._watch(_IN)
        if self._pending or self._fin_wanted:
            self._send_pending()

    # -- from the tunnel ----------------------------------------------------------------------------------------

    def deliver(self, data: memoryview) -> None:
        """Bytes for the application. Raises TunnelViolation where nothing more may come."""
        length = len(data)
        self._room -= length
        if self._room < 0 or self._fin_wanted:
            raise TunnelViolation(f"stream {self.id}: DATA {'after FIN' if self._fin_wanted else 'beyond the credit'}")
        self.moved[1] += length
        if self._pending or self._connecting:
            self._pending += data
            return
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._application_gone(error)
            return
        if sent < length:
            self._pending += data[sent:]
            self._watch(self._events | _OUT)
        self._taken(sent)

    def opened(self) -> None:
        """OPENED: the application on the other side has accepted. Raises TunnelViolation where that was not asked."""
        if not self._expects_opened:
            raise TunnelViolation(f"stream {self.id}: OPENED that nobody waits for")
        self._expects_opened = False
        self._on_connected()

    def finish(self) -> None:
        """FIN: the application gets it behind all that came. Raises TunnelViolation for a second one."""
        if self._fin_wanted:
            raise TunnelViolation(f"stream {self.id}: a second FIN")
        self._fin_wanted = True
        if not self._pending and not self._connecting:
            self._pass_fin()

    def add_credit(self, count: int) -> None:
        """The other side's application has taken `count` bytes. Raises TunnelViolation."""
        self._credit += count
        if not count or self._credit > CREDIT:
            raise TunnelViolation(f"stream {self.id}: credit for {count} bytes that were never sent")
        if not self._events & _IN:
            self.resume()

    def reset_by_peer(self, code: ResetCode) -> None:
        """RESET: the application gets RST, at once, as TCP does it."""
        self._end(End.REFUSED if code in _REFUSALS else End.RESET_BY_PEER, StreamReset(code))

    def abort(self, end: End) -> None:
        """End it from our side: the reason goes to the other side, RST to the application."""
        if not self.ended:
            self._tell(_CODES.get(end, ResetCode.INTERNAL_ERROR))
            self._end(end)

    def tunnel_gone(self, end: End, error: Exception | None) -> None:
        """The whole tunnel is no more; nobody can be told."""
        if not self.ended:
            self._end(end, error)

    def _send_pending(self) -> None:
        if self._pending:
            try:
                with memoryview(self._pending) as view:
                    sent = self._sock.send(view)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._application_gone(error)
                return
            del self._pending[:sent]
            self._taken(sent)
        if self._pending:
            self._watch(self._events | _OUT)
            return
        if self._events & _OUT:
            self._watch(self._events & ~_OUT)
        if self._fin_wanted:
            self._pass_fin()

    def _pass_fin(self) -> None:
        if self._finished_writing:
            return
        self._finished_writing = True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._application_gone(error)
            return
        if self._finished_reading:
            self._end(End.CLOSED)

    def _taken(self, count: int) -> None:
        """The application has taken `count` bytes: so many more may come, and it is said in large steps."""
        self._owed += count
        if self._owed >= _CREDIT_STEP and not self._fin_wanted:
            self._tunnel.put(credit_frame(self.id, self._owed))
            self._room += self._owed
            self._owed = 0

    # -- the end ------------------------------------------------------------------------------------------------

    def _tell(self, code: ResetCode) -> None:
        self._tunnel.put(reset_frame(self.id, code))

    def _watch(self, events: int) -> None:
        if not self._registered:
            self._reactor.register(self.fd, events, self)
            self._registered = True
        elif self._events != events:
            self._reactor.modify(self.fd, events)
        self._events = events

    def _unwatch(self) -> None:
        if self._registered:
            self._reactor.unregister(self.fd)
            self._registered = False
            self._events = 0

    def _end(self, end: End, error: Exception | None = None) -> None:
        self.ended = True
        self._unwatch()
        if end is End.CLOSED:
            sockets.close(self._sock)
        else:
            sockets.reset(self._sock)
        self._pending.clear()
        self._tunnel.forget(self.id)
        self._on_end(Outcome(end, self.moved[0], self.moved[1], error))


class StreamReset(Exception):
    """The other side ended the stream; `code` says why."""

    def __init__(self, code: ResetCode) -> None:
        super().__init__(code.name.lower())
        self.code = code


_REFUSALS: Final = frozenset(ResetCode) - {ResetCode.RESET_BY_APPLICATION, ResetCode.INTERNAL_ERROR}
_CODES: Final = {
    End.CONNECT_TIMEOUT: ResetCode.CONNECT_TIMEOUT,
    End.IDLE: ResetCode.IDLE,
    End.DRAINED: ResetCode.DRAINED,
    End.REVOKED: ResetCode.REVOKED,
}
