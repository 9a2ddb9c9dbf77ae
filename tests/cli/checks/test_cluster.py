"""What is found of a cluster by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cli.checks import cluster
from cli.checks.facts import Clock
from cli.checks.findings import Status
from tests.cli.checks.rig import FAILURE, NOW, PASS, SKIPPED, WARNING, ago, found, good, node, status

CHECKS = cluster.CHECKS


def test_an_api_server_that_cannot_be_reached_is_a_failure() -> None:
    one = found(CHECKS, "api-reachable", replace(good(), unreachable="connection refused"))
    assert (one.status, one.detail) == (FAILURE, "connection refused")


@pytest.mark.parametrize(
    ("said", "wanted"),
    [("v1.20.0", PASS), ("v1.33.1-gke.5", PASS), ("v1.19.9", FAILURE), ("v0.0.0-master+abc", WARNING), ("", WARNING)],
)
def test_kubernetes_is_1_20_or_newer(said: str, wanted: Status) -> None:
    assert status(CHECKS, "api-version", version={"gitVersion": said}) is wanted


@pytest.mark.parametrize(
    ("api", "kubelet", "wanted"),
    [
        ("v1.31.0", "v1.29.0", PASS),
        ("v1.28.0", "v1.28.0", WARNING),
        ("v1.30.0", "v1.27.0", FAILURE),
        ("?", "?", SKIPPED),
    ],
)
def test_native_sidecars_want_every_kubelet_to_know_them(api: str, kubelet: str, wanted: Status) -> None:
    changes = {"version": {"gitVersion": api}, "nodes": [node(kubeletVersion=kubelet)]}
    assert status(CHECKS, "native-sidecars", **changes) is wanted


@pytest.mark.parametrize(("seconds", "wanted"), [(0, PASS), (20, PASS), (90, WARNING), (-90, WARNING), (3600, FAILURE)])
def test_a_clock_that_is_off_is_told_by_how_much(seconds: int, wanted: Status) -> None:
    clock = Clock(NOW, ago(seconds=seconds), NOW)
    assert status(CHECKS, "clock", clock=clock) is wanted


def test_nodes_that_are_not_ready_are_named() -> None:
    bad = node("two")
    bad["status"]["conditions"] = [{"type": "Ready", "status": "Unknown", "message": "no kubelet"}]
    one = found(CHECKS, "nodes-ready", good(nodes=[node(), bad]))
    assert (one.status, one.items) == (WARNING, ("two: Ready is Unknown: no kubelet",))
    assert status(CHECKS, "nodes-ready", nodes=[bad]) is FAILURE
    assert status(CHECKS, "nodes-ready", nodes=[]) is FAILURE


def test_images_run_on_linux_of_two_architectures() -> None:
    windows = node("w", operatingSystem="windows")
    assert status(CHECKS, "nodes-platform", nodes=[node(), windows]) is WARNING
    assert status(CHECKS, "nodes-platform", nodes=[windows]) is FAILURE


def test_an_old_kernel_is_a_warning() -> None:
    assert status(CHECKS, "nodes-kernel", nodes=[node(kernelVersion="3.10.0-1160.el7")]) is WARNING
    assert status(CHECKS, "nodes-kernel", nodes=[node(operatingSystem="windows")]) is SKIPPED
