"""TPROXY's rule and route, in a real network namespace; `ip` is the judge."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.init.conftest import Namespace

pytestmark = pytest.mark.root

# Every function once or twice, in one process, so that an interpreter is started once.
CALLS = """
import json
from init.policy_routing import add_routing, left_routing, missing_routing, remove_routing
from init.rules import Family
answers = []
for family in Family:
    answers.append([missing_routing(family), left_routing(family)])
    answers.append([add_routing(family), add_routing(family)])
    answers.append([missing_routing(family), left_routing(family)])
print(json.dumps(answers))
"""
MISSING = ["the local route of table 2102 is missing", "the rule of fwmark 0x836 is missing"]
LEFT = ["the rule of fwmark 0x836 is left over", "the local route of table 2102 is left over"]


def _shown(namespace: Namespace, version: int) -> tuple[str, str]:
    rules = namespace.run("ip", f"-{version}", "rule", "show", "priority", "2102").stdout
    routes = namespace.run("ip", f"-{version}", "route", "show", "table", "2102", check=False).stdout
    return " ".join(rules.split()), " ".join(routes.split())


def test_the_rule_and_its_route_come_once_and_go_again(namespace: Namespace) -> None:
    answers = json.loads(namespace.run(sys.executable, "-c", CALLS).stdout)
    assert answers == [[MISSING, []], [True, False], [[], LEFT]] * 2
    for version in (4, 6):
        rule, route = _shown(namespace, version)
        assert rule == "2102: from all fwmark 0x836 lookup 2102"
        assert route.startswith("local default dev lo")
    remove = (
        "from init.policy_routing import remove_routing; from init.rules import Family;"
        "print([remove_routing(family) for family in (*Family, *Family)])"
    )
    assert namespace.run(sys.executable, "-c", remove).stdout == "[True, True, False, False]\n"
    assert [_shown(namespace, version) for version in (4, 6)] == [("", ""), ("", "")]


def test_half_of_it_is_completed_and_rules_of_others_stay(namespace: Namespace) -> None:
    namespace.run("ip", "rule", "add", "fwmark", "0x539", "lookup", "133")
    namespace.run("ip", "rule", "add", "priority", "2102", "fwmark", "0x836", "lookup", "2102")
    namespace.qbitel_init("--inbound-mode", "tproxy")
    assert _shown(namespace, 4)[1].startswith("local default dev lo")
    namespace.run("ip", "route", "flush", "table", "2102")
    namespace.qbitel_init("--cleanup")
    assert _shown(namespace, 4) == ("", "")
    assert "fwmark 0x539 lookup 133" in namespace.run("ip", "rule", "show").stdout


def test_without_permission_the_refusal_says_what_is_needed(namespace: Namespace) -> None:
    script = (
        "from init.policy_routing import add_routing; from init.rules import Family\n"
        "from mesh.errors import UserError\n"
        "try: add_routing(Family.V4)\nexcept UserError as error: print(error)"
    )
    unprivileged = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", sys.executable, "-c", script)
    said: subprocess.CompletedProcess[str] = namespace.run(*unprivileged)
    assert said.stdout == "cannot add TPROXY's route of ipv4: this needs the capability NET_ADMIN; run it as root\n"
