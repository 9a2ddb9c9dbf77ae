"""What is found of the roots, the lists and the policies that pods are told."""

from __future__ import annotations

from typing import Any

import pytest

from cli.checks import trust
from cli.checks.facts import MeshMap, Policy, Published
from mesh import names
from tests.cli.checks.rig import (
    FAILURE,
    PASS,
    SKIPPED,
    WARNING,
    ago,
    files,
    found,
    good,
    namespace,
    status,
    workload,
)

CHECKS = trust.CHECKS
TWO = [namespace(name, qbitel__injection="enabled") for name in ("shop", "back")]


def of(**bundles: dict[str, str]) -> dict[str, Any]:
    return {"namespaces": TWO, "bundles": {name: Published(True, texts) for name, texts in bundles.items()}}


def test_each_namespace_needs_the_bundle_and_it_must_be_ours() -> None:
    assert status(CHECKS, "trust-bundles", **of(shop=files())) is FAILURE
    assert status(CHECKS, "trust-bundles", **of(shop=files(), back=files())) is PASS
    assert status(CHECKS, "trust-bundles", bundles={"shop": Published(False, files())}) is FAILURE


def test_other_roots_are_a_failure_and_an_older_list_a_warning() -> None:
    assert status(CHECKS, "trust-equal", **of(shop=files(), back=files(subject="CN=other"))) is FAILURE
    newest = files(ago(minutes=30))
    older = {**newest, names.REVOCATION_FILE: files(ago(hours=5))[names.REVOCATION_FILE]}
    assert status(CHECKS, "trust-equal", **of(shop=newest, back=older)) is WARNING
    fresh = files()
    on_its_way = {**fresh, names.REVOCATION_FILE: files(ago(hours=5))[names.REVOCATION_FILE]}
    assert status(CHECKS, "trust-equal", **of(shop=fresh, back=on_its_way)) is PASS


@pytest.mark.parametrize(
    ("check", "days", "wanted"),
    [
        ("root-expiry", 3600, WARNING),
        ("root-expiry", 3700, FAILURE),
        ("intermediate-expiry", 320, WARNING),
        ("intermediate-expiry", 400, FAILURE),
    ],
)
def test_what_ends_within_60_days_is_a_warning_and_what_has_ended_a_failure(check: str, days: int, wanted: Any) -> None:
    assert status(CHECKS, check, bundles={"shop": Published(True, files(ago(days=days)))}) is wanted


def test_a_list_that_is_overdue_is_a_failure() -> None:
    assert status(CHECKS, "revocation-lists", bundles={"shop": Published(True, files(ago(hours=3)))}) is FAILURE


@pytest.mark.parametrize("check", ["trust-equal", "root-expiry", "intermediate-expiry", "revocation-lists"])
def test_what_cannot_be_read_is_skipped(check: str) -> None:
    assert status(CHECKS, check, bundles={}) is SKIPPED
    broken = dict.fromkeys((names.ROOTS_FILE, names.INTERMEDIATES_FILE, names.REVOCATION_FILE), "garbage")
    assert status(CHECKS, check, bundles={"shop": Published(True, broken)}) is SKIPPED


def test_each_namespace_needs_policies_and_peers_where_there_is_discovery() -> None:
    assert status(CHECKS, "mesh-config", mesh_maps={}) is FAILURE
    webhook = workload(names.WEBHOOK_NAME)
    webhook["spec"]["template"]["spec"]["containers"][0]["args"] = []
    assert status(CHECKS, "mesh-config", mesh_maps={}, workloads=[webhook]) is SKIPPED


def test_a_policy_that_is_newer_than_what_sidecars_have_is_a_warning() -> None:
    maps = {"shop": MeshMap(True, ago(hours=2))}
    late = Policy("AuthorizationPolicy", "shop", "web", ago(hours=1))
    one = found(CHECKS, "mesh-config-fresh", good(mesh_maps=maps, policies=[late]))
    assert (one.status, len(one.items)) == (WARNING, 1)
    everywhere = Policy("AuthorizationPolicy", names.CONTROL_NAMESPACE, "all", ago(hours=1))
    assert status(CHECKS, "mesh-config-fresh", mesh_maps=maps, policies=[everywhere]) is WARNING
    elsewhere = Policy("AuthorizationPolicy", "other", "web", ago(hours=1))
    just_now = Policy("AuthorizationPolicy", "shop", "web", ago(seconds=30))
    assert status(CHECKS, "mesh-config-fresh", mesh_maps=maps, policies=[elsewhere, just_now]) is PASS


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", PASS),
        ("{", FAILURE),
        ("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\n"
         "spec: {action: MAYBE}\n", FAILURE),
    ],
)  # fmt: skip
def test_policies_are_read_as_sidecars_read_them(text: str, wanted: Any) -> None:
    maps = {"shop": MeshMap(True, ago(hours=2), {names.POLICIES_KEY: text})}
    assert status(CHECKS, "policies", mesh_maps=maps) is wanted
    assert status(CHECKS, "policies", mesh_maps={}) is SKIPPED
