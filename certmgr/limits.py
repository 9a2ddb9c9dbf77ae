"""How much a stranger may ask of the authority: every number, and what keeps to it.

The API is open to whoever reaches its port, because who has no certificate yet has to ask somewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from certmgr.proofs import Reason, Refused

# A request with an ML-DSA-87 CSR and an ML-KEM-1024 key, both PEM, has some 13 kB.
MAX_BODY: Final = 64 * 1024
# Seconds for a body from its first byte to its last. 13 kB survive three retransmissions of a lost segment (RFC 6298:
# 1, 2 and 4 s).
BODY_SECONDS: Final = 10.0
# Seconds for a request's head, and between two requests: a sidecar asks twice in a row, or comes back in hours.
IDLE_SECONDS: Final = 15.0
# Seconds after which a connection is not kept any longer: what was verified in its handshake is to be verified again.
MAX_AGE_SECONDS: Final = 900.0
# Open at once, of peers that show a certificate and of those that show none, as sidecars that wait for a change do; a
# connection holds some 32 kB, so a third of a gigabyte in all. When there are more, the one that was silent for the
# longest goes.
MAX_IDENTIFIED: Final = 2048
MAX_ANONYMOUS: Final = 8192
# From one address: a node's agent, or all that a NAT hides, needs few; nobody needs all.
MAX_CONNECTIONS_PER_SOURCE: Final = 512
# Waiting for a change of the bundle; those beyond are answered at once and come again after POLL_RETRY_SECONDS. A
# quarter of the anonymous connections stays for whoever comes for its first certificate.
MAX_POLLS: Final = 6144
MAX_POLL_SECONDS: Final = 60
POLL_RETRY_SECONDS: Final = 30
# Proofs that somebody else is judging: one that hangs must not keep those from their turn that need nobody else.
MAX_PROVING: Final = 128
PROVING_SECONDS: Final = 10.0
# Certificates being made: at 200 a second and core, the last of them waits little more than a second.
MAX_ISSUING: Final = 256
# When to come again where there was no room: the queue above is done by then.
BUSY_RETRY_SECONDS: Final = 2


class Gate:
    """At most `most` at once; whoever comes beyond is refused at once instead of waiting for longer and longer."""

    def __init__(self, most: int, what: str) -> None:
        self.inside = 0
        self._most = most
        self._what = what

    @contextlib.contextmanager
    def pass_through(self) -> Iterator[None]:
        """Be inside for the block, or raise Refused: TOO_MANY."""
        if self.inside >= self._most:
            raise Refused(
                Reason.TOO_MANY,
                f"{self._most} {self._what} are under way already; come again in {BUSY_RETRY_SECONDS} s",
                retry_after=BUSY_RETRY_SECONDS,
            )
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


class TokenBucket:
    """`rate` a second in the long run, `burst` at once."""

    def __init__(self, rate: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._monotonic = monotonic
        self._tokens = burst
        self._filled = monotonic()

    def take(self) -> bool:
        """Whether there was one left."""
        now = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
