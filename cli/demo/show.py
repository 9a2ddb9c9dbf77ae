"""What happens on the stage, in order: traffic without the mesh, the mesh, the same traffic with it, the numbers."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cli.demo.claims import Claim, evaluate
from cli.demo.content import Markers, lines_in_file
from cli.demo.errors import PartFailedError
from cli.demo.identities import make_identities
from cli.demo.live import LiveView
from cli.demo.options import Options
from cli.demo.own_server import OwnServer
from cli.demo.processes import Child, wait_until
from cli.demo.report import Printer
from cli.demo.results import MeshFacts, Outcome, Times, Traffic, Transfer
from cli.demo.sidecar import Handshake, Sidecar
from cli.demo.stage import POD_NAMES, Mesh, Stage, Wire

# Enough for a p99 that is no accident, few enough for seconds on two slow cores.
KEPT_REQUESTS: Final = 1000
NEW_CONNECTIONS: Final = 100
LATENCY_SECONDS: Final = 60.0
FETCH_SECONDS: Final = 120.0
LOG_SECONDS: Final = 3.0
BYPASS_SECONDS: Final = 15.0


class Show:
    """One run. `reason` says why it is not in namespaces; empty where it is."""

    def __init__(self, stage: Stage, options: Options, printer: Printer, reason: str) -> None:
        self._stage = stage
        self._options = options
        self._printer = printer
        self._reason = reason
        self._markers = Markers(f"qbitel-demo-plaintext-{secrets.token_hex(8)}")
        self._app = " ".join(options.app)

    def perform(self) -> tuple[Outcome, list[Claim], LiveView]:
        """Everything up to the numbers. PartFailedError where a part does not do its work."""
        traffic = self._start_server()
        self._printer.step("the same traffic first without sidecars, with a tap on the wire")
        with_tap = self._stage.open_wire(sidecars=False)
        without = traffic.run(with_tap)
        if isinstance(traffic, OwnServer):
            self._printer.detail(traffic.describe())
        self._printer.detail(f"{without.wire.total_hits:,} pieces of what was sent are readable on the wire")
        with_tap.close()
        wire = self._stage.open_wire(sidecars=True, pcap=self._pcap())
        mesh, identities = self._start_mesh(wire)
        self._printer.step("the same traffic through the mesh, with the same tap and the same search")
        through = traffic.run(wire)
        self._printer.detail(
            f"{through.wire.total_hits:,} pieces are readable, of {through.wire.bytes:,} captured bytes"
        )
        outcome = Outcome(
            stage=self._stage.kind,
            reason=self._reason,
            app=self._app,
            without=without,
            through=through,
            mesh=self._look_at(mesh, identities, traffic),
        )
        view = LiveView(self._stage, mesh, wire, self._markers, traffic.background_path)
        return outcome, evaluate(outcome), view

    def _start_server(self) -> SampleTraffic | OwnServer:
        if self._options.app:
            self._printer.step(f"in pod-b, your server: {self._app}")
            server = OwnServer(self._stage, self._options, self._markers)
            self._printer.detail(f"it accepts connections on {self._stage.direct()}")
            return server
        self._printer.step(f"in pod-b, an HTTP server that knows no TLS, on http://{self._stage.direct()}")
        size = self._options.file_mib << 20
        return SampleTraffic(self._stage, self._stage.start_sample(self._markers.token), self._markers, size)

    def _start_mesh(self, wire: Wire) -> tuple[Mesh, tuple[str, str]]:
        self._printer.step("an authority: one ML-DSA-87 root, one ML-DSA-87 certificate per pod")
        now = datetime.datetime.now(datetime.UTC)
        identities = make_identities(self._stage.folder, POD_NAMES, self._stage.sidecar_user, now)
        for name, identity in zip(POD_NAMES, identities, strict=True):
            self._printer.detail(f"{name}  {identity.spiffe_id}")
        self._printer.step(self._stage.mesh_title)
        mesh = self._stage.start_mesh(wire, identities)
        return mesh, (identities[0].spiffe_id, identities[1].spiffe_id)

    def _pcap(self) -> Path | None:
        return Path(self._options.keep_capture) if self._options.keep_capture else None

    def _look_at(self, mesh: Mesh, identities: tuple[str, str], traffic: SampleTraffic | OwnServer) -> MeshFacts:
        first, second = mesh.sidecars
        # Log lines come a moment after the bytes; both ends saw the same handshakes.
        wait_until(lambda: 0 < first.counters.handshakes == second.counters.handshakes, LOG_SECONDS)
        outbound = tuple(shake for shake in first.handshakes if shake.direction == "outbound")
        inbound = tuple(shake for shake in second.handshakes if shake.direction == "inbound")
        if not outbound:
            raise PartFailedError("the sidecar of pod-a logged no handshake", first.child.last_lines)
        urls = [f"http://127.0.0.1:{port}/metrics" for port in mesh.metrics_ports]
        lines = [_handshake_metric(s, p) for s, p in zip(mesh.sidecars, mesh.metrics_ports, strict=True)]
        return MeshFacts(
            identities=identities,
            outbound=outbound,
            inbound=inbound,
            full=_handshake_times(outbound, resumed=False),
            resumed=_handshake_times(outbound, resumed=True),
            metrics_urls=(urls[0], urls[1]),
            metrics=(lines[0], lines[1]),
            door=traffic.how_to_try(mesh.door_port),
            sidecar_rights=(_rights(first.child), _rights(second.child)),
            interception=mesh.interception,
            bypass=self._go_around(),
        )

    def _go_around(self) -> str:
        """Send plaintext to pod-b's sidecar from where no rule catches it."""
        place, endpoint = self._stage.bypass()
        answer = self._stage.run_client("probe", endpoint, BYPASS_SECONDS, place=place, timeout=5)
        if answer["kind"] in ("reset", "closed"):
            return "refused"
        return f"not refused: the answer was {answer['kind']}"


class SampleTraffic:
    """The traffic with the sample server: small requests, and one large file."""

    background_path = ""

    def __init__(self, stage: Stage, server: Child, markers: Markers, size: int) -> None:
        self._stage = stage
        self._server = server
        self._markers = markers
        self._size = size

    def run(self, wire: Wire) -> Traffic:
        """All of it, once, over `wire`."""
        wire.watch(self._markers.patterns())
        times = self._stage.run_client(
            "latency",
            wire.endpoint,
            LATENCY_SECONDS,
            token=self._markers.token,
            requests=KEPT_REQUESTS,
            new_connections=NEW_CONNECTIONS,
        )
        fetched = self._stage.run_client("fetch", wire.endpoint, FETCH_SECONDS, bytes=self._size)
        sent = self._server.expect("file_sent", LOG_SECONDS)
        # Each request on the kept connection carries both markers, and so does its echo.
        small = 2 * KEPT_REQUESTS + NEW_CONNECTIONS
        return Traffic(
            wire=wire.report(),
            sent={"request": small, "response": small, "file": lines_in_file(self._size)},
            sent_bytes=self._size + small * len(self._markers.request),
            kept=Times.of_microseconds(times["kept_us"]),
            fresh=Times.of_microseconds(times["fresh_us"]),
            transfer=Transfer(
                asked=self._size,
                received=int(fetched["bytes"]),
                seconds=float(fetched["seconds"]),
                sent_sha256=str(sent["sha256"]),
                received_sha256=str(fetched["sha256"]),
            ),
        )

    def how_to_try(self, port: int) -> str:
        """What a user can type to take pod-a's place."""
        return f"curl http://127.0.0.1:{port}/small"


def _handshake_times(handshakes: Sequence[Handshake], *, resumed: bool) -> Times | None:
    """How long those of one kind took; None where there was none."""
    milliseconds = [shake.handshake_ms for shake in handshakes if shake.resumed is resumed]
    return Times.of(milliseconds) if milliseconds else None


def _handshake_metric(sidecar: Sidecar, port: int) -> str:
    """The line that counts completed handshakes; empty where there is none."""
    lines = [line for line in sidecar.metrics(port) if line.startswith("qbitel_tls_handshakes_total{")]
    return next((line for line in lines if 'result="ok"' in line), "")


def _rights(child: Child) -> str:
    """What the kernel says of a process: its user, its effective and possible capabilities, no_new_privs."""
    status: dict[str, Any] = {}
    for line in Path(f"/proc/{child.pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        status[name] = value.split()
    users = set(status["Uid"])
    capabilities = {int(status[name][0], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    return (
        f"UID {'/'.join(sorted(users))}, capabilities {'/'.join(f'{c:x}' for c in sorted(capabilities))}, "
        f"no_new_privs {status['NoNewPrivs'][0]}"
    )
