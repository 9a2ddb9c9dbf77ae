"""What goes out: collected in a turn, sealed once, kept when the kernel does not take it, and never without a bound."""

from __future__ import annotations

import socket

import pytest

from proxy.engine import Scratch
from proxy.tunnels.buffers import OUT_SIZE, TunnelBuffers
from proxy.tunnels.outgoing import MOST_CONTROL, Outgoing


class Engine:
    """TLS that writes what it is given, so that a test can read it."""

    def __init__(self) -> None:
        self.own = b""
        self.sealed = 0

    @property
    def has_data_to_send(self) -> bool:
        return bool(self.own)

    def data_to_send(self) -> bytes:
        own, self.own = self.own, b""
        return own

    def seal_into(self, plaintext, length, records) -> int:
        self.sealed += 1
        whole = self.data_to_send() + bytes(plaintext[:length])
        records[: len(whole)] = whole
        return len(whole)


class Turn:
    """The reactor, whose turn a test ends."""

    def __init__(self) -> None:
        self.handlers: list[Outgoing] = []

    def at_end_of_turn(self, handler) -> None:
        self.handlers.append(handler)

    def end(self) -> None:
        handlers, self.handlers = self.handlers, []
        for handler in handlers:
            handler.on_turn_end()


class Keeper:
    """The tunnel's part."""

    def __init__(self) -> None:
        self.writes: list[bool] = []
        self.broken: list[OSError] = []
        self.overruns = 0

    def wants_to_write(self, yes: bool) -> None:
        self.writes.append(yes)

    def wire_broke(self, error: OSError) -> None:
        self.broken.append(error)

    def overrun(self) -> None:
        self.overruns += 1

    def on_crash(self, error: Exception) -> None:
        raise error


class Waiter:
    """A stream that wants to send."""

    def __init__(self) -> None:
        self.resumed = 0

    def resume(self) -> None:
        self.resumed += 1


class Rig:
    """An Outgoing over a real socket."""

    def __init__(self, tcp_pair, buffer=None) -> None:
        self.wire, self.peer = tcp_pair(buffer=buffer)
        self.engine, self.turn, self.keeper = Engine(), Turn(), Keeper()
        self.out = Outgoing(self.turn, TunnelBuffers(Scratch()), self.wire, self.engine, self.keeper)

    def block(self) -> int:
        """Fill the wire until the kernel keeps something back; the bytes that were put."""
        total = 0
        while not self.out.is_blocked:
            room = self.out.reserve(60_000)
            room[self.out.used : self.out.used + 60_000] = bytes(60_000)
            self.out.used += 60_000
            total += 60_000
            self.turn.end()
        return total

    def read(self, size: int) -> bytes:
        """Read so many bytes, sending what waits in between."""
        found = b""
        while len(found) < size:
            try:
                found += self.peer.recv(size - len(found))
            except BlockingIOError:
                self.out.send_pending()
                self.turn.end()
        return found


@pytest.fixture
def rig(tcp_pair):
    return Rig(tcp_pair)


def test_what_is_put_in_one_turn_is_sealed_once_in_its_order(rig):
    rig.out.put(b"one")
    rig.out.put(b"two")
    room = rig.out.reserve(5)
    room[rig.out.used : rig.out.used + 5] = b"three"
    rig.out.used += 5
    assert rig.engine.sealed == 0
    rig.turn.end()
    assert rig.engine.sealed == 1
    assert rig.read(11) == b"onetwothree"


def test_a_turn_with_more_than_the_buffer_holds_is_sent_in_pieces(rig):
    for _ in range(OUT_SIZE // 1000 + 2):
        rig.out.put(bytes(1000))
    assert rig.engine.sealed == 1
    rig.turn.end()
    assert len(rig.read(1000 * (OUT_SIZE // 1000 + 2))) == 1000 * (OUT_SIZE // 1000 + 2)


def test_while_the_kernel_is_full_nobody_may_send_and_everybody_is_told_afterwards(tcp_pair):
    rig = Rig(tcp_pair, buffer=4096)
    total = rig.block()
    assert rig.out.reserve(1) is None
    waiters = [Waiter(), Waiter()]
    for waiter in (*waiters, waiters[0]):
        rig.out.wait(waiter)
    rig.out.put(b"control waits")
    assert rig.read(total + 13)[-13:] == b"control waits"
    assert [waiter.resumed for waiter in waiters] == [1, 1]
    assert rig.keeper.writes == [True, False]


def test_what_tls_itself_has_to_say_waits_for_the_wire_too(tcp_pair):
    rig = Rig(tcp_pair, buffer=4096)
    total = rig.block()
    rig.engine.own = b"key update"
    rig.out.send_engines_own()
    assert rig.engine.own
    assert rig.read(total + 10)[-10:] == b"key update"


def test_what_tls_itself_has_to_say_goes_in_front_of_the_frames_of_its_turn_and_none_is_lost(tcp_pair):
    rig = Rig(tcp_pair, buffer=4096)
    fill = bytes(2_000_000)
    sent = rig.wire.send(fill)
    with pytest.raises(BlockingIOError):  # the kernel is full, and nobody here knows it yet
        while True:
            sent += rig.wire.send(fill)
    rig.out.put(b"frame")
    rig.engine.own = b"key update"
    rig.out.send_engines_own()
    assert rig.engine.own, "it would have gone out apart, and the frame's record have taken its place"
    rig.turn.end()
    assert rig.out.is_blocked
    assert rig.read(sent + 15)[-15:] == b"key updateframe"


def test_what_tls_itself_has_to_say_goes_out_where_a_turn_has_no_frame_after_all(rig):
    assert rig.out.reserve(100) is not None  # for an application that had nothing to say
    rig.engine.own = b"key update"
    rig.out.send_engines_own()
    rig.turn.end()
    assert rig.read(10) == b"key update"


def test_what_nobody_waits_for_goes_in_front_of_the_next_frame(rig):
    rig.out.put_with_next(b"accepted.")
    rig.turn.end()
    assert rig.engine.sealed == 0
    rig.out.put(b"data")
    rig.turn.end()
    assert rig.read(13) == b"accepted.data"
    rig.out.put_with_next(b"late")
    rig.out.tidy()
    rig.out.tidy()
    rig.turn.end()
    assert rig.read(4) == b"late"
    assert rig.engine.sealed == 2


def test_what_nobody_waits_for_goes_by_itself_where_there_is_much_of_it(rig):
    for _ in range(100_000):
        rig.out.put_with_next(bytes(8))
        rig.turn.end()
    assert len(rig.out._later) <= 1024
    assert rig.engine.sealed > 500
    room = rig.out.reserve(60_000)
    assert len(room[rig.out.used : rig.out.used + 60_000]) == 60_000


def test_frames_that_cannot_go_out_have_a_bound(tcp_pair):
    rig = Rig(tcp_pair, buffer=4096)
    rig.block()
    rig.out.put(bytes(MOST_CONTROL))
    rig.turn.end()
    assert rig.keeper.overruns == 0
    rig.out.put(b"x")
    rig.turn.end()
    assert rig.keeper.overruns == 1


def test_a_wire_that_breaks_is_told_once_tried(rig):
    rig.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    rig.peer.close()
    rig.out.put(b"x")
    rig.turn.end()
    rig.out.put(b"x")
    rig.turn.end()
    assert rig.keeper.broken


def test_after_the_end_nothing_is_kept_and_nothing_is_sent(rig):
    rig.out.put(b"x")
    rig.out.close()
    rig.out.put(b"y" * MOST_CONTROL)
    rig.out.put(b"z")
    rig.turn.end()
    assert rig.engine.sealed == 0
    assert rig.out.reserve(1) is None
    with pytest.raises(BlockingIOError):
        rig.peer.recv(1)
