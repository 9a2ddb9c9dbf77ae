"""The relay: moves bytes between an application's socket and a wire's, until both have said that they are done.

One `Relay` owns two connected, non-blocking sockets and runs to completion on each wake-up:

    recv_into (shared buffer) → seal_into or open_into → send

What the kernel does not take is kept, and nothing more is read from the other side until it is gone: back-pressure,
with at most one buffer per direction. An idle relay holds no buffer at all.

Ends are told apart and passed on as what they are. FIN ↔ close_notify and FIN, each direction by itself (half-close);
RST ↔ RST without close_notify; a stream that ends without close_notify is not an end but an attack or an accident
(RFC 8446 §6.1), so the application gets RST.

Without an engine both sides are plain TCP, and FIN is FIN.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from pqtls import Session
from pqtls.errors import PeerError
from pqtls.events import SessionReceived
from proxy import sockets
from proxy.engine import READ_SIZE, WIRE_READ_SIZE, Engine, Scratch, ignore_session
from proxy.reactor import Reactor
from proxy.side import Side, SideBroken

# One wake-up moves up to a mebibyte of a busy stream: what the loop, epoll and the scheduler take for it is a tenth of
# the cost of 256 KiB. Others wait for so long, some 0.7 ms.
_READS_PER_TURN: Final = 4
# What goes out with the end of a handshake: the usual request. The rest of a larger one follows, as everything does.
_FIRST_WORDS: Final = 16 * 1024

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_BROKEN: Final = select.EPOLLERR | select.EPOLLHUP


class End(Enum):
    """How a relay ended."""

    CLOSED = "closed"  # both directions were closed in order
    RESET_BY_APPLICATION = "reset_by_application"
    RESET_BY_PEER = "reset_by_peer"
    TLS_ERROR = "tls_error"  # `error` is a PeerError
    IDLE = "idle"
    STALLED = "stalled"  # bytes waited for too long, and one side took none
    DRAINED = "drained"
    REVOKED = "revoked"  # the peer's certificate was, while the connection lived
    DENIED = "denied"  # policies that changed do not let it in any more; `error` is a reasons.Refused
    CONNECT_FAILED = "connect_failed"  # a tunnel's stream, whose application did not answer; `error` is an OSError
    CONNECT_TIMEOUT = "connect_timeout"  # the same, which did not say anything
    REFUSED = "refused"  # a tunnel's stream, by the other sidecar; `error` is a StreamReset
    PEER_SILENT = "peer_silent"  # the other end has not answered for too long
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a relay, and the bytes of plaintext that it carried each way."""

    end: End
    from_application: int
    from_wire: int
    error: Exception | None = None


class Relay:
    """Owns both sockets from `start()` on, and closes them. `on_end` is called exactly once, from the loop."""

    __slots__ = (
        "_application", "_carry", "_ended", "_engine", "_lost", "_on_end", "_on_session", "_reactor", "_scratch",
        "_watched", "_wire", "moved",
    )  # fmt: skip

    def __init__(
        self,
        reactor: Reactor,
        scratch: Scratch,
        application: socket.socket,
        wire: socket.socket,
        engine: Engine | None,
        on_end: Callable[[Outcome], None],
        on_session: Callable[[Session], None] = ignore_session,
    ) -> None:
        self._reactor = reactor
        self._scratch = scratch
        self._application = Side(application)
        self._wire = Side(wire)
        self._engine = engine
        self._on_end = on_end
        self._on_session = on_session
        self._carry = b""  # ciphertext of a record that is not whole yet
        self._ended = False
        self._watched = False  # whether the kernel probes the wire
        self._lost: OSError | None = None  # the wire went after its stream had ended, and the application has the rest
        # Plaintext bytes so far: [from the application, from the wire]. Watched for idleness, too.
        self.moved = [0, 0]

    def start(self, first: bytes = b"") -> None:
        """Begin. `first` is plaintext from the wire that was read before; the end of our handshake may be unsent."""
        try:
            if self._engine is not None and self._engine.has_data_to_send:
                self._send_with_first_words(self._engine)
            self._start(first)
            if not self._ended:
                self._settle()
        except SideBroken as broken:
            self._give_up_on(broken)

    def _start(self, first: bytes) -> None:
        if first:
            self.moved[1] += len(first)
            self._application.send(memoryview(first))
        if self._engine is None:
            return
        if self._engine.peer_closed:
            self._stream_ended(self._wire)
            return
        # Ciphertext that came behind the handshake, not yet a whole record; no longer than one read of that phase.
        if buffered := self._engine.take_buffered():
            self._scratch.read[: len(buffered)] = buffered
            self._forward(self._wire, len(buffered))

    def _send_with_first_words(self, engine: Engine) -> None:
        """Send what is left of our handshake, in one piece with what the application has said already."""
        length = self._application.receive(self._scratch.read[:_FIRST_WORDS])
        if length:
            self.moved[0] += length
            produced = engine.seal_into(self._scratch.read, length, self._scratch.write)
            self._wire.send(self._scratch.write[:produced])
            return
        self._flush_engine(engine)
        if length == 0:
            self._stream_ended(self._application)

    def take_over(self, pending: bytes, *, application_finished: bool, application_told: bool) -> None:
        """Begin where somebody else has carried the connection so far, and counted `moved`.

        `pending` is what the application has not taken yet; `application_finished`: it will send no more, which the
        peer was not told on this connection; `application_told`: it was told that the peer will not either.
        """
        self.moved[1] -= len(pending)
        self._application.fin_wanted = self._application.finished_writing = application_told
        try:
            self._application.unpace()
            self._start(pending)
            if application_finished and not self._ended:
                self._stream_ended(self._application)
            if not self._ended:
                self._settle()
        except SideBroken as broken:
            self._give_up_on(broken)

    @property
    def ended(self) -> bool:
        """Whether both sockets are closed."""
        return self._ended

    @property
    def waiting(self) -> int:
        """Bytes that one of the sides has not taken yet."""
        return len(self._application.pending) + len(self._wire.pending)

    def peer_vanished(self, seconds: float) -> bool:
        """Whether the peer's machine is gone: asked where nothing has moved for `seconds`, and answered after as many.

        Where there is no TLS of the mesh it is left to the application how long it waits for its peer.
        """
        if self._engine is None:
            return False
        if not self._watched:
            self._watched = True
            sockets.ask_for_life(self._wire.sock, seconds)
        return sockets.has_vanished(self._wire.sock, 2 * seconds)

    def abort(self, end: End, error: Exception | None = None) -> None:
        """Reset both sides now, for example because the sidecar has no more time to drain."""
        if not self._ended:
            self._end(end, error)

    def on_crash(self, error: Exception) -> None:
        """A bug of ours: end this pair, and let the others live."""
        if not self._ended:
            self._end(End.INTERNAL_ERROR, error)

    def on_ready(self, fd: int, mask: int) -> None:
        """The reactor's call: do all that can be done without waiting."""
        side, other = self._application, self._wire
        if fd == other.fd:
            side, other = other, side
        try:
            if mask & _OUT and side.pending:
                side.send(side.pending)
                if side is self._wire and self._engine is not None:
                    self._flush_engine(self._engine)
            if mask & (_IN | _BROKEN) and side.events & _IN:
                reads = 1
                while self._read(side) and reads < _READS_PER_TURN:
                    reads += 1
            elif mask & _BROKEN and not self._ended:
                side.check(self._reactor)
            if not self._ended:
                self._settle()
        except SideBroken as broken:
            self._give_up_on(broken)

    def _read(self, side: Side) -> bool:
        """Pass on one read; return whether the next may follow at once: more is there, and nothing waits."""
        start, most = 0, READ_SIZE
        if side is self._wire:
            start, most = self._restore_carry(), WIRE_READ_SIZE
        length = side.receive(self._scratch.read[start:most])
        if length is None:
            if start:
                self._carry = bytes(self._scratch.read[:start])
            return False
        if length:
            self._forward(side, start + length)
            waiting = self._wire.pending or self._application.pending
            return start + length == most and not (waiting or side.finished_reading or self._ended)
        if side is self._wire and self._engine is not None:
            self._wire_cut(self._engine)
        else:
            self._stream_ended(side)
        return False

    def _restore_carry(self) -> int:
        """Put the unfinished record in front of the buffer; return its length."""
        length = len(self._carry)
        if length:
            self._scratch.read[:length] = self._carry
            self._carry = b""
        return length

    def _forward(self, side: Side, length: int) -> None:
        """Pass on `length` bytes of the read buffer, which came from `side`."""
        if self._engine is None:
            self._forward_plain(side, length)
        elif side is self._application:
            self._seal(self._engine, length)
        else:
            self._open(self._engine, length)

    def _forward_plain(self, side: Side, length: int) -> None:
        towards = self._wire if side is self._application else self._application
        self.moved[0 if side is self._application else 1] += length
        towards.send(self._scratch.read[:length])

    def _seal(self, engine: Engine, length: int) -> None:
        self._flush_engine(engine)
        produced = engine.seal_into(self._scratch.read, length, self._scratch.write)
        self.moved[0] += length
        self._wire.send(self._scratch.write[:produced])

    def _open(self, engine: Engine, length: int) -> None:
        try:
            consumed, produced = engine.open_into(self._scratch.read[:length], self._scratch.write)
        except PeerError as error:
            self._tls_failed(engine, error)
            return
        # Events of other kinds, such as the peer's key updates, are of no use here; but they must not pile up.
        for event in engine.events():
            if isinstance(event, SessionReceived):
                self._on_session(event.session)
        if consumed < length and not engine.peer_closed:
            self._carry = bytes(self._scratch.read[consumed:length])
        if produced:
            self.moved[1] += produced
            self._application.send(self._scratch.write[:produced])
        self._flush_engine(engine)
        if engine.peer_closed:
            self._stream_ended(self._wire)

    def _flush_engine(self, engine: Engine) -> None:
        """Send what the engine itself has to say (a KeyUpdate's answer), before anything more is sealed.

        While something waits on the wire it stays in the engine, and nothing is sealed either. The wire is read all the
        same: two sidecars that both wait to write must not both stop reading.
        """
        if engine.has_data_to_send and not self._wire.pending and not self._wire.fin_wanted:
            self._wire.send(memoryview(engine.data_to_send()))

    def _stream_ended(self, side: Side) -> None:
        """`side` will send no more: pass that on when all it sent has been passed on."""
        side.finished_reading = True
        towards = self._wire if side is self._application else self._application
        if towards is self._wire and self._engine is not None:
            self._engine.send_close_notify()
            towards.send_last(memoryview(self._engine.data_to_send()))
        towards.fin_wanted = True

    def _wire_cut(self, engine: Engine) -> None:
        """FIN without close_notify: the engine knows what to make of it."""
        try:
            engine.receive_eof()
        except PeerError as error:
            self._tls_failed(engine, error)
            return
        self._stream_ended(self._wire)

    def _tls_failed(self, engine: Engine, error: PeerError) -> None:
        """Tell the peer why, if that can still be told, and reset the application."""
        alert = engine.data_to_send()
        told = False
        if alert and not self._wire.pending and not self._wire.fin_wanted:
            try:
                told = self._wire.sock.send(alert) == len(alert)
                self._wire.sock.shutdown(socket.SHUT_WR)
            except OSError:
                # The peer is gone already. Nothing is lost: the record and the application's RST say what happened.
                told = False
        self._end(End.TLS_ERROR, error, wire_was_told=told)

    def _settle(self) -> None:
        """Send the FINs that are due, end if all is done, and wait for what can happen next."""
        application, wire, reactor = self._application, self._wire, self._reactor
        if (application.fin_wanted or wire.fin_wanted) and self._finish():
            return
        application.watch(reactor, self, may_read=not wire.pending)
        wire.watch(reactor, self, may_read=not application.pending)

    def _finish(self) -> bool:
        """Send the FINs that are due; return whether that was all."""
        due = [side for side in (self._application, self._wire) if side.is_due_to_finish]
        done = [side for side in (self._application, self._wire) if side.finished_writing]
        if len(due) + len(done) == 2:
            self._end(End.CLOSED)  # closing a socket says FIN
            return True
        for side in due:
            side.finish_writing()
        return False

    def _give_up_on(self, broken: SideBroken) -> None:
        if broken.side is self._application:
            self._end(End.RESET_BY_APPLICATION, broken.error)
            return
        if self._wire.finished_reading:
            self._lose_wire(broken.error)
            return
        refusal = self._last_words()
        self._end(End.TLS_ERROR if refusal else End.RESET_BY_PEER, refusal or broken.error)

    def _lose_wire(self, error: OSError) -> None:
        """The peer had said all that it wanted to say, and is gone now: that much still reaches the application.

        What the application sends goes nowhere from here on. It gets FIN, and RST when it keeps sending: the same as
        from a program on this machine that closed its socket.
        """
        wire = self._wire
        self._lost = error
        wire.give_up(self._reactor)
        sockets.reset(wire.sock)
        wire.finished_writing = True
        self._application.finished_reading = True
        try:
            self._settle()
        except SideBroken as broken:
            self._end(End.RESET_BY_APPLICATION, broken.error)

    def _last_words(self) -> PeerError | None:
        """The alert that the peer sent before its RST, if one lies unread in our receive buffer.

        A server learns who the client is only after the client's first data may have been sent (RFC 8446 §2): its
        refusal and the RST for that data come together, and a failed send notices the RST first.
        """
        if self._engine is None:
            return None
        start = self._restore_carry()
        try:
            length = self._wire.sock.recv_into(self._scratch.read[start:WIRE_READ_SIZE])
            self._engine.open_into(self._scratch.read[: start + length], self._scratch.write)
        except PeerError as error:
            return error
        except OSError:
            return None  # nothing was left to read: the RST stands for itself
        return None

    def _end(self, end: End, error: Exception | None = None, *, wire_was_told: bool = False) -> None:
        self._ended = True
        if end is End.CLOSED and self._lost is not None:
            self._application.read_away(self._scratch.read)
        for side in (self._application, self._wire):
            side.give_up(self._reactor)
            if end is End.CLOSED or (side is self._wire and wire_was_told):
                sockets.close(side.sock)
            else:
                sockets.reset(side.sock)
        if end is End.CLOSED and self._lost is not None:
            end, error = End.RESET_BY_PEER, self._lost
        on_end = self._on_end
        del self._on_end  # it may keep the error, which knows us: that would wait for the garbage collector
        on_end(Outcome(end, self.moved[0], self.moved[1], error))
