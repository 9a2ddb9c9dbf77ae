"""Sidecar."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.building.sidecar import sidecar
from tests.support.built import assert_good


def test_a_sidecar_says_what_is_known_and_what_becomes_of_the_rest() -> None:
    made = sidecar(
        "default",
        "shop",
        egress_hosts=["./*", "istio-system/*"],
        outbound_mode="REGISTRY_ONLY",
        selector={"app": "web"},
    )

    assert made["spec"] == {
        "workloadSelector": {"labels": {"app": "web"}},
        "egress": [{"hosts": ["./*", "istio-system/*"]}],
        "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
    }
    assert_good(made)


@pytest.mark.parametrize("hosts", [["*/*"], ["./web", "other/*"], ["*/api.example.com", "./web"], ["./*.example.com"]])
def test_hosts_are_of_namespaces(hosts: list[str]) -> None:
    assert sidecar("default", "shop", egress_hosts=hosts)["spec"]["egress"] == [{"hosts": hosts}]


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"egress_hosts": []}, "egress_hosts"),
        ({"egress_hosts": "./*"}, "egress_hosts"),
        ({"egress_hosts": ["web"]}, r"egress_hosts\[0\]"),
        ({"egress_hosts": ["/web"]}, r"egress_hosts\[0\]"),
        ({"egress_hosts": ["./"]}, r"egress_hosts\[0\]"),
        ({"egress_hosts": ["Shop/web"]}, r"egress_hosts\[0\]"),
        ({"egress_hosts": ["*/*", "./web"]}, r"egress_hosts\[1\]"),
        ({"egress_hosts": ["./web", "shop/*"]}, r"egress_hosts\[0\]"),
        ({"outbound_mode": "ALLOW"}, "outbound_mode"),
        ({"selector": {}}, "selector"),
        ({"selector": {"app": "web"}}, "egress_hosts, outbound_mode"),
        ({}, "egress_hosts, outbound_mode"),
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any], argument: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: "):
        sidecar("default", "shop", **wrong)
