"""Which Services require the mesh, and that no hiccup turns one into plaintext."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.discovery.members import Members, members_of, namespaces_with_sidecars
from control.discovery.workloads import read_namespace, read_pod, read_service
from kube.objects import Key, key_of
from mesh.documents import Document
from mesh.resources import ResourceSet
from tests.control.discovery.objects import namespace, peer_authentication, pod, service

WEB = ("shop", ipaddress.ip_address("10.96.0.10"))
EVERY_PORT = None
UNINJECTED = pod(name="web-2", sidecar=False)
OPTED_OUT = pod(name="web-2", sidecar=False, annotations={"qbitel.io/inject": "false"})


def items(read: Any, objects: list[dict[str, Any]]) -> dict[Key, Any]:
    found = {key_of(one): read(one) for one in objects}
    return {key: one for key, one in found.items() if one is not None}


def members(
    *objects: dict[str, Any],
    services: list[dict[str, Any]] | None = None,
    label: str | None = "enabled",
    before: Members | None = None,
    policies: list[dict[str, Any]] | None = None,
) -> Members:
    """What is found of these pods, behind the one Service of `shop` unless others are given."""
    documents = [
        Document(
            {
                "apiVersion": "security.istio.io/v1",
                "kind": "PeerAuthentication",
                "metadata": {"name": f"p{number}", "namespace": "shop"},
                "spec": spec,
            },
            "test",
            {},
        )
        for number, spec in enumerate(policies or [])
    ]
    resources = ResourceSet.of(documents)
    assert resources.errors == ()
    return members_of(
        items(read_service, [service()] if services is None else services),
        items(read_pod, list(objects)),
        items(read_namespace, [namespace(label=label)]),
        before or {},
        lambda _namespace: resources if policies else None,
    )


def test_a_service_whose_pods_all_have_a_sidecar_requires_the_mesh_at_every_port() -> None:
    assert members(pod(), pod(name="web-2")) == {WEB: EVERY_PORT}


def test_one_pod_without_a_sidecar_keeps_a_service_out() -> None:
    assert members(pod(), UNINJECTED) == {}


def test_pods_that_the_service_does_not_select_do_not_matter() -> None:
    other = pod(name="other", labels={"app": "other"}, sidecar=False)
    elsewhere = pod(namespace="other", name="web-9", sidecar=False)

    assert members(pod(), other, elsewhere) == {WEB: EVERY_PORT}


def test_a_pod_that_has_ended_does_not_matter() -> None:
    assert members(pod(), pod(name="job", sidecar=False, phase="Succeeded")) == {WEB: EVERY_PORT}


def test_each_address_of_a_service_requires_it() -> None:
    found = members(pod(), services=[service(address=["10.96.0.10", "fd00::10"])])

    assert found == {WEB: EVERY_PORT, ("shop", ipaddress.ip_address("fd00::10")): EVERY_PORT}


@pytest.mark.parametrize(
    "without",
    [
        service(selector={}),
        service(ports=[{"port": 53, "protocol": "UDP"}]),
        service(annotations={"qbitel.io/mesh": "off"}),
        service(address="None"),
    ],
    ids=["selector", "TCP", "will", "address"],
)
def test_a_service_is_none_of_the_mesh_without(without: dict[str, Any]) -> None:
    assert members(pod(), services=[without], before={WEB: EVERY_PORT}) == {}


def test_a_service_of_which_there_never_was_a_pod_requires_nothing() -> None:
    assert members() == {}


# Hiccups


def test_a_service_whose_pods_are_all_gone_requires_what_it_did() -> None:
    assert members(before={WEB: EVERY_PORT}) == {WEB: EVERY_PORT}
    assert members(before={WEB: (80,)}) == {WEB: (80,)}


def test_a_pod_that_asks_for_a_sidecar_and_has_none_changes_nothing() -> None:
    assert members(pod(), UNINJECTED, before={WEB: EVERY_PORT}) == {WEB: EVERY_PORT}
    assert members(UNINJECTED, before={WEB: EVERY_PORT}) == {WEB: EVERY_PORT}
    asks = pod(name="web-2", sidecar=False, labels={"app": "web", "qbitel.io/inject": "true"})
    assert members(asks, label=None, before={WEB: EVERY_PORT}) == {WEB: EVERY_PORT}


def test_a_pod_that_asks_for_none_ends_it() -> None:
    assert members(pod(), OPTED_OUT, before={WEB: EVERY_PORT}) == {}


def test_a_namespace_that_asks_no_longer_ends_it_when_a_pod_without_a_sidecar_comes() -> None:
    assert members(pod(), label=None, before={WEB: EVERY_PORT}) == {WEB: EVERY_PORT}
    assert members(pod(), UNINJECTED, label=None, before={WEB: EVERY_PORT}) == {}


def test_a_sidecar_that_captures_nothing_ends_it() -> None:
    idle = pod(name="web-2", annotations={"qbitel.io/interception-mode": "NONE"})

    assert members(pod(), idle, before={WEB: EVERY_PORT}) == {}


def test_a_service_that_is_deleted_is_forgotten() -> None:
    assert members(pod(), services=[], before={WEB: EVERY_PORT}) == {}


# Ports


def ports(*numbers: int | tuple[int, int | str]) -> list[dict[str, Any]]:
    pairs = [number if isinstance(number, tuple) else (number, number) for number in numbers]
    return [{"port": port, "targetPort": target, "name": f"p{port}"} for port, target in pairs]


def test_ports_before_which_no_sidecar_stands_are_left_out() -> None:
    bare = pod(annotations={"qbitel.io/exclude-inbound-ports": "9090"})

    assert members(bare, services=[service(ports=ports(80, (81, 9090)))]) == {WEB: (80,)}
    assert members(bare, services=[service(ports=ports((81, 9090)))]) == {}


def test_a_named_port_is_each_pod_s_own() -> None:
    bare = pod(annotations={"qbitel.io/exclude-inbound-ports": "8080"})

    assert members(bare, services=[service(ports=ports(80, (81, "http")))]) == {WEB: (80,)}


def test_a_pod_that_has_no_such_port_serves_nobody_there() -> None:
    assert members(pod(), services=[service(ports=ports((81, "grpc")))]) == {WEB: EVERY_PORT}


def test_a_port_that_policy_disables_takes_no_tls_of_the_mesh() -> None:
    two = [service(ports=ports((80, 8080), (81, 9090)))]

    assert members(pod(), services=two, policies=[peer_authentication("DISABLE")]) == {}
    narrow = peer_authentication("STRICT", {"9090": "DISABLE"}, app="web")
    assert members(pod(), services=two, policies=[narrow]) == {WEB: (80,)}
    other = peer_authentication("STRICT", {"9090": "DISABLE"}, app="other")
    assert members(pod(), services=two, policies=[other]) == {WEB: EVERY_PORT}


def test_a_sidecar_s_own_mode_counts_where_no_policy_says_one() -> None:
    disabled = pod(annotations={"qbitel.io/mtls-mode": "DISABLE"})

    assert members(disabled) == {}
    assert members(disabled, policies=[peer_authentication("STRICT"), peer_authentication("DISABLE", app="x")]) == {
        WEB: EVERY_PORT
    }


def test_the_document_must_not_tie_when_two_services_have_one_address_for_a_moment() -> None:
    found = members(pod(), services=[service(), service(name="again")])

    assert found == {WEB: EVERY_PORT}


def test_namespaces_with_a_sidecar_are_of_the_mesh_whatever_their_label() -> None:
    pods = items(read_pod, [pod(namespace="a"), pod(namespace="b", sidecar=False)])

    assert namespaces_with_sidecars(pods) == {"a"}


LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3)


@given(st.lists(st.tuples(LABELS, st.booleans()), max_size=8), LABELS.filter(bool))
def test_what_is_found_by_labels_is_what_looking_at_every_pod_would_find(
    all_pods: list[tuple[dict[str, str], bool]], selector: dict[str, str]
) -> None:
    made = [pod(name=f"p{number}", labels=labels, sidecar=has) for number, (labels, has) in enumerate(all_pods)]
    behind = [has for labels, has in all_pods if selector.items() <= labels.items()]

    found = members(*made, services=[service(selector=selector)])
    assert found == ({WEB: EVERY_PORT} if behind and all(behind) else {})
