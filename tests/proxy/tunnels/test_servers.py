"""How many servers behind one address are looked for, and when that ends."""

from __future__ import annotations

import random
import types

import pytest

from proxy.config import Endpoint
from proxy.tunnels.pool import STREAMS_EACH, TunnelPool, _Place
from proxy.tunnels.servers import MOST_MISSES, MOST_SERVERS, Servers


def server(number: int) -> Endpoint:
    return Endpoint(f"10.0.0.{number}", 80)


def look(pods: int, seed: int) -> set[Endpoint]:
    """Dial through an address that leads to one of `pods` by chance, as long as another is wanted."""
    chance = random.Random(seed)  # noqa: S311
    servers, found = Servers(), set()
    dialled = 0
    while True:
        dialled += 1
        one = server(chance.randrange(pods))
        if servers.is_new(one, found):
            found.add(one)
        if not servers.wants_another(len(found)):
            assert dialled <= (MOST_MISSES + 1) * MOST_SERVERS
            return found


def test_one_server_is_enough_where_there_is_one():
    assert look(1, 0) == {server(0)}


def test_a_few_servers_are_nearly_always_all_found():
    for pods in (2, 3, 4):
        complete = sum(len(look(pods, seed)) == pods for seed in range(200))
        assert complete >= 140


def test_of_many_servers_no_more_are_held_than_spread_the_load():
    assert {len(look(1000, seed)) for seed in range(20)} == {MOST_SERVERS}


def test_after_a_change_they_are_looked_for_again():
    servers = Servers()
    for _ in range(MOST_MISSES):
        assert not servers.is_new(server(1), [server(1)])
    assert not servers.wants_another(1)
    servers.changed()
    assert servers.wants_another(1)


class Stub:
    """A tunnel, as the pool sees it."""

    takes_streams = is_in_use = is_fresh = True

    def __init__(self, where: Endpoint | None, streams: int = 0) -> None:
        self.server = where
        self.tunnel = types.SimpleNamespace(streams=range(streams))
        self.is_spare = False
        self.retired = False

    def retire(self) -> None:
        self.retired = True


@pytest.fixture
def looking():
    """A pool that looks for servers behind one address, and the calls that it would make later."""
    later: list[float] = []
    loop = types.SimpleNamespace(call_later=lambda seconds, *_: later.append(seconds) or object())
    services = types.SimpleNamespace(loop=loop)
    return TunnelPool(), services, _Place(), later


def test_each_server_that_is_new_keeps_its_tunnel_and_the_search_goes_on(looking):
    pool, services, place, later = looking
    for number in range(MOST_SERVERS):
        place.tunnels.append(Stub(server(number)))
        pool._found(services, None, place, place.tunnels[-1])
        place.next_look = None  # as if its time had come
    assert not any(kept.retired for kept in place.tunnels)
    assert len(later) == MOST_SERVERS - 1


def test_a_second_tunnel_to_a_server_that_is_known_is_given_up_unless_the_first_is_busy_or_old(looking):
    pool, services, place, _ = looking
    busy, old, first, second = (Stub(server(1), STREAMS_EACH), Stub(server(1)), Stub(server(1)), Stub(server(1)))
    old.is_fresh = False
    place.tunnels += [busy, old, first]
    pool._found(services, None, place, first)
    assert not first.retired
    place.tunnels.append(second)
    pool._found(services, None, place, second)
    assert second.retired
    assert second.is_spare


def test_however_many_say_where_they_are_at_once_one_search_is_planned(looking):
    pool, services, place, later = looking
    for number in range(3):
        place.tunnels.append(Stub(server(number)))
        pool._found(services, None, place, place.tunnels[-1])
    assert len(later) == 1


def test_the_search_ends_when_it_brings_nothing_new(looking):
    pool, services, place, later = looking
    place.tunnels.append(Stub(server(1)))
    pool._found(services, None, place, place.tunnels[0])
    for _ in range(MOST_MISSES):
        place.next_look = None
        spare = Stub(server(1))
        place.tunnels.append(spare)
        pool._found(services, None, place, spare)
        place.tunnels.remove(spare)
    assert len(later) == MOST_MISSES
