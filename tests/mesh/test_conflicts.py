"""What cannot have been meant: between two workloads, and in a whole set."""

from __future__ import annotations

import pytest

from mesh.conflicts import asks_for_token, of_pair, of_set
from mesh.documents import Problem
from mesh.inventory import Inventory
from mesh.pair import Pair
from mesh.selectors import Workload
from tests.mesh.written import allow, deny, from_account, mode, resource, resources, rule, strict

FRONT = Workload("shop", {"app": "front"}, "front", "front")
WEB = Workload("shop", {"app": "web"}, "web", "web")
JWT = "jwtRules: [{issuer: 'https://issuer.example', jwksUri: 'https://issuer.example/keys'}]"
TOKEN_RULE = "[{from: [{source: {requestPrincipals: ['*']}}]}]"
DEPLOYMENT = resource("Deployment", "shop/web", "{template: {metadata: {labels: {app: web}}}}")
SERVICE = resource("Service", "shop/web", "{selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}")


def pair_says(*texts: str) -> list[str]:
    found = resources(*texts)
    pair = Pair(found, FRONT, WEB, Inventory.of(found.foreign).find("shop", "web"))
    return told(of_pair(pair, [pair.at(80)]))


def set_says(*texts: str) -> list[str]:
    return told(of_set(resources(*texts)))


def errors(said: list[str]) -> list[str]:
    return [one for one in said if one.startswith("error")]


def told(problems: tuple[Problem, ...]) -> list[str]:
    return [f"{one.severity}: {one}" for one in problems]


# One pair


def test_a_sound_pair_has_none() -> None:
    texts = (
        strict(),
        rule("shop/web", "web", "{tls: {mode: ISTIO_MUTUAL}}"),
        allow("shop/web", f"[{{{from_account('shop/front')}}}]"),
    )

    assert pair_says(*texts) == []
    assert set_says(*texts) == []


def test_a_strict_workload_that_is_dialled_in_plaintext_is_an_error_at_the_line_of_the_mode() -> None:
    (found,) = pair_says(strict(), rule("shop/web", "web", "{tls: {mode: DISABLE}}"))

    assert found == (
        "error: policy.yaml:9: DestinationRule shop/web: spec.trafficPolicy.tls.mode: refused: the caller dials "
        "plaintext, and the workload accepts mutual TLS of the mesh alone (PeerAuthentication shop/default)"
    )


def test_what_is_open_that_looks_closed_is_a_warning() -> None:
    assert pair_says(mode("shop/default", "PERMISSIVE")) == [
        "warning: policy.yaml:4: PeerAuthentication shop/default: spec.mtls: "
        "PERMISSIVE: plaintext is let in beside mutual TLS, from whoever reaches the pods"
    ]
    assert pair_says() == ["warning: PERMISSIVE: plaintext is let in beside mutual TLS, from whoever reaches the pods"]
    assert "makes callers speak plaintext, where mutual TLS would be accepted" in " ".join(
        pair_says(rule("shop/web", "web", "{tls: {mode: DISABLE}}"))
    )


def test_a_caller_that_cannot_show_who_it_is_is_an_error_of_the_policy_that_names_it() -> None:
    found = pair_says(mode("shop/default", "DISABLE"), allow("shop/web", f"[{{{from_account('shop/front')}}}]"))

    assert found == [
        "error: policy.yaml:9: AuthorizationPolicy shop/web: spec.rules[0]: allows cluster.local/ns/shop/sa/front, "
        "but over plaintext nobody shows who they are: denied"
    ]


def test_of_two_policies_of_one_scope_the_younger_is_told_to_count_for_nothing() -> None:
    old = resource("PeerAuthentication", "shop/a", "{mtls: {mode: STRICT}}", created="'2026-01-01T00:00:00Z'")
    new = resource("PeerAuthentication", "shop/b", "{mtls: {mode: DISABLE}}", created="'2026-02-01T00:00:00Z'")

    assert pair_says(new, old) == [
        "warning: policy.yaml:1: PeerAuthentication shop/b: counts for nothing here: an older one has the same scope"
    ]


def test_a_profile_that_does_not_exist_is_an_error() -> None:
    text = rule("shop/web", "web", "{tls: {mode: ISTIO_MUTUAL}}", annotations="{qbitel.io/profile: kyber}")

    for says in (pair_says, set_says):
        assert "error: policy.yaml:" in says(strict(), text)[0]
        assert "'kyber' is none of qbitel, hybrid-l5, cnsa2, compat" in says(strict(), text)[0]


def test_a_subset_that_is_dialled_otherwise_is_noted() -> None:
    subset = "{name: v1, labels: {app: web}, trafficPolicy: {tls: {mode: DISABLE}}}"
    text = resource("DestinationRule", "shop/web", f"{{host: web, subsets: [{subset}]}}")

    assert [one for one in pair_says(strict(), text) if "subset v1" in one] == [
        "note: policy.yaml:9: DestinationRule shop/web: spec.subsets[0]: "
        "where routes name the subset v1, callers dial DISABLE"
    ]


# Tokens


def test_tokens_that_nobody_asks_for_are_a_warning() -> None:
    believed = resource("RequestAuthentication", "shop/jwt", f"{{{JWT}}}")

    for says in (pair_says, set_says):
        assert any("a request without one is let in" in one for one in says(strict(), believed))
        assert says(strict(), believed, allow("shop/web", TOKEN_RULE)) == []
        assert (
            says(strict(), believed, deny("shop/web", "[{when: [{key: 'request.auth.claims[a]', notValues: [b]}]}]"))
            == []
        )
        required = believed.replace("jwksUri", "presence: REQUIRED, jwksUri")
        assert says(strict(), required) == []


def test_tokens_that_nobody_believes_are_a_warning() -> None:
    elsewhere = resource("RequestAuthentication", "other/jwt", f"{{{JWT}}}")
    other_pods = resource("RequestAuthentication", "shop/jwt", f"{{selector: {{matchLabels: {{app: db}}}}, {JWT}}}")

    for says in (pair_says, set_says):
        for text in (elsewhere, other_pods):
            found = says(strict(), allow("shop/web", TOKEN_RULE, "{app: web}"), text)
            assert any("none is ever believed" in one for one in found)
    root = resource("RequestAuthentication", "istio-system/jwt", f"{{{JWT}}}")
    assert set_says(strict(), allow("shop/web", TOKEN_RULE, "{app: web}"), root) == []


def test_what_asks_for_a_token_is_told_from_what_does_not() -> None:
    found = resources(
        allow("shop/a", TOKEN_RULE),
        allow("shop/b", "[{when: [{key: request.auth.audiences, values: [x]}]}]"),
        allow("shop/c", "[{when: [{key: 'request.headers[x]', values: [x]}]}]"),
        allow("shop/d", "[{}]"),
    )

    assert [asks_for_token(policy) for policy in found.authorization_policies] == [True, True, False, False]


# A whole set


@pytest.mark.parametrize(
    ("host", "refused"),
    [
        ("web", True),
        ("web.shop.svc.cluster.local", True),
        ("*.shop.svc.cluster.local", True),
        ("web.other.svc.cluster.local", False),
        ("www.example.org", False),
        ("*.example.org", False),
        ("*", False),
    ],
)
def test_a_rule_by_which_nobody_comes_through_is_found_without_a_caller(host: str, refused: bool) -> None:
    found = errors(set_says(strict(), rule("shop/out", host, "{tls: {mode: DISABLE}}")))

    assert bool(found) is refused
    assert not refused or "is STRICT (PeerAuthentication shop/default): no connection comes about" in found[0]


def test_a_port_s_own_mode_counts() -> None:
    open_port = resource(
        "PeerAuthentication",
        "shop/web",
        "{selector: {matchLabels: {app: web}}, portLevelMtls: {'8080': {mode: DISABLE}}}",
    )
    at_port = "{tls: {mode: ISTIO_MUTUAL}, portLevelSettings: [{port: {number: 80}, tls: {mode: %s}}]}"

    assert set_says(strict(), open_port, SERVICE, rule("shop/web", "web", at_port % "DISABLE")) == []
    (found,) = set_says(strict(), open_port, SERVICE, rule("shop/web", "web", at_port % "ISTIO_MUTUAL"))
    assert "callers dial ISTIO_MUTUAL at port 80, and shop/web is DISABLE" in found


def test_a_port_to_which_no_service_leads_is_a_warning() -> None:
    text = resource(
        "PeerAuthentication",
        "shop/web",
        "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {'80': {mode: DISABLE}}}",
    )

    (found,) = set_says(text, SERVICE)
    assert "spec.portLevelMtls.80" in found or "spec.portLevelMtls['80']" in found
    assert found.endswith("no Service leads to port 80 of the pods: the key is their port, not the Service's")
    assert set_says(text) == []


def test_a_selector_that_selects_nothing_known_is_a_warning() -> None:
    (found,) = set_says(strict(), DEPLOYMENT, allow("shop/web", "[{}]", "{app: wbe}"))

    assert found.endswith("spec.selector: selects none of the 1 workloads that are known here")
    assert set_says(strict(), DEPLOYMENT, allow("shop/web", "[{}]", "{app: web}")) == []
    assert set_says(strict(), allow("shop/web", "[{}]", "{app: wbe}")) == []


def test_a_rule_for_identities_where_nobody_has_one_is_a_warning() -> None:
    texts = (mode("shop/default", "DISABLE"), allow("shop/web", f"[{{{from_account('shop/front')}}}, {{}}]"))

    (found,) = set_says(*texts)
    assert found.endswith(
        "spec.rules[0]: never matches: with PeerAuthentication shop/default (DISABLE) nobody shows who they are"
    )


def test_a_service_that_cannot_be_read_is_told() -> None:
    assert "is not read: spec is no map" in set_says(strict(), resource("Service", "shop/web", "[]"))[0]


def test_two_rules_for_one_host_are_told_and_the_older_counts() -> None:
    older = rule("shop/b", "web", "{tls: {mode: ISTIO_MUTUAL}}", created="2026-01-01T00:00:00Z")
    younger = rule("shop/a", "WEB.shop.svc.cluster.local", "{tls: {mode: DISABLE}}", created="2026-01-02T00:00:00Z")

    (found,) = set_says(younger, older)

    assert found == (
        "warning: policy.yaml:4: DestinationRule shop/a: spec.host: DestinationRule shop/b is about the same host and "
        "counts; this one only adds what that leaves out"
    )
    assert set_says(older, rule("other/a", "web", "{tls: {mode: ISTIO_MUTUAL}}")) == []


def routed(name: str, hosts: str, more: str = "") -> str:
    return resource(
        "VirtualService", name, f"{{hosts: {hosts}, tcp: [{{route: [{{destination: {{host: x}}}}]}}]{more}}}"
    )


def test_two_services_that_route_one_host_are_told() -> None:
    one, other = routed("shop/a", "[web]"), routed("shop/b", "[db, web.shop.svc.cluster.local]")

    (found,) = set_says(one, other)

    assert found.startswith("warning: policy.yaml:9: VirtualService shop/b: spec.hosts[1]: ")
    assert "is a host of VirtualService shop/a too (IST0109)" in found


@pytest.mark.parametrize(
    "other",
    [
        routed("other/b", "[web]"),
        routed("shop/b", "[web]", ", gateways: [in]"),
        routed("other/b", "[web.shop.svc.cluster.local]", ", exportTo: [.]"),
    ],
)
def test_services_that_no_caller_sees_together_are_no_rivals(other: str) -> None:
    assert set_says(routed("shop/a", "[web]", ", exportTo: [.]"), other) == []


def test_a_subset_by_which_nobody_comes_through_is_an_error() -> None:
    deployment = resource("Deployment", "shop/web", "{template: {metadata: {labels: {app: web, version: v1}}}}")
    service = resource("Service", "shop/web", "{selector: {app: web}, ports: [{port: 80}]}")

    def subset(version: str) -> str:
        policy = "trafficPolicy: {tls: {mode: DISABLE}}"
        return resource(
            "DestinationRule",
            "shop/web",
            f"{{host: web, subsets: [{{name: s, labels: {{version: {version}}}, {policy}}}]}}",
        )

    (found,) = errors(set_says(strict(), deployment, service, subset("v1")))
    assert "spec.subsets[0]: callers dial DISABLE in subset s, and shop/web is STRICT" in found
    assert errors(set_says(strict(), deployment, service, subset("v2"))) == []


def test_what_no_sidecar_follows_is_told_of_a_set_and_of_a_pair() -> None:
    text = rule("shop/web", "web", "{connectionPool: {http: {maxRetries: 3}}}")
    note = (
        "note: policy.yaml:9: DestinationRule shop/web: spec: no sidecar of ours follows connectionPool.http.maxRetries"
    )

    assert note in set_says(strict(), text)
    assert note in pair_says(strict(), text)
