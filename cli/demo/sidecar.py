"""One sidecar of the demo: a `qbitel proxy` process, and what its JSON log says."""

from __future__ import annotations

import http.client
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from cli.demo.errors import PartFailedError
from cli.demo.processes import QBITEL, Child, Event, Place, wait_until
from mesh.names import DEFAULT_TRUST_DOMAIN

# Two Python interpreters that import and bind on two slow cores need about two seconds.
READY_SECONDS: Final = 20.0
HTTP_SECONDS: Final = 5.0
# Handshakes remembered for the numbers; the live view may run for days.
KEPT_HANDSHAKES: Final = 4096


@dataclass(frozen=True, slots=True)
class Handshake:
    """A completed handshake as one sidecar logged it."""

    direction: str
    handshake_ms: float
    resumed: bool
    profile: str
    group: str
    signature: str
    cipher_suite: str
    local_identity: str
    peer_identity: str


@dataclass(frozen=True, slots=True)
class Counters:
    """Of connections that have ended, but for `handshakes`."""

    handshakes: int = 0
    connections: int = 0
    bytes: int = 0


class Sidecar:
    """`name` is the pod's. Its log is read as it comes."""

    def __init__(self, name: str, certificates: Path, place: Place, arguments: Sequence[str]) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._handshakes: deque[Handshake] = deque(maxlen=KEPT_HANDSHAKES)
        self._counters = Counters()
        command = [
            *QBITEL,
            "proxy",
            *("--certs", str(certificates)),
            *("--trust-domain", DEFAULT_TRUST_DOMAIN),
            *("--mode", "STRICT"),
            *("--drain-quiet", "0"),  # it ends when the demo says so: nobody else dials it
            *arguments,
        ]
        self.child = Child(f"the sidecar of {name}", place.wrap(command), on_event=self._read)

    def wait_ready(self, health_port: int) -> None:
        """Until its readiness answers 200 on 127.0.0.1:`health_port`. PartFailedError when it does not."""

        def ready() -> bool:
            if self.child.exit_code is not None:
                raise self.child.failed("ended while it started")
            try:
                status, _ = http_get(health_port, "/healthz/ready")
            except (OSError, http.client.HTTPException):
                return False
            return status == http.HTTPStatus.OK

        if not wait_until(ready, READY_SECONDS):
            raise self.child.failed(f"was not ready after {READY_SECONDS:g} seconds")

    def check_running(self) -> None:
        """PartFailedError where it has ended."""
        if self.child.exit_code is not None:
            raise self.child.failed("ended")

    def metrics(self, port: int) -> list[str]:
        """The sample lines of its metrics, without comments. PartFailedError where they do not answer."""
        try:
            status, body = http_get(port, "/metrics")
        except (OSError, http.client.HTTPException) as error:
            raise PartFailedError(f"the metrics of {self.name} do not answer: {error}") from None
        if status != http.HTTPStatus.OK:
            raise PartFailedError(f"the metrics of {self.name} answer with status {status}")
        return [line for line in body.splitlines() if line and not line.startswith("#")]

    @property
    def handshakes(self) -> list[Handshake]:
        with self._lock:
            return list(self._handshakes)

    @property
    def counters(self) -> Counters:
        with self._lock:
            return self._counters

    def _read(self, event: Event) -> None:
        with self._lock:
            now = self._counters
            if event.get("event") == "handshake" and event.get("peer_identity"):
                self._handshakes.append(_handshake(event))
                self._counters = Counters(now.handshakes + 1, now.connections, now.bytes)
            elif event.get("event") == "connection":
                moved = int(event.get("bytes_sent") or 0) + int(event.get("bytes_received") or 0)
                self._counters = Counters(now.handshakes, now.connections + 1, now.bytes + moved)


def _handshake(event: Event) -> Handshake:
    texts = {field.name: str(event.get(field.name) or "") for field in fields(Handshake)}
    del texts["handshake_ms"], texts["resumed"]
    milliseconds = float(event.get("handshake_ms") or 0.0)
    return Handshake(handshake_ms=milliseconds, resumed=event.get("resumed") is True, **texts)


def http_get(port: int, path: str) -> tuple[int, str]:
    """GET from 127.0.0.1; status and body. OSError or HTTPException when nobody answers properly."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HTTP_SECONDS)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    finally:
        connection.close()
