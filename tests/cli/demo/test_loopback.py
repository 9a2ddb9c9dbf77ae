from __future__ import annotations

import datetime
import os
from contextlib import ExitStack
from pathlib import Path

from cli.demo.content import Markers
from cli.demo.identities import make_identities
from cli.demo.loopback import LoopbackStage, free_ports
from cli.demo.sidecar import http_get
from cli.demo.stage import POD_NAMES

TOKEN = Markers("loopback-token")


def test_ports_are_different_ones() -> None:
    assert len(set(free_ports(20))) == 20


def test_without_sidecars_the_tap_stands_before_the_server_and_reads_everything(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stage = LoopbackStage(stack, tmp_path, free_ports(1)[0])
        stage.start_sample(TOKEN.token)
        wire = stage.open_wire(sidecars=False)
        wire.watch(TOKEN.patterns())
        stage.run_client("latency", wire.endpoint, 10, token=TOKEN.token, requests=3, new_connections=2)
        assert wire.report().hits == {"request": 8, "response": 8, "file": 0}


def test_with_sidecars_it_stands_between_them_and_reads_nothing(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stage = LoopbackStage(stack, tmp_path, free_ports(1)[0])
        stage.start_sample(TOKEN.token)
        wire = stage.open_wire(sidecars=True)
        identities = make_identities(tmp_path, POD_NAMES, os.geteuid(), datetime.datetime.now(datetime.UTC))
        mesh = stage.start_mesh(wire, identities)
        wire.watch(TOKEN.patterns())
        stage.run_client("latency", wire.endpoint, 10, token=TOKEN.token, requests=3, new_connections=2)
        report = wire.report()
        # The client's three connections share one between the sidecars.
        assert (report.total_hits, report.flows, report.tls_flows) == (0, 1, 1)
        assert http_get(mesh.door_port, "/small")[0] == 200
        place, endpoint = stage.bypass()
        answer = stage.run_client("probe", endpoint, 10, place=place, timeout=5, token=TOKEN.token)
        assert answer["kind"] in ("reset", "closed")
        assert all(sidecar.metrics(port) for sidecar, port in zip(mesh.sidecars, mesh.metrics_ports, strict=True))
