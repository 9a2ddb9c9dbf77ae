"""The live view: traffic goes on, and one line each second says how it is."""

from __future__ import annotations

import time

from cli.demo.content import Markers
from cli.demo.report import Printer
from cli.demo.results import percentile
from cli.demo.stage import Mesh, Stage, Wire


class LiveView:
    """`path` is what is asked for: empty for the sample's /echo, None where only the user's own clients talk."""

    def __init__(self, stage: Stage, mesh: Mesh, wire: Wire, markers: Markers, path: str | None) -> None:
        self._stage = stage
        self._mesh = mesh
        self._wire = wire
        self._markers = markers
        self._path = path

    def run(self, printer: Printer) -> None:
        """Until the user ends it (StoppedError) or a part fails (PartFailedError)."""
        patterns = self._markers.patterns() if self._path == "" else {"request": self._markers.request}
        self._wire.watch(patterns)
        start = time.monotonic()
        client = None
        if self._path is not None:
            client = self._stage.start_client(
                "background", self._wire.endpoint, token=self._markers.token, path=self._path
            )
        requests = ""
        while True:
            time.sleep(1)
            for sidecar in self._mesh.sidecars:
                sidecar.check_running()
            while client is not None and (event := client.try_expect("second")) is not None:
                requests = _requests(event)
            printer.live(f"{time.monotonic() - start:5.0f} s  {requests}{self._wire_numbers()}")

    def _wire_numbers(self) -> str:
        wire, counters = self._wire.report(), self._mesh.sidecars[0].counters
        lost = "" if wire.complete else f" ({wire.dropped + wire.truncated} frames lost)"
        return (
            f"{counters.handshakes:,} handshakes, {counters.connections:,} connections ended  |  wire: "
            f"{wire.bytes:,} bytes, {wire.total_hits} plaintext{lost}"
        )


def _requests(event: dict[str, object]) -> str:
    if error := event["error"]:
        return f"error: {error}  |  "
    times = event["times_us"]
    p50 = f", p50 {percentile(times, 50) / 1000:.2f} ms" if isinstance(times, list) and times else ""
    return f"{event['requests']:,} requests, {event['bytes']:,} bytes{p50}  |  "
