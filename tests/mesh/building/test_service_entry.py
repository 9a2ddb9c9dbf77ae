"""ServiceEntry."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.building.service_entry import service_entry
from tests.support.built import assert_good


def test_a_host_outside_is_made_known_with_its_ports() -> None:
    made = service_entry("api", "shop", ["api.example.com"], {443: "HTTPS", 80: "HTTP"}, export_to=["."])

    assert made["spec"] == {
        "hosts": ["api.example.com"],
        "ports": [
            {"number": 80, "name": "http-80", "protocol": "HTTP"},
            {"number": 443, "name": "https-443", "protocol": "HTTPS"},
        ],
        "location": "MESH_EXTERNAL",
        "resolution": "DNS",
        "exportTo": ["."],
    }
    assert_good(made)


def test_addresses_stand_behind_names_and_before_them() -> None:
    made = service_entry(
        "db",
        "shop",
        ["db.example"],
        {5432: "TCP"},
        location="MESH_INTERNAL",
        resolution="STATIC",
        endpoints=["10.0.0.1", "2001:db8::1"],
        addresses=["10.9.0.0/16"],
    )

    assert made["spec"]["endpoints"] == [{"address": "10.0.0.1"}, {"address": "2001:db8::1"}]
    assert made["spec"]["addresses"] == ["10.9.0.0/16"]
    assert_good(made)


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"hosts": []}, "hosts"),
        ({"hosts": ["*"]}, r"hosts\[0\]"),
        ({"hosts": ["*-a.example"]}, r"hosts\[0\]"),
        ({"hosts": ["*.example"]}, "hosts"),
        ({"ports": {}}, "ports"),
        ({"ports": [443]}, "ports"),
        ({"ports": {0: "TCP"}}, "ports"),
        ({"ports": {443: "https"}}, r"ports\[443\]"),
        ({"location": "EXTERNAL"}, "location"),
        ({"resolution": "dns"}, "resolution"),
        ({"resolution": "STATIC"}, "endpoints"),
        ({"resolution": "STATIC", "endpoints": ["a.example"]}, r"endpoints\[0\]"),
        ({"resolution": "NONE", "endpoints": ["10.0.0.1"]}, "endpoints"),
        ({"resolution": "DNS_ROUND_ROBIN", "endpoints": ["a.example", "b.example"]}, "endpoints"),
        ({"endpoints": ["a b"]}, r"endpoints\[0\]"),
        ({"addresses": ["10.0.0.0/8"]}, r"addresses\[0\]"),
        ({"addresses": ["x"]}, r"addresses\[0\]"),
        ({"export_to": ["~", "."]}, "export_to"),
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any], argument: str) -> None:
    call: dict[str, Any] = {"name": "api", "namespace": "shop", "hosts": ["api.example.com"], "ports": {443: "HTTPS"}}

    with pytest.raises(ValueError, match=rf"^{argument}: "):
        service_entry(**call | wrong)
