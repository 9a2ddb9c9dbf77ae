"""The tables and the plot."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from bench.mesh import plot, report
from bench.mesh.peers import Peer
from bench.mesh.report import Session
from bench.mesh.rounds import Results

NOBODY = Peer("none", "no proxy")
ENVOY = Peer("envoy", "Envoy <x>", "Envoy 1.2.3", lambda _folder, _ports: ())
OURS = Peer("ours", "ours", "QBITEL mesh 1", lambda _folder, _ports: ())
PEERS = (NOBODY, ENVOY, OURS)


def results() -> Results:
    made = Results()
    for peer, speed in (("none", 3.0), ("envoy", 1.0), ("ours", 1.5)):
        for streams in (1, 4):
            made.add(f"bulk-{streams}", peer, {"gb_per_second": speed, "cpu_seconds_per_gb": 1 / speed})
    return made


def document() -> str:
    return report.markdown(Session("A title", ("one line",)), PEERS, results())


def test_what_was_expected_is_said_to_be_reached_or_not_or_not_measured() -> None:
    lines = {line.split(" | ")[0].strip("| "): line for line in document().splitlines() if line.startswith("| ")}

    assert lines["bulk, 1 stream"] == "| bulk, 1 stream | ≥ 1 | 1.50 | 1.50–1.50 | reached |"
    assert "not measured" in lines["requests/s, 32 × 64 B"]


def test_every_figure_stands_beside_its_ratio_to_envoy() -> None:
    assert "| ours | 1.50 (1.50) | 1.50 (1.50) | 0.67 (0.67) | 0.67 (0.67) |" in document()


def test_no_proxy_has_no_cpu_time() -> None:
    assert "| no proxy | 3.00 (3.00) | 3.00 (3.00) |  |  |" in document()


def test_whoever_took_no_part_in_a_measure_has_no_row_in_its_table() -> None:
    new_connections = document().partition("## New connections, 1 at a time")[2].partition("##")[0]

    assert "Envoy" not in new_connections


def test_the_plot_is_xml_with_a_bar_for_each_contender_that_has_the_figure() -> None:
    picture = ET.fromstring(plot.svg(PEERS, results()))  # noqa: S314  # our own

    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]

    assert texts.count("Envoy <x>") == texts.count("ours") == 2  # panels: GB/s and CPU with 4 streams
    assert "no proxy" not in texts
