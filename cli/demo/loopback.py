"""The stage without isolation: the same two sidecars over 127.0.0.1, with explicit listeners and a relay as the tap."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cli.demo.identities import Identity
from cli.demo.processes import Child, Place, module
from cli.demo.sidecar import Sidecar
from cli.demo.stage import POD_NAMES, START_SECONDS, Endpoint, Mesh, Stage, Wire

# Not the address that sidecars listen on: a connection that turns out to be bulk is dialled anew, to where the other
# sidecar says it is, and would go past the tap. An address of this machine's own that was not dialled is not believed.
TAP_HOST: Final = "127.0.0.2"


class LoopbackStage(Stage):
    """client → sidecar of pod-a → tap → sidecar of pod-b → server, each on a port of its own."""

    kind = "loopback"
    title = "two sidecars over loopback"
    mesh_title = "two sidecars with explicit listeners, mode STRICT"
    sidecar_user = os.geteuid()

    def client_place(self) -> Place:
        # No namespace ends these processes: the kernel is told to end each with this one.
        return Place(die_with=os.getpid())

    def server_place(self) -> Place:
        return self.client_place()

    def own_server_place(self, account: str | None) -> Place:
        return Place(die_with=os.getpid(), account=account)

    def direct(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.server_port)

    def bypass(self) -> tuple[Place, Endpoint]:
        return self.client_place(), Endpoint("127.0.0.1", self.inbound_port)

    def open_wire(self, *, sidecars: bool, pcap: Path | None = None) -> Wire:
        # The relay stands before the server; with the sidecars on, before the inbound side of pod-b's, whose port is
        # therefore chosen here.
        self.inbound_port, self.outbound_port = free_ports(2)
        target = self.inbound_port if sidecars else self.server_port
        words = [*module("tap"), "--listen-host", TAP_HOST, "--target-port", str(target)]
        words += ["--pcap", str(pcap)] if pcap else []
        tap = self.start(Child("the wire tap", self.client_place().wrap(words), ends_with_input=True))
        self.tap_port = int(tap.expect("ready", START_SECONDS)["port"])
        return Wire(tap, Endpoint("127.0.0.1", self.outbound_port) if sidecars else Endpoint(TAP_HOST, self.tap_port))

    def start_mesh(self, wire: Wire, identities: Sequence[Identity]) -> Mesh:
        ports = free_ports(4)
        routes = (
            ["--explicit-outbound", f"{wire.endpoint}={TAP_HOST}:{self.tap_port}"],
            ["--explicit-inbound", f"127.0.0.1:{self.inbound_port}={self.direct()}"],
        )
        first, second = (
            Sidecar(
                name,
                identity.folder,
                self.client_place(),
                [
                    "--no-capture",
                    *("--metrics", f"127.0.0.1:{ports[number]}"),
                    *("--health", f"127.0.0.1:{ports[2 + number]}"),
                    *routes[number],
                ],
            )
            for number, (name, identity) in enumerate(zip(POD_NAMES, identities, strict=True))
        )
        for sidecar in (first, second):
            self.start(sidecar.child)
        first.wait_ready(ports[2])
        second.wait_ready(ports[3])
        return Mesh((first, second), (ports[0], ports[1]), wire.endpoint.port, ())


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free now. Another program may take one before it is used; then that part says so."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
