"""One stream of a tunnel: an application's socket on one side, frames on the other, and nobody else's trouble.

Reads go straight into the tunnel's outgoing buffer; what comes goes straight from the tunnel's incoming buffer to the
socket. What the application does not take is kept, at most a stream's credit. FIN, RST and credit are its own.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import TYPE_CHECKING, Final

from proxy import sockets
from proxy.relay import End, Outcome, Relay
from proxy.tunnels.buffers import OUT_SIZE
from proxy.tunnels.ends import NextConnection, StreamOwner, StreamReset, code_of, end_of
from proxy.tunnels.frames import (
    CREDIT,
    HEADER,
    HEADER_SIZE,
    MAX_DATA,
    FrameType,
    ResetCode,
    TunnelViolation,
    credit_frame,
    fin_frame,
    frame,
    opened_frame,
    reset_frame,
)
from proxy.waits import is_connected

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
# Each piece counts with what it has beyond a message's size. 1 MiB of that is bulk: it goes 15 to 20 % faster in a
# connection of its own, which has paid for its handshake then.
_BULK: Final = 1024 * 1024
_MESSAGE: Final = 8 * 1024


class Stream:
    """Owns `sock` from `start()` on, and closes it or gives it to a relay. `owner` is told, from the loop."""

    __slots__ = (
        "_connecting", "_credit", "_events", "_expects_opened", "_fin_wanted", "_finished_reading",
        "_finished_writing", "_leaving", "_next", "_outgoing", "_owed", "_owner", "_pending", "_reactor",
        "_registered", "_room", "_sock", "_streak", "_tunnel", "ended", "fd", "id", "moved",
    )  # fmt: skip

    def __init__(
        self,
        reactor: Reactor,
        tunnel: Tunnel,
        stream_id: int,
        sock: socket.socket,
        owner: StreamOwner,
        *,
        connecting: bool,
    ) -> None:
        """`connecting`: `sock` is a server's, on its way to the application."""
        self._reactor = reactor
        self._tunnel = tunnel
        self._outgoing = tunnel.outgoing
        self.id = stream_id
        self._sock = sock
        self.fd = sock.fileno()
        self._owner = owner
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
        self._streak = 0  # what makes it bulk, see _BULK; -1: that was said
        self._next: NextConnection | None = None  # where it moves to
        self._leaving = False  # MOVED was sent: nothing more goes through the tunnel
        self.ended = False
        # Plaintext bytes so far: [from the application, from the wire], as a relay counts them.
        self.moved = [0, 0]

    def start(self) -> None:
        """Begin to watch the application's socket."""
        if not self._connecting:
            self._watch(_IN)
        elif is_connected(self._sock):
            self._arrived()
        else:
            self._watch(_OUT)

    def read_at_once(self) -> None:
        """Take what the application has sent already: it goes out with what opens the stream."""
        self._read()

    @property
    def is_connecting(self) -> bool:
        """Whether a server's application has not answered yet."""
        return self._connecting

    @property
    def waiting(self) -> int:
        """Bytes that the application has not taken yet."""
        return len(self._pending)

    def peer_vanished(self, _seconds: float) -> bool:
        """Its tunnel looks for signs of life, for all of its streams at once."""
        return False

    # -- from the application -----------------------------------------------------------------------------------

    def on_ready(self, _fd: int, mask: int) -> None:
        """The reactor's call."""
        if mask == _IN and self._events & _IN:  # as nearly always
            self._read()
            return
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
        if not (self.ended or self._finished_reading or self._connecting or self._leaving) and self._credit > 0:
            self._watch(self._events | _IN)

    def _read(self) -> None:
        outgoing = self._outgoing
        for _ in range(_READS_PER_TURN):
            limit = self._credit
            if limit <= 0:  # CREDIT resumes
                self._watch(self._events & ~_IN)
                return
            if limit > _READ_LIMIT:  # noqa: PLR1730  # min() costs three times as much here
                limit = _READ_LIMIT
            out = outgoing.out
            if out is None or outgoing.used + HEADER_SIZE + limit > OUT_SIZE:
                out = outgoing.reserve(HEADER_SIZE + limit)
                if out is None:
                    self._watch(self._events & ~_IN)
                    outgoing.wait(self)
                    return
            at = outgoing.used
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
            outgoing.used = body + length
            self._credit -= length
            self.moved[0] += length
            if length > _MESSAGE or self._streak:
                self._watch_for_bulk(length)
            if length < limit or self._leaving:
                return

    def _application_finished(self) -> None:
        self._finished_reading = True
        self._outgoing.put(fin_frame(self.id))
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
        else:
            self._arrived()

    def _arrived(self) -> None:
        self._connecting = False
        self._outgoing.put_with_next(opened_frame(self.id))
        self._owner.on_connected()
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
        if length > _MESSAGE or self._streak:
            self._watch_for_bulk(length)
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
        self._owed += sent
        if self._owed >= _CREDIT_STEP:
            self._give_credit()

    def opened(self) -> None:
        """OPENED: the application on the other side has accepted. Raises TunnelViolation where that was not asked."""
        if not self._expects_opened:
            raise TunnelViolation(f"stream {self.id}: OPENED that nobody waits for")
        self._expects_opened = False
        self._owner.on_connected()

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
        self._end(end_of(code), StreamReset(code))

    def abort(self, end: End, error: Exception | None = None) -> None:
        """End it from our side: the reason goes to the other side, RST to the application."""
        if not self.ended:
            self._tell(code_of(end))
            self._end(end, error)

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
            self._owed += sent
            if self._owed >= _CREDIT_STEP:
                self._give_credit()
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
        if self._finished_reading:
            self._end(End.CLOSED)  # closing the socket says FIN
            return
        self._reactor.after_turn(self._shut_down)

    def _shut_down(self) -> None:
        """Say FIN. It wakes an application that others may be waiting for."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if not self.ended:  # else it is closed, or its relay will see
                self._application_gone(error)

    def _give_credit(self) -> None:
        """The application has taken so much that as much more may come."""
        if not self._fin_wanted:
            self._outgoing.put(credit_frame(self.id, self._owed))
            self._room += self._owed
            self._owed = 0

    # -- to a connection of its own ----------------------------------------------------------------------------

    def _watch_for_bulk(self, length: int) -> None:
        if self._streak < 0:
            return
        streak = self._streak + length - _MESSAGE
        if streak >= _BULK:
            self._streak = -1
            self._owner.on_bulk(self)
        else:
            self._streak = streak if streak > 0 else 0  # max() costs three times as much here

    @property
    def can_move(self) -> bool:
        """Whether there is something left to move, and nobody has begun to."""
        both_finished = self._finished_reading and self._fin_wanted
        return not (self.ended or self._connecting or both_finished or self._next is not None)

    def leave_for(self, connection: NextConnection) -> None:
        """A client's: what follows comes and goes through `connection`, which the server knows."""
        self._next = connection
        self._say_moved()

    def expect_move_to(self, connection: NextConnection) -> None:
        """A server's: the client will say MOVED, and then everything follows in `connection`."""
        self._next = connection

    def peer_moved(self) -> None:
        """MOVED: nothing more comes through the tunnel. Raises TunnelViolation where nobody agreed on that."""
        if self._next is None:
            raise TunnelViolation(f"stream {self.id}: MOVED to a connection that nobody made")
        if not self._leaving:
            self._say_moved()
        self._hand_over(self._next)

    def _say_moved(self) -> None:
        self._leaving = True
        self._watch(self._events & ~_IN)
        self._outgoing.put(frame(self.id, FrameType.MOVED))

    def _hand_over(self, connection: NextConnection) -> None:
        """Everything of the tunnel has come: a relay goes on, with what the application has not taken yet."""
        self.ended = True
        self._next = None
        self._unwatch()
        self._tunnel.forget(self.id)
        relay = Relay(
            self._reactor, connection.scratch, self._sock, connection.wire, connection.engine, self._owner.on_end,
            connection.on_session,
        )  # fmt: skip
        relay.moved = self.moved
        self._owner.on_moved(relay)
        relay.take_over(
            bytes(self._pending), application_finished=self._finished_reading, application_told=self._finished_writing
        )
        self._pending.clear()

    # -- the end ------------------------------------------------------------------------------------------------

    def _tell(self, code: ResetCode) -> None:
        self._outgoing.put(reset_frame(self.id, code))

    def _watch(self, events: int) -> None:
        # The wire may break, and the tunnel end, in the middle of whatever is put into it.
        if self.ended:
            return
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
        if self.ended:  # by its tunnel, which ended when it was to be told
            return
        self.ended = True
        if self._registered:
            self._registered = False
            self._reactor.forget(self.fd)
        self._pending.clear()
        if end is End.CLOSED:
            self._tunnel.streams.pop(self.id, None)
            self._reactor.after_turn(self._close)  # all is said, and others' data may wait to be sent
        else:
            sockets.reset(self._sock)
            self._gone(end, error)

    def _close(self) -> None:
        sockets.close(self._sock)
        self._gone(End.CLOSED, None)

    def _gone(self, end: End, error: Exception | None) -> None:
        self._tunnel.forget(self.id)
        if self._next is not None:
            sockets.reset(self._next.wire)
            self._next = None
        self._owner.on_end(Outcome(end, self.moved[0], self.moved[1], error))
