"""How many servers behind one address are looked for, and when that ends."""

from __future__ import annotations

import random

from proxy.config import Endpoint
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
