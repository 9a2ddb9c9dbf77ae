"""What goes out through a tunnel: frames collected during a turn of the reactor, sealed once and sent at its end.

No buffer is held between turns, but for what the kernel does not take. While something waits there, no application is
read: each stops when it is next readable, and is told when there is room again.
"""

from __future__ import annotations

import socket
from typing import Final, Protocol

from proxy.engine import Engine
from proxy.reactor import Reactor
from proxy.tunnels.buffers import OUT_SIZE, TunnelBuffers

# Frames that are no DATA and cannot go out, because the other side does not read: some thousand of them. One that asks
# for answers for ever and takes none is broken or hostile.
MOST_CONTROL: Final = 64 * 1024
# Frames that wait for a next one: a hundred. More of them are worth a record of their own.
_MOST_LATER: Final = 1024


class Waiter(Protocol):
    """A stream that has something to send and no room."""

    def resume(self) -> None:
        """There is room again."""


class Keeper(Protocol):
    """The tunnel, as what goes out of it sees it."""

    def wants_to_write(self, yes: bool) -> None:
        """Watch the wire for room, or not any more."""

    def wire_broke(self, error: OSError) -> None:
        """Nothing can be sent any more."""

    def overrun(self) -> None:
        """The other side asks for more answers than it takes."""

    def on_crash(self, error: Exception) -> None:
        """A bug, see reactor.EndsTurns."""


class Outgoing:
    """The sending half of a tunnel over `sock`, which the tunnel owns."""

    __slots__ = (
        "_buffers", "_closed", "_control", "_dirty", "_engine", "_keeper", "_later", "_pending", "_reactor", "_sock",
        "_waiting", "out", "used",
    )  # fmt: skip

    def __init__(
        self, reactor: Reactor, buffers: TunnelBuffers, sock: socket.socket, engine: Engine, keeper: Keeper
    ) -> None:
        self._reactor = reactor
        self._buffers = buffers
        self._sock = sock
        self._engine = engine
        self._keeper = keeper
        self._closed = False
        # Frames of this turn, `used` bytes of them. Where there is one it has a place to go to: nothing waits for the
        # kernel, nobody has closed, and the turn's end is agreed on.
        self.out: memoryview | None = None
        self.used = 0
        self._dirty = False
        self._later = bytearray()  # frames that nobody waits for: they go with the next that somebody does
        self._control = bytearray()  # frames that wait until the wire takes something again
        self._pending = memoryview(b"")  # records that the kernel has not taken yet
        self._waiting: dict[Waiter, None] = {}

    @property
    def is_blocked(self) -> bool:
        """Whether the kernel has not taken all yet."""
        return bool(self._pending)

    def reserve(self, size: int) -> memoryview | None:
        """The outgoing buffer, with room for `size` bytes from `used` on; None: wait for the wire.

        The caller who reads into it adds to `used`.
        """
        if self._pending or self._closed:
            return None
        out = self.out
        if out is None:
            out = self._begin()
        elif self.used + size > OUT_SIZE:
            self.flush()
            if self._pending or self._closed:
                return None
            out = self._begin()
        if not self._dirty:
            self._dirty = True
            self._reactor.at_end_of_turn(self)
        return out

    def wait(self, waiter: Waiter) -> None:
        """`waiter.resume()` is called when the wire takes something again."""
        self._waiting[waiter] = None

    def put(self, whole: bytes) -> None:
        """Send a frame that is no DATA, behind what is there."""
        size = len(whole)
        out = None if self._control else self.reserve(size)
        if out is not None:
            out[self.used : self.used + size] = whole
            self.used += size
        elif not self._closed:
            self._control += whole
            if len(self._control) > MOST_CONTROL:
                # Ended then and not here: whoever puts is in the middle of something.
                self._reactor.at_end_of_turn(self)

    def put_with_next(self, whole: bytes) -> None:
        """Send a short frame that nobody waits for together with the next one, or when `tidy` is called."""
        if self.out is not None or len(self._later) >= _MOST_LATER:
            self.put(whole)
        else:
            self._later += whole

    def tidy(self) -> None:
        """Send what has waited for a next frame; every few seconds."""
        if self._later:
            whole, self._later = bytes(self._later), bytearray()
            self.put(whole)

    def send_engines_own(self) -> None:
        """Send what TLS itself has to say (a KeyUpdate's answer). While something waits, or frames are to be sealed,
        it stays in the engine, and goes in front of them.
        """
        if self._engine.has_data_to_send and self.out is None and not self._pending and not self._closed:
            self._send(memoryview(self._engine.data_to_send()))

    def on_turn_end(self) -> None:
        """The reactor's call, where something was collected in the turn."""
        self._dirty = False
        if len(self._control) > MOST_CONTROL and not self._closed:
            self._keeper.overrun()
        self.flush()

    def on_crash(self, error: Exception) -> None:
        """A bug of ours."""
        if not self._closed:
            self._keeper.on_crash(error)

    def flush(self) -> None:
        """Seal and send what has been collected."""
        out = self.out
        if self._closed or out is None:
            return
        self.out = None
        used, self.used = self.used, 0
        if used:
            sealed = self._buffers.sealed
            produced = self._engine.seal_into(out, used, sealed)
            self._send(sealed[:produced])
        else:
            self.send_engines_own()
        self._buffers.give_back(out)

    def send_pending(self) -> None:
        """The wire has room again."""
        try:
            sent = self._sock.send(self._pending)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._keeper.wire_broke(error)
            return
        self._pending = self._pending[sent:]
        if self._pending:
            return
        self._keeper.wants_to_write(False)
        self.send_engines_own()
        if self._pending or self._closed:
            return
        self._put_waiting_control()
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            waiter.resume()

    def close(self) -> None:
        """Nothing goes out any more."""
        self._closed = True
        self._pending = memoryview(b"")
        self._waiting.clear()
        self._control.clear()
        self._later.clear()
        if self.out is not None:
            self._buffers.give_back(self.out)
            self.out = None
        del self._keeper  # which knows us, too: nothing is left to the garbage collector (see Tunnel._end)

    def _begin(self) -> memoryview:
        out = self.out = self._buffers.take()
        if self._later:
            self.used = len(self._later)
            out[: self.used] = self._later
            self._later.clear()
        return out

    def _put_waiting_control(self) -> None:
        waiting, self._control = bytes(self._control), bytearray()
        if waiting:
            self.put(waiting)

    def _send(self, records: memoryview) -> None:
        try:
            sent = self._sock.send(records)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._keeper.wire_broke(error)
            return
        if sent < len(records):
            self._pending = memoryview(bytes(records[sent:]))
            self._keeper.wants_to_write(True)
