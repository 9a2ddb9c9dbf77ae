"""Which endpoint gets the next connection or request: the algorithms of Istio's loadBalancer, and peak EWMA.

A balancer is told its endpoints and which of them may be used; it chooses in constant time, and randomness and time are
given to it. What is under way towards an endpoint is kept in the endpoint, so that a balancer can be replaced by one of
another kind while the endpoints stay. Locality is not its business: it is given one locality's endpoints.
"""

from __future__ import annotations

import bisect
import enum
import heapq
import itertools
import math
from collections.abc import Collection, Sequence
from typing import Final, Protocol

# Envoy's bound on the weight of an endpoint is 2^32-1; all of one destination together have the same bound.
LARGEST_WEIGHT: Final = 2**32 - 1
# The lower half of the random number's 53 bits serves as a second, independent one.
_LOWER_HALF: Final = float(2**26)
# Seconds in which what was measured falls to 1/e: Linkerd's default.
_DECAY: Final = 10.0


class Algorithm(enum.Enum):
    """DestinationRule's `loadBalancer.simple`, and what is ours. UNSPECIFIED and LEAST_CONN are LEAST_REQUEST."""

    ROUND_ROBIN = "ROUND_ROBIN"
    RANDOM = "RANDOM"
    LEAST_REQUEST = "LEAST_REQUEST"
    PEAK_EWMA = "PEAK_EWMA"  # no value of Istio's


class Endpoint:
    """One address of a destination, and what is under way towards it."""

    __slots__ = ("active", "address", "latency", "measured_at", "weight")

    def __init__(self, address: str, weight: int = 1) -> None:
        """`weight` is its share, from 1 to 2^32-1, relative to the others'."""
        if not 1 <= weight <= LARGEST_WEIGHT:
            raise ValueError(f"the weight of {address} is {weight}; it must be from 1 to {LARGEST_WEIGHT}")
        self.address = address
        self.weight = weight
        self.active = 0
        self.latency = 0.0
        self.measured_at = -math.inf

    def __repr__(self) -> str:
        return f"Endpoint({self.address!r}, weight={self.weight})"

    def started(self) -> None:
        """A connection or request is on its way to this endpoint."""
        self.active += 1

    def finished(self) -> None:
        """It has ended, however it did."""
        if self.active == 0:
            raise RuntimeError(f"more has ended at {self.address} than had started")
        self.active -= 1

    def measured(self, latency: float, now: float) -> None:
        """An answer came after `latency` seconds; of a timeout, its full time.

        A slower answer than was expected counts at once and in full; a faster one by how long ago the last one was.
        """
        if latency >= self.expected_latency(now):
            self.latency = latency
        else:
            kept = math.exp(min(0.0, self.measured_at - now) / _DECAY)
            self.latency = self.latency * kept + latency * (1.0 - kept)
        self.measured_at = max(self.measured_at, now)

    def expected_latency(self, now: float) -> float:
        """The moving average in seconds, faded with the time since: one that was slow once is tried again."""
        return self.latency * math.exp(min(0.0, self.measured_at - now) / _DECAY)


class Balancer(Protocol):
    """What a proxy holds, whichever the algorithm."""

    def update(self, endpoints: Sequence[Endpoint], available: Collection[Endpoint] | None = None) -> None:
        """The destination has `endpoints`, of which `available` (all, where None) may be used."""

    def choose(self, random: float, now: float, key: bytes = b"") -> Endpoint | None:
        """The endpoint for what comes next, or None where there is none.

        `random` is a number from 0.0 up to 1.0 with 53 random bits, `now` seconds of a monotonic clock, and `key` what
        a consistent hash is made of. Not every algorithm looks at each of them.
        """


def make_balancer(algorithm: Algorithm, start: float = 0.0) -> Balancer:
    """A balancer with no endpoints yet. `start`, random, keeps sidecars that began together from going in step."""
    match algorithm:
        case Algorithm.ROUND_ROBIN:
            return RoundRobin(start)
        case Algorithm.RANDOM:
            return WeightedRandom()
        case Algorithm.LEAST_REQUEST:
            return LeastRequest()
        case Algorithm.PEAK_EWMA:
            return PeakEwma()


class RoundRobin:
    """Each in turn, in proportion to its weight: whoever is due earliest (Envoy's EDF scheduler).

    After any number of choices among n endpoints, one with the share s has had its part of them, give or take 1 + n·s.
    """

    __slots__ = ("_due", "_next", "_start", "_turn")

    def __init__(self, start: float = 0.0) -> None:
        self._start = start
        self._turn: tuple[Endpoint, ...] = ()
        self._next = 0
        # (when due, place, steps between turns, endpoint); empty where all weights are equal.
        self._due: list[tuple[int, int, int, Endpoint]] = []

    def update(self, endpoints: Sequence[Endpoint], available: Collection[Endpoint] | None = None) -> None:
        """See Balancer. The order starts anew."""
        usable = usable_of(endpoints, available)
        self._turn = usable
        self._next = int(self._start * len(usable))
        if len({endpoint.weight for endpoint in usable}) <= 1:
            self._due = []
            return
        # Whole numbers, so that no rounding adds up; the common denominator is fine enough for any two weights.
        steps = [(LARGEST_WEIGHT << 32) // endpoint.weight for endpoint in usable]
        self._due = [
            (int((place + self._start) % len(usable) / len(usable) * step), place, step, endpoint)
            for place, (step, endpoint) in enumerate(zip(steps, usable, strict=True))
        ]
        heapq.heapify(self._due)

    def choose(self, random: float, now: float, key: bytes = b"") -> Endpoint | None:
        """See Balancer; looks at nothing."""
        if self._due:
            due, place, step, endpoint = self._due[0]
            heapq.heapreplace(self._due, (due + step, place, step, endpoint))
            return endpoint
        turn = self._turn
        if not turn:
            return None
        place = self._next
        self._next = place + 1 if place + 1 < len(turn) else 0
        return turn[place]


class WeightedRandom:
    """Any, with a probability in proportion to its weight."""

    __slots__ = ("_lot",)

    def __init__(self) -> None:
        self._lot = Lot(())

    def update(self, endpoints: Sequence[Endpoint], available: Collection[Endpoint] | None = None) -> None:
        """See Balancer."""
        self._lot = Lot(usable_of(endpoints, available))

    def choose(self, random: float, now: float, key: bytes = b"") -> Endpoint | None:
        """See Balancer; looks at `random`."""
        return self._lot.draw(random)


class LeastRequest:
    """Of two drawn by weight, the one with less under way for its weight.

    Two are enough: the fullest of n then has about log log n more than the average, where one has log n / log log n,
    and nobody runs to the same idle endpoint at once, as all would who looked at all of them (Mitzenmacher 1996).
    """

    __slots__ = ("_lot",)

    def __init__(self) -> None:
        self._lot = Lot(())

    def update(self, endpoints: Sequence[Endpoint], available: Collection[Endpoint] | None = None) -> None:
        """See Balancer."""
        self._lot = Lot(usable_of(endpoints, available))

    def choose(self, random: float, now: float, key: bytes = b"") -> Endpoint | None:
        """See Balancer; looks at `random`."""
        first = self._lot.draw(random)
        if first is None:
            return None
        second = self._lot.draw_other(random)
        # The first where both are equal: it was drawn by weight alone, so that an idle destination keeps to weights.
        return second if second.active * first.weight < first.active * second.weight else first


class PeakEwma:
    """Of two drawn by weight, the one from which an answer is expected earlier (Finagle's and Linkerd's P2C).

    Expected is Endpoint.expected_latency, times what is under way and the newcomer: whoever uses this calls
    Endpoint.measured with each answer.
    """

    __slots__ = ("_lot",)

    def __init__(self) -> None:
        self._lot = Lot(())

    def update(self, endpoints: Sequence[Endpoint], available: Collection[Endpoint] | None = None) -> None:
        """See Balancer."""
        self._lot = Lot(usable_of(endpoints, available))

    def choose(self, random: float, now: float, key: bytes = b"") -> Endpoint | None:
        """See Balancer; looks at `random` and `now`."""
        first = self._lot.draw(random)
        if first is None:
            return None
        second = self._lot.draw_other(random)
        if first is second:
            return first
        return second if self._cost(second, now) * first.weight < self._cost(first, now) * second.weight else first

    def _cost(self, endpoint: Endpoint, now: float) -> float:
        # One of which nothing is known is asked once, and not again before there is an answer: a new pod may be slow.
        if endpoint.measured_at == -math.inf:
            return math.inf if endpoint.active else 0.0
        return endpoint.expected_latency(now) * (endpoint.active + 1)


class Lot:
    """Draws an endpoint by weight from a random number, and a second one from the same number."""

    __slots__ = ("_bounds", "_endpoints", "_total")

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._endpoints = endpoints
        equal = len({endpoint.weight for endpoint in endpoints}) <= 1
        # Upper bounds of each endpoint's part of the sum; empty where all weights are equal.
        self._bounds = [] if equal else list(itertools.accumulate(endpoint.weight for endpoint in endpoints))
        self._total = self._bounds[-1] if self._bounds else len(endpoints)

    def draw(self, random: float) -> Endpoint | None:
        """One of the endpoints, or None where there is none."""
        if not self._endpoints:
            return None
        return self._endpoints[self._place(random * self._total)]

    def draw_other(self, random: float) -> Endpoint:
        """Another than draw(random) gives, by weight; the same where it is the only one."""
        total = self._total
        bounds = self._bounds
        first = self._place(random * total)
        low, high = (bounds[first - 1] if first else 0, bounds[first]) if bounds else (first, first + 1)
        rest = total - (high - low)
        if not rest:
            return self._endpoints[first]
        # A point on what is left when the first one's part is cut out.
        point = int(random * _LOWER_HALF % 1.0 * rest)
        return self._endpoints[self._place(point if point < low else point + high - low)]

    def _place(self, point: float) -> int:
        return bisect.bisect_right(self._bounds, point) if self._bounds else int(point)


def usable_of(endpoints: Sequence[Endpoint], available: Collection[Endpoint] | None) -> tuple[Endpoint, ...]:
    """The available ones among the endpoints, in their order. ValueError where the sum of weights is out of bounds."""
    if sum(endpoint.weight for endpoint in endpoints) > LARGEST_WEIGHT:
        raise ValueError(f"the weights of a destination's endpoints must not sum up to more than {LARGEST_WEIGHT}")
    if available is None:
        return tuple(endpoints)
    chosen = frozenset(available)
    return tuple(endpoint for endpoint in endpoints if endpoint in chosen)
