"""Both sides of one pair at one port."""

from __future__ import annotations

import pytest

from mesh.inventory import Inventory
from mesh.modes import MTLSMode
from mesh.pair import DEFAULT_PROFILE, Pair, named_ports, transport_between, unnamed_port
from mesh.selectors import Workload
from mesh.traffic import TlsMode
from tests.mesh.written import allow, from_account, mode, resource, resources, rule, strict

FRONT = Workload("shop", {"app": "front"}, "front", "front")
WEB = Workload("shop", {"app": "web"}, "web", "web")
SERVICE = resource("Service", "shop/web", "{selector: {app: web}, ports: [{port: 80, targetPort: 8080}, {port: 90}]}")


def pair(*texts: str, source: Workload = FRONT) -> Pair:
    found = resources(*texts)
    return Pair(found, source, WEB, Inventory.of(found.foreign).find("shop", "web"))


@pytest.mark.parametrize(
    ("client", "server", "transport"),
    [
        (None, "STRICT", "mutual TLS"),
        (None, "PERMISSIVE", "mutual TLS"),
        (None, "DISABLE", "plaintext"),
        ("ISTIO_MUTUAL", "STRICT", "mutual TLS"),
        ("ISTIO_MUTUAL", "PERMISSIVE", "mutual TLS"),
        ("ISTIO_MUTUAL", "DISABLE", "refused"),
        ("DISABLE", "STRICT", "refused"),
        ("DISABLE", "PERMISSIVE", "plaintext"),
        ("DISABLE", "DISABLE", "plaintext"),
        ("SIMPLE", "STRICT", "refused"),
        ("SIMPLE", "PERMISSIVE", "foreign TLS"),
        ("MUTUAL", "STRICT", "refused"),
        ("MUTUAL", "DISABLE", "foreign TLS"),
    ],
)
def test_what_a_caller_dials_and_a_workload_accepts_make_a_transport(
    client: str | None, server: str, transport: str
) -> None:
    assert transport_between(TlsMode(client) if client else None, MTLSMode(server)) == transport


def test_where_nobody_says_anything_mutual_tls_is_spoken_and_everything_allowed() -> None:
    port = pair().at(80)

    assert (port.transport, port.allowed, port.profile) == ("mutual TLS", True, DEFAULT_PROFILE)
    assert port.server.mode is MTLSMode.PERMISSIVE
    assert port.reason == "allowed: no policy applies"


def test_a_port_of_the_service_is_judged_as_the_pods_port_behind_it() -> None:
    governed = pair(
        SERVICE,
        allow("shop/web", f'[{{{from_account("shop/front")}, to: [{{operation: {{ports: ["8080"]}}}}]}}]'),
        rule("shop/web", "web", "{portLevelSettings: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL}}]}"),
    )

    for asked in (80, 8080):
        port = governed.at(asked)
        assert (port.port, port.service_port, port.allowed) == (8080, 80, True)
        assert port.client.mode is TlsMode.ISTIO_MUTUAL
        assert port.client.decided_by == "DestinationRule shop/web, port 80"
    other = governed.at(90)
    assert (other.port, other.allowed, other.client.mode) == (90, False, None)


def test_over_plaintext_the_caller_is_nobody() -> None:
    policy = allow("shop/web", f"[{{{from_account('shop/front')}}}]")

    assert pair(policy).at(80).allowed
    plain = pair(policy, rule("shop/web", "web", "{tls: {mode: DISABLE}}")).at(80)
    assert (plain.transport, plain.allowed, plain.profile) == ("plaintext", False, None)
    assert "no identity" in plain.reason


def test_what_is_refused_says_what_both_sides_want() -> None:
    refused = pair(strict(), rule("shop/web", "web", "{tls: {mode: SIMPLE}}")).at(80)
    assert refused.reason == (
        "refused: the caller dials TLS (SIMPLE), and the workload accepts mutual TLS of the mesh alone"
    )
    assert not refused.allowed
    other_way = pair(mode("shop/default", "DISABLE"), rule("shop/web", "web", "{tls: {mode: ISTIO_MUTUAL}}")).at(80)
    assert other_way.reason.endswith("and the workload accepts plaintext alone")


def test_the_caller_s_own_rule_comes_before_that_of_the_service() -> None:
    abroad = Workload("other", {"app": "front"}, "front", "front")
    texts = (
        rule("shop/web", "web", "{tls: {mode: ISTIO_MUTUAL}}"),
        rule("other/web", "web.shop.svc.cluster.local", "{tls: {mode: DISABLE}}"),
    )

    assert pair(*texts).at(80).client.mode is TlsMode.ISTIO_MUTUAL
    assert pair(*texts, source=abroad).at(80).client.mode is TlsMode.DISABLE


def test_the_profile_is_that_of_the_rule() -> None:
    governed = pair(rule("shop/web", "web", "{tls: {mode: ISTIO_MUTUAL}}", annotations="{qbitel.io/profile: cnsa2}"))

    assert governed.at(80).profile == "cnsa2"


def test_the_ports_that_are_worth_a_look_are_those_of_the_service() -> None:
    assert pair(SERVICE).ports() == [80, 90]


def test_without_a_service_they_are_those_that_something_names_and_the_others_as_one() -> None:
    governed = pair(
        resource(
            "PeerAuthentication",
            "shop/web",
            "{selector: {matchLabels: {app: web}}, portLevelMtls: {'7000': {mode: DISABLE}}}",
        ),
        allow("shop/web", "[{to: [{operation: {ports: ['81'], notPorts: ['82']}}]}]"),
        allow("shop/more", "[{when: [{key: destination.port, values: ['83']}]}]"),
        allow("other/web", "[{to: [{operation: {ports: ['99']}}]}]"),
        rule("shop/web", "web", "{portLevelSettings: [{port: {number: 84}, tls: {mode: DISABLE}}]}"),
    )

    assert governed.ports() == [81, 82, 83, 84, 7000, None]
    assert [governed.at(port).allowed for port in governed.ports()] == [True, False, True, False, False, False]
    assert governed.at(None).port is None


def test_a_port_that_nothing_names_is_found_whatever_is_named() -> None:
    assert unnamed_port([]) == 65535
    assert unnamed_port([65535, 65534, 1]) == 65533
    assert sorted(named_ports(resources(strict()), WEB, ())) == []
