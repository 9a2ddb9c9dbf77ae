"""The server's end: what a client opens is dialled here, within limits, and recorded."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import socket

import pytest

from mesh.modes import MTLSMode
from mesh.selectors import Workload
from proxy.config import Direction, Endpoint, Limits
from proxy.policy.config import PolicyConfig
from proxy.policy.rules import Rules
from proxy.record import ConnectionRecord
from proxy.relay import End
from proxy.tunnels.by_stream import ByStream
from proxy.tunnels.frames import HEADER, FrameType, Opening, ResetCode, frame, open_frame, word_of
from proxy.tunnels.serving import ServedTunnel
from proxy.tunnels.tunnel import Tunnel
from tests.proxy.tunnels.services import handshaken, services_of
from tests.support.policies import document, resources

PEER = Endpoint("10.0.0.9", 40000)
OPENING = Opening(Endpoint("10.96.0.1", 80), bytes(range(16)))


class Served:
    """A served tunnel, and its client by hand."""

    def __init__(self, tcp_pair, pki, limits=None, source=None, port=None, policy=None, by_stream=None) -> None:
        self.loop = asyncio.get_running_loop()
        self.services = services_of(pki.bundle("api"), limits=limits, policy=policy)
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(8)
        self.listener.setblocking(False)
        self.wire, ours = tcp_pair()
        self.engine, engine, _, event = handshaken(pki)
        record = ConnectionRecord(self.services.sinks, Direction.INBOUND, PEER, "-", "qbitel")
        record.becomes_tunnel()
        self.kept = ServedTunnel(
            self.services, event, record, peer=PEER,
            application=Endpoint("127.0.0.1", port or self.listener.getsockname()[1]), source=source,
            by_stream=by_stream,
        )  # fmt: skip
        self.kept.start(Tunnel(self.services.reactor, self.services.buffers, ours, engine, self.kept, is_client=False))

    async def say(self, *frames: bytes) -> None:
        self.engine.send_data(b"".join(frames))
        await self.loop.sock_sendall(self.wire, self.engine.data_to_send())

    async def hear(self) -> bytes:
        while True:
            self.kept.tunnel.tidy()
            try:
                async with asyncio.timeout(0.05):
                    self.engine.receive_data(await self.loop.sock_recv(self.wire, 65536))
            except TimeoutError:
                continue
            if said := b"".join(getattr(event, "data", b"") for event in self.engine.events()):
                return said

    async def hear_of(self, frame: bytes) -> None:
        said = await self.hear()
        while frame not in said:
            said += await self.hear()

    def close(self) -> None:
        if not self.kept.tunnel.ended:
            self.kept.end()
        self.services.reactor.close()
        self.listener.close()


@pytest.fixture
def served(run, tcp_pair, pki):
    def go(scenario, **options):
        async def main():
            with contextlib.closing(Served(tcp_pair, pki, **options)) as rig:
                await scenario(rig)

        run(main())

    return go


def test_a_stream_is_dialled_to_the_application_from_the_address_that_interception_lets_through(served):
    async def scenario(rig):
        await rig.say(open_frame(1, OPENING))
        accepted, address = await rig.loop.sock_accept(rig.listener)
        with accepted:
            assert address[0] == "127.0.0.6"
            assert await rig.hear() == frame(1, FrameType.OPENED)

    served(scenario, source="127.0.0.6")


def test_where_the_client_says_it_wanted_to_go_decides_nothing_here(served):
    async def scenario(rig):
        await rig.say(open_frame(1, Opening(Endpoint("127.0.0.1", 1), bytes(16))))
        accepted, _ = await rig.loop.sock_accept(rig.listener)
        accepted.close()

    served(scenario)


def test_more_connections_than_allowed_are_refused_with_the_reason(served):
    async def scenario(rig):
        await rig.say(open_frame(1, OPENING), open_frame(2, OPENING))
        said = await rig.hear()
        while len(said) < 18:
            said += await rig.hear()
        refusal = frame(2, FrameType.RESET, ResetCode.CONNECTION_LIMIT.to_bytes(2, "big"))
        assert refusal in said
        (line,) = rig.services.sinks.access_log.of("connection")
        assert (line["reason"], line["source"], line["connection_id"]) == (
            "connection_limit", "10.0.0.9:40000", OPENING.connection_id.hex(),
        )  # fmt: skip

    served(scenario, limits=Limits(max_connections=2))  # the tunnel is one


def reset(stream: int, code: ResetCode) -> bytes:
    return frame(stream, FrameType.RESET, code.to_bytes(2, "big"))


def rules_that_allow(*principals: str) -> Rules:
    spec = {"rules": [{"from": [{"source": {"principals": list(principals)}}]}]}
    found = resources(document("AuthorizationPolicy", spec, name="web", namespace="default"))
    return Rules.of(found, Workload("default", {}, "api"), default_mode=MTLSMode.STRICT, trust_domain="cluster.local")


def test_a_stream_that_no_policy_lets_in_is_refused_before_anything_is_dialled(served, tmp_path):
    async def scenario(rig):
        rig.services.gate.take_up(rules_that_allow("cluster.local/ns/default/sa/nobody"))
        await rig.say(open_frame(1, OPENING))
        assert await rig.hear() == reset(1, ResetCode.DENIED)
        with pytest.raises(BlockingIOError):
            rig.listener.accept()
        (line,) = rig.services.sinks.access_log.of("connection")
        assert (line["flag"], line["reason"], line["received_as"]) == ("DENY", "denied_by_policy", "mesh")
        # The next one is asked about for itself.
        rig.services.gate.take_up(rules_that_allow("cluster.local/ns/default/sa/web"))
        await rig.say(open_frame(2, OPENING))
        await rig.hear_of(frame(2, FrameType.OPENED))

    served(scenario, policy=PolicyConfig(folder=tmp_path))


def test_streams_beyond_the_rate_of_their_source_are_refused_with_that_code(served):
    async def scenario(rig):
        await rig.say(open_frame(1, OPENING), open_frame(2, OPENING))
        await rig.hear_of(reset(2, ResetCode.RATE_LIMITED))
        (line,) = rig.services.sinks.access_log.of("connection")
        assert (line["flag"], line["reason"]) == ("RATE_LIMITED", "rate_limited")

    served(scenario, policy=PolicyConfig(connection_rate=1e-6, connection_burst=1))


def test_a_source_gets_its_place_back_when_its_stream_ends_or_cannot_be_dialled(served):
    async def scenario(rig):
        gate = rig.services.gate
        await rig.say(open_frame(1, OPENING), open_frame(2, OPENING))
        await rig.hear_of(reset(2, ResetCode.CONNECTION_LIMIT))
        accepted, _ = await rig.loop.sock_accept(rig.listener)
        with accepted:
            rig.kept.tunnel.streams[1].abort(End.IDLE)
        assert gate._limits._by_source == {}
        rig.kept._source = "192.0.2.1"  # no address of this machine
        await rig.say(open_frame(3, OPENING))
        await rig.hear_of(reset(3, ResetCode.CONNECT_FAILED))
        assert gate._limits._by_source == {}

    served(scenario, policy=PolicyConfig(max_connections_per_peer=1))


def test_an_address_that_cannot_even_be_dialled_is_a_refusal(served):
    async def scenario(rig):
        await rig.say(open_frame(1, OPENING))
        stream, word = HEADER.unpack((await rig.hear())[:8])
        assert (stream, word) == (1, word_of(FrameType.RESET, 2))
        (line,) = rig.services.sinks.access_log.of("connection")
        assert line["reason"] == "connect_failed"

    served(scenario, source="192.0.2.1")


def test_an_application_that_does_not_answer_is_given_up_after_the_time_to_connect(served):
    async def scenario(rig):
        # A queue of one that is full: the kernel drops further SYNs.
        with socket.socket() as full, contextlib.ExitStack() as stack:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            await asyncio.sleep(0)
            rig.kept._application = Endpoint(*full.getsockname())
            await rig.say(open_frame(1, OPENING))
            while not rig.kept.tunnel.streams:
                await asyncio.sleep(0.01)
            began = rig.loop.time()
            rig.kept.sweep(began, 3600)
            assert rig.kept.tunnel.streams
            said = await rig.hear()
            assert 0.2 < rig.loop.time() - began < 5
            assert not rig.kept._connecting
            assert said == frame(1, FrameType.RESET, ResetCode.CONNECT_TIMEOUT.to_bytes(2, "big"))
            (line,) = rig.services.sinks.access_log.of("connection")
            assert (line["flag"], line["reason"]) == ("TIMEOUT", "connect_timeout")

    served(scenario, limits=Limits(connect_timeout=0.3))


def test_an_old_tunnel_takes_no_new_streams_for_long(served):
    async def scenario(rig):
        rig.kept.sweep(rig.kept.born + 100, 3600)
        assert await rig.hear() == frame(0, FrameType.DRAIN)

    served(scenario, limits=Limits(tunnel_max_age=100))


def test_whoever_opens_streams_long_after_being_told_to_make_another_tunnel_is_refused(served):
    async def scenario(rig):
        rig.kept.sweep(rig.kept.born + 131, 3600)
        await rig.say(open_frame(1, OPENING))
        await rig.hear_of(reset(1, ResetCode.DRAINED))
        (line,) = rig.services.sinks.access_log.of("connection")
        assert line["reason"] == "tunnel_expired"

    served(scenario, limits=Limits(tunnel_max_age=100))


def test_streams_that_were_under_way_when_the_tunnel_became_old_are_taken(served):
    async def scenario(rig):
        rig.kept.sweep(rig.kept.born + 110, 3600)
        await rig.say(open_frame(1, OPENING))
        (await rig.loop.sock_accept(rig.listener))[0].close()

    served(scenario, limits=Limits(tunnel_max_age=100))


def test_a_certificate_that_has_expired_since_opens_no_streams_and_ends_none(served):
    async def scenario(rig):
        await rig.say(open_frame(1, OPENING))
        accepted, _ = await rig.loop.sock_accept(rig.listener)
        with accepted:
            rig.kept.event = dataclasses.replace(
                rig.kept.event, peer_valid_until=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
            )
            rig.kept.sweep(rig.loop.time(), 3600)
            await rig.say(open_frame(2, OPENING))
            await rig.hear_of(reset(2, ResetCode.DRAINED))
            assert set(rig.kept.tunnel.streams) == {1}

    served(scenario)


def test_one_peer_cannot_take_every_place_and_has_its_own_back_when_its_streams_end(served):
    async def scenario(rig):
        for number in range(1, 4):
            await rig.say(open_frame(number, OPENING))
            (await rig.loop.sock_accept(rig.listener))[0].close()
        await rig.hear_of(frame(3, FrameType.FIN))
        await rig.say(open_frame(4, OPENING))
        await rig.hear_of(reset(4, ResetCode.CONNECTION_LIMIT))
        (line,) = rig.services.sinks.access_log.of("connection")
        assert line["reason"] == "peer_connection_limit"
        await rig.say(frame(1, FrameType.FIN))
        while 1 in rig.kept.tunnel.streams:
            await asyncio.sleep(0.01)
        await rig.say(open_frame(5, OPENING))
        (await rig.loop.sock_accept(rig.listener))[0].close()

    served(scenario, limits=Limits(max_connections=5))


def test_the_end_of_the_tunnel_writes_its_own_line_and_one_for_each_stream(served):
    async def scenario(rig):
        await rig.say(open_frame(1, OPENING))
        accepted, _ = await rig.loop.sock_accept(rig.listener)
        with accepted:
            rig.kept.tunnel.abort(End.REVOKED)
            log = rig.services.sinks.access_log
            assert [line["reason"] for line in log.of("connection")] == ["revoked"]
            assert [line["reason"] for line in log.of("tunnel")] == ["revoked"]
            assert len(rig.services.registry) == 0

    served(scenario)


AT_THE_POD = ByStream(Endpoint("10.0.0.5", 15008), ())


@pytest.mark.parametrize("wanted", [Endpoint("10.0.0.6", 80), Endpoint("127.0.0.1", 80), Endpoint("10.0.0.5", 15006)])
def test_a_stream_that_names_what_is_not_the_pods_is_refused_and_the_tunnel_goes_on(served, wanted):
    async def scenario(rig):
        await rig.say(open_frame(1, Opening(wanted, bytes(16))))
        assert await rig.hear() == reset(1, ResetCode.NO_DESTINATION)
        (line,) = rig.services.sinks.access_log.of("connection")
        assert (line["destination"], line["reason"]) == (str(wanted), "no_original_destination")
        assert not rig.kept.tunnel.ended

    served(scenario, by_stream=AT_THE_POD)


def test_policies_are_asked_about_the_port_that_the_stream_names(served, tmp_path):
    text = document(
        "AuthorizationPolicy",
        {"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["8080"]}}]}]},
        name="no-8080", namespace="default",
    )  # fmt: skip

    async def scenario(rig):
        rules = Rules.of(
            resources(text), Workload("default", {}, "api"), default_mode=MTLSMode.STRICT, trust_domain="cluster.local"
        )
        rig.services.gate.take_up(rules)
        await rig.say(open_frame(1, Opening(Endpoint("10.0.0.5", 8080), bytes(16))))
        assert await rig.hear() == reset(1, ResetCode.DENIED)
        await rig.say(open_frame(2, Opening(Endpoint("10.0.0.5", 8081), bytes(16))))
        assert await rig.hear() == reset(
            2, ResetCode.CONNECT_FAILED
        )  # let in, and dialled from a place that is not here

    served(scenario, policy=PolicyConfig(folder=tmp_path), by_stream=AT_THE_POD, source="192.0.2.1")
