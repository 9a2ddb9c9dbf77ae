"""What a configuration means here: IPv6 or not, which back end, whose rules; most of it is proved in test_apply.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from init.config import InterceptionConfig, IPv6Mode
from init.goal import plans_for_dry_run
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
