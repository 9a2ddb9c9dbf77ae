"""Live connections: swept, drained, ended."""

from __future__ import annotations

import asyncio

import pytest

from proxy.registry import LiveConnection, Registry
from proxy.relay import End


class FakeRelay:
    """What the registry sees of a relay."""

    def __init__(self) -> None:
        self.moved = [0, 0]
        self.ended = False
        self.aborted: list[End] = []

    def abort(self, end: End) -> None:
        self.aborted.append(end)
        self.ended = True


class FakeRecord:
    """What the registry sees of a record."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.relayed = False
        self.peer_path_ids: tuple[bytes, ...] = ()

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


def test_phases_are_not_idle_however_long_they_take(live):
    async def scenario(registry, connection, task):
        registry.sweep(1e9, 1)
        assert not task.done()

    live(scenario)


def test_draining_waits_only_so_long(live):
    async def scenario(registry, connection, task):
        assert not await registry.drained(0.05)
        task.cancel()
        assert await registry.drained(5)

    live(scenario)


def test_an_empty_registry_is_drained(run):
    async def main():
        assert await Registry().drained(0.05)

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
