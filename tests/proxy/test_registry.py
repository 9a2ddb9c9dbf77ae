"""Live connections: swept, drained, ended."""

from __future__ import annotations

import asyncio

import pytest

from proxy.config import Direction
from proxy.registry import LiveConnection, Registry
from proxy.relay import End


class FakeRelay:
    """What the registry sees of a relay."""

    def __init__(self) -> None:
        self.moved = [0, 0]
        self.ended = False
        self.waiting = 0
        self.vanished = False
        self.aborted: list[End] = []

    def peer_vanished(self, seconds: float) -> bool:
        self.asked = seconds
        return self.vanished

    def abort(self, end: End) -> None:
        self.aborted.append(end)
        self.ended = True


class FakeRecord:
    """What the registry sees of a record."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.relayed = False
        self.peer_path_ids: tuple[bytes, ...] = ()
        self.direction = Direction.INBOUND

    def describe(self) -> dict:
        return {"source": "10.0.0.1:5"}

    def carried(self, a: int, b: int) -> None:
        self.seen.append((a, b))

    def relaying(self) -> None:
        self.relayed = True


@pytest.fixture
def live(run):
    """Run a scenario(registry, connection) with one live connection whose task waits for ever."""

    def go(scenario):
        async def main():
            registry = Registry()

            async def life():
                try:
                    await asyncio.Event().wait()
                finally:
                    registry.remove(connection)

            task = asyncio.ensure_future(life())
            connection = LiveConnection(FakeRecord(), 0.0, task.cancel)
            registry.add(connection)
            await asyncio.sleep(0)
            await scenario(registry, connection, task)
            task.cancel()
            await registry.end_all()
            await asyncio.gather(task, return_exceptions=True)
            assert len(registry) == 0

        run(main())

    return go


def test_a_sweep_brings_counters_up_to_date_and_ends_what_does_not_move(live):
    async def scenario(registry, connection, task):
        relay = FakeRelay()
        connection.relaying(relay)
        assert connection.record.relayed
        registry.sweep(100.0, 50)
        relay.moved[0] = 7
        registry.sweep(149.0, 50)
        registry.sweep(198.0, 50)
        assert relay.aborted == []
        registry.sweep(199.0, 50)
        assert relay.aborted == [End.IDLE]
        assert connection.record.seen[-1] == (7, 0)
        registry.sweep(300.0, 50)
        assert relay.aborted == [End.IDLE]
        task.cancel()  # a real relay's end ends its task

    live(scenario)


def test_a_bug_in_looking_after_one_connection_resets_that_and_others_are_looked_after(live, caplog, monkeypatch):
    async def scenario(registry, connection, _task):
        class Broken(FakeTunnel):
            def sweep(self, *_):
                raise RuntimeError("a bug")

        broken, worse = Broken(registry), Broken(registry)
        monkeypatch.setattr(worse, "end", broken.sweep)
        later = LiveConnection(FakeRecord(), 0.0, lambda: None)
        for one in (broken, worse, later):
            registry.add(one)
        connection.relaying(FakeRelay())
        later.relaying(FakeRelay())
        registry.sweep(1.0, 3600)
        assert broken.heard == ["end"]
        assert (connection.record.seen, later.record.seen) == ([(0, 0)], [(0, 0)])
        registry.remove(worse)
        registry.remove(later)

    live(scenario)
    assert caplog.text.count("please report it") == 3


def test_phases_are_not_idle_however_long_they_take(live):
    async def scenario(registry, connection, task):
        registry.sweep(1e9, 1)
        assert not task.done()

    live(scenario)


def test_an_empty_registry_is_quiet(run):
    async def main():
        await Registry().quiet(0)

    run(main())


def test_the_end_resets_relays_and_cancels_phases(live):
    async def scenario(registry, connection, task):
        relay = FakeRelay()
        connection.relaying(relay)
        connection.end()
        assert relay.aborted == [End.DRAINED]
        assert not task.cancelled()

    async def in_a_phase(registry, connection, task):
        await registry.end_all()
        assert task.cancelled()

    async def relaying(registry, connection, task):
        await scenario(registry, connection, task)
        task.cancel()

    live(relaying)
    live(in_a_phase)


def test_connections_of_revoked_peers_are_reset_and_no_others(live):
    async def scenario(registry, connection, task):
        connection.record.peer_path_ids = (b"leaf", b"intermediate")
        assert registry.end_revoked(frozenset({b"leaf"})) == 0, "there is no relay yet"
        relay = FakeRelay()
        connection.relaying(relay)
        assert registry.end_revoked(frozenset({b"another"})) == 0
        assert relay.aborted == []
        assert registry.end_revoked(frozenset({b"another", b"intermediate"})) == 1
        assert registry.end_revoked(frozenset({b"another", b"intermediate"})) == 0
        assert relay.aborted == [End.REVOKED]
        task.cancel()

    live(scenario)


def test_a_connection_without_tls_has_no_peer_that_could_be_revoked(live):
    async def scenario(registry, connection, task):
        connection.relaying(FakeRelay())
        assert registry.end_revoked(frozenset({b"leaf"})) == 0
        task.cancel()

    live(scenario)


def test_what_waits_for_a_reader_that_never_comes_is_reset_sooner_than_what_is_idle(live):
    async def scenario(registry, connection, task):
        relay = FakeRelay()
        connection.relaying(relay)
        registry.sweep(100.0, 500, 50)
        registry.sweep(160.0, 500, 50)
        assert relay.aborted == [], "nothing waits: it is idle, and that is allowed for longer"
        relay.waiting = 1
        relay.moved[1] += 1
        registry.sweep(170.0, 500, 50)
        registry.sweep(219.0, 500, 50)
        assert relay.aborted == []
        registry.sweep(220.0, 500, 50)
        assert relay.aborted == [End.STALLED]
        task.cancel()

    live(scenario)


def test_a_silent_connection_is_asked_for_life_and_reset_when_its_peer_has_vanished(live):
    async def scenario(registry, connection, task):
        relay = FakeRelay()
        relay.vanished = True
        connection.relaying(relay)
        for now in (100.0, 105.0, 114.0):
            relay.moved[1] += now < 110
            registry.sweep(now, 3600, silence=10)
        assert relay.aborted == []  # it moved nine seconds ago
        registry.sweep(115.0, 3600, silence=10)
        assert (relay.asked, relay.aborted) == (10, [End.PEER_SILENT])
        task.cancel()

    live(scenario)


def test_an_operator_sees_the_state_the_age_and_what_waits(live):
    async def scenario(registry, connection, task):
        assert connection.describe(3.0) == {
            "source": "10.0.0.1:5", "state": "opening", "age_s": 3.0, "idle_s": None, "tunnel": None,
            "bytes_waiting": 0,
        }  # fmt: skip
        relay = FakeRelay()
        relay.waiting = 7
        relay.moved[:] = [1, 2]
        connection.relaying(relay)
        registry.sweep(4.0, 50)
        shown = connection.describe(5.5)
        assert (shown["state"], shown["idle_s"], shown["bytes_waiting"]) == ("open", 1.5, 7)
        assert connection.record.seen[-1] == (1, 2)
        task.cancel()

    live(scenario)


class FakeTunnel:
    """What the registry sees of a tunnel."""

    def __init__(self, registry, direction=Direction.INBOUND) -> None:
        self.registry, self.direction, self.heard = registry, direction, []

    def start_draining(self) -> None:
        self.heard.append("drain")

    def finish(self) -> None:
        self.heard.append("finish")
        self.registry.remove(self)

    def end(self) -> None:
        self.heard.append("end")
        self.registry.remove(self)


def test_only_those_who_dialled_us_are_told_that_we_drain(run):
    async def main():
        registry = Registry()
        theirs, ours = FakeTunnel(registry), FakeTunnel(registry, Direction.OUTBOUND)
        for tunnel in (theirs, ours):
            registry.add(tunnel)
        assert registry.connections == 0
        registry.start_draining()
        return theirs.heard, ours.heard, registry.draining

    assert run(main()) == (["drain"], [], True)


def test_tunnels_end_in_order_where_no_connection_is_left_and_by_force_where_one_is(run):
    async def main():
        alone, beside = Registry(), Registry()
        first, second = FakeTunnel(alone), FakeTunnel(beside)
        alone.add(first)
        beside.add(second)
        connection = LiveConnection(FakeRecord(), 0.0, lambda: beside.remove(connection))
        beside.add(connection)
        await alone.end_all()
        await beside.end_all()
        return first.heard, second.heard

    assert run(main()) == (["finish"], ["end"])


def test_pages_are_of_connections_or_of_tunnels_in_the_order_in_which_they_came(run):
    async def main():
        registry = Registry()
        connections = [LiveConnection(FakeRecord(), 0.0, lambda: None) for _ in range(4)]
        tunnel = FakeTunnel(registry)
        for one in (*connections[:2], tunnel, *connections[2:]):
            registry.add(one)
        assert registry.page(1, 2, tunnels=False) == (connections[1], connections[2])
        assert registry.page(0, 10, tunnels=True) == (tunnel,)
        assert (registry.count(tunnels=False), registry.count(tunnels=True)) == (4, 1)
        registry.remove(connections[0])
        registry.remove(connections[0])
        return registry.count(tunnels=False)

    assert run(main()) == 3


def test_it_is_quiet_when_nobody_is_left_and_nobody_has_come_for_a_while(run):
    async def main():
        registry = Registry()
        stays, comes_late = (LiveConnection(FakeRecord(), 0.0, lambda: None) for _ in range(2))
        registry.add(stays)
        quiet = asyncio.ensure_future(registry.quiet(0.1))
        await asyncio.sleep(0.02)
        registry.add(comes_late)
        registry.remove(comes_late)
        registry.remove(stays)
        await asyncio.sleep(0.1)
        still_waiting = not quiet.done()  # somebody came since it began to wait, so that somebody else may
        await quiet
        return still_waiting

    assert run(main())


def test_what_a_connection_holds_at_the_gate_is_free_once_when_it_is_gone(live):
    async def scenario(registry, connection, task):
        left = []

        class Standing:
            def leave(self) -> None:
                left.append(self)

        connection.standing = Standing()
        connection.relaying(FakeRelay())
        registry.remove(connection)
        registry.remove(connection)
        assert len(left) == 1
        assert connection.relay is None  # which may know it: neither waits for the garbage collector

    live(scenario)
