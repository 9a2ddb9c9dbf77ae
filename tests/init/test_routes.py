"""The kernel's own answer, in a real network namespace."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.init.conftest import Namespace

pytestmark = pytest.mark.root

# All in one process, so that an interpreter is started once.
CALLS = """
import json, sys
from init.routes import route_to
from init.rules import Family
found = {host: route_to(Family.V6 if ":" in host else Family.V4, host) for host in sys.argv[1:]}
print(json.dumps({host: route and [route.interface, route.local] for host, route in found.items()}))
"""


def _routes(namespace: Namespace, *hosts: str) -> dict[str, list[object] | None]:
    answers: dict[str, list[object] | None] = json.loads(namespace.run(sys.executable, "-c", CALLS, *hosts).stdout)
    return answers


def test_a_route_is_an_interface_or_this_namespace_itself_or_none(namespace: Namespace) -> None:
    namespace.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    for name in ("eth0", "eth1"):
        namespace.run("ip", "link", "set", name, "up")
    namespace.run("ip", "address", "add", "10.77.0.2/24", "dev", "eth0")
    namespace.run("ip", "address", "add", "fd77::2/64", "dev", "eth0", "nodad")
    namespace.run("ip", "route", "add", "10.78.0.0/16", "dev", "lo")
    for kind, version, network in (("blackhole", 4, "10.79.0.0/16"), ("unreachable", 6, "fd79::/16")):
        namespace.run("ip", f"-{version}", "route", "add", kind, network)
    assert _routes(
        namespace,
        *("10.77.0.1", "10.77.0.2", "10.77.0.255", "10.78.0.1", "10.79.0.1", "10.80.0.1", "127.1.2.3", "224.0.0.1"),
        *("fd77::1", "fd77::2", "fd79::1", "fd80::1", "::1", "ff02::1"),
    ) == {
        "10.77.0.1": ["eth0", False],
        "10.77.0.2": ["lo", True],
        "10.77.0.255": None,
        "10.78.0.1": ["lo", True],
        "10.79.0.1": None,
        "10.80.0.1": None,
        "127.1.2.3": ["lo", True],
        "224.0.0.1": None,
        "fd77::1": ["eth0", False],
        "fd77::2": ["lo", True],
        "fd79::1": None,
        "fd80::1": None,
        "::1": ["lo", True],
        "ff02::1": None,
    }
