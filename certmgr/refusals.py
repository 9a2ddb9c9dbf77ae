"""What becomes of a refusal: a number in the metrics and, at a bounded rate, a line in the log and in the audit log.

Whoever reaches the port can be refused as often as it likes; neither log may grow by that without end. What is held
back is counted, and said in one line once it is quieter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiotls import PeerFailed, TlsConnectionError
from certmgr.limits import TokenBucket
from certmgr.metrics import Metrics
from certmgr.proofs import Method, Reason, Refused
from certmgr.store import StoreUnavailable
from pqtls import CertificateRefused

# Lines a second that a person could still make sense of, and as many at once as a rollout gone wrong brings.
RATE: Final = 20.0
BURST: Final = 200
# How often to say what was held back, in seconds.
_SUM_UP_SECONDS: Final = 10.0

_log = logging.getLogger("qbitel.certmgr")

# Writes one refusal into the audit log: refused, kind of proof, source. Raises StoreUnavailable.
Write = Callable[[Refused, Method | None, str], Awaitable[None]]


class Refusals:
    """Takes note of refusals without making anybody wait; `run()` writes them into the audit log."""

    def __init__(self, metrics: Metrics, write: Write, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._write = write
        self._bucket = TokenBucket(RATE, BURST, monotonic)
        self._held_back = 0
        self._waiting: asyncio.Queue[tuple[Refused, Method | None, str] | None] = asyncio.Queue()  # None: the end

    def of_certificate(self, refused: Refused, method: Method | None, source: str) -> None:
        """A request for a certificate was refused."""
        self._metrics.csr_refused(refused.reason.slug, method)
        self._note(refused, method, source)

    def of_request(self, refused: Refused, method: Method | None, source: str) -> None:
        """Another request was refused."""
        self._metrics.request_refused(refused.reason.slug)
        self._note(refused, method, source)

    def of_connection(self, error: OSError, source: str) -> None:
        """A handshake failed; only a certificate that was refused concerns the audit log."""
        reason = error.reason if isinstance(error, TlsConnectionError) else "connection"
        self._metrics.tls_failed(reason)
        if isinstance(error, PeerFailed) and isinstance(error.peer_error, CertificateRefused):
            slug = Reason.REVOKED if reason == "revoked" else Reason.NO_PROOF
            self._note(Refused(slug, str(error)), Method.CERTIFICATE, source)
        elif self._bucket.take():
            _log.warning("no TLS connection with %s: %s", source, error)
        else:
            self._held_back += 1

    async def run(self) -> None:
        """Write until close() is called and all that was noted before is written."""
        while True:
            try:
                async with asyncio.timeout(_SUM_UP_SECONDS):
                    noted = await self._waiting.get()
            except TimeoutError:
                self._sum_up()
                continue
            if noted is None:
                return
            await self._append(*noted)

    def close(self) -> None:
        """Let run() come to its end."""
        self._sum_up()
        self._waiting.put_nowait(None)

    def _note(self, refused: Refused, method: Method | None, source: str) -> None:
        if not self._has_room():
            self._held_back += 1
            return
        self._sum_up()
        _log.warning("refused %s (%s): %s", source, refused.reason.slug, refused)
        self._waiting.put_nowait((refused, method, source))

    def _has_room(self) -> bool:
        """A journal that hangs gets no more than this to write when it goes on; what comes meanwhile is held back."""
        return self._waiting.qsize() < 2 * BURST and self._bucket.take()

    def _sum_up(self) -> None:
        if self._held_back and self._has_room():
            text = f"{self._held_back} more refusals were not written down one by one; the metrics have counted them"
            self._held_back = 0
            _log.warning("%s", text)
            self._waiting.put_nowait((Refused(Reason.TOO_MANY, text), None, "-"))

    async def _append(self, refused: Refused, method: Method | None, source: str) -> None:
        try:
            await self._write(refused, method, source)
        except StoreUnavailable as error:
            _log.error("a refusal is not in the audit log: %s", error)
