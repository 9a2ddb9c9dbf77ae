"""IPv6 addresses of a real network namespace."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.init.conftest import Namespace

pytestmark = pytest.mark.root

IMPORT = "from init.addresses import *; "


def _run(namespace: Namespace, code: str) -> str:
    return namespace.run(sys.executable, "-W", "error", "-c", IMPORT + code).stdout.strip()


def test_the_sidecars_source_is_added_once_and_removed_once(namespace: Namespace) -> None:
    code = "print(has_inbound_source(), add_inbound_source(), add_inbound_source(), has_inbound_source())"
    assert _run(namespace, code) == "False True False True"
    assert "inet6 ::6/128" in namespace.run("ip", "-6", "address", "show", "dev", "lo").stdout
    code = "print(remove_inbound_source(), remove_inbound_source(), has_inbound_source())"
    assert _run(namespace, code) == "True False False"


def test_the_sidecars_source_on_another_interface_does_not_count(namespace: Namespace) -> None:
    namespace.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    namespace.run("ip", "address", "add", "::6/128", "dev", "eth0", "nodad")
    assert _run(namespace, "print(has_inbound_source())") == "False"


def test_loopback_and_our_own_address_are_no_ipv6_of_the_pod(namespace: Namespace) -> None:
    assert _run(namespace, "add_inbound_source(); print(ipv6_addresses())") == "()"
    namespace.run("ip", "address", "add", "2001:db8::5/64", "dev", "lo")
    assert _run(namespace, "print(*ipv6_addresses())") == "2001:db8::5"


def test_ipv6_that_is_off_is_one_line_that_says_what_to_do(namespace: Namespace) -> None:
    namespace.run("sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=1")
    answer = namespace.qbitel_init("--ipv6", "on", check=False)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "net.ipv6.conf.lo.disable_ipv6" in answer.stderr
