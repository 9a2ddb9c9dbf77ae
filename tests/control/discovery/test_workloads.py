"""Pods, Services and namespaces as the API server shows them → what discovery must know of them."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.discovery import workloads
from control.discovery.workloads import Capture, Namespace, read_namespace, read_pod, read_service
from injector import annotations as injector_annotations
from injector import pods as injector_pods
from mesh import names
from mesh.modes import MTLSMode
from tests.control.discovery.objects import namespace, pod, service

EVERYTHING = Capture()


def test_a_pod_that_the_injector_made_has_a_sidecar_before_all_of_its_ports() -> None:
    found = read_pod(pod(account="api"))

    assert found is not None
    assert (found.capture, found.is_injected, found.mode) == (EVERYTHING, True, MTLSMode.STRICT)
    assert (found.labels, found.service_account) == ({"app": "web"}, "api")
    assert found.port_names["http"] == 8080


def test_a_native_sidecar_and_a_classic_one_are_both_seen() -> None:
    native, classic = pod(), pod(annotations={"qbitel.io/native-sidecar": "false"})

    assert "qbitel-proxy" in {one["name"] for one in native["spec"]["initContainers"]}
    assert "qbitel-proxy" in {one["name"] for one in classic["spec"]["containers"]}
    for one in (native, classic):
        assert read_pod(one).is_injected  # type: ignore[union-attr]


def test_the_injector_s_names_are_ours() -> None:
    assert names.STATUS_ANNOTATION == injector_annotations.STATUS
    assert names.SIDECAR_CONTAINER == injector_pods.SIDECAR
    for ours, alias in (workloads._INCLUDED, workloads._EXCLUDED, workloads._INTERCEPTION):
        assert injector_annotations.ALIASES[ours.removeprefix(names.ANNOTATION_PREFIX)] == alias


def test_an_annotation_without_the_container_is_no_sidecar() -> None:
    claims = pod(sidecar=False, annotations={names.STATUS_ANNOTATION: '{"version":"1"}'})

    assert read_pod(claims).capture is None  # type: ignore[union-attr]


def test_a_container_of_that_name_without_the_annotation_is_no_sidecar() -> None:
    found = pod(sidecar=False)
    found["spec"]["containers"].append({"name": "qbitel-proxy", "image": "example.org/theirs"})

    assert read_pod(found).capture is None  # type: ignore[union-attr]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_nobody_s(phase: str) -> None:
    assert read_pod(pod(phase=phase)) is None


@pytest.mark.parametrize(
    ("annotation", "value", "captured", "passed"),
    [
        ("qbitel.io/exclude-inbound-ports", "9090", [8080, 9091], [9090]),
        ("qbitel.io/exclude-inbound-ports", "9000-9090, 22", [8999, 9091], [22, 9000, 9050, 9090]),
        ("qbitel.io/exclude-inbound-ports", "9000:9090", [8999], [9001]),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "22", [8080], [22]),
        ("qbitel.io/include-inbound-ports", "8080", [8080], [80, 9090]),
        ("qbitel.io/include-inbound-ports", "*", [1, 65535], []),
        ("qbitel.io/include-inbound-ports", "", [], [1, 8080]),
    ],
)
def test_ports_that_are_not_captured_are_known(
    annotation: str, value: str, captured: list[int], passed: list[int]
) -> None:
    found = read_pod(pod(annotations={annotation: value}))

    assert found is not None
    assert found.capture is not None
    assert all(port in found.capture for port in captured)
    assert not any(port in found.capture for port in passed)


def test_a_sidecar_without_interception_stands_before_nothing() -> None:
    found = read_pod(pod(annotations={"sidecar.istio.io/interceptionMode": "none"}))

    assert found is not None
    assert (found.capture, found.is_injected) == (None, True)


@pytest.mark.parametrize(
    ("labels", "annotations", "asks"),
    [
        ({}, {}, None),
        ({"qbitel.io/inject": "true"}, {}, True),
        ({"qbitel.io/inject": "False"}, {"qbitel.io/inject": "true"}, False),
        ({}, {"qbitel.io/inject": "disabled"}, False),
    ],
)
def test_a_pod_s_own_word_is_read_as_the_injector_reads_it(
    labels: dict[str, str], annotations: dict[str, str], asks: bool | None
) -> None:
    found = read_pod(pod(sidecar=False, labels=labels, annotations=annotations))

    assert found is not None
    assert found.asks is asks


def test_a_pod_in_the_host_s_network_asks_for_none() -> None:
    found = read_pod(pod(sidecar=False, hostNetwork=True))

    assert found is not None
    assert found.asks is False


def test_a_sidecar_s_own_mode_is_read_from_its_flags() -> None:
    found = read_pod(pod(annotations={"qbitel.io/mtls-mode": "DISABLE"}))

    assert found is not None
    assert found.mode is MTLSMode.DISABLE


def test_what_pods_of_one_template_share_is_kept_once() -> None:
    first, second = read_pod(pod(name="web-1")), read_pod(pod(name="web-2"))

    assert first is not None
    assert second is not None
    assert first.labels is second.labels


def test_a_service_is_its_addresses_ports_and_selector() -> None:
    ports = [
        {"name": "web", "port": 80, "targetPort": 8080},
        {"name": "same", "port": 81},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]
    found = read_service(service(address=["10.96.0.1", "fd00::1"], ports=ports))

    assert found is not None
    assert found.addresses == (ipaddress.ip_address("10.96.0.1"), ipaddress.ip_address("fd00::1"))
    assert [(port.number, port.target) for port in found.ports] == [(80, 8080), (81, 81)]
    assert not found.is_off


def test_what_has_no_address_of_the_cluster_is_no_service_here() -> None:
    headless, other = (
        service(address="None"),
        {"metadata": {"name": "x", "namespace": "y"}, "spec": {"type": "ExternalName"}},
    )

    assert (read_service(headless), read_service(other)) == (None, None)


def test_an_old_api_server_says_one_address() -> None:
    found = service()
    del found["spec"]["clusterIPs"]

    assert read_service(found).addresses == (ipaddress.ip_address("10.96.0.10"),)  # type: ignore[union-attr]


def test_a_service_may_say_that_it_is_none_of_the_mesh() -> None:
    assert read_service(service(annotations={"qbitel.io/mesh": " Off"})).is_off  # type: ignore[union-attr]


@pytest.mark.parametrize(("label", "asks"), [("enabled", True), ("disabled", False), (None, False)])
def test_a_namespace_asks_by_its_label(label: str | None, asks: bool) -> None:
    assert read_namespace(namespace(label=label)) == Namespace(asks)


def test_a_namespace_that_is_being_deleted_is_none() -> None:
    assert read_namespace(namespace(deletionTimestamp="2026-01-01T00:00:00Z")) is None


@given(st.text(max_size=40), st.text(max_size=40))
def test_annotations_of_any_text_are_read(included: str, excluded: str) -> None:
    found: dict[str, Any] = pod()
    found["metadata"]["annotations"] |= {
        "qbitel.io/include-inbound-ports": included,
        "qbitel.io/exclude-inbound-ports": excluded,
    }
    read = read_pod(found)

    assert read is not None
    assert isinstance(8080 in (read.capture or Capture()), bool)
