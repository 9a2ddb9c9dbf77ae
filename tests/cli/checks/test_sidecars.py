"""What is found of the pods of the mesh."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from cli.checks import sidecars
from cli.checks.facts import DryRun, Published, Scrape, unknown
from injector.webhook_configuration import IstioSidecarInjector
from proxy.server import NOT_REDIRECTED
from tests.cli.checks.rig import (
    FAILURE,
    NOW,
    PASS,
    SKIPPED,
    WARNING,
    ago,
    files,
    found,
    good,
    pod,
    scrape,
    sidecar_status,
    status,
    text,
)

CHECKS = sidecars.CHECKS
NAMES = [check.name for check in CHECKS]


def test_a_pod_without_a_sidecar_is_a_failure_unless_it_chose_so() -> None:
    bare = pod("old", injected=False)
    one = found(CHECKS, "pods-injected", good(pods=[pod(), bare]))
    assert (one.status, one.items) == (FAILURE, ("shop/old",))
    for chosen in (pod(injected=False, hostNetwork=True), pod(injected=False)):
        chosen["metadata"]["labels"]["qbitel.io/inject"] = "false"
        assert status(CHECKS, "pods-injected", pods=[chosen]) is PASS
    ended = pod(injected=False)
    ended["status"]["phase"] = "Succeeded"
    assert status(CHECKS, "pods-injected", pods=[ended]) is PASS


def test_pods_of_a_namespace_that_the_webhook_is_not_called_for_lack_nothing() -> None:
    webhook = IstioSidecarInjector(excluded_namespaces=["shop"]).create_webhook_configuration()
    bare = pod("old", injected=False)

    assert status(CHECKS, "pods-injected", pods=[pod(), bare], webhooks=[webhook]) is PASS
    other = IstioSidecarInjector(excluded_namespaces=["payroll"]).create_webhook_configuration()
    assert status(CHECKS, "pods-injected", pods=[pod(), bare], webhooks=[other]) is FAILURE
    unread = replace(good(pods=[bare]), webhooks=unknown("forbidden"))
    assert found(CHECKS, "pods-injected", unread).status is FAILURE


def test_without_a_namespace_of_the_mesh_everything_is_skipped() -> None:
    assert {status(CHECKS, name, namespaces=[], pods=[]) for name in NAMES[:5]} == {SKIPPED}


def test_a_sidecar_that_is_not_ready_says_why() -> None:
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    crashing = sidecar_status(pod(), ready=False, state=waiting)
    one = found(CHECKS, "sidecars-ready", good(pods=[crashing]))
    assert (one.status, one.items) == (FAILURE, ("shop/web-1: qbitel-proxy: CrashLoopBackOff: back-off",))
    silent = sidecar_status(pod(), ready=False)
    obstacle = replace(scrape(), obstacle="no valid certificate")
    one = found(CHECKS, "sidecars-ready", good(pods=[silent], scrapes={"shop/web-1": obstacle}))
    assert one.items == ("shop/web-1: no valid certificate",)
    silent["metadata"]["creationTimestamp"] = text(NOW)
    assert status(CHECKS, "sidecars-ready", pods=[silent]) is PASS


def test_rules_that_were_refused_or_do_not_work_are_a_failure() -> None:
    refused = pod()
    refused["status"]["initContainerStatuses"][0]["state"] = {"terminated": {"exitCode": 1, "message": "no nat table"}}
    one = found(CHECKS, "sidecars-redirected", good(pods=[refused]))
    assert (one.status, one.items) == (FAILURE, ("shop/web-1: qbitel-init ended with 1: no nat table",))
    obstacle = {"shop/web-1": replace(scrape(), obstacle=NOT_REDIRECTED)}
    assert status(CHECKS, "sidecars-redirected", scrapes=obstacle) is FAILURE
    metadata = {"annotations": {"qbitel.io/interception-mode": "NONE"}}
    assert status(CHECKS, "sidecars-redirected", pods=[pod(metadata=metadata)]) is WARNING


def test_a_sidecar_that_is_not_today_s_is_a_warning() -> None:
    old = copy.deepcopy(pod())
    for one in old["spec"]["initContainers"]:
        one["image"] = "qbitel/quantum-sidecar:0"
    assert status(CHECKS, "sidecars-current", pods=[old]) is WARNING
    assert status(CHECKS, "sidecars-current", pods=[old], inside=DryRun("shop", None, "refused")) is WARNING
    old["metadata"]["annotations"]["qbitel.io/proxy-image"] = "qbitel/quantum-sidecar:0"
    assert status(CHECKS, "sidecars-current", pods=[old]) is PASS
    other = pod()
    annotations = other["metadata"]["annotations"]
    annotations["qbitel.io/status"] = annotations["qbitel.io/status"].replace('"version":"', '"version":"9')
    assert status(CHECKS, "sidecars-current", pods=[other]) is WARNING


def test_sidecars_that_run_out_of_memory_are_a_warning() -> None:
    killed = sidecar_status(pod(), restartCount=1, lastState={"terminated": {"reason": "OOMKilled"}})
    assert status(CHECKS, "sidecars-restarts", pods=[killed]) is WARNING
    assert status(CHECKS, "sidecars-restarts", pods=[sidecar_status(pod(), restartCount=9)]) is WARNING


def test_sidecars_that_do_not_answer_are_a_warning_and_what_they_would_say_is_skipped() -> None:
    silent = {"shop/web-1": Scrape(error="503: no route")}
    assert status(CHECKS, "sidecars-answer", scrapes=silent) is WARNING
    assert status(CHECKS, "sidecars-answer", scrapes={**silent, "shop/web-2": scrape()}) is WARNING
    assert {status(CHECKS, name, scrapes=silent) for name in NAMES[6:]} == {SKIPPED}
    assert {status(CHECKS, name, scrapes={}) for name in NAMES[5:]} == {SKIPPED}


@pytest.mark.parametrize(
    ("check", "answer", "wanted"),
    [
        ("sidecars-certificates", scrape(-10), FAILURE),
        ("sidecars-certificates", scrape(600), WARNING),
        ("sidecars-certificates", Scrape(), SKIPPED),
        ("sidecars-authority", scrape(authority_reachable=0), WARNING),
    ],
)
def test_what_a_sidecar_says_of_itself_is_judged(check: str, answer: Scrape, wanted: Any) -> None:
    assert status(CHECKS, check, scrapes={"shop/web-1": answer}) is wanted


def test_a_certificate_that_is_older_than_every_root_is_of_another_authority() -> None:
    early = scrape(cert_last_success_timestamp_seconds=ago(days=2).timestamp())
    bundles = {"shop": Published(True, files(ago(hours=5)))}
    assert status(CHECKS, "sidecars-roots", scrapes={"shop/web-1": early}, bundles=bundles) is FAILURE
    assert status(CHECKS, "sidecars-roots", bundles=bundles) is PASS
    assert status(CHECKS, "sidecars-roots", bundles={}) is SKIPPED


def test_plaintext_is_told_before_strict_refuses_it() -> None:
    plain = {("qbitel_plaintext_connections_total", (("direction", "inbound"),)): 7.0}
    one = found(CHECKS, "sidecars-plaintext", good(scrapes={"shop/web-1": Scrape(plain)}))
    assert (one.status, one.items) == (WARNING, ("shop/web-1: 7 connections came in plaintext",))
    outbound = {("qbitel_plaintext_connections_total", (("direction", "outbound"),)): 7.0}
    assert status(CHECKS, "sidecars-plaintext", scrapes={"shop/web-1": Scrape(outbound)}) is PASS


@pytest.mark.parametrize(("failed", "wanted"), [(0, PASS), (1, PASS), (30, WARNING)])
def test_handshakes_that_fail_again_and_again_are_told_with_their_reasons(failed: int, wanted: Any) -> None:
    name = "qbitel_tls_handshakes_total"
    figures = {(name, (("result", "ok"),)): 200.0, (name, (("result", "expired"),)): float(failed)}
    one = found(CHECKS, "sidecars-handshakes", good(scrapes={"shop/web-1": Scrape(figures)}))
    assert one.status is wanted
    assert ("30 × expired" in "".join(one.items)) == (failed == 30)


def test_a_sample_says_that_it_is_one() -> None:
    many = [pod(f"web-{number}") for number in range(3)]
    assert "1 of 3 were asked" in found(CHECKS, "sidecars-answer", good(pods=many)).detail
