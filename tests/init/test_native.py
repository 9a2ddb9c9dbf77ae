"""Tables of another mesh that nft itself made: seen, refused, and removed where that is wanted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from init.config import BackendChoice, InterceptionConfig, IPv6Mode
from init.script import render_script
from tests.init.conftest import need_nft

if TYPE_CHECKING:
    from tests.init.conftest import Namespace

pytestmark = pytest.mark.root

REFUSAL = "Istio intercepts this pod already"
# What istio-nftables leaves in a pod, shortened.
NAT = (
    "table inet istio-proxy-nat { chain output { type nat hook output priority -100; "
    "meta skuid != 1337 meta l4proto tcp redirect to :15001; }; }\n"
)
OF_A_SIDECAR = f"{NAT}table inet istio-proxy-mangle {{ }}\ntable inet istio-proxy-raw {{ }}\n"
OF_AMBIENT = "table inet istio-ambient-nat { }\ntable inet istio-ambient-mangle { }\n"
FOREIGN = "table inet istio { }\ntable inet my-istio-proxy-nat { }\n"
LEFT = "nft table inet istio-proxy-nat: the table of Istio is left over"

both = pytest.mark.parametrize("tables", [OF_A_SIDECAR, OF_AMBIENT], ids=["sidecar", "ambient"])


def _make(namespace: Namespace, tables: str) -> None:
    need_nft()
    namespace.run("nft", "-f", "-", text=tables)


def _listed(namespace: Namespace) -> list[str]:
    return namespace.run("nft", "list", "tables").stdout.splitlines()


@both
@pytest.mark.parametrize("standing", [True, False], ids=["ours stand", "ours do not"])
def test_a_pod_with_tables_of_istio_is_refused_and_left_as_it_is(
    namespace: Namespace, tables: str, standing: bool
) -> None:
    if standing:
        namespace.qbitel_init()
    _make(namespace, tables)
    before = namespace.run("nft", "list", "ruleset").stdout
    answer = namespace.qbitel_init(check=False)
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
    assert REFUSAL in answer.stderr
    script = namespace.script(render_script(InterceptionConfig()), check=False)
    assert (script.returncode, script.stderr.count("\n")) == (2, 1)
    assert script.stderr.startswith(f"qbitel-init: {REFUSAL}")
    assert namespace.run("nft", "list", "ruleset").stdout == before


def test_a_check_and_a_difference_show_them(namespace: Namespace) -> None:
    namespace.qbitel_init()
    _make(namespace, OF_A_SIDECAR)
    shown = namespace.qbitel_init("--check", check=False)
    assert (shown.returncode, shown.stdout.splitlines()[0], shown.stdout.count("\n")) == (1, LEFT, 3)
    assert f"# {LEFT}\n" in namespace.qbitel_init("--diff", check=False).stdout


@both
@pytest.mark.parametrize("standing", [True, False], ids=["ours stand", "ours do not"])
@pytest.mark.parametrize("by", ["qbitel init", "script"])
def test_with_reconcile_they_go_and_nothing_else_does(
    namespace: Namespace, backend: str, tables: str, standing: bool, by: str
) -> None:
    if standing:
        namespace.qbitel_init("--backend", backend)
    _make(namespace, tables + FOREIGN)
    if by == "script":
        config = InterceptionConfig(backend=BackendChoice(backend))
        said = namespace.script(render_script(config, reconcile=True)).stdout
    else:
        said = namespace.qbitel_init("--reconcile", "--backend", backend).stdout
    assert "nothing changed" not in said
    inet = {line for line in _listed(namespace) if line.startswith("table inet ")}
    assert inet == {"table inet istio", "table inet my-istio-proxy-nat"}
    assert namespace.qbitel_init("--check", "--backend", backend).stdout == ""


def test_a_cleanup_takes_them_only_with_reconcile(namespace: Namespace) -> None:
    _make(namespace, OF_A_SIDECAR)
    assert "nothing of qbitel" in namespace.qbitel_init("--cleanup").stdout
    assert "table inet istio-proxy-nat" in _listed(namespace)
    assert "are removed" in namespace.qbitel_init("--cleanup", "--reconcile").stdout
    assert _listed(namespace) == []


def test_rules_that_are_left_in_ipv6_alone_are_found_by_what_nft_lists(namespace: Namespace) -> None:
    _make(namespace, "table inet theirs { }\n")
    namespace.run("ip6tables-nft", "-t", "nat", "-N", "QBITEL_OLD")
    namespace.script(render_script(InterceptionConfig(ipv6=IPv6Mode.ON)))
    assert namespace.qbitel_init("--ipv6", "on", "--check").stdout == ""


@pytest.mark.parametrize(
    ("words", "code"), [("cache initialization failed: Protocol not supported", 0), ("Operation not permitted", 2)]
)
def test_a_kernel_without_nft_has_no_such_table(namespace: Namespace, tmp_path: Path, words: str, code: int) -> None:
    program = tmp_path / "nft"
    program.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    answer = namespace.qbitel_init(env=environment, check=False)
    assert answer.returncode == code
    assert (words in answer.stderr) is (code == 2)
