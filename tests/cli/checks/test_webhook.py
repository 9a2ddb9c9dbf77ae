"""What is found of the webhook."""

from __future__ import annotations

from typing import Any

import pytest

from cli.checks import webhook
from cli.checks.facts import DryRun
from tests.cli.checks.rig import (
    FAILURE,
    PASS,
    SKIPPED,
    WARNING,
    ago,
    bundle_text,
    found,
    good,
    pod,
    serving,
    status,
    webhook_configuration,
)

CHECKS = webhook.CHECKS


def changed(**fields: Any) -> dict[str, Any]:
    """The configuration with these fields in its first webhook."""
    configuration = webhook_configuration()
    configuration["webhooks"][0].update(fields)
    return {"webhooks": [configuration]}


def test_a_webhook_that_is_not_registered_is_one_failure() -> None:
    assert status(CHECKS, "webhook-present", webhooks=[]) is FAILURE
    for check in ("webhook-fails-closed", "webhook-narrow", "webhook-authority"):
        assert status(CHECKS, check, webhooks=[]) is SKIPPED


def test_a_webhook_that_calls_somebody_else_is_a_failure() -> None:
    service = {"name": "evil", "namespace": "evil", "path": "/", "port": 443}
    assert status(CHECKS, "webhook-present", **changed(clientConfig={"service": service})) is FAILURE
    assert status(CHECKS, "webhook-present", **changed(clientConfig={"url": "https://evil"})) is FAILURE


def test_a_webhook_that_fails_open_is_a_failure() -> None:
    assert status(CHECKS, "webhook-fails-closed", **changed(failurePolicy="Ignore")) is FAILURE


@pytest.mark.parametrize(
    "fields",
    [
        {"namespaceSelector": {}},
        {"objectSelector": {}},
        {"rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]},
        {"name": "another.example.org"},
    ],
)
def test_a_webhook_that_concerns_more_than_the_mesh_is_a_failure(fields: dict[str, Any]) -> None:
    assert status(CHECKS, "webhook-narrow", **changed(**fields)) is FAILURE


def test_an_installation_may_leave_out_more_namespaces() -> None:
    configuration = webhook_configuration()
    for one in configuration["webhooks"]:
        for term in one["namespaceSelector"]["matchExpressions"]:
            if term["key"] == "kubernetes.io/metadata.name":
                term["values"] = [*term["values"], "legacy"]
    assert status(CHECKS, "webhook-narrow", webhooks=[configuration]) is PASS


@pytest.mark.parametrize(
    ("bundle", "word"),
    [
        (None, "no caBundle"),
        ("!!", "no caBundle"),
        (bundle_text(b"garbage"), "cannot be read"),
        (bundle_text(serving(ago(days=2)).authority), "not the authority"),
    ],
)
def test_a_bundle_that_does_not_vouch_for_the_certificate_is_a_failure(bundle: str | None, word: str) -> None:
    configuration = webhook_configuration()
    for one in configuration["webhooks"]:
        one["clientConfig"]["caBundle"] = bundle
    result = found(CHECKS, "webhook-authority", good(webhooks=[configuration]))
    assert result.status is FAILURE
    assert word in result.items[0]


def test_an_authority_that_signed_another_certificate_vouches_for_nothing() -> None:
    other = serving(ago(days=2))
    mixed = type(other)(other.certificate, serving().authority)
    assert status(CHECKS, "webhook-authority", serving=mixed) is FAILURE


def test_the_certificate_is_for_the_service_and_renewed_in_time() -> None:
    assert status(CHECKS, "webhook-certificate", serving=serving(home="elsewhere")) is FAILURE
    assert status(CHECKS, "webhook-certificate", serving=serving(ago(days=27))) is WARNING
    assert status(CHECKS, "webhook-certificate", serving=serving(ago(days=40))) is FAILURE


def test_a_pod_for_trial_shows_whether_the_webhook_works() -> None:
    refused = DryRun("shop", None, "failed calling webhook: connection refused")
    one = found(CHECKS, "webhook-injects", good(inside=refused))
    assert (one.status, "connection refused" in one.detail) == (FAILURE, True)
    assert status(CHECKS, "webhook-injects", inside=DryRun("shop", pod(injected=False))) is FAILURE


def test_a_pod_outside_of_the_mesh_is_left_alone() -> None:
    assert status(CHECKS, "webhook-spares", outside=DryRun("default", pod(where="default"))) is FAILURE
    assert status(CHECKS, "webhook-spares", outside=DryRun("default", None, "quota")) is WARNING
