"""What the demo plays on: two pods with a wire between them. There are two kinds, pods.py and loopback.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.demo.identities import Identity
from cli.demo.processes import Child, Event, Place, module
from cli.demo.search import WireReport
from cli.demo.sidecar import Sidecar

START_SECONDS: Final = 15.0
ANSWER_SECONDS: Final = 10.0

POD_NAMES: Final = ("pod-a", "pod-b")  # the client's and the server's


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the client application calls."""

    host: str
    port: int

    @property
    def pair(self) -> tuple[str, int]:
        return self.host, self.port

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Wire:
    """A tap on the wire between the pods, and the address whose traffic passes it."""

    def __init__(self, tap: Child, endpoint: Endpoint) -> None:
        self.tap = tap
        self.endpoint = endpoint

    def watch(self, patterns: Mapping[str, bytes]) -> None:
        """Forget what was seen and look for `patterns` from here on."""
        command = {"do": "watch", "patterns": {name: pattern.hex() for name, pattern in patterns.items()}}
        self.tap.ask(command, "watching", ANSWER_SECONDS)

    def report(self) -> WireReport:
        """What was seen since."""
        return WireReport.from_json(self.tap.ask({"do": "report"}, "report", ANSWER_SECONDS))

    def close(self) -> None:
        """End the tap; what it writes to a file is complete then."""
        self.tap.close_input()
        self.tap.finish(ANSWER_SECONDS)
        self.tap.stop()


@dataclass(frozen=True, slots=True)
class Mesh:
    """Both sidecars, running; the ports are on the machine's 127.0.0.1."""

    sidecars: tuple[Sidecar, Sidecar]
    metrics_ports: tuple[int, int]
    door_port: int  # a connection to it is one that pod-a's application makes to pod-b's
    interception: tuple[str, ...]  # what a check of the rules said in each pod; empty without interception


class Stage(ABC):
    """Two pods. Everything started on it is stopped by `stack`, in reverse order."""

    kind: str
    title: str
    mesh_title: str
    sidecar_user: int

    def __init__(self, stack: ExitStack, folder: Path, server_port: int) -> None:
        self.stack = stack
        self.folder = folder
        self.server_port = server_port

    @abstractmethod
    def client_place(self) -> Place:
        """Where pod-a's application runs."""

    @abstractmethod
    def server_place(self) -> Place:
        """Where pod-b's sample server runs."""

    @abstractmethod
    def own_server_place(self, account: str | None) -> Place:
        """Where pod-b's server runs when it is the user's own: as the user himself, or as `account`."""

    @abstractmethod
    def direct(self) -> Endpoint:
        """Pod-b's server, as pod-a reaches it without a mesh."""

    @abstractmethod
    def open_wire(self, *, sidecars: bool, pcap: Path | None = None) -> Wire:
        """Tap the wire, with the sidecars on it or without; the file `pcap` keeps what passes."""

    @abstractmethod
    def start_mesh(self, wire: Wire, identities: Sequence[Identity]) -> Mesh:
        """Start both sidecars and turn the traffic into them; `wire` was opened for that."""

    @abstractmethod
    def bypass(self) -> tuple[Place, Endpoint]:
        """From where, and where to, plaintext reaches pod-b's sidecar without passing pod-a's."""

    def start(self, child: Child) -> Child:
        """Have `child` stopped at the end."""
        self.stack.callback(child.stop)
        return child

    def start_sample(self, token: str) -> Child:
        """Start the sample server in pod-b."""
        options = ["--host", self.direct().host, "--port", str(self.server_port), "--token", token]
        server = self.start(Child("the sample server", self.server_place().wrap([*module("sample"), *options])))
        server.expect("ready", START_SECONDS)
        return server

    def start_client(self, mode: str, endpoint: Endpoint, *, place: Place | None = None, **options: object) -> Child:
        """Start the client application in pod-a, or in `place`; `options` are those of cli/demo/client.py."""
        words = [mode, "--host", endpoint.host, "--port", str(endpoint.port)]
        for name, value in options.items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        return self.start(Child("the client", (place or self.client_place()).wrap([*module("client"), *words])))

    def run_client(
        self, mode: str, endpoint: Endpoint, seconds: float, *, place: Place | None = None, **options: object
    ) -> Event:
        """Run the client application to its end and return the last event of it."""
        client = self.start_client(mode, endpoint, place=place, **options)
        answers = {"fetch": "fetched", "wait": "accepts"}
        event = client.expect(answers.get(mode, mode), seconds)
        client.finish(ANSWER_SECONDS)
        client.stop()
        return event
