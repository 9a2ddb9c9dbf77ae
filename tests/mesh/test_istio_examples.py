"""The examples of Istio's documentation as tables: for each policy who is allowed what, and who is not."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.decision import Decision, Facts, compile_policies, decide
from tests.support.policies import CURL, HTTPBIN, OTHER, policy, request, tcp


def allowed(spec: Any, facts: Facts) -> bool:
    return decide([policy(spec)], facts).allowed


# Istio's documentation: Security, Implicit enablement; the policies that allow and deny everything


def test_without_a_policy_everything_is_allowed() -> None:
    decision = decide([], tcp(principal=None))

    assert decision == Decision(True, None, None, None, "allowed: no policy applies")


@pytest.mark.parametrize("facts", [tcp(), tcp(principal=None), request(), request("POST", "/x", None)])
@pytest.mark.parametrize(
    ("spec", "is_allowed"),
    [
        ({}, False),  # allow nothing
        ({"action": "ALLOW"}, False),
        ({"rules": []}, False),
        ({"rules": [{}]}, True),  # allow all
        ({"action": "DENY", "rules": [{}]}, False),  # deny all
        ({"action": "AUDIT", "rules": [{}]}, True),
        ({"action": "AUDIT"}, True),
        ({"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{}]}, False),
    ],
)
def test_policies_about_everything(spec: Any, is_allowed: bool, facts: Facts) -> None:
    assert allowed(spec, facts) is is_allowed


def test_one_allow_policy_is_enough_for_everything_else_to_be_denied() -> None:
    curl = policy({"rules": [{"from": [{"source": {"principals": [CURL]}}]}]})

    assert decide([curl], tcp()).allowed
    assert not decide([curl], tcp(principal=OTHER)).allowed
    assert not decide([curl], tcp(principal=None)).allowed


# Tasks: HTTP traffic (Bookinfo's productpage, details, reviews, ratings)

VIEWER = {"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}
DETAILS = {
    "rules": [
        {
            "from": [{"source": {"principals": ["cluster.local/ns/default/sa/bookinfo-productpage"]}}],
            "to": [{"operation": {"methods": ["GET"]}}],
        }
    ]
}
PRODUCTPAGE = "cluster.local/ns/default/sa/bookinfo-productpage"
REVIEWS = "cluster.local/ns/default/sa/bookinfo-reviews"


@pytest.mark.parametrize(
    ("spec", "facts", "is_allowed"),
    [
        (VIEWER, request("GET", principal=None), True),
        (VIEWER, request("POST", principal=None), False),
        (VIEWER, tcp(), False),  # who reads no requests cannot see that it is a GET
        (DETAILS, request("GET", principal=PRODUCTPAGE), True),
        (DETAILS, request("POST", principal=PRODUCTPAGE), False),
        (DETAILS, request("GET", principal=REVIEWS), False),
        (DETAILS, request("GET", principal=None), False),
    ],
)
def test_http_traffic_of_bookinfo(spec: Any, facts: Facts, is_allowed: bool) -> None:
    assert allowed(spec, facts) is is_allowed


# The reference's first example: several sources, operations and a condition

REFERENCE = {
    "action": "ALLOW",
    "rules": [
        {
            "from": [
                {"source": {"principals": ["cluster.local/ns/default/sa/curl"]}},
                {"source": {"namespaces": ["dev"]}},
            ],
            "to": [
                {"operation": {"methods": ["GET"], "paths": ["/info*"]}},
                {"operation": {"methods": ["POST"], "paths": ["/data"]}},
            ],
            "when": [{"key": "request.auth.claims[iss]", "values": ["https://accounts.google.com"]}],
        }
    ],
}
GOOGLE = {"iss": "https://accounts.google.com", "sub": "somebody"}
DEFAULT_CURL = "cluster.local/ns/default/sa/curl"
DEV = "cluster.local/ns/dev/sa/anything"


@pytest.mark.parametrize(
    ("facts", "is_allowed"),
    [
        (request("GET", "/info", DEFAULT_CURL, claims=GOOGLE), True),
        (request("GET", "/information/x", DEV, claims=GOOGLE), True),
        (request("POST", "/data", DEV, claims=GOOGLE), True),
        (request("POST", "/data/more", DEV, claims=GOOGLE), False),
        (request("POST", "/info", DEFAULT_CURL, claims=GOOGLE), False),
        (request("GET", "/data", DEFAULT_CURL, claims=GOOGLE), False),
        (request("GET", "/info", DEFAULT_CURL, claims={"iss": "https://example.org", "sub": "x"}), False),
        (request("GET", "/info", DEFAULT_CURL), False),
        (request("GET", "/info", CURL, claims=GOOGLE), False),
        (request("GET", "/info", None, claims=GOOGLE), False),
    ],
)
def test_all_parts_of_a_rule_must_hold_and_one_alternative_of_each(facts: Facts, is_allowed: bool) -> None:
    assert allowed(REFERENCE, facts) is is_allowed


# Tasks: TCP traffic

PORTS = {"action": "ALLOW", "rules": [{"to": [{"operation": {"ports": ["9000", "9001"]}}]}]}
PORT_AND_METHOD = {"action": "ALLOW", "rules": [{"to": [{"operation": {"methods": ["GET"], "ports": ["9000"]}}]}]}
DENY_GET = {"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}
DENY_GET_9000 = {"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["GET"], "ports": ["9000"]}}]}]}


@pytest.mark.parametrize(
    ("spec", "port", "is_allowed"),
    [
        (PORTS, 9000, True),
        (PORTS, 9001, True),
        (PORTS, 9002, False),
        # An ALLOW rule with a condition on HTTP is none for a connection: nothing is allowed.
        (PORT_AND_METHOD, 9000, False),
        (PORT_AND_METHOD, 9001, False),
        # Of a DENY rule what concerns HTTP is left out: all of the port, and without a port everything.
        (DENY_GET, 9000, False),
        (DENY_GET, 9001, False),
        (DENY_GET_9000, 9000, False),
        (DENY_GET_9000, 9001, True),
    ],
)
def test_tcp_traffic_of_the_echo_service(spec: Any, port: int, is_allowed: bool) -> None:
    assert allowed(spec, tcp(port)) is is_allowed


def test_one_http_condition_makes_all_alternatives_of_an_allow_rule_useless_for_tcp() -> None:
    """Istio leaves the whole rule out and not only the alternative, as its generated configuration shows."""
    both = {"rules": [{"to": [{"operation": {"paths": ["/x"]}}, {"operation": {"ports": ["9000"]}}]}]}
    apart = {"rules": [{"to": [{"operation": {"paths": ["/x"]}}]}, {"to": [{"operation": {"ports": ["9000"]}}]}]}

    assert not allowed(both, tcp(9000))
    assert allowed(apart, tcp(9000))


# Tasks: explicit deny

DENY_GET_BY_ADMIN = {
    "action": "DENY",
    "rules": [
        {
            "to": [{"operation": {"methods": ["GET"]}}],
            "when": [{"key": "request.headers[x-token]", "notValues": ["admin"]}],
        }
    ],
}
ALLOW_IP_FOR_GUEST = {
    "action": "ALLOW",
    "rules": [
        {
            "to": [{"operation": {"methods": ["GET"], "paths": ["/ip"]}}],
            "when": [{"key": "request.headers[x-token]", "values": ["guest"]}],
        }
    ],
}


@pytest.mark.parametrize(
    ("path", "token", "denied_alone", "with_allow"),
    [
        ("/get", "admin", False, False),
        ("/get", "guest", True, False),
        ("/ip", "guest", True, False),
        ("/ip", "", True, False),
    ],
)
def test_explicit_deny_by_a_header(path: str, token: str, denied_alone: bool, with_allow: bool) -> None:
    deny, allow = policy(DENY_GET_BY_ADMIN, name="deny"), policy(ALLOW_IP_FOR_GUEST, name="allow")
    facts = request("GET", path, headers={"X-Token": token} if token else {})

    assert decide([deny], facts).allowed is not denied_alone
    assert decide([deny, allow], facts).allowed is with_allow


@pytest.mark.parametrize(
    ("path", "token", "is_allowed"), [("/ip", "guest", True), ("/get", "guest", False), ("/ip", "x", False)]
)
def test_deny_narrowed_to_other_tokens_lets_the_allow_policy_decide(path: str, token: str, is_allowed: bool) -> None:
    narrowed = {
        "action": "DENY",
        "rules": [{"when": [{"key": "request.headers[x-token]", "notValues": ["admin", "guest"]}]}],
    }
    both = [policy(narrowed, name="deny"), policy(ALLOW_IP_FOR_GUEST, name="allow")]

    assert decide(both, request("GET", path, headers={"x-token": token})).allowed is is_allowed


# Tasks: ingress access control


@pytest.mark.parametrize(
    ("field", "source", "remote", "is_allowed"),
    [
        ("ipBlocks", "1.2.3.4", None, True),
        ("ipBlocks", "5.6.7.255", None, True),
        ("ipBlocks", "5.6.8.0", None, False),
        ("ipBlocks", "10.0.0.1", "1.2.3.4", False),  # the proxy in front is the source
        ("remoteIpBlocks", "10.0.0.1", "1.2.3.4", True),
        ("remoteIpBlocks", "10.0.0.1", "9.9.9.9", False),
        ("remoteIpBlocks", "1.2.3.4", None, True),  # nobody in front: the same
        ("ipBlocks", "::ffff:1.2.3.4", None, True),  # as a socket for both versions shows it
        ("ipBlocks", "2001:db8::1", None, True),
        ("ipBlocks", "2001:db9::1", None, False),
        ("ipBlocks", None, None, False),  # not known
    ],
)
def test_ingress_by_addresses(field: str, source: str | None, remote: str | None, is_allowed: bool) -> None:
    blocks = ["1.2.3.4", "5.6.7.0/24", "2001:db8::/32"]
    facts = tcp(source_ip=source, remote_ip=remote)

    assert allowed({"rules": [{"from": [{"source": {field: blocks}}]}]}, facts) is is_allowed
    denying = {"action": "DENY", "rules": [{"from": [{"source": {field: blocks}}]}]}
    # Where the address is not known, a DENY rule holds: both fail closed.
    assert allowed(denying, facts) is (not is_allowed and source is not None)


def test_ingress_but_for_a_block_of_addresses() -> None:
    spec = {"rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.0/8"], "notIpBlocks": ["10.9.0.0/16"]}}]}]}

    assert allowed(spec, tcp(source_ip="10.1.2.3"))
    assert not allowed(spec, tcp(source_ip="10.9.2.3"))
    assert not allowed(spec, tcp(source_ip="11.1.2.3"))
    assert not allowed(spec, tcp())


# Tasks: JWT

REQUIRE_JWT = {
    "rules": [{"from": [{"source": {"requestPrincipals": ["testing@secure.istio.io/testing@secure.istio.io"]}}]}]
}
REQUIRE_GROUP = {
    "rules": [
        {
            "from": [{"source": {"requestPrincipals": ["testing@secure.istio.io/testing@secure.istio.io"]}}],
            "when": [{"key": "request.auth.claims[groups]", "values": ["group1"]}],
        }
    ]
}
ANY_TOKEN = {"rules": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}]}
NO_TOKEN_NO_ENTRY = {"action": "DENY", "rules": [{"from": [{"source": {"notRequestPrincipals": ["*"]}}]}]}
TESTING = {"iss": "testing@secure.istio.io", "sub": "testing@secure.istio.io"}


@pytest.mark.parametrize(
    ("spec", "claims", "is_allowed"),
    [
        (REQUIRE_JWT, TESTING, True),
        (REQUIRE_JWT, {**TESTING, "sub": "other"}, False),
        (REQUIRE_JWT, None, False),
        (REQUIRE_GROUP, {**TESTING, "groups": ["group1", "group2"]}, True),
        (REQUIRE_GROUP, {**TESTING, "groups": ["group2"]}, False),
        (REQUIRE_GROUP, {**TESTING, "groups": "group1"}, True),
        (REQUIRE_GROUP, TESTING, False),
        (REQUIRE_GROUP, None, False),
        (ANY_TOKEN, TESTING, True),
        (ANY_TOKEN, None, False),
        (ANY_TOKEN, {"iss": "x"}, False),
        (NO_TOKEN_NO_ENTRY, TESTING, True),
        (NO_TOKEN_NO_ENTRY, None, False),
    ],
)
def test_tokens(spec: Any, claims: dict[str, Any] | None, is_allowed: bool) -> None:
    assert allowed(spec, request(claims=claims)) is is_allowed


# The reference of conditions, and the concepts' page: exclusions, namespaces, mutual TLS required


@pytest.mark.parametrize(
    ("key", "value", "facts"),
    [
        ("request.headers[User-Agent]", "Mozilla/*", {"headers": {"user-agent": "Mozilla/5.0"}}),
        ("request.headers[:method]", "GET", {}),
        ("request.headers[Host]", "httpbin.foo:8000", {}),
        ("source.ip", "10.1.0.0/16", {"source_ip": "10.1.2.3"}),
        ("remote.ip", "10.1.2.3", {"source_ip": "192.0.2.1", "remote_ip": "10.1.2.3"}),
        ("source.namespace", "foo", {}),
        ("source.principal", "cluster.local/ns/foo/sa/curl", {}),
        ("source.serviceAccount", "foo/curl", {}),
        ("source.serviceAccount", "curl", {}),  # of the policy's own namespace
        ("source.trustDomain", "cluster.local", {}),
        (
            "request.auth.principal",
            "issuer.example.com/subject",
            {"claims": {"iss": "issuer.example.com", "sub": "subject"}},
        ),
        ("request.auth.audiences", "example.com/app", {"claims": {"aud": ["other", "example.com/app"]}}),
        ("request.auth.presenter", "client-1", {"claims": {"azp": "client-1"}}),
        ("request.auth.claims[iss]", "*@foo.com", {"claims": {"iss": "a@foo.com"}}),
        ("request.auth.claims[realm][roles]", "ad*", {"claims": {"realm": {"roles": ["user", "admin"]}}}),
        ("request.auth.claims[scope]", "write", {"claims": {"scope": "read write"}}),
        ("destination.ip", "10.1.2.0/24", {"destination_ip": "10.1.2.3"}),
        ("destination.port", "8000", {}),
        ("connection.sni", "www.example.com", {"sni": "www.example.com"}),
        ("connection.sni", "*.example.com", {"sni": "WWW.Example.com"}),
    ],
)
def test_each_attribute_is_understood_with_values_and_with_not_values(
    key: str, value: str, facts: dict[str, Any]
) -> None:
    matching = request(**facts)
    without = request(principal=None, port=1, host="x", method="PUT", source_ip="192.0.2.9", destination_ip="192.0.2.9")
    positive = {"rules": [{"when": [{"key": key, "values": [value]}]}]}
    negative = {"rules": [{"when": [{"key": key, "notValues": [value]}]}]}

    assert allowed(positive, matching)
    assert not allowed(positive, without)
    assert not allowed(negative, matching)
    assert allowed(negative, without)


def test_the_namespace_prod_but_not_from_others() -> None:
    spec = {"action": "DENY", "rules": [{"from": [{"source": {"notNamespaces": ["foo"]}}]}]}

    assert allowed(spec, tcp())
    assert not allowed(spec, tcp(principal=OTHER))
    assert not allowed(spec, tcp(principal=None))


def test_who_has_proved_no_identity_is_nobody_for_every_form() -> None:
    """`notPrincipals: ["*"]` in DENY is how Istio's documentation requires mutual TLS."""
    required = {"action": "DENY", "rules": [{"from": [{"source": {"notPrincipals": ["*"]}}]}]}
    somebody_else = {"rules": [{"from": [{"source": {"notPrincipals": [OTHER]}}]}]}

    assert allowed(required, tcp())
    assert not allowed(required, tcp(principal=None))
    assert allowed(somebody_else, tcp(principal=None))
    assert not allowed({"rules": [{"from": [{"source": {"principals": ["*"]}}]}]}, tcp(principal=None))
    assert not allowed({"rules": [{"from": [{"source": {"namespaces": ["*"]}}]}]}, tcp(principal=None))
    assert not allowed({"rules": [{"from": [{"source": {"trustDomains": ["*"]}}]}]}, tcp(principal=None))


@pytest.mark.parametrize(
    ("paths", "path", "matches"),
    [
        (["/admin"], "/admin", True),
        (["/admin"], "/admin?x=/public", True),
        (["/admin"], "/ADMIN", False),
        (["/admin"], "/public/../admin", True),
        (["/admin"], "/%61dmin", True),
        (["/admin"], "/public/%2e%2e/admin", True),
        (["/admin"], "\\admin", True),
        (["/admin"], "/admin/", False),
        (["/admin*"], "/admin/", True),
        (["*/admin"], "/x/admin", True),
        (["*"], "/", True),
        (["/foo/{*}"], "/foo/bar", True),
        (["/foo/{*}"], "/foo/bar/baz", False),
        (["/foo/{*}"], "/foo/", False),
        (["/foo/{**}/"], "/foo/bar/", True),
        (["/foo/{**}/"], "/foo//", True),
        (["/foo/{**}/"], "/foo/bar", False),
        (["/foo/{*}/bar/{**}"], "/foo/buzz/bar/", True),
        (["/foo/{*}/bar/{**}"], "/foo/buzz/bar/baz/x", True),
        (["/foo/{*}/bar/{**}"], "/foo/buzz/baz", False),
    ],
)
def test_paths_with_wildcards_and_templates(paths: list[str], path: str, matches: bool) -> None:
    assert allowed({"rules": [{"to": [{"operation": {"paths": paths}}]}]}, request(path=path)) is matches
    assert allowed({"rules": [{"to": [{"operation": {"notPaths": paths}}]}]}, request(path=path)) is not matches


@pytest.mark.parametrize(
    ("hosts", "host", "matches"),
    [
        (["example.com"], "example.com", True),
        (["example.com"], "EXAMPLE.com", True),
        (["Example.COM"], "example.com", True),
        (["example.com"], "example.com:8080", False),
        (["example.com:*"], "Example.com:8080", True),
        (["*.example.com"], "www.Example.com", True),
        (["*.example.com"], "example.com", False),
        (["*"], "a", True),
        (["*"], "", False),
    ],
)
def test_hosts_are_matched_without_regard_to_case(hosts: list[str], host: str, matches: bool) -> None:
    assert allowed({"rules": [{"to": [{"operation": {"hosts": hosts}}]}]}, request(host=host)) is matches


# Tasks: trust domain migration


@pytest.mark.parametrize(
    ("written", "principal", "matches"),
    [
        ("old-td/ns/curl-allow/sa/curl", "new-td/ns/curl-allow/sa/curl", True),
        ("old-td/ns/curl-allow/sa/curl", "old-td/ns/curl-allow/sa/curl", True),
        ("new-td/ns/curl-allow/sa/curl", "old-td/ns/curl-allow/sa/curl", True),
        ("cluster.local/ns/curl-allow/sa/curl", "new-td/ns/curl-allow/sa/curl", True),
        ("cluster.local/ns/curl-allow/sa/curl", "cluster.local/ns/curl-allow/sa/curl", False),
        ("*-td/ns/curl-allow/sa/curl", "any-td/ns/curl-allow/sa/curl", True),
        ("*/ns/curl-allow/sa/curl", "foreign/ns/curl-allow/sa/curl", True),
        ("foreign/ns/curl-allow/sa/curl", "foreign/ns/curl-allow/sa/curl", True),
        ("foreign/ns/curl-allow/sa/curl", "new-td/ns/curl-allow/sa/curl", False),
        ("old-td/ns/curl-allow/sa/*", "new-td/ns/curl-allow/sa/x", True),
    ],
)
def test_a_principal_is_meant_under_each_name_of_the_trust_domain(written: str, principal: str, matches: bool) -> None:
    one = policy({"rules": [{"from": [{"source": {"principals": [written]}}]}]})
    compiled = compile_policies([one], HTTPBIN, trust_domain="new-td", trust_domain_aliases=["old-td"])

    assert compiled.decide(tcp(principal=principal)).allowed is matches
