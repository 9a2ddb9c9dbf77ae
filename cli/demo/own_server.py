"""The traffic with a server that is not ours: whatever it is, it is probed, and its own words are searched for."""

from __future__ import annotations

import os
import time
from typing import Any, Final

from cli.demo.content import Markers
from cli.demo.errors import PartFailedError
from cli.demo.options import Options
from cli.demo.processes import Child
from cli.demo.results import Times, Traffic
from cli.demo.stage import ANSWER_SECONDS, Stage, Wire

# A database that prepares its files at first start takes its time.
ACCEPT_SECONDS: Final = 30.0
LEARN_SECONDS: Final = 20.0
PROBE_TIMEOUT: Final = 3
LEARN_REST: Final = 0.2  # seconds of silence that end an answer that is not known yet
MEASURE_REST: Final = 0.05  # … and one that is
LEARN_PAUSE: Final = 1.1  # answers tell the time, in seconds; what is looked for must not
PROBES: Final = 10
# Shorter ones may stand in ciphertext by chance, longer ones may be cut by chunked encodings.
MIN_EXCERPT: Final = 8
MAX_EXCERPT: Final = 64

# What people type to talk to the servers that people try first, by their usual port.
CLIENTS: Final = {
    6379: "redis-cli -p {port}",
    5432: "psql -h 127.0.0.1 -p {port}",
    3306: "mysql -h 127.0.0.1 -P {port}",
    25: "nc 127.0.0.1 {port}",
}


KINDS: Final = {
    "http": "it answers HTTP",
    "server-first": "it speaks first",
    "other": "it answers an HTTP request in another protocol",
    "closed": "it closes the connection when it sees HTTP",
    "reset": "it resets the connection when it sees HTTP",
    "silent": "it is silent when it sees HTTP",
}


class OwnServer:
    """Started in pod-b; it must listen on all of the pod's addresses."""

    def __init__(self, stage: Stage, options: Options, markers: Markers) -> None:
        """Start it and wait until it accepts connections. PartFailedError when it ends or does not listen."""
        self._stage = stage
        self._port = options.port
        self._markers = markers
        self.kind = ""
        self.first_words = b""
        place = stage.own_server_place(options.app_user)
        name = f"your server ({options.app[0]})"
        self._server = stage.start(Child(name, place.wrap(options.app), environment=dict(os.environ)))
        self._wait()

    @property
    def background_path(self) -> str | None:
        """What the live view asks for all the time: a page, or nothing where the protocol is not HTTP."""
        return "/" if self.kind == "http" else None

    def run(self, wire: Wire) -> Traffic:
        """Learn what it says on this way, then count how often that stands on the wire."""
        learned = self._probe(wire, 2, LEARN_PAUSE)
        self.kind = str(learned[0]["kind"])
        patterns = {}
        if self.kind != "server-first":
            patterns["request"] = self._markers.request
        if excerpt := common_excerpt(*(bytes.fromhex(probe["answer"]) for probe in learned)):
            patterns["answer"] = excerpt
        if not patterns:
            raise PartFailedError(
                "your server says something else each time, so there is nothing to look for", self._last()
            )
        self.first_words = bytes.fromhex(learned[0]["answer"])[:MAX_EXCERPT].partition(b"\r\n")[0]
        wire.watch(patterns)
        probes = self._probe(wire, PROBES)
        # As the client counted them: the wire must have carried the request each time, and the answers that came.
        sent = {"request": PROBES} if "request" in patterns else {}
        if "answer" in patterns:
            sent["answer"] = sum(patterns["answer"] in bytes.fromhex(probe["answer"]) for probe in probes)
        return Traffic(
            wire=wire.report(),
            sent=sent,
            sent_bytes=PROBES * sum(map(len, patterns.values())),
            fresh=Times.of_microseconds([probe["first_byte_us"] for probe in probes]),
            answers=self.kind,
        )

    def describe(self) -> str:
        """What it did with the probes, in words."""
        said = f": {self.first_words.decode('utf-8', 'backslashreplace')}" if self.first_words else ""
        return f"{KINDS[self.kind]}{said}"

    def how_to_try(self, port: int) -> str:
        """What a user can type to take pod-a's place."""
        if self.kind == "http":
            return f"curl http://127.0.0.1:{port}/"
        return CLIENTS.get(self._port, "nc 127.0.0.1 {port}").format(port=port)

    def _wait(self) -> None:
        endpoint = self._stage.direct()
        client = self._stage.start_client("wait", endpoint, timeout=ACCEPT_SECONDS)
        while client.exit_code is None:
            # One that puts itself into the background ends with 0, and goes on.
            if self._server.exit_code not in (None, 0):
                raise self._server.failed("ended before it accepted connections")
            time.sleep(0.05)
        if client.exit_code != 0:
            raise PartFailedError(
                f"your server does not accept connections on {endpoint}: it must listen there or on all addresses",
                self._last(),
            )

    def _probe(self, wire: Wire, count: int, pause: float = 0) -> list[dict[str, Any]]:
        speaks_first = self.kind in ("", "server-first")
        client = self._stage.start_client(
            "probe",
            wire.endpoint,
            token=self._markers.token,
            requests=count,
            timeout=PROBE_TIMEOUT,
            pause=pause,
            rest_wait=LEARN_REST if pause else MEASURE_REST,
            listen_first=int(speaks_first),
        )
        probes = [client.expect("probe", LEARN_SECONDS) for _ in range(count)]
        client.finish(ANSWER_SECONDS)
        client.stop()
        return probes

    def _last(self) -> tuple[str, ...]:
        return self._server.last_lines


def common_excerpt(first: bytes, second: bytes) -> bytes:
    """A line, or the beginning of one, that stands in both answers; empty where none is long enough."""
    lines = {line[:MAX_EXCERPT] for line in first.splitlines()}
    common = [line for line in lines if len(line) >= MIN_EXCERPT and line in second]
    return max(common, key=lambda line: (len(line), line), default=b"")
