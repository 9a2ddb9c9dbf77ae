"""Two running sidecars: who gets a tunnel, when there is another, and what an application sees when one goes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import shutil
import signal
import socket

import pytest

from proxy.peers.via import Via
from proxy.tunnels.pool import STREAMS_EACH
from tests.proxy.peers.world import World


@pytest.fixture
def folders(tmp_path, pki):
    """The certificate folders of the two sidecars, which a test may change."""
    for name in ("web", "api"):
        shutil.copytree(pki.base / name, tmp_path / "certs" / name)
    return tmp_path / "certs"


@pytest.fixture
def sidecars(qbitel, folders, application):
    """(outbound, inbound) sidecars with the application behind them."""
    common = ("--no-capture", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0")
    port = application.getsockname()[1]
    inbound = qbitel(
        "proxy", *common, "--certs", folders / "api", "--explicit-inbound", f"127.0.0.1:0=127.0.0.1:{port}"
    )
    outbound = qbitel(
        "proxy", *common, "--certs", folders / "web",
        "--explicit-outbound", f"127.0.0.1:0=127.0.0.1:{inbound.port('inbound')}",
    )  # fmt: skip
    return outbound, inbound


@pytest.fixture
def connect(dial, application):
    """A connection through the sidecars that has carried a byte each way: (near, far)."""
    with contextlib.ExitStack() as stack:

        def go(outbound) -> tuple[socket.socket, socket.socket]:
            near = dial(outbound.port("outbound"))
            near.sendall(b"?")
            far = stack.enter_context(application.accept()[0])
            far.settimeout(15)
            assert far.recv(1) == b"?"
            far.sendall(b"!")
            assert near.recv(1) == b"!"
            return near, far

        yield go


def reload(sidecar) -> None:
    before = sidecar.messages.count("certificates reloaded")
    sidecar.process.send_signal(signal.SIGHUP)
    sidecar.wait_for(lambda: sidecar.messages.count("certificates reloaded") > before)


def test_many_connections_cost_one_handshake(sidecars, connect):
    outbound, inbound = sidecars
    for _ in range(20):
        near, far = connect(outbound)
        near.close()
        assert far.recv(1) == b""
        far.close()
    for sidecar in sidecars:
        sidecar.wait_for(lambda sidecar=sidecar: len(sidecar.lines()) == 20)
        assert len(sidecar.lines("handshake")) == 1
        assert {line["flag"] for line in sidecar.lines()} == {"-"}
    mine = [line["connection_id"] for line in outbound.lines()]
    assert sorted(mine) == sorted(line["connection_id"] for line in inbound.lines())
    assert len(set(mine)) == 20


def test_connections_that_come_at_once_wait_for_the_same_tunnel(sidecars, dial, application):
    outbound, _ = sidecars
    port = outbound.port("outbound")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        nears = list(pool.map(lambda _: dial(port), range(16)))
    for near in nears:
        near.sendall(b"x")
    for _ in nears:
        with application.accept()[0] as far:
            assert far.recv(1) == b"x"
    assert len(outbound.lines("handshake")) == 1


def test_a_busy_tunnel_gets_company(sidecars, connect):
    outbound, inbound = sidecars
    held = [connect(outbound) for _ in range(STREAMS_EACH)]
    assert outbound.metric("qbitel_tunnels_open", direction="outbound") == 1
    held.append(connect(outbound))
    outbound.wait_for(lambda: outbound.metric("qbitel_tunnels_open", direction="outbound") == 2)
    held.append(connect(outbound))
    assert inbound.metric("qbitel_tunnels_open", direction="inbound") == 2
    assert outbound.metric("qbitel_connections_open", direction="outbound") == len(held)


def test_new_certificates_are_shown_by_a_new_tunnel_and_open_connections_stay(sidecars, connect):
    outbound, _ = sidecars
    near, far = connect(outbound)
    reload(outbound)
    connect(outbound)
    assert len(outbound.lines("handshake")) == 2
    near.sendall(b"still here")
    assert far.recv(100) == b"still here"
    near.close()
    assert far.recv(1) == b""
    far.close()
    outbound.wait_for(lambda: outbound.metric("qbitel_tunnels_open", direction="outbound") == 1)
    (line,) = outbound.wait_for(lambda: outbound.lines("tunnel"))
    assert line["flag"] == "-"


def test_a_sidecar_that_dies_resets_the_connections_and_the_next_one_dials_again(
    qbitel, folders, sidecars, connect, application, dial
):
    outbound, inbound = sidecars
    near, far = connect(outbound)
    port = inbound.port("inbound")
    inbound.process.kill()
    inbound.process.wait()
    with pytest.raises(ConnectionResetError):
        near.recv(1)
    with pytest.raises(ConnectionResetError):
        far.recv(1)
    target = application.getsockname()[1]
    qbitel(
        "proxy", "--no-capture", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0", "--certs", folders / "api",
        "--explicit-inbound", f"127.0.0.1:{port}=127.0.0.1:{target}",
    ).port("inbound")  # fmt: skip
    connect(outbound)


def test_our_own_end_is_a_reset_for_both_applications(sidecars, connect):
    outbound, _ = sidecars
    near, far = connect(outbound)
    outbound.process.kill()
    for end in (near, far):
        with pytest.raises(ConnectionResetError):
            end.recv(1)


def test_a_revoked_peer_loses_its_tunnel_at_once(sidecars, connect, folders, pki):
    outbound, inbound = sidecars
    near, far = connect(outbound)
    (folders / "api" / "crl.pem").write_bytes(pki.revocations("web"))
    reload(inbound)
    for end in (near, far):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    (line,) = inbound.wait_for(lambda: inbound.lines("tunnel"))
    assert (line["flag"], line["reason"]) == ("CERT_REVOKED", "revoked")


def test_a_server_that_drains_keeps_what_is_open_and_serves_who_comes_all_the_same(
    sidecars, connect, application, dial
):
    outbound, inbound = sidecars
    near, far = connect(outbound)
    inbound.process.send_signal(signal.SIGTERM)
    inbound.wait_for(lambda: "draining: 1 connections" in inbound.messages)
    near.sendall(b"still here")
    assert far.recv(100) == b"still here"
    late = dial(outbound.port("outbound"))  # in another tunnel, because nothing else listens at that address
    with application.accept()[0] as accepted:
        accepted.sendall(b"welcome")
        assert late.recv(100) == b"welcome"
        assert outbound.metric("qbitel_tunnels_open", direction="outbound") == 2
        late.close()
    near.close()
    assert far.recv(1) == b""
    far.close()
    assert inbound.process.wait(15) == 0


def test_where_the_application_does_not_listen_the_client_is_reset_and_both_logs_say_why(sidecars, application, dial):
    outbound, inbound = sidecars
    application.close()
    with pytest.raises(ConnectionResetError):
        dial(outbound.port("outbound")).recv(1)
    (mine,) = outbound.wait_for(outbound.lines)
    (theirs,) = inbound.wait_for(inbound.lines)
    assert (mine["flag"], mine["reason"]) == (theirs["flag"], theirs["reason"]) == ("CONNECT", "connect_failed")
    assert mine["connection_id"] == theirs["connection_id"]


def test_a_sidecar_that_knows_no_tunnels_is_spoken_to_as_before(qbitel, pki, run, dial, application):
    """An older inbound sidecar: in its place `qbitel tunnel server`, whose ALPN is that of single connections."""
    folder = pki.base / "api"
    target = application.getsockname()[1]
    server = qbitel(
        "tunnel", "server", "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target}",
        "--cert", folder / "tls.crt", "--key", folder / "tls.key", "--ca", folder / "ca.crt",
    )  # fmt: skip
    outbound = qbitel(
        "proxy", "--no-capture", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0", "--certs", pki.base / "web",
        "--explicit-outbound", f"127.0.0.1:0=127.0.0.1:{server.port('inbound')}",
    )  # fmt: skip
    payload = os.urandom(100_000)
    for _ in range(3):
        near = dial(outbound.port("outbound"))
        near.sendall(payload)
        near.shutdown(socket.SHUT_WR)
        with application.accept()[0] as far:
            far.settimeout(15)
            got = b""
            while piece := far.recv(65536):
                got += piece
            assert got == payload
        assert near.recv(1) == b""
    assert outbound.metric("qbitel_tunnels_open", direction="outbound") in (0, None)


def test_without_tunnels_each_connection_has_its_own(qbitel, pki, application, inbound_sidecar, dial):
    inbound = inbound_sidecar(application.getsockname()[1])
    outbound = qbitel(
        "proxy", "--no-capture", "--no-tunnels", "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0",
        "--certs", pki.base / "web", "--explicit-outbound", f"127.0.0.1:0=127.0.0.1:{inbound.port('inbound')}",
    )  # fmt: skip
    for _ in range(3):
        near = dial(outbound.port("outbound"))
        near.sendall(b"x")
        with application.accept()[0] as far:
            assert far.recv(1) == b"x"
        near.close()
    outbound.wait_for(lambda: len(outbound.lines("handshake")) == 3)


@pytest.fixture
def pool(run, pki):
    """Run a scenario with a world whose server is a sidecar, the way to it, and a tunnel that stands."""

    def go(scenario):
        async def main():
            world = World(pki)
            try:
                via = Via(await world.mesh())
                await scenario(world, via, await world.services.tunnels.obtain(world.services, via))
            finally:
                await world.close()

        run(main())

    return go


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_a_tunnel_in_use_goes_on_until_a_younger_one_stands(pool):
    async def scenario(world, via, old):
        tunnels, services = world.services.tunnels, world.services
        old.taken()
        old.sweep(old.born + 0.95 * services.limits.tunnel_max_age, 3600)
        assert tunnels.warm(services, via) is old
        await until(lambda: tunnels.warm(services, via) is not old)
        assert tunnels.warm(services, via) is not None
        assert old.tunnel.ended  # it was without streams, in truth

    pool(scenario)


def test_of_several_tunnels_those_that_are_fresh_are_company_enough(pool):
    async def scenario(world, via, old):
        tunnels, services = world.services.tunnels, world.services
        old.taken()
        old.sweep(old.born + 0.95 * services.limits.tunnel_max_age, 3600)
        await until(lambda: tunnels.warm(services, via) is not old and not tunnels._background)
        young = tunnels.warm(services, via)
        tunnels._replace(services, via, tunnels._places[via], old)
        assert not tunnels._background
        assert tunnels.warm(services, via) is young

    pool(scenario)


def test_where_no_younger_one_can_be_had_the_old_one_goes_on(pool, caplog):
    caplog.set_level("INFO", "qbitel.proxy")

    async def scenario(world, via, old):
        tunnels, services = world.services.tunnels, world.services
        nobody = Via(world.nobody())
        tunnels._replace(services, nobody, tunnels._places[via], old)
        await until(lambda: not tunnels._background)
        assert tunnels.warm(services, via) is old

    pool(scenario)
    assert "another tunnel to 127.0.0.1" in caplog.text


def test_a_tunnel_made_for_other_identities_is_not_used(pool, pki):
    async def scenario(world, via, tunnel):
        pinned = Via(via.address, frozenset({pki.identity("api")}))
        assert world.services.tunnels.warm(world.services, pinned) is None
        other = await world.services.tunnels.obtain(world.services, pinned)
        assert other is not tunnel
        assert world.services.tunnels.warm(world.services, via) is tunnel

    pool(scenario)
