"""Proof that interception works, before traffic is welcome and while it is: connections of our own that its rules must
bring to us.

What the sidecar's user dials is let out of the pod, except over lo to another address than loopback's usual one: that
comes in by the front door, and so must this (docs/interception.md). Whoever accepts it sees where it was going, answers
with a word, and nothing else in the pod would.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from mesh import names
from proxy.config import Endpoint


@dataclass(frozen=True, slots=True)
class Probe:
    """A connection to try: to `target`, from the address `source` where that matters."""

    target: Endpoint
    source: str = ""

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6."""
        return socket.AF_INET6 if ":" in self.target.host else socket.AF_INET


# No application listens at this address, and none at this port: nothing but a redirect can answer.
PROBE: Final = Probe(Endpoint("127.0.0.2", names.SELF_TEST_PORT))
# IPv6 has one loopback address. The other is what `qbitel init` puts on lo for the sidecar to dial from.
PROBE_V6: Final = Probe(Endpoint(names.INBOUND_SOURCE_V6, names.SELF_TEST_PORT), source="::1")

_WORD: Final = b"qbitel self-test\n"
# It never leaves the kernel. Five seconds are for a machine that is busy with everything else.
_PATIENCE: Final = 5.0
# Rules that are missing may come: the init step of a pod ends before its sidecar starts, others' do not.
_PAUSE: Final = 1.0
# And rules may go: somebody flushes a table, or a CNI writes it anew. A probe costs a third of a millisecond.
_AGAIN: Final = 10.0
# While rules are changed there may be none for a moment; who is refused so often in a row, a pause between, is not in
# such a moment.
_REFUSALS: Final = 3


class _Outcome(Enum):
    ARRIVED = auto()
    ELSEWHERE = auto()  # refused, or answered by somebody else: no rule has brought it to us
    UNKNOWN = auto()  # it took too long, or could not be begun


def can_be_tried() -> bool:
    """Whether we are the user whose connections the rules know."""
    return os.geteuid() == names.SIDECAR_UID


def probes_for(families: Sequence[socket.AddressFamily]) -> tuple[Probe, ...]:
    """What must arrive where we listen for what is redirected in `families`. Without an IPv6 in the pod, or with
    `--ipv6 off`, the address that the second one goes to is not there, and nothing is to be proved.
    """
    found = (PROBE, PROBE_V6) if _is_ours(PROBE_V6.target.host) else (PROBE,)
    return tuple(probe for probe in found if probe.family in families)


def answer(accepted: socket.socket) -> None:
    """Say that it has arrived; the caller closes it."""
    with contextlib.suppress(OSError):  # whoever dialled it is gone, and asks again
        accepted.send(_WORD)


async def until_redirected(probes: Callable[[], Sequence[Probe]]) -> None:
    """Return when each of `probes()` has arrived at one of our listeners. Tries until it is cancelled."""
    while not await _all_arrive(probes()):
        await asyncio.sleep(_PAUSE)


async def until_lost(probes: Callable[[], Sequence[Probe]]) -> Probe:
    """Return one of `probes()` that does not arrive any more. Looks until then, or until it is cancelled."""
    while True:
        await asyncio.sleep(_AGAIN)
        for probe in probes():
            if await _is_lost(probe):
                return probe


async def _all_arrive(probes: Sequence[Probe]) -> bool:
    for probe in probes:
        if await _try(probe) is not _Outcome.ARRIVED:
            return False
    return True


async def _is_lost(probe: Probe) -> bool:
    for _ in range(_REFUSALS):
        if await _try(probe) is not _Outcome.ELSEWHERE:
            return False
        await asyncio.sleep(_PAUSE)
    return True


async def _try(probe: Probe) -> _Outcome:
    loop = asyncio.get_running_loop()
    said = b""
    try:
        async with asyncio.timeout(_PATIENCE):
            with socket.socket(probe.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
                if probe.source:
                    sock.bind((probe.source, 0))
                await loop.sock_connect(sock, (probe.target.host, probe.target.port))
                while len(said) < len(_WORD) and (piece := await loop.sock_recv(sock, len(_WORD))):
                    said += piece
    except ConnectionRefusedError:
        return _Outcome.ELSEWHERE
    except OSError:  # TimeoutError is one; who has too many connections resets ours
        return _Outcome.UNKNOWN
    if said == _WORD:
        return _Outcome.ARRIVED
    return _Outcome.ELSEWHERE if said else _Outcome.UNKNOWN


def _is_ours(host: str) -> bool:
    """Whether `host`, an IPv6 address, is one of this network namespace."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind((host, 0))
    except OSError:
        return False
    return True
