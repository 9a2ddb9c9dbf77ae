"""What a configuration means here: IPv6 or not, which back end, whose rules; most of it is proved in test_apply.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from init.config import InterceptionConfig, IPv6Mode
from init.goal import plans_for_dry_run
from tests.init.conftest import need_nft
from tests.init.test_foreign import ISTIO

if TYPE_CHECKING:
    from tests.init.conftest import Namespace


@pytest.mark.parametrize(("mode", "families"), [(IPv6Mode.ON, ["ipv4", "ipv6"]), (IPv6Mode.OFF, ["ipv4"])])
def test_the_plans_of_a_dry_run_follow_the_wish_for_ipv6(mode: IPv6Mode, families: list[str]) -> None:
    plans = plans_for_dry_run(InterceptionConfig(ipv6=mode))
    assert [plan.family.value for plan in plans] == families


@pytest.mark.root
def test_a_pod_of_another_mesh_is_refused_and_left_as_it_is(namespace: Namespace, backend: str) -> None:
    namespace.run(f"iptables-{backend}-restore", "--noflush", text=ISTIO)
    before = namespace.rules(backend)
    answer = namespace.qbitel_init(check=False)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "Istio intercepts this pod already" in answer.stderr
    assert "--reconcile" in answer.stderr
    assert namespace.rules(backend) == before


@pytest.mark.root
def test_with_reconcile_the_rules_of_another_mesh_give_way_to_ours(namespace: Namespace, backend: str) -> None:
    other = {"nft": "legacy", "legacy": "nft"}[backend]
    namespace.run(f"iptables-{backend}-restore", "--noflush", text=ISTIO)
    namespace.run(f"iptables-{backend}", "-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.1", "-j", "ACCEPT")
    assert "ISTIO_OUTPUT: the chain is left over" in namespace.qbitel_init("--check", check=False).stdout
    assert "--A OUTPUT -j ISTIO_OUTPUT" in namespace.qbitel_init("--diff", check=False).stdout
    namespace.qbitel_init("--reconcile")
    rules = namespace.rules(backend)
    assert "ISTIO_" not in rules
    assert "-d 192.0.2.1/32 -j ACCEPT" in rules
    assert f"{backend})" in namespace.qbitel_init("--reconcile").stdout
    assert namespace.qbitel_init("--check").stdout == ""
    assert "QBITEL" not in namespace.rules(other)


@pytest.mark.root
def test_a_cleanup_takes_the_rules_of_other_meshes_only_with_reconcile(namespace: Namespace) -> None:
    namespace.run("iptables-nft-restore", "--noflush", text=ISTIO)
    assert "nothing of qbitel" in namespace.qbitel_init("--cleanup").stdout
    assert "ISTIO_OUTPUT" in namespace.rules()
    namespace.qbitel_init("--cleanup", "--reconcile")
    assert "ISTIO_" not in namespace.rules()


# What iptables-nft cannot list, and so leaves out: see tests/init/test_state.py for its words.
UNLISTED = (
    "add table ip nat { chain OUTPUT { type nat hook output priority -100; "
    "tcp dport 80 dnat to numgen inc mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }; }; }"
)
BESIDE = "add table ip nat { chain theirs { type nat hook output priority 0; tcp dport 80 dnat to 10.0.0.1; }; }"


@pytest.mark.root
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize("arguments", [(), ("--reconcile",), ("--check",), ("--diff",), ("--cleanup",)], ids=str)
def test_where_a_table_cannot_be_read_nothing_is_changed_and_nothing_is_claimed(
    namespace: Namespace, arguments: tuple[str, ...], first: bool
) -> None:
    need_nft()
    if not first:
        namespace.qbitel_init("--backend", "nft")
    namespace.run("nft", UNLISTED)
    before = namespace.run("nft", "list", "ruleset").stdout
    answer = namespace.qbitel_init(*arguments, check=False)
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert "cannot list the table nat" in answer.stderr
    assert "`nft list ruleset`" in answer.stderr
    assert namespace.run("nft", "list", "ruleset").stdout == before


@pytest.mark.root
def test_what_can_be_read_again_can_be_removed_again(namespace: Namespace) -> None:
    need_nft()
    namespace.qbitel_init("--backend", "nft")
    namespace.run("nft", UNLISTED)
    assert namespace.qbitel_init("--cleanup", check=False).returncode == 2
    handles = namespace.run("nft", "-a", "list", "chain", "ip", "nat", "OUTPUT").stdout.splitlines()
    (foreign,) = [line.split()[-1] for line in handles if "numgen" in line]
    namespace.run("nft", "delete", "rule", "ip", "nat", "OUTPUT", "handle", foreign)
    assert "are removed" in namespace.qbitel_init("--cleanup").stdout
    assert "QBITEL_" not in namespace.run("nft", "list", "ruleset").stdout


@pytest.mark.root
def test_chains_of_others_that_iptables_lists_without_are_no_obstacle(namespace: Namespace) -> None:
    need_nft()
    namespace.run("nft", BESIDE)
    namespace.qbitel_init("--backend", "nft")
    assert namespace.qbitel_init("--check").stdout == ""
    assert "are removed" in namespace.qbitel_init("--cleanup").stdout
    assert "theirs" in namespace.run("nft", "list", "ruleset").stdout


@pytest.mark.root
@pytest.mark.parametrize(
    ("words", "code"), [("do you need to insmod?", 0), ("Address family not supported", 0), ("Input/output error", 2)]
)
def test_a_cleanup_claims_nothing_where_a_kernel_has_rules_that_it_does_not_show(
    namespace: Namespace, tmp_path: Path, words: str, code: int
) -> None:
    for kind in ("nft", "legacy"):
        program = tmp_path / f"ip6tables-{kind}-save"
        program.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")
        program.chmod(0o755)
    answer = namespace.qbitel_init("--cleanup", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=False)
    assert answer.returncode == code
    assert (words in answer.stderr) is (code == 2)
