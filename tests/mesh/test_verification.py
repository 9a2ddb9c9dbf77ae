"""The answer to "what would really happen between these two?", as data and as text."""

from __future__ import annotations

import json

import pytest

from mesh.selectors import Workload
from mesh.verification import place_of, verify
from tests.mesh.written import allow, deny, from_account, mode, resource, resources, rule, strict

FRONT = allow("shop/web", f"[{{{from_account('shop/front')}}}]", "{app: web}")
SERVICE = resource("Service", "shop/web", "{selector: {app: web}, ports: [{port: 80, targetPort: 8080}, {port: 90}]}")


def deployment(name: str, labels: str, account: str) -> str:
    return resource(
        "Deployment",
        f"shop/{name}",
        f"{{template: {{metadata: {{labels: {labels}}}, spec: {{serviceAccountName: {account}}}}}}}",
    )


def test_a_sound_pair_is_told_in_a_few_lines() -> None:
    found = verify(resources(strict(), rule("shop/web", "web", "{tls: {mode: ISTIO_MUTUAL}}"), FRONT),
                   "front", "web", namespace="shop")  # fmt: skip

    assert found.allowed
    assert found.secure
    assert str(found) == (
        "shop/front calls shop/web, as cluster.local/ns/shop/sa/front\n"
        "any other port: allowed, over mutual TLS\n"
        "  workload    STRICT, by PeerAuthentication shop/default (policy.yaml:1)\n"
        "  caller      ISTIO_MUTUAL, by DestinationRule shop/web (policy.yaml:6)\n"
        "  profile     qbitel\n"
        "  decision    allowed by rules[0] of the ALLOW policy shop/web\n"
        "assumed\n"
        "  the pods of shop/front have the label app=front and the service account front\n"
        "  the pods of shop/web have the label app=web and the service account web"
    )


def test_a_pair_that_cannot_speak_is_told_with_its_conflict() -> None:
    found = verify(resources(strict(), rule("shop/web", "web", "{tls: {mode: DISABLE}}")), "shop/front", "shop/web", 80)

    assert not found.allowed
    assert found.secure
    assert [one.severity for one in found.conflicts] == ["error"]
    text = str(found)
    assert "port 80: refused\n" in text
    assert "profile     none: no post-quantum TLS" in text
    assert "conflicts\n  error: policy.yaml:9: DestinationRule shop/web: spec.trafficPolicy.tls.mode: refused" in text


def test_who_is_denied_is_told_and_by_which_policy() -> None:
    found = verify(resources(strict(), FRONT, deny("shop/nobody", "[{}]")), "other/front", "shop/web", 80)
    assert (found.ports[0].connection.policy, found.ports[0].connection.rule) == ("shop/nobody", 0)

    nobody = verify(resources(strict(), FRONT), "other/front", "shop/web", 80)
    assert not nobody.allowed
    assert nobody.ports[0].reason == "denied: no ALLOW policy matches (shop/web)"
    assert nobody.principal == "cluster.local/ns/other/sa/front"
    assert verify(resources(strict(), FRONT), "shop/web", "other/db").allowed


def test_what_hangs_on_requests_is_told_beside_what_a_sidecar_does_that_reads_none() -> None:
    reads = allow("shop/web", f"[{{{from_account('shop/front')}, to: [{{operation: {{methods: [GET, POST]}}}}]}}]")
    found = verify(resources(strict(), reads), "shop/front", "shop/web", 80)

    assert not found.allowed
    assert found.ports[0].outlook.answer == "depends"
    assert "  requests    allowed for method GET or POST (rules[0] of shop/web); otherwise denied: " in str(found)
    assert found.as_dict()["ports"][0]["requests"] == {
        "answer": "depends",
        "allowed_for": [{"policy": "shop/web", "rule": 0, "where": "method GET or POST"}],
        "denied_for": [],
    }


def test_services_and_deployments_in_the_set_say_who_is_who() -> None:
    found = verify(
        resources(
            strict(),
            SERVICE,
            deployment("web", "{app: web}", "web-account"),
            deployment("front", "{tier: front}", "front-account"),
            allow("shop/web", f'[{{{from_account("shop/front-account")}, to: [{{operation: {{ports: ["8080"]}}}}]}}]'),
        ),
        "front",
        "web",
        namespace="shop",
    )

    assert found.principal == "cluster.local/ns/shop/sa/front-account"
    assert found.assumptions == ()
    assert [(port.service_port, port.port, port.allowed) for port in found.ports] == [(80, 8080, True), (90, 90, False)]
    assert "port 80 (8080 of the pods): allowed" in str(found)
    assert not found.allowed


def test_workloads_behind_one_service_that_differ_are_a_conflict() -> None:
    found = verify(
        resources(
            strict(),
            SERVICE,
            deployment("web-v1", "{app: web, version: v1}", "web"),
            deployment("web-v2", "{app: web, version: v2}", "web"),
            deny("shop/no-v2", "[{}]", "{version: v2}"),
        ),
        "shop/front",
        "shop/web",
        80,
    )

    assert found.allowed
    assert [str(one) for one in found.conflicts] == [
        "Service shop/web: shop/web-v2 stands behind the same Service and differs at port 80 (8080 of the pods): "
        "mutual TLS, denied by rules[0] of the DENY policy shop/no-v2"
    ]


def test_a_port_that_the_service_does_not_have_is_a_conflict() -> None:
    found = verify(resources(strict(), SERVICE), "shop/front", "shop/web", 443)

    assert [str(one) for one in found.conflicts] == ["Service shop/web: has no port 443; it has 80, 90"]


def test_plaintext_that_comes_through_is_allowed_and_not_secure() -> None:
    found = verify(resources(mode("shop/default", "DISABLE")), "shop/front", "shop/web", 80)

    assert found.allowed
    assert not found.secure


def test_workloads_may_be_given_as_values() -> None:
    front = Workload("shop", {}, "some-account")
    found = verify(resources(strict(), SERVICE, FRONT), front, Workload("shop", {"app": "web"}, "web", "web-1"), 80)

    assert found.principal == "cluster.local/ns/shop/sa/some-account"
    assert found.ports[0].port == 8080
    assert not found.allowed


def test_the_trust_domain_is_that_of_the_mesh() -> None:
    found = verify(resources(strict(), FRONT), "shop/front", "shop/web", 80, trust_domain="example.org")

    assert found.principal == "example.org/ns/shop/sa/front"
    assert found.allowed  # `cluster.local` in a policy is the mesh's own trust domain, as in Istio


def test_the_data_is_json() -> None:
    found = verify(resources(rule("shop/web", "web", "{tls: {mode: DISABLE}}"), FRONT), "shop/front", "shop/web", 80)

    data = json.loads(json.dumps(found.as_dict()))
    assert data == found.as_dict()
    assert data["allowed"] is False
    assert data["ports"][0]["transport"] == "plaintext"
    assert data["ports"][0]["server"] == {
        "mode": "PERMISSIVE",
        "decided_by": "the default: no PeerAuthentication sets a mode",
        "level": "default",
    }
    assert data["conflicts"][0]["line"] == 4
    assert {one["severity"] for one in data["conflicts"]} == {"warning", "error"}


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_what_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match=f"port: {port} is none; give 1 to 65535"):
        verify(resources(), "a", "b", port)


def test_a_resource_without_a_file_has_no_place() -> None:
    assert place_of(None) == ""
