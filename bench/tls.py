"""The TLS engine beside OpenSSL 4 (pyOpenSSL, memory BIOs): same algorithms, same process, same core.

Handshakes are mutual, with ML-DSA-87 certificates at both ends, and count the CPU of both ends. OpenSSL does not know
X25519MLKEM1024, so the comparison is made with SecP384r1MLKEM1024, and ours is shown for both. Where it is not said
otherwise, every chain is validated anew: OpenSSL has no cache of verified chains, so ours is a row of its own.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

from OpenSSL import SSL

import pqtls
from bench.openssl import Pair, context
from bench.rounds import Comparison, compare, cpu_seconds
from cli.handshakes import EnginePair, Identity, make_identity, utc_now
from pqtls.profiles import HYBRID_L5, QBITEL
from pqtls.provider import CryptoProvider
from pqtls.provider_cryptography import PROVIDER
from proxy.providers import LiboqsAbsent, load_liboqs

_HANDSHAKES = 20
_RESUMPTIONS = 40
_BULK = 2**25
_RECORD = 2**14
_MESSAGE = 64
_MESSAGES = 10_000
_WIDTH = 52


def main() -> None:
    """Print the tables: handshakes per provider, then data, which is the same for all providers."""
    identity = make_identity(utc_now())
    providers: list[CryptoProvider] = [PROVIDER]
    try:
        providers.append(load_liboqs(os.environ))
    except LiboqsAbsent as reason:
        print(f"liboqs is not measured: {reason}")
    print(
        f"Python {platform.python_version()}; CPU of both ends in one process; "
        "ratio: OpenSSL's time over ours, above 1 we are faster"
    )
    for provider in providers:
        _handshakes(identity, provider)
    _bytes(identity)
    _data(identity)


def _handshakes(identity: Identity, provider: CryptoProvider) -> None:
    print(f"\n{f'handshakes, our provider: {provider.name}':<{_WIDTH}} {'ours':>12} {'OpenSSL':>12}")
    group = HYBRID_L5.groups[0].name
    full = context(identity.root, identity.leaf, group, tickets=False)
    ours = EnginePair(identity, HYBRID_L5, provider)
    found = compare(_times(_HANDSHAKES, ours.full), _times(_HANDSHAKES, lambda: Pair(full).handshake()), _HANDSHAKES)
    _rates(f"full, {group}", found)
    known = EnginePair(identity, HYBRID_L5, provider, cached_chains=8)
    found = compare(_times(_HANDSHAKES, known.full), _times(_HANDSHAKES, lambda: Pair(full).handshake()), _HANDSHAKES)
    _rates("  with our cache of verified chains", found)
    resuming, peer = EnginePair(identity, HYBRID_L5, provider, tickets=True), _Resuming(identity, group)
    found = compare(_times(_RESUMPTIONS, resuming.resumed), _times(_RESUMPTIONS, peer.handshake), _RESUMPTIONS)
    _rates(f"resumed, {group}", found)
    private = EnginePair(identity, QBITEL, provider)
    _alone(f"full, {QBITEL.groups[0].name}", _HANDSHAKES, private.full)
    private = EnginePair(identity, QBITEL, provider, tickets=True)
    _alone(f"resumed, {QBITEL.groups[0].name}", _RESUMPTIONS, private.resumed)


class _Resuming:
    """OpenSSL's resumed handshakes: each uses the newest ticket of the one before, as ours do."""

    def __init__(self, identity: Identity, group: str) -> None:
        self._context = context(identity.root, identity.leaf, group, tickets=True)
        first = Pair(self._context)
        first.handshake()
        self._session = first.session()
        self.bytes = 0

    def handshake(self) -> None:
        """Resume once."""
        pair = Pair(self._context, self._session)
        pair.handshake()
        self._session = pair.session()
        self.bytes = sum(pair.bytes.values())
        if not pair.was_resumed:
            raise RuntimeError("OpenSSL did not resume: what was measured is not what was meant")


def _bytes(identity: Identity) -> None:
    """What crosses the wire, both ways together, tickets included where there are any."""
    print(f"\n{'bytes per handshake, both ways':<{_WIDTH}} {'ours':>12} {'OpenSSL':>12}")
    group = HYBRID_L5.groups[0].name
    for tickets in (False, True):
        ours = EnginePair(identity, HYBRID_L5, PROVIDER, tickets=tickets)
        ours.full()
        pair = Pair(context(identity.root, identity.leaf, group, tickets=tickets))
        pair.handshake()
        pair.session()
        _row(f"full, {'with' if tickets else 'without'} tickets", sum(ours.sent), sum(pair.bytes.values()), "B")
    ours.resumed()
    peer = _Resuming(identity, group)
    peer.handshake()
    _row("resumed", sum(ours.sent), peer.bytes, "B")


def _data(identity: Identity) -> None:
    print(f"\n{'data, one process sealing and opening':<{_WIDTH}} {'ours':>12} {'OpenSSL':>12}")
    ours = EnginePair(identity, HYBRID_L5, PROVIDER)
    peer = context(identity.root, identity.leaf, HYBRID_L5.groups[0].name, tickets=False)
    found = compare(lambda: _bulk_ours(ours), lambda: _bulk_peer(peer), _BULK)
    _row("seal and open at 16 KiB", 1e-9 / found.ours, 1e-9 / found.peer, "GB/s", found.ratio)
    found = compare(lambda: _requests_ours(ours), lambda: _requests_peer(peer), _MESSAGES)
    _row("request and answer of 64 B each", 1 / found.ours, 1 / found.peer, "/s", found.ratio)


def _bulk_ours(ours: EnginePair) -> None:
    """Seal and open _BULK bytes through buffers that are made once."""
    client, server = ours.full()
    buffers = _Buffers(_RECORD)
    for _ in range(_BULK // _RECORD):
        buffers.carry(client, server)


def _requests_ours(ours: EnginePair) -> None:
    client, server = ours.full()
    buffers = _Buffers(_MESSAGE)
    for _ in range(_MESSAGES):
        buffers.carry(client, server)
        buffers.carry(server, client)


class _Buffers:
    """What a relay has: buffers that are made once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._plaintext = memoryview(bytearray(size + 1))
        self._records = memoryview(bytearray(pqtls.sealed_size(size)))
        self._opened = memoryview(bytearray(len(self._records)))

    def carry(self, source: pqtls.Connection, target: pqtls.Connection) -> None:
        """Seal a whole buffer at one end and open it at the other."""
        written = source.seal_into(self._plaintext, self._size, self._records)
        target.open_into(self._records[:written], self._opened)


def _bulk_peer(peer: SSL.Context) -> None:
    pair = Pair(peer)
    pair.handshake()
    data = bytes(_RECORD)
    for _ in range(_BULK // _RECORD):
        pair.message(pair.client, pair.server, data)


def _requests_peer(peer: SSL.Context) -> None:
    pair = Pair(peer)
    pair.handshake()
    data = bytes(_MESSAGE)
    for _ in range(_MESSAGES):
        pair.message(pair.client, pair.server, data)
        pair.message(pair.server, pair.client, data)


def _times(count: int, call: Callable[[], object]) -> Callable[[], None]:
    def work() -> None:
        for _ in range(count):
            call()

    return work


def _rates(what: str, found: Comparison) -> None:
    _row(what, 1 / found.ours, 1 / found.peer, "/s", found.ratio)


def _alone(what: str, count: int, call: Callable[[], object]) -> None:
    call()
    rate = count / cpu_seconds(_times(count, call))
    print(f"{what:<{_WIDTH}} {rate:7.0f} /s   {'—':>12}")


def _row(what: str, ours: float, peer: float, unit: str, ratio: float | None = None) -> None:
    digits = 2 if unit == "GB/s" else 0
    share = peer / ours if ratio is None else ratio
    print(f"{what:<{_WIDTH}} {ours:7.{digits}f} {unit:<4} {peer:7.{digits}f} {unit:<4}  ratio {share:5.2f}")
