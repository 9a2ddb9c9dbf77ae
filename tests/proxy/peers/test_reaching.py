"""Real connections to real servers of each kind: what mode and document make of them."""

from __future__ import annotations

import dataclasses
import socket

import pytest

from pqtls.errors import PeerError
from proxy.config import Endpoint
from proxy.handshake import HandshakeFailed
from proxy.peers.entries import Ejection
from proxy.peers.evidence import MESH_SECONDS, PLAINTEXT_SECONDS
from proxy.peers.reaching import Withheld
from proxy.reasons import Refused
from proxy.routes import Mode
from proxy.sockets import ConnectFailed
from proxy.tunnels.client import ClientTunnel
from proxy.tunnels.moving import Dialled
from tests.proxy.peers.world import World


@pytest.fixture
def world(run, pki):
    """Run a scenario in a World."""

    def go(scenario):
        async def main():
            made = World(pki)
            try:
                await scenario(made)
            finally:
                await made.close()

        run(main())

    return go


BAD = ["plain", "alerting", "resetting", "closing"]


@pytest.mark.parametrize("kind", BAD)
def test_require_never_falls_back_whatever_the_destination_does(world, kind):
    async def scenario(world):
        world.entry(Mode.REQUIRE)
        where = await getattr(world, kind)()
        for _ in range(2):
            with pytest.raises((PeerError, HandshakeFailed)):
                await world.go(where)
        # Nothing but ClientHellos ever went there.
        assert len(world.accepted) == 2
        assert all(first.startswith(b"\x16\x03") for first in world.accepted)
        assert world.value("qbitel_plaintext_fallbacks_total") == 0

    world(scenario)


def test_require_does_not_fall_back_where_nobody_listens_at_the_tunnel_port(world):
    async def scenario(world):
        plain = await world.plain()
        world.entry(Mode.REQUIRE, tunnel_port=world.nobody().port)
        with pytest.raises(ConnectFailed, match="refused"):
            await world.go(plain)
        assert world.accepted == []

    world(scenario)


@pytest.mark.parametrize(("kind", "reason"), [("plain", "plain_answer"), ("alerting", "foreign_tls")])
def test_prefer_falls_back_on_evidence_says_so_and_remembers_it_for_a_while(world, caplog, kind, reason):
    async def scenario(world):
        world.entry(Mode.PREFER)
        where = await getattr(world, kind)()
        assert await world.go(where) == (socket.socket, where)
        assert world.accepted[0].startswith(b"\x16\x03")
        await world.go(where)
        assert world.value("qbitel_plaintext_fallbacks_total", reason=reason) == 2
        helloes = sum(first.startswith(b"\x16\x03") for first in world.accepted)
        assert helloes == 1  # it was not asked again …
        world.clock.time += PLAINTEXT_SECONDS
        await world.go(where)
        assert sum(first.startswith(b"\x16\x03") for first in world.accepted) == 2  # … before a minute was over

    world(scenario)
    assert caplog.text.count("connections go there as PLAINTEXT") == 2
    assert reason in caplog.text


@pytest.mark.parametrize("kind", ["resetting", "closing"])
def test_prefer_does_not_fall_back_on_what_an_attacker_or_an_accident_does(world, kind):
    async def scenario(world):
        world.entry(Mode.PREFER)
        with pytest.raises((PeerError, HandshakeFailed)):
            await world.go(await getattr(world, kind)())
        assert world.value("qbitel_plaintext_fallbacks_total") == 0

    world(scenario)


def test_prefer_takes_a_refused_tunnel_port_for_evidence(world):
    async def scenario(world):
        plain = await world.plain()
        world.entry(Mode.PREFER, tunnel_port=world.nobody().port)
        assert await world.go(plain) == (socket.socket, plain)
        assert world.value("qbitel_plaintext_fallbacks_total", reason="tunnel_port_refused") == 1

    world(scenario)


def test_prefer_does_not_take_a_refused_destination_for_evidence(world):
    async def scenario(world):
        world.entry(Mode.PREFER)
        with pytest.raises(ConnectFailed):
            await world.go(world.nobody())
        assert world.value("qbitel_plaintext_fallbacks_total") == 0

    world(scenario)


def test_prefer_uses_the_mesh_where_it_is_spoken(world):
    async def scenario(world):
        world.entry(Mode.PREFER)
        where = await world.mesh()
        assert await world.go(where) == (ClientTunnel, where)
        assert await world.go(where) == (ClientTunnel, where)

    world(scenario)


@pytest.mark.parametrize("certs", ["other_root", "expired", "foreign_domain"])
def test_prefer_does_not_fall_back_from_a_sidecar_that_is_not_to_be_trusted(world, certs):
    async def scenario(world):
        world.entry(Mode.PREFER)
        settings = world.services.credentials.current.settings
        rule = dataclasses.replace(settings.accept_identity, trust_domains=frozenset({"cluster.local"}))
        bundle = dataclasses.replace(
            world.services.credentials.current, settings=dataclasses.replace(settings, accept_identity=rule)
        )
        world.services.credentials.current = bundle
        with pytest.raises(PeerError):
            await world.go(await world.mesh(certs))
        assert world.value("qbitel_plaintext_fallbacks_total") == 0

    world(scenario)


def test_a_destination_that_spoke_the_mesh_lately_is_held_to_it(world):
    """Somebody on the path answers in its place, to have the application's plaintext."""

    async def scenario(world):
        world.entry(Mode.PREFER, connect_timeout=5.0)
        where = await world.plain()
        world.router.memory.spoke_mesh(where, world.clock.time)
        world.clock.time += 30
        with pytest.raises(Withheld, match="spoke the mesh's TLS 30 s ago: somebody may want just that"):
            await world.go(where)
        assert world.value("qbitel_plaintext_fallbacks_withheld_total") == 1
        assert world.value("qbitel_plaintext_fallbacks_total", reason="plain_answer") == 0
        world.clock.time += MESH_SECONDS
        assert (await world.go(where))[0] is socket.socket

    world(scenario)


def test_a_document_that_comes_to_require_the_mesh_holds_for_what_is_under_way(world):
    async def scenario(world):
        async def behave(reader, writer):
            world.accepted.append(await reader.read(65536))
            world.entry(Mode.REQUIRE)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()

        world.entry(Mode.PREFER)
        with pytest.raises(Withheld, match="has come to require the mesh there meanwhile"):
            await world.go(await world.serve(behave))
        assert [first[:2] for first in world.accepted if first] == [b"\x16\x03"]

    world(scenario)


def test_a_completed_handshake_is_what_holds_it_to_the_mesh(world):
    async def scenario(world):
        world.entry(Mode.PREFER)
        where = await world.mesh()
        await world.go(where)
        assert world.router.memory.since_mesh(where, world.clock.time + 5) == 5

    world(scenario)


def test_off_is_plain_tcp(world):
    async def scenario(world):
        world.entry(Mode.OFF)
        where = await world.plain()
        assert await world.go(where) == (socket.socket, where)
        assert world.value("qbitel_plaintext_fallbacks_total") == 0

    world(scenario)


def test_a_pinned_identity_is_insisted_on_and_a_tunnel_made_without_it_is_no_way_round(world):
    async def scenario(world):
        where = await world.mesh("api")
        world.entry(Mode.REQUIRE)
        await world.go(where)  # a tunnel stands
        world.entry(Mode.REQUIRE, identities=frozenset({world.pki.identity("web")}))
        with pytest.raises(PeerError) as refused:
            await world.go(where)
        assert refused.value.reason == "unexpected_identity"
        world.entry(Mode.REQUIRE, identities=frozenset({world.pki.identity("api")}))
        assert await world.go(where) == (ClientTunnel, where)

    world(scenario)


def test_a_sidecar_that_knows_no_tunnels_gets_a_connection_for_each(world):
    async def scenario(world):
        world.entry(Mode.REQUIRE)
        where = await world.mesh(tunnels=False)
        for _ in range(2):
            assert await world.go(where) == (Dialled, where)

    world(scenario)


def test_a_sidecar_that_knows_no_tunnels_at_the_tunnel_port_is_a_mistake_that_is_said(world):
    async def scenario(world):
        where = await world.mesh(tunnels=False)
        world.entry(Mode.REQUIRE, tunnel_port=where.port)
        with pytest.raises(HandshakeFailed, match="knows no tunnels"):
            await world.go(Endpoint("127.0.0.1", 1))

    world(scenario)


def test_a_connection_that_cannot_be_made_is_made_at_another_endpoint(world, caplog):
    caplog.set_level("DEBUG", "qbitel.proxy")

    async def scenario(world):
        good = await world.mesh()
        world.entry(Mode.REQUIRE, world.nobody(), await world.plain(), good)
        assert await world.go(Endpoint("127.0.0.1", 1)) == (ClientTunnel, good)
        assert world.value("qbitel_connect_retries_total", result="made") == 2

    world(scenario)
    assert caplog.text.count("could not be reached and is tried again") == 2


def test_the_last_failure_is_told_where_none_can_be_reached(world):
    async def scenario(world):
        world.entry(Mode.REQUIRE, world.nobody(), world.nobody())
        with pytest.raises(ConnectFailed, match="refused"):
            await world.go(Endpoint("127.0.0.1", 1))
        assert world.value("qbitel_connect_retries_total", result="made") == 2

    world(scenario)


def test_an_endpoint_with_another_identity_is_refused_and_left_out(world):
    async def scenario(world):
        right, wrong = await world.mesh("api"), await world.mesh("web")
        world.entry(
            Mode.REQUIRE, wrong, right, identities=frozenset({world.pki.identity("api")}), ejection=Ejection(failures=1)
        )
        for _ in range(4):
            assert await world.go(Endpoint("127.0.0.1", 1)) == (ClientTunnel, right)
        assert world.value("qbitel_endpoint_ejections_total") == 1
        assert world.value("qbitel_connect_retries_total", result="made") == 1

    world(scenario)


def test_where_all_are_left_out_nothing_is_dialled(world):
    async def scenario(world):
        world.entry(Mode.REQUIRE, await world.plain(), retrying=None, ejection=Ejection(failures=1, most_percent=100))
        with pytest.raises(PeerError):
            await world.go(Endpoint("127.0.0.1", 1))
        with pytest.raises(Refused, match="left out"):
            await world.go(Endpoint("127.0.0.1", 1))
        assert len(world.accepted) == 1

    world(scenario)


def test_mode_off_is_balanced_too(world):
    async def scenario(world):
        one, other = await world.plain(), await world.plain()
        world.entry(Mode.OFF, one, other)
        assert {(await world.go(Endpoint("127.0.0.1", 1)))[1] for _ in range(2)} == {one, other}

    world(scenario)


def test_the_connect_timeout_is_the_entrys(world):
    async def scenario(world):
        # A listener whose queue is full answers no SYN any more.
        full = world.stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        where = Endpoint(*full.getsockname())
        for _ in range(2):
            waiting = world.stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((where.host, where.port))
        world.entry(Mode.REQUIRE, connect_timeout=0.05)
        with pytest.raises(ConnectFailed, match=r"within 0.05 s") as failed:
            await world.go(where)
        assert failed.value.timed_out

    world(scenario)
