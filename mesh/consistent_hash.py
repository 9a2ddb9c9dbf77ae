"""Consistent hashing: the same key goes to the same endpoint, from every sidecar, and few keys move when endpoints do.

Both balancers are built from all endpoints of a destination and pass over those that may not be used now: an ejected
endpoint's keys go elsewhere meanwhile, all others stay, and nothing is built anew. Keys are hashed with BLAKE2b, for
Python's own hash differs from process to process.
"""

from __future__ import annotations

import array
import bisect
import enum
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from mesh.balancing import Balancer, Endpoint, Lot, usable_of

# Istio's defaults, and Envoy's bounds: a ring of 8 Mi points, a table of the largest prime below 5,000,011.
_RING_SIZE: Final = 1024
LARGEST_RING: Final = 2**20
_TABLE_SIZE: Final = 65_537
_LARGEST_TABLE: Final = 5_000_011
# How often a key whose endpoint is not available is hashed again before it is drawn from the available ones: with half
# of the endpoints gone, one key in 65,536 comes that far.
_ATTEMPTS: Final = 16


class HashTable(enum.Enum):
    """DestinationRule's `consistentHash.ringHash` and `.maglev`."""

    RING = "ringHash"
    MAGLEV = "maglev"


@dataclass(frozen=True, slots=True)
class ConsistentHash:
    """How keys find their endpoint. `size` is `minimumRingSize` or `tableSize` (a prime); None is Istio's default.

    What the key is made of (a header, a cookie, the source's address, a query parameter) is the caller's business.
    """

    table: HashTable = HashTable.RING
    size: int | None = None

    def __post_init__(self) -> None:
        if self.table is HashTable.RING and not 1 <= self.entries <= LARGEST_RING:
            raise ValueError(f"minimumRingSize is {self.size}; it must be from 1 to {LARGEST_RING}")
        if self.table is HashTable.MAGLEV and not (2 <= self.entries <= _LARGEST_TABLE and is_prime(self.entries)):
            raise ValueError(f"tableSize is {self.size}; it must be a prime of at most {_LARGEST_TABLE}")

    @property
    def entries(self) -> int:
        """The size that is meant."""
        if self.size is not None:
            return self.size
        return _RING_SIZE if self.table is HashTable.RING else _TABLE_SIZE

    def balancer(self) -> Balancer:
        """A balancer of this kind, with no endpoints yet."""
        return RingHash(self.entries) if self.table is HashTable.RING else Maglev(self.entries)


def is_prime(number: int) -> bool:
    """Whether `number` is a prime; tried by division, which takes 0.1 ms for the largest table."""
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def hash_of(text: bytes) -> int:
    """64 bits, evenly spread, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


class RingHash:
    """Points of each endpoint on a ring of 2^64; a key belongs to the next point (Karger 1997, libketama).

    An endpoint has points in proportion to its weight, the same number whatever the others are, until their sum
    changes by a factor of two: then all are doubled or halved, so that there are at least `minimum_size` of them and
    about twice as many at most, and some keys move that would not have had to.
    """

    __slots__ = ("_endpoints", "_lot", "_minimum_size", "_owners", "_points", "_usable")

    def __init__(self, minimum_size: int = _RING_SIZE) -> None:
        self._minimum_size = minimum_size
        self._endpoints: tuple[Endpoint, ...] = ()
        self._usable: frozenset[Endpoint] = frozenset()
        self._points: array.array[int] = array.array("Q")
        self._owners: list[Endpoint] = []
        self._lot = Lot(())

    def update(self, endpoints: Sequence[Endpoint], available: Collection[Endpoint] | None = None) -> None:
        """See Balancer. The ring is built anew only where the endpoints themselves have changed."""
        usable = usable_of(endpoints, available)
        self._usable = frozenset(usable)
        self._lot = Lot(usable)
        if self._endpoints != tuple(endpoints):
            self._endpoints = tuple(endpoints)
            self._build()

    def choose(self, random: float, now: float, key: bytes = b"") -> Endpoint | None:
        """See Balancer; looks at `key`, and at `random` where there is no key."""
        owners = self._owners
        if not key or not self._usable:
            return self._lot.draw(random)
        place = bisect.bisect_right(self._points, hash_of(key))
        # One turn at most: somebody is usable.
        while True:
            owner = owners[place] if place < len(owners) else owners[place - len(owners)]
            if owner in self._usable:
                return owner
            place = place + 1 if place < len(owners) else 1

    def _build(self) -> None:
        ring = [
            (hash_of(f"{endpoint.address}#{number}".encode()), endpoint)
            for endpoint, points in zip(self._endpoints, self._shares(), strict=True)
            for number in range(points)
        ]
        # Where two points coincide, the address decides: every sidecar must come to the same ring.
        ring.sort(key=lambda entry: (entry[0], entry[1].address))
        self._points = array.array("Q", [point for point, _ in ring])
        self._owners = [endpoint for _, endpoint in ring]

    def _shares(self) -> list[int]:
        """How many points each endpoint has: its weight times or divided by a power of two, at least one."""
        total = sum(endpoint.weight for endpoint in self._endpoints)
        if not total:
            return []
        # The smallest power of two by which the weights' sum comes to minimum_size. Multiplying by it is exact in a
        # float, so that an endpoint's share depends on nothing but its weight and the power.
        power = (-(-self._minimum_size // total) - 1).bit_length()
        if not power:
            power = -((total // self._minimum_size).bit_length() - 1)
        return [max(1, round(endpoint.weight * 2.0**power)) for endpoint in self._endpoints]


class Maglev:
    """A table of prime size that the endpoints fill in turns, each in an order of its own (Eisenbud 2016, §3.4).

    Evener than a ring, and choosing is one look; when endpoints change, a few keys more than necessary move. Building
    takes time in proportion to the size of the table, not to the number of endpoints.
    """

    __slots__ = ("_endpoints", "_lot", "_owners", "_size", "_usable")

    def __init__(self, size: int = _TABLE_SIZE) -> None:
        self._size = size
        self._endpoints: tuple[Endpoint, ...] = ()
        self._usable: frozenset[Endpoint] = frozenset()
        self._owners: array.array[int] = array.array("I")
        self._lot = Lot(())

    def update(self, endpoints: Sequence[Endpoint], available: Collection[Endpoint] | None = None) -> None:
        """See Balancer. The table is built anew only where the endpoints themselves have changed."""
        if len(endpoints) > self._size:
            raise ValueError(f"a table of {self._size} entries is too small for {len(endpoints)} endpoints")
        usable = usable_of(endpoints, available)
        self._usable = frozenset(usable)
        self._lot = Lot(usable)
        if self._endpoints != tuple(endpoints):
            self._endpoints = tuple(endpoints)
            self._owners = self._filled()

    def choose(self, random: float, now: float, key: bytes = b"") -> Endpoint | None:
        """See Balancer; looks at `key`, and at `random` where there is no key."""
        if not key or not self._usable:
            return self._lot.draw(random)
        point = hash_of(key)
        for _ in range(_ATTEMPTS):
            owner = self._endpoints[self._owners[point % self._size]]
            if owner in self._usable:
                return owner
            point = hash_of(point.to_bytes(8, "big"))
        # 53 bits of the hash stand for the random number: the same key goes the same way while the same are usable.
        return self._lot.draw((point >> 11) * 2.0**-53)

    def _filled(self) -> array.array[int]:
        size = self._size
        owners = array.array("I", [len(self._endpoints)]) * size
        if not self._endpoints:
            return owners
        # By address, whatever order the endpoints were learnt in: every sidecar must come to the same table.
        order = sorted(range(len(self._endpoints)), key=lambda place: self._endpoints[place].address)
        heaviest = max(endpoint.weight for endpoint in self._endpoints)
        free = len(self._endpoints)
        places = [hash_of(b"offset " + self._endpoints[place].address.encode()) % size for place in order]
        skips = [hash_of(b"skip " + self._endpoints[place].address.encode()) % (size - 1) + 1 for place in order]
        due = [0] * len(order)
        filled = 0
        turn = 0
        while True:
            turn += 1
            for index, endpoint in enumerate(order):
                # An endpoint of half the weight has every other turn.
                if due[index] > turn * self._endpoints[endpoint].weight:
                    continue
                due[index] += heaviest
                place = places[index]
                skip = skips[index]
                while owners[place] != free:
                    place += skip
                    if place >= size:
                        place -= size
                owners[place] = endpoint
                places[index] = place
                filled += 1
                if filled == size:
                    return owners
