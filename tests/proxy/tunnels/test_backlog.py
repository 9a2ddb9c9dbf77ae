"""A peer whose one read is much work: others get their turns in between, and nothing of it is lost or overtaken."""

from __future__ import annotations

import asyncio
import itertools
import select
import socket

import pytest

from pqtls.errors import TruncatedStream
from proxy.relay import End
from proxy.tunnels.frames import FrameType, ResetCode, TunnelViolation, frame, open_frame, reset_frame
from tests.proxy.tunnels.test_tunnel import OPENING, by_hand, data

__all__ = ["by_hand"]
PAIRS = 5000


def pairs(count: int = PAIRS) -> bytes:
    reset = ResetCode.RESET_BY_APPLICATION
    return b"".join(open_frame(n, OPENING) + reset_frame(n, reset) for n in range(1, count + 1))


def refusing(peer):
    peer.side.refuse = ResetCode.DENIED
    return peer.side.openings


def test_five_thousand_openings_in_one_read_take_turns_with_others_and_are_answered_in_order(by_hand):
    async def scenario(peer):
        openings = refusing(peer)
        seen = [0]
        await peer.say(pairs())
        while len(openings) < PAIRS:
            await asyncio.sleep(0)
            seen.append(len(openings))
        # In one turn of the loop a backlog may end and the next read begin: 32 pairs each.
        assert max(after - before for before, after in itertools.pairwise(seen)) <= 2 * 32
        await peer.hear(b"".join(reset_frame(n, ResetCode.DENIED) for n in range(1, PAIRS + 1)))
        await peer.say(frame(0, FrameType.PING, b"8 bytes!"))
        await peer.hear(frame(0, FrameType.PONG, b"8 bytes!"))
        assert peer.side.ended is None

    by_hand(scenario)


def test_thousands_of_data_frames_of_one_byte_arrive_unchanged_and_one_that_is_cut_behind_them(by_hand):
    payload = bytes(n % 251 for n in range(20_000))
    last = bytes(range(256)) * 4

    async def scenario(peer):
        await peer.say(open_frame(1, OPENING))
        whole = b"".join(data(1, payload[n : n + 1]) for n in range(len(payload))) + data(1, last)
        with await peer.application() as application:
            await peer.say(whole[:-500])
            await peer.say(whole[-500:], frame(1, FrameType.FIN))
            got = bytearray()
            while piece := await peer.loop.sock_recv(application, 65536):
                got += piece
        assert bytes(got) == payload + last

    by_hand(scenario)


def test_close_notify_behind_a_backlog_ends_the_tunnel_when_the_backlog_is_done(by_hand):
    async def scenario(peer):
        openings = refusing(peer)
        peer.engine.send_data(pairs())
        peer.engine.send_close_notify()
        await peer.loop.sock_sendall(peer.wire, peer.engine.data_to_send())
        assert await peer.ended() == (End.CLOSED, None)
        assert len(openings) == PAIRS

    by_hand(scenario)


def test_a_violation_in_the_backlog_ends_the_tunnel_and_what_is_behind_it_is_not_looked_at(by_hand):
    async def scenario(peer):
        openings = refusing(peer)
        await peer.say(pairs(1000), data(5000, b"x"), pairs())
        end, error = await peer.ended()
        assert (end, type(error)) == (End.TLS_ERROR, TunnelViolation)
        assert len(openings) == 1000

    by_hand(scenario)


@pytest.mark.parametrize("mask", [select.EPOLLIN, select.EPOLLHUP, select.EPOLLERR])
def test_nothing_is_read_before_the_backlog_is_done_whatever_epoll_says(by_hand, mask):
    async def scenario(peer):
        openings = refusing(peer)
        tunnel = peer.side.tunnel
        await peer.say(pairs(1000))
        while not openings:
            await asyncio.sleep(0)
        peer.wire.shutdown(socket.SHUT_WR)
        tunnel.wants_to_write(True)
        assert tunnel._events == select.EPOLLOUT
        tunnel.wants_to_write(False)
        assert tunnel._events == 0
        tunnel.on_ready(tunnel._fd, mask)
        assert peer.side.ended is None
        end, error = await peer.ended()
        assert (end, type(error)) == (End.TLS_ERROR, TruncatedStream)
        assert len(openings) == 1000

    by_hand(scenario)


def test_an_end_in_the_middle_of_a_backlog_is_the_end_of_it(by_hand):
    async def scenario(peer):
        openings = refusing(peer)
        await peer.say(pairs())
        while not openings:
            await asyncio.sleep(0)
        peer.side.tunnel.abort(End.DRAINED)
        handled = len(openings)
        await asyncio.sleep(0.01)
        assert len(openings) == handled < PAIRS

    by_hand(scenario)
