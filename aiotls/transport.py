"""The transport: an asyncio.Transport over one TLS connection whose handshake is complete.

It watches its own non-blocking socket with the loop's add_reader and add_writer; the loop's own transports have no part
in it (docs/adr/0011-aiotls.md). Every call runs to completion:

    readable → recv_into → open_into → protocol.data_received
    write()  → seal_into → send; what the kernel does not take waits in the outbox

How it ends:

    close()      what waits is sent, close_notify and FIN follow, and the peer's close_notify is awaited for a while
    abort()      RST
    peer's fault our alert follows what waits, then FIN; the protocol gets PeerFailed
    broken       the protocol gets the kernel's OSError
"""

from __future__ import annotations

import asyncio
import socket
import struct
from asyncio import constants, transports
from collections.abc import Callable, Iterable
from typing import Final, cast

from aiotls.buffers import PIECE, Outbox
from aiotls.delivery import deliver
from aiotls.errors import ShutdownTimeout, of_peer_error
from aiotls.extra_info import extra_info
from aiotls.handshake import LINGER, Established
from aiotls.records import Records
from aiotls.stall import StallTimer
from aiotls.watch import Watch
from pqtls import PeerError, Session, SessionReceived, TruncatedStream

# struct linger: on, for zero seconds. Closing sends RST and throws away what waits in the kernel (socket(7)).
_RESET: Final = struct.pack("ii", 1, 0)

Bytes = bytes | bytearray | memoryview


def ignore_session(_session: Session) -> None:
    """The default of `on_session`: nothing is resumed."""


# The mixin is where asyncio keeps the two water marks, and what its sendfile() demands of a transport, as is the
# _SendfileMode below. asyncio documents neither (docs/adr/0011-aiotls.md).
class TlsTransport(transports._FlowControlMixin):
    """An asyncio.Transport; made by create_connection and create_server.

    What its get_extra_info() knows stands in extra_info.py: "peer_identity" and "handshake" among it.
    """

    # loop.sendfile() reads the file and write()s it: the kernel cannot encrypt for us.
    _sendfile_compatible = constants._SendfileMode.FALLBACK

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        established: Established,
        protocol: asyncio.BaseProtocol,
        *,
        shutdown_timeout: float,
        on_session: Callable[[Session], None] = ignore_session,
        on_lost: Callable[[TlsTransport], None] | None = None,
    ) -> None:
        """Call protocol.connection_made; reading begins in the loop's next turn."""
        super().__init__(extra_info(sock, established.completed), loop)
        self._loop = loop
        self._sock = sock
        self._connection = established.connection
        self._records = Records(sock, established.connection)
        self._protocol = protocol
        self._shutdown_timeout = shutdown_timeout
        self._on_session = on_session
        self._on_lost = on_lost
        self._outbox = Outbox()
        self._undelivered = established.plaintext
        self._paused = False
        self._watched = Watch(loop, sock)
        self._eof_received = False  # whether the protocol was told
        self._eof_written = False  # close_notify is sealed; nothing comes behind it
        self._fin_sent = False
        self._closing = False
        self._failure: Exception | None = None  # the peer's fault, while our alert is on its way
        self._broken: OSError | None = None  # a failed send, until the peer's last words are read
        self._lost = False
        self._timer = StallTimer(loop)
        for session in established.sessions:
            on_session(session)
        self._tell(lambda: protocol.connection_made(self))
        loop.call_soon(self._continue_reading)

    def __repr__(self) -> str:
        state = "closed" if self._lost else "closing" if self._closing else "open"
        return f"<TlsTransport {state} peer={self.get_extra_info('peer_identity') or 'anonymous'}>"

    # -- asyncio.BaseTransport ----------------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection to another protocol. connection_made is not called."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The present protocol."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether the connection is being closed, or is."""
        return self._closing

    def close(self) -> None:
        """Send what waits, then close_notify and FIN; wait for the peer's close_notify; then connection_lost(None).

        What still comes in is thrown away. Where nothing moves for shutdown_timeout seconds, the socket is closed as
        it is, and connection_lost gets ShutdownTimeout if that lost bytes of ours.
        """
        if self._closing:
            return
        self._closing = True
        self._undelivered = b""
        self._timer.start(self._shutdown_timeout, self._on_stall)
        self._send_eof()
        self._watch()

    def abort(self) -> None:
        """Throw away what waits and send RST; then connection_lost(None)."""
        self._drop(None, reset=True)

    # -- asyncio.ReadTransport ----------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        """Whether the protocol gets data as it comes."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Call neither data_received nor eof_received until resume_reading; TCP's window holds the peer back."""
        if self.is_reading():
            self._paused = True
            self._watch()

    def resume_reading(self) -> None:
        """Undo pause_reading."""
        if self._paused and not self._closing:
            self._paused = False
            self._loop.call_soon(self._continue_reading)

    # -- asyncio.WriteTransport ---------------------------------------------------------------------------------

    def get_write_buffer_size(self) -> int:
        """Bytes, as records, that the kernel has not taken yet."""
        return self._outbox.size

    def can_write_eof(self) -> bool:
        """True: TLS 1.3 closes each direction by itself."""
        return True

    def write(self, data: Bytes) -> None:
        """Protect and send. Never blocks; once closing it does nothing. RuntimeError after write_eof."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes, bytearray or memoryview, not {type(data).__name__}")
        if self._eof_written and not self._closing:
            raise RuntimeError("write() after write_eof()")
        with memoryview(data) as given, given.cast("B") as plaintext:
            for start in range(0, len(plaintext), PIECE):
                if self._closing or self._broken is not None:
                    return
                self._seal_and_send(plaintext[start : start + PIECE])
        self._maybe_pause_protocol()  # type: ignore[attr-defined]  # the mixin's, unknown to typeshed

    def writelines(self, list_of_data: Iterable[Bytes]) -> None:
        """write() all of them together, in as few records as they fit in."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Close our direction: close_notify, then FIN, behind all that waits. The peer's direction stays open."""
        if not self._closing:
            self._send_eof()
            self._watch()

    # -- receiving ----------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            plaintext = self._records.receive()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._drop(error)
            return
        except PeerError as error:
            self._on_peer_error(error)
            return
        self._send_what_the_engine_has()
        self._take_events()
        if not self._closing:
            self._undelivered = plaintext
            self._continue_reading()
        elif self._connection.peer_closed:
            self._watch()
            self._finish()

    def _take_events(self) -> None:
        for event in self._connection.events():
            if isinstance(event, SessionReceived):
                self._on_session(event.session)

    def _continue_reading(self) -> None:
        """Tell the protocol what it has not heard yet, as far as it wants to hear it, then wait for more."""
        if self._undelivered and not self._paused and not self._closing:
            plaintext, self._undelivered = self._undelivered, b""
            self._tell(lambda: deliver(self._protocol, plaintext))
        heard_all = not (self._undelivered or self._paused or self._closing)
        if heard_all and self._connection.peer_closed and not self._eof_received:
            self._eof_received = True
            self._tell(self._tell_eof)
        self._watch()

    def _tell_eof(self) -> None:
        protocol = cast("asyncio.Protocol", self._protocol)
        if not protocol.eof_received():
            self.close()

    def _tell(self, call: Callable[[], None]) -> None:
        """Call the protocol. What it raises ends the connection, and goes to the loop's exception handler."""
        try:
            call()
        except BaseException as error:
            self._drop(error if isinstance(error, Exception) else None, reset=True)
            raise

    # -- sending ------------------------------------------------------------------------------------------------

    def _seal_and_send(self, plaintext: memoryview) -> None:
        self._send_what_the_engine_has()
        self._send(self._records.seal(plaintext))

    def _send_what_the_engine_has(self) -> None:
        """Alerts, answers to KeyUpdate, tickets."""
        if self._connection.has_data_to_send:
            self._send(memoryview(self._connection.data_to_send()))

    def _send(self, records: memoryview) -> None:
        if self._lost or self._broken is not None:
            return
        try:
            self._outbox.send(self._sock, records)
        except OSError as error:
            self._on_broken(error)
            return
        self._watch()

    def _send_eof(self) -> None:
        if not self._eof_written:
            self._eof_written = True
            self._connection.send_close_notify()
            self._send_what_the_engine_has()
        self._finish()

    def _on_writable(self) -> None:
        try:
            sent = self._outbox.flush(self._sock)
        except OSError as error:
            self._on_broken(error)
            return
        if sent:
            self._timer.moved()
        self._watch()
        self._maybe_resume_protocol()  # type: ignore[attr-defined]  # the mixin's, unknown to typeshed
        self._finish()

    # -- the end ------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Once all is sent: FIN; and once both directions are closed, the end."""
        if self._lost or self._outbox.size or self._broken is not None:
            return
        if self._eof_written and not self._fin_sent:
            self._fin_sent = True
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError as error:  # ENOTCONN: the peer has reset the connection
                self._on_broken(error)
                return
        if self._closing and self._failure is None and self._connection.peer_closed:
            self._drop(None)

    def _on_peer_error(self, error: PeerError) -> None:
        """Send the alert behind what waits, if there is one and our direction is still open; then drop."""
        if isinstance(error, TruncatedStream) and self._closing and self._fin_sent:
            self._drop(None)  # all of ours is sent, and of theirs nothing was wanted any more
            return
        failure = of_peer_error(error)
        alert = self._connection.data_to_send()
        if not alert or self._eof_written or self._broken is not None:
            self._drop(failure)
            return
        self._failure = failure
        self._closing = True
        self._eof_written = True
        self._timer.start(min(LINGER, self._shutdown_timeout), self._on_stall, whatever_moves=True)
        self._send(memoryview(alert))
        self._finish()
        self._watch()

    def _discard(self) -> None:
        """Read on until the peer has seen our alert and closes; see handshake.LINGER."""
        try:
            if self._records.discard():
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # the peer's reset in answer to our alert: the failure is known already
            self._drop(self._failure)
            return
        self._drop(self._failure)

    def _on_broken(self, error: OSError) -> None:
        """Sending failed. An alert that says why may lie unread: look, in the next turn, then drop."""
        if self._lost or self._broken is not None:
            return
        self._broken = error
        self._outbox.clear()
        self._watch()
        self._loop.call_soon(self._hear_last_words, error)

    def _hear_last_words(self, error: OSError) -> None:
        if self._lost:
            return
        try:
            self._records.receive()
        except PeerError as peer_error:
            is_known = self._failure is not None or isinstance(peer_error, TruncatedStream)
            self._drop(self._failure or (error if is_known else of_peer_error(peer_error)))
        except OSError:  # the kernel says of reading what it said of writing
            self._drop(self._failure or error)
        else:
            self._drop(self._failure or error)

    def _on_stall(self, seconds: float) -> None:
        """Nothing of ours has moved for so long, or the peer has had its time to read our alert."""
        unsent = self._outbox.size
        lost = ShutdownTimeout(unsent, seconds) if unsent else None
        self._drop(self._failure or lost, reset=bool(unsent))

    def _drop(self, error: Exception | None, *, reset: bool = False) -> None:
        """The one way to the end: stop everything, and tell the protocol in the loop's next turn."""
        if self._lost:
            return
        self._lost = True
        self._closing = True
        self._undelivered = b""
        self._outbox.clear()
        self._watch()
        self._timer.cancel()
        if reset:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._loop.call_soon(self._call_connection_lost, error)

    def _call_connection_lost(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._sock.close()
            if self._on_lost is not None:
                self._on_lost(self)

    # -- what the loop watches ----------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Have the loop watch for exactly what is of use now."""
        writer = self._on_writable if self._outbox.size and not self._lost else None
        self._watched.wait_for(self._wanted_reader(), writer)

    def _wanted_reader(self) -> Callable[[], None] | None:
        if self._lost or self._broken is not None:
            return None
        if self._failure is not None:
            return self._discard
        if self._connection.peer_closed:
            return None
        if not self._closing and (self._paused or self._undelivered):
            return None
        return self._on_readable
