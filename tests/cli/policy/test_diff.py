"""`qbitel policy diff`: which resources change, and for whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.policy import diff
from control.folder import Reading, read_path
from tests.cli.policy.conftest import Folder, Policy
from tests.mesh.written import allow, from_account, mode, resource, strict


@pytest.fixture
def before(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "before")


@pytest.fixture
def after(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "after")


def test_the_same_policies_elsewhere_and_in_another_order_change_nothing(
    policy: Policy, before: Folder, after: Folder
) -> None:
    before.write("a.yaml", strict(), allow("shop/web", "[{}]"))
    after.write("1.yaml", "# comment\n", allow("shop/web", "[{}]"))
    after.write("2.yaml", strict())

    assert policy.says(0, "diff", before.path, after.path) == "nothing changes\n"
    assert policy.data(0, "diff", before.path, after.path) == {
        "changes": False,
        "complete": True,
        "resources": [],
        "decisions": [],
    }


def test_what_changes_is_told_and_for_whom(policy: Policy, before: Folder, after: Folder) -> None:
    before.write("a.yaml", strict(), allow("shop/web", f"[{{{from_account('shop/front')}}}]", "{app: web}"))
    file = after.write("a.yaml", strict(), allow("shop/web", f"[{{{from_account('shop/back')}}}]", "{app: web}"))

    assert policy.says(1, "diff", before.path, after.path) == (
        "1 resource changes\n"
        f"  ~ AuthorizationPolicy shop/web ({file}:6)\n"
        "      spec.rules[0].from[0].source.principals[0]\n"
        "\n"
        "2 answers change\n"
        "  shop/app=web\n"
        "    cluster.local/ns/shop/sa/back: denied → allowed\n"
        "      allowed by rules[0] of the ALLOW policy shop/web\n"
        "    cluster.local/ns/shop/sa/front: allowed → denied\n"
        "      denied: no ALLOW policy matches (shop/web)\n"
    )
    decisions = policy.data(1, "diff", before.path, after.path)["decisions"]
    assert [(one["principal"], one["port"], one["opens"]) for one in decisions] == [
        ("cluster.local/ns/shop/sa/back", None, True),
        ("cluster.local/ns/shop/sa/front", None, False),
    ]


def test_ports_are_told_apart_where_they_differ(policy: Policy, before: Folder, after: Folder) -> None:
    before.write("a.yaml", strict())
    after.write("a.yaml", strict(), allow("shop/web", "[{to: [{operation: {ports: ['80']}}]}]", "{app: web}"))

    output = policy.says(1, "diff", before.path, after.path)
    assert "+ AuthorizationPolicy shop/web" in output
    assert "any other identity, every port but 80: allowed → denied" in output


def test_a_resource_may_change_without_any_consequence(policy: Policy, before: Folder, after: Folder) -> None:
    before.write("a.yaml", strict())
    after.write("a.yaml", strict(), strict("shop/web").replace("mtls", "selector: {matchLabels: {app: web}}, mtls"))

    output = policy.says(1, "diff", before.path, after.path)
    assert "1 resource changes\n" in output
    assert output.endswith("\nno answers change\n")


def test_long_lists_are_cut_for_people(
    policy: Policy, before: Folder, after: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before.write("a.yaml")
    after.write("a.yaml", resource("AuthorizationPolicy", "shop/none", "{}"))
    monkeypatch.setattr(diff, "_MOST_LINES", 1)

    assert "more; --json has all of them" in policy.says(1, "diff", before.path, after.path)


def test_two_paths_are_wanted(policy: Policy, before: Folder) -> None:
    before.write("a.yaml", strict())

    assert "give two paths, BEFORE and AFTER" in policy("diff", before.path).refusal
    assert "with --cluster give one path" in policy("diff", before.path, before.path, "--cluster").refusal


def test_against_a_cluster_the_files_are_laid_over_what_is_there(
    policy: Policy, before: Folder, after: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before.write("a.yaml", strict(), mode("other/default", "PERMISSIVE"))
    after.write("a.yaml", mode("shop/default", "PERMISSIVE"))

    def in_force(_options: object) -> Reading:
        return read_path(before.path)

    monkeypatch.setattr(diff, "cluster", in_force)
    output = policy.says(1, "diff", "--cluster", after.path)
    assert output.startswith("1 resource changes\n  ~ PeerAuthentication shop/default")
    assert "without identity: refused → allowed over plaintext" in output
    assert "other/" not in output
