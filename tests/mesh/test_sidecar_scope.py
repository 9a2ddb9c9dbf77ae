"""Reading Sidecar and ServiceEntry."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.selectors import Selector
from mesh.sidecar_scope import Egress, Endpoint, Ingress, Port, ServiceEntry, Sidecar
from mesh.traffic import ConnectionPool
from tests.support.policies import document, faults, resources


def sidecar(spec: Any) -> Sidecar:
    (found,) = resources(document("Sidecar", spec)).sidecars
    return found


def entry(spec: Any) -> ServiceEntry:
    (found,) = resources(document("ServiceEntry", spec)).service_entries
    return found


def test_every_field_of_a_sidecar_that_is_followed_is_read() -> None:
    found = sidecar(
        {
            "workloadSelector": {"labels": {"app": "web"}},
            "egress": [
                {"hosts": ["./*", "data/db.data.svc.cluster.local"], "bind": "127.0.0.1"},
                {"hosts": ["*/*.example.com"], "port": {"number": 443, "name": "tls", "protocol": "TLS"}},
            ],
            "ingress": [{"port": {"number": 80, "targetPort": 8080}, "defaultEndpoint": "127.0.0.1:8080"}],
            "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
            "inboundConnectionPool": {"tcp": {"maxConnections": 10}},
        }
    )

    assert found.selector == Selector({"app": "web"})
    assert found.egress == (
        Egress(("./*", "data/db.data.svc.cluster.local"), None, "127.0.0.1"),
        Egress(("*/*.example.com",), Port(443, "tls", "TLS")),
    )
    assert found.ingress == (Ingress(Port(80, target=8080), "127.0.0.1:8080"),)
    assert found.outbound_mode == "REGISTRY_ONLY"
    assert found.inbound_connection_pool == ConnectionPool(max_connections=10)


def test_an_empty_sidecar_is_for_the_whole_namespace_and_limits_nothing() -> None:
    found = sidecar({})

    assert found.selector.everything
    assert (found.egress, found.ingress, found.outbound_mode, found.inbound_connection_pool) == ((), (), None, None)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"egress": [{}]}, "spec.egress[0].hosts: is missing"),
        ({"egress": [{"hosts": []}]}, "spec.egress[0].hosts: must not be empty"),
        (
            {"egress": [{"hosts": ["web"]}]},
            "spec.egress[0].hosts[0]: "
            "'web' is not written as namespace/host, as in ./* or shop/web.shop.svc.cluster.local",
        ),
        (
            {"egress": [{"hosts": ["./a b"]}]},
            "spec.egress[0].hosts[0]: "
            "'a b' is no name of a host, as in web, web.shop.svc.cluster.local or *.example.com",
        ),
        ({"egress": [{"hosts": ["./*"], "port": {}}]}, "spec.egress[0].port.number: is missing"),
        ({"ingress": [{}]}, "spec.ingress[0].port: is missing"),
        ({"workloadSelector": {"matchLabels": {}}}, "spec.workloadSelector.matchLabels: is no field of this resource"),
        (
            {"outboundTrafficPolicy": {"mode": "ANY"}},
            "spec.outboundTrafficPolicy.mode: 'ANY' is none of REGISTRY_ONLY, ALLOW_ANY",
        ),
    ],
)
def test_a_sidecar_that_is_written_wrongly_is_refused(spec: Any, fault: str) -> None:
    assert faults("Sidecar", spec) == [fault]


@pytest.mark.parametrize(
    ("spec", "warning"),
    [
        (
            {"ingress": [{"port": {"number": 80}, "tls": {"mode": "SIMPLE"}}]},
            "spec.ingress[0].tls: is not done by a sidecar of ours",
        ),
        (
            {"outboundTrafficPolicy": {"mode": "ALLOW_ANY", "egressProxy": {"host": "a.b"}}},
            "spec.outboundTrafficPolicy.egressProxy: is not done by a sidecar of ours",
        ),
    ],
)
def test_what_a_sidecar_does_not_do_is_warned_of(spec: Any, warning: str) -> None:
    assert faults("Sidecar", spec, "warning") == [warning]


def test_every_field_of_a_service_entry_is_read() -> None:
    found = entry(
        {
            "hosts": ["api.example.com"],
            "addresses": ["192.0.2.0/24"],
            "ports": [{"number": 443, "name": "tls", "protocol": "TLS", "targetPort": 8443}],
            "location": "MESH_INTERNAL",
            "resolution": "STATIC",
            "endpoints": [
                {
                    "address": "192.0.2.1",
                    "ports": {"tls": 8443},
                    "labels": {"app": "api"},
                    "serviceAccount": "api",
                    "weight": 2,
                    "network": "n",
                    "locality": "l",
                }
            ],
            "subjectAltNames": ["api.example.com"],
            "exportTo": ["*"],
        }
    )

    assert (found.hosts, found.addresses, found.location, found.resolution) == (
        ("api.example.com",),
        ("192.0.2.0/24",),
        "MESH_INTERNAL",
        "STATIC",
    )
    assert found.ports == (Port(443, "tls", "TLS", 8443),)
    assert found.endpoints == (Endpoint("192.0.2.1", (("tls", 8443),), (("app", "api"),), "api", 2),)
    assert (found.subject_alt_names, found.export_to, found.selector) == (("api.example.com",), ("*",), None)


def test_a_service_entry_may_select_workloads() -> None:
    found = entry({"hosts": ["a.b"], "resolution": "STATIC", "workloadSelector": {"labels": {"app": "a"}}})

    assert found.selector == Selector({"app": "a"})


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({}, "spec.hosts: is missing"),
        ({"hosts": []}, "spec.hosts: must not be empty"),
        ({"hosts": ["*"]}, "spec.hosts[0]: a ServiceEntry names hosts; '*' is none"),
        ({"hosts": ["a.b"], "ports": [{"number": 80}]}, "spec.ports[0].name: is missing"),
        (
            {"hosts": ["a.b"], "ports": [{"number": 80, "name": "a"}, {"number": 80, "name": "b"}]},
            "spec.ports[1].number: 80 is given twice",
        ),
        (
            {"hosts": ["a.b"], "addresses": ["10.0.0.0/8"], "resolution": "DNS"},
            "spec.addresses: blocks of addresses go with the resolutions NONE and STATIC alone",
        ),
        (
            {"hosts": ["a.b"], "endpoints": [{"address": "10.0.0.1"}]},
            "spec.endpoints: are not given with the resolution NONE",
        ),
        (
            {"hosts": ["*.b"], "resolution": "DNS"},
            "spec.hosts: with a wildcard cannot be looked up: give endpoints, or the resolution NONE",
        ),
        (
            {"hosts": ["a.b"], "resolution": "STATIC", "endpoints": [], "workloadSelector": {"labels": {"a": "b"}}},
            "spec.endpoints: only one of workloadSelector, endpoints can be set",
        ),
    ],
)
def test_a_service_entry_that_is_written_wrongly_is_refused(spec: Any, fault: str) -> None:
    assert faults("ServiceEntry", spec) == [fault]
