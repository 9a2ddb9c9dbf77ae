"""What is found of the control plane."""

from __future__ import annotations

import pytest

from cli.checks import control
from mesh import names
from tests.cli.checks.rig import (
    FAILURE,
    HOME,
    PASS,
    PROGRAMS,
    SKIPPED,
    WARNING,
    ago,
    budget,
    control_pod,
    endpoints,
    found,
    good,
    lease,
    namespace,
    status,
    workload,
)

CHECKS = control.CHECKS


def test_a_mesh_that_is_not_installed_or_on_its_way_out_is_a_failure() -> None:
    assert status(CHECKS, "control-namespace", namespaces=[]) is FAILURE
    going = namespace(HOME)
    going["metadata"]["deletionTimestamp"] = "2026-11-25T12:00:00Z"
    assert status(CHECKS, "control-namespace", namespaces=[going]) is FAILURE
    assert status(CHECKS, "control-namespace", namespaces=[namespace(HOME, qbitel__injection="enabled")]) is WARNING


@pytest.mark.parametrize(("check", "name"), [("certmgr-ready", PROGRAMS[0]), ("injector-ready", PROGRAMS[1])])
def test_a_program_is_ready_when_its_replicas_are(check: str, name: str) -> None:
    assert status(CHECKS, check, workloads=[]) is FAILURE
    assert status(CHECKS, check, workloads=[workload(name, ready=1)]) is WARNING
    assert status(CHECKS, check, workloads=[workload(name, updated=1)]) is WARNING
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    facts = good(workloads=[workload(name, ready=0)], control_pods=[control_pod(f"{name}-0", "one", state=waiting)])
    one = found(CHECKS, check, facts)
    assert (one.status, one.items) == (FAILURE, (f"{name}-0: one: ImagePullBackOff: no such image",))


def test_a_mesh_without_discovery_misses_none() -> None:
    webhook = workload(PROGRAMS[1])
    assert status(CHECKS, "discovery-ready", workloads=[webhook]) is FAILURE
    webhook["spec"]["template"]["spec"]["containers"][0]["args"] = ["injector", "serve"]
    for check in ("discovery-ready", "discovery-leader"):
        assert status(CHECKS, check, workloads=[webhook]) is SKIPPED


def test_what_could_be_lost_with_one_replica_or_one_node_is_a_warning() -> None:
    assert status(CHECKS, "replicas", workloads=[workload(PROGRAMS[0], replicas=1)]) is WARNING
    together = [control_pod(f"{PROGRAMS[1]}-{one}", "one") for one in "ab"]
    assert status(CHECKS, "spread", control_pods=together) is WARNING
    assert status(CHECKS, "spread", control_pods=together, nodes=good().nodes.value[:1]) is PASS


def test_a_drain_leaves_a_replica_and_ends() -> None:
    assert status(CHECKS, "disruption-budgets", budgets=[]) is WARNING
    assert status(CHECKS, "disruption-budgets", budgets=[budget(one, 0) for one in PROGRAMS]) is WARNING


def test_a_service_without_a_ready_endpoint_leads_nowhere() -> None:
    facts = good(endpoints=[endpoints(PROGRAMS[0], "10.0.0.1"), endpoints(PROGRAMS[1])])
    one = found(CHECKS, "services", facts)
    assert (one.status, one.items) == (FAILURE, (f"Service {PROGRAMS[1]}: has no ready endpoint",))
    assert status(CHECKS, "services", services=[]) is FAILURE


def test_programs_of_different_versions_are_a_warning() -> None:
    mixed = [workload(PROGRAMS[0], image="qbitel/control:2"), workload(PROGRAMS[1])]
    assert status(CHECKS, "versions", workloads=mixed) is WARNING
    assert status(CHECKS, "versions", workloads=[]) is SKIPPED


def test_programs_that_crash_are_a_warning_with_their_last_end() -> None:
    last = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    pods = [control_pod(f"{PROGRAMS[0]}-0", "one", restartCount=7, lastState=last)]
    one = found(CHECKS, "restarts", good(control_pods=pods))
    assert (one.status, "OOMKilled" in one.items[0]) == (WARNING, True)


@pytest.mark.parametrize(("check", "name"), [("certmgr-leader", PROGRAMS[0]), ("discovery-leader", PROGRAMS[2])])
def test_a_leader_renews_its_lease(check: str, name: str) -> None:
    assert status(CHECKS, check, leases=[]) is FAILURE
    assert status(CHECKS, check, leases=[lease(name, "")]) is FAILURE
    assert status(CHECKS, check, leases=[lease(name, renewed=ago(seconds=60))]) is PASS
    assert status(CHECKS, check, leases=[lease(name, renewed=ago(minutes=5))]) is FAILURE


@pytest.mark.parametrize(
    ("image", "tag"),
    [("a/b:1.2", "1.2"), ("host:5000/a/b", "latest"), ("a@sha256:abc", "sha256:abc"), ("host:5000/a:3", "3")],
)
def test_an_image_has_a_tag_or_a_digest(image: str, tag: str) -> None:
    assert control.tag_of(image) == tag


def test_the_sidecar_s_image_is_read_from_either_form_of_the_flag() -> None:
    for args in (["--image", "a:1", "--x"], ["--image=a:1"]):
        webhook = workload(names.WEBHOOK_NAME)
        webhook["spec"]["template"]["spec"]["containers"][0]["args"] = args
        assert control.sidecar_image(good(workloads=[webhook])) == "a:1"
    assert control.sidecar_image(good(workloads=[])) == ""
