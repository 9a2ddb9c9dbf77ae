"""The frame around every connection: whatever its phases do, the socket is closed and the record is written, once."""

from __future__ import annotations

import asyncio
import contextlib
import types

import pytest

from mesh.modes import MTLSMode
from proxy import reasons
from proxy.config import Direction, Limits
from proxy.credentials import utc_now
from proxy.handshake_queue import HandshakeQueue
from proxy.metrics import Metrics
from proxy.phases import Services, serve
from proxy.policy.config import PolicyConfig
from proxy.policy.gate import Gate
from proxy.reasons import Flag, Refused
from proxy.record import Sinks
from proxy.registry import Registry
from proxy.sessions import SessionStore
from proxy.unfinished import Unfinished


class Lines(list):
    """Stands where the access log does."""

    write = list.append


@pytest.fixture
def served(run, tcp_pair):
    """Serve one connection with the phases given; (what the client saw at the end, the access log, services)."""

    def go(phases, limits=None, cancel=False):
        async def main():
            loop = asyncio.get_running_loop()
            sinks = Sinks(Metrics(), Lines(), utc_now)
            services = Services(
                loop=loop,
                reactor=None,
                scratch=None,
                credentials=types.SimpleNamespace(current=types.SimpleNamespace(identity="-")),
                sessions=SessionStore(),
                registry=Registry(),
                sinks=sinks,
                limits=limits or Limits(),
                profile="qbitel",
                own_ports=frozenset(),
                unfinished=Unfinished(1),
                handshakes=HandshakeQueue(loop, lambda _length: None),
                gate=Gate(PolicyConfig(), MTLSMode.STRICT, sinks),
                buffers=None,
                movable=None,
                shares=None,
                tunnels=None,
            )
            client, accepted = tcp_pair()
            serve(services, accepted, Direction.INBOUND, phases)
            if cancel:
                await asyncio.sleep(0.05)
                await services.registry.end_all()
            try:
                seen = await loop.sock_recv(client, 10)
            except ConnectionResetError:
                seen = "reset"
            await services.registry.quiet(0)
            await asyncio.sleep(0)
            return seen, services.sinks.access_log

        return run(main())

    return go


def test_a_refusal_is_a_reset_and_a_line(served):
    async def refuse(services, sock, live):
        raise Refused(Flag.DENY, "plaintext_refused", "because")

    seen, (line,) = served(refuse)
    assert seen == "reset"
    assert (line["flag"], line["reason"], line["message"]) == ("DENY", "plaintext_refused", "because")


def test_who_left_without_a_word_gets_an_ordinary_end(served):
    async def early(services, sock, live):
        return reasons.CLOSED_EARLY

    seen, (line,) = served(early)
    assert seen == b""
    assert line["reason"] == "closed_early"


def test_a_bug_ends_its_connection_with_a_record_and_is_reported(served, caplog):
    async def bug(services, sock, live):
        raise ZeroDivisionError("oops")

    seen, (line,) = served(bug)
    assert seen == "reset"
    assert line["reason"] == "internal_error"
    assert "ZeroDivisionError" in caplog.text
    assert "please report it" in caplog.text


def test_the_end_of_the_sidecar_in_the_middle_of_a_phase_is_a_reset_and_a_line(served):
    async def wait(services, sock, live):
        await asyncio.Event().wait()

    seen, (line,) = served(wait, cancel=True)
    assert seen == "reset"
    assert (line["flag"], line["reason"]) == ("DRAIN", "drained")


def test_a_connection_that_died_before_it_was_served_leaves_no_record(run, tcp_pair):
    async def main():
        client, accepted = tcp_pair()
        with contextlib.closing(accepted):
            from proxy.sockets import reset

            reset(client)
            await asyncio.sleep(0.02)
            serve(None, accepted, Direction.INBOUND, None)
            assert accepted.fileno() < 0

    run(main())
