"""`qbitel policy explain`: allowed or not, why, and by which line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT

from tests.cli.policy.conftest import Folder, Policy
from tests.mesh.written import allow, deny, from_account, mode, resource, rule, strict

FRONT = allow("shop/web", f"[{{{from_account('shop/front')}}}]", "{app: web}")
TO_WEB = ("--to", "shop/web:80")


def test_who_is_allowed_is_told_with_the_line_that_allows(policy: Policy, folder: Folder) -> None:
    folder.write("mtls.yaml", strict())
    file = folder.write("web.yaml", "# web\n", FRONT)

    output = policy.says(0, "explain", folder.path, "--from", "shop/front", *TO_WEB)
    assert output == (
        "cluster.local/ns/shop/sa/front → shop/web port 80: allowed\n"
        f"  why        allowed by rules[0] of the ALLOW policy shop/web ({file}:6)\n"
        f"  mode       STRICT, by PeerAuthentication shop/default ({folder.path}/mtls.yaml:1)\n"
        "  transport  mutual TLS, profile qbitel: no DestinationRule\n"
        f"  policies   ALLOW  shop/web: rules[0] matches, which decides ({file}:6)\n"
        "\n"
        "assumed: the pods of shop/web have the label app=web and the service account web\n"
    )


def test_who_is_denied_is_told_what_each_policy_said(policy: Policy, folder: Folder) -> None:
    folder.write("web.yaml", strict(), FRONT, deny("shop/closed", "[{to: [{operation: {ports: ['80']}}]}]"))

    told = policy.data(1, "explain", folder.path, "--from", "shop/front", *TO_WEB)["workloads"][0]
    assert (told["allowed"], told["policy"], told["rule"]) == (False, "shop/closed", 0)
    assert [(one["policy"], one["rule"], one["decides"]) for one in told["policies"]] == [
        ("shop/closed", 0, True),
        ("shop/web", 0, False),
    ]
    other = policy.says(1, "explain", folder.path, "--from", "shop/back", "--to", "shop/web:81")
    assert "  why        denied: no ALLOW policy matches (shop/web)\n" in other
    assert "ALLOW  shop/web: no rule matches" in other


def test_plaintext_is_refused_by_a_strict_workload_and_let_in_by_a_permissive_one(
    policy: Policy, folder: Folder
) -> None:
    folder.write("a.yaml", strict())
    question = ("explain", folder.path, "--from", "shop/front", *TO_WEB, "--plaintext")

    assert "refused: it comes in plaintext, and PeerAuthentication shop/default is STRICT" in policy.says(1, *question)
    folder.write("a.yaml", mode("shop/default", "PERMISSIVE"))
    assert "plaintext: the caller shows no identity" in policy.says(0, *question)
    folder.write("b.yaml", FRONT)
    assert "the peer has shown no identity" in policy.says(1, *question)
    assert "nobody who is known → shop/web port 80: denied" in policy.says(1, "explain", folder.path, *TO_WEB)


def test_a_caller_that_cannot_reach_it_is_told_of_the_conflict(policy: Policy, folder: Folder) -> None:
    folder.write("a.yaml", strict(), rule("shop/web", "web", "{tls: {mode: DISABLE}}"))

    output = policy.says(1, "explain", folder.path, "--from", "shop/front", *TO_WEB)
    assert "refused: the caller dials plaintext, and the workload accepts mutual TLS of the mesh alone" in output
    assert "  conflict   DestinationRule shop/web: refused" in output
    folder.write("a.yaml", mode("shop/default", "PERMISSIVE"), rule("shop/web", "web", "{tls: {mode: DISABLE}}"))
    assert policy.data(0, "explain", folder.path, "--from", "shop/front", *TO_WEB)["workloads"][0]["principal"] is None


def test_what_the_caller_s_sidecar_holds_itself_to_is_told_and_what_it_does_not_follow(
    policy: Policy, folder: Folder
) -> None:
    pool = "{tcp: {maxConnections: 9, connectTimeout: 250ms}, http: {http1MaxPendingRequests: 2, maxRetries: 1}}"
    folder.write("a.yaml", strict(), FRONT, rule("shop/web", "web", f"{{connectionPool: {pool}}}"))
    question = ("explain", folder.path, "--from", "shop/front", *TO_WEB)

    limits = "at most 9 connections, at most 2 being made, made within 0.25 s, by DestinationRule shop/web"
    unfollowed = "no sidecar of ours follows connectionPool.http.maxRetries"
    output = policy.says(0, *question)
    assert f"  limits     {limits}\n" in output
    assert f"  but        DestinationRule shop/web: {unfollowed}\n" in output
    told = policy.data(0, *question)["workloads"][0]
    assert told["limits"] == limits
    assert [one["message"] for one in told["unfollowed"]] == [unfollowed]


def test_a_request_is_judged_by_its_parts(policy: Policy, folder: Folder) -> None:
    operation = "{methods: [GET], paths: [/orders*], hosts: [web.example]}"
    when = "[{key: 'request.headers[x-team]', values: [blue]}]"
    folder.write("a.yaml", strict(), allow("shop/web", f"[{{to: [{{operation: {operation}}}], when: {when}}}]"))
    asked = (
        "explain",
        folder.path,
        "--from",
        "shop/front",
        *TO_WEB,
        "--host",
        "web.example",
        "--header",
        "X-Team: blue",
    )

    output = policy.says(0, *asked, "--path", "/orders?page=2")
    assert "port 80, GET /orders: allowed" in output
    assert "  but        a sidecar that reads no requests says: denied: no ALLOW policy matches" in output
    policy.says(1, *asked, "--path", "/orders", "--method", "PUT")
    policy.says(1, *asked, "--path", "/admin")
    policy.says(1, *asked[:-1], "X-Team=red", "--path", "/orders")


def test_a_connection_that_hangs_on_requests_is_told_so(policy: Policy, folder: Folder) -> None:
    folder.write("a.yaml", strict(), allow("shop/web", "[{to: [{operation: {methods: [GET]}}]}]"))

    output = policy.says(1, "explain", folder.path, "--from", "shop/front", *TO_WEB)
    assert "  requests   allowed for method GET (rules[0] of shop/web); otherwise denied" in output
    assert "ask about a request by --method and --path" in output


def test_services_and_workloads_in_the_set_say_who_is_meant(policy: Policy, folder: Folder) -> None:
    folder.write(
        "a.yaml",
        strict(),
        resource("Service", "shop/web", "{selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}"),
        resource("Deployment", "shop/web-v1", "{template: {metadata: {labels: {app: web, version: v1}}}}"),
        resource("Deployment", "shop/web-v2", "{template: {metadata: {labels: {app: web, version: v2}}}}"),
        deny("shop/closed", "[{to: [{operation: {ports: ['8080']}}]}]", "{version: v2}"),
    )

    output = policy.says(1, "explain", folder.path, "--from", "shop/front", *TO_WEB)
    assert "→ shop/web-v1 port 80 (8080 of the pods): allowed" in output
    assert "→ shop/web-v2 port 80 (8080 of the pods): denied" in output
    assert "assumed" not in output


def test_labels_can_be_given_where_no_document_has_them(policy: Policy, folder: Folder) -> None:
    folder.write("a.yaml", strict(), deny("shop/closed", "[{}]", "{tier: db}"))
    question = ("explain", folder.path, "--from", "front", "-n", "shop", "--to", "web:80")

    policy.says(0, *question)
    policy.says(1, *question, "--label", "tier=db", "--label", "app=web")


def test_addresses_and_names_of_servers_can_be_given(policy: Policy, folder: Folder) -> None:
    blocks = "{from: [{source: {ipBlocks: [10.0.0.0/8]}}], when: [{key: connection.sni, values: [web]}]}"
    folder.write("a.yaml", strict(), allow("shop/web", f"[{blocks}]"))
    question = ("explain", folder.path, "--from", "shop/front", *TO_WEB, "--sni", "web")

    policy.says(0, *question, "--source-ip", "10.1.2.3")
    policy.says(1, *question, "--source-ip", "11.1.2.3")
    policy.says(1, *question)


def test_a_whole_identity_may_call(policy: Policy, folder: Folder) -> None:
    folder.write("a.yaml", strict(), allow("shop/web", "[{from: [{source: {principals: [a.org/vm]}}]}]"))
    question = ("explain", folder.path, *TO_WEB, "--from")

    assert policy.data(0, *question, "spiffe://a.org/vm")["workloads"][0]["principal"] == "a.org/vm"
    policy.says(1, *question, "spiffe://b.org/vm")
    policy.says(1, *question, "spiffe://a.org/vm", "--plaintext")
    assert policy.data(1, *question, "a.org/ns/x/sa/vm")["workloads"][0]["principal"] == "a.org/ns/x/sa/vm"


def test_without_an_identity_the_outlook_is_that_of_nobody(policy: Policy, folder: Folder) -> None:
    reads = FRONT.replace("}]}]", "}], to: [{operation: {methods: [GET]}}]}]")
    folder.write("a.yaml", mode("shop/default", "PERMISSIVE"), reads)
    question = ("explain", folder.path, "--from", "shop/front", *TO_WEB)

    assert "  requests   allowed for method GET" in policy.says(1, *question)
    assert "  requests" not in policy.says(1, *question, "--plaintext")


def test_audits_and_dry_runs_are_told(policy: Policy, folder: Folder) -> None:
    folder.write(
        "a.yaml",
        strict(),
        resource("AuthorizationPolicy", "shop/audit", "{action: AUDIT, rules: [{}]}"),
        deny("shop/trial", "[{}]").replace("annotations: {}", "annotations: {istio.io/dry-run: 'true'}"),
    )

    output = policy.says(0, "explain", folder.path, "--from", "shop/front", *TO_WEB)
    assert "  dry run    denied by rules[0] of the DENY policy shop/trial" in output
    assert "  audited    by shop/audit" in output
    assert "DENY   shop/trial: rules[0] matches, in dry run: nothing follows" in output


# Tokens

ISSUER = "https://issuer.example"
NEEDS_TOKEN = allow("shop/web", f"[{{from: [{{source: {{requestPrincipals: ['{ISSUER}/*']}}}}]}}]")


def believes(**more: str) -> str:
    extra = "".join(f", {name}: {value}" for name, value in more.items())
    return resource("RequestAuthentication", "shop/jwt", f"{{jwtRules: [{{issuer: '{ISSUER}'{extra}}}]}}")


def test_claims_are_taken_as_verified_where_their_issuer_is_believed(policy: Policy, folder: Folder) -> None:
    folder.write("a.yaml", strict(), NEEDS_TOKEN, believes(audiences="[api]"))
    question = ("explain", folder.path, "--from", "shop/front", *TO_WEB, "--method", "GET")

    assert "  token      no token\n" in policy.says(1, *question)
    claims = {"iss": ISSUER, "sub": "ann", "aud": "api"}
    assert f"claims of {ISSUER}, taken as verified" in policy.says(0, *question, "--jwt", json.dumps(claims))
    elsewhere = json.dumps({**claims, "aud": "x"})
    assert "for none of the audiences api: 401" in policy.says(1, *question, "--jwt", elsewhere)
    stranger = policy.says(1, *question, "--jwt", '{"iss": "https://other.example", "sub": "ann"}')
    assert "which no RequestAuthentication of the workload names: 401" in stranger


@pytest.fixture
def key() -> JWK:
    return JWK.generate(kty="EC", crv="P-256", kid="one", alg="ES256")


def signed(key: JWK, claims: dict[str, object]) -> str:
    token = JWT(header={"alg": "ES256", "kid": "one"}, claims=claims)
    token.make_signed_token(key)
    return str(token.serialize())


def test_a_token_in_a_file_is_verified_with_keys_in_a_file(
    policy: Policy, folder: Folder, tmp_path: Path, key: JWK
) -> None:
    folder.write("a.yaml", strict(), NEEDS_TOKEN, believes())
    (tmp_path / "keys").write_text(f'{{"keys": [{key.export_public()}]}}')
    (tmp_path / "token").write_text(signed(key, {"iss": ISSUER, "sub": "ann", "exp": int(time.time()) + 600}) + "\n")
    (tmp_path / "old").write_text(signed(key, {"iss": ISSUER, "sub": "ann", "exp": 1}))
    asked = ("explain", folder.path, "--from", "shop/front", *TO_WEB, "--jwt")

    assert f"of {ISSUER}/ann, verified" in policy.says(0, *asked, tmp_path / "token", "--jwks", tmp_path / "keys")
    old = policy.says(1, *asked, tmp_path / "old", "--jwks", tmp_path / "keys")
    assert "  why        denied: its token is refused\n" in old
    assert "refused (the token has expired): 401" in old
    assert "which is not asked here; give them by --jwks FILE" in policy(*asked, tmp_path / "token").refusal


def test_keys_that_the_policy_holds_are_used(policy: Policy, folder: Folder, tmp_path: Path, key: JWK) -> None:
    keys = json.dumps(json.dumps({"keys": [json.loads(key.export_public())]}))
    folder.write("a.yaml", strict(), NEEDS_TOKEN, believes(jwks=keys))
    (tmp_path / "token").write_text(signed(key, {"iss": ISSUER, "sub": "ann"}))

    policy.says(0, "explain", folder.path, "--from", "shop/front", *TO_WEB, "--jwt", tmp_path / "token")


def test_a_token_in_place_of_its_file_is_not_repeated(policy: Policy, folder: Folder, key: JWK) -> None:
    folder.write("a.yaml", strict())
    token = signed(key, {"iss": ISSUER})

    refusal = policy("explain", folder.path, *TO_WEB, "--jwt", token).refusal
    assert "a token, or its claims as JSON is wanted in a file" in refusal
    assert token[:20] not in refusal


def test_keys_without_a_token_are_a_mistake(policy: Policy, folder: Folder) -> None:
    folder.write("a.yaml", strict())

    assert "--jwks has keys for a token" in policy("explain", folder.path, *TO_WEB, "--jwks", "x").refusal


def test_a_request_is_read_as_a_server_would_read_it(policy: Policy, folder: Folder) -> None:
    admin = deny("shop/admin", "[{to: [{operation: {hosts: [web.shop], paths: ['/admin*']}}]}]")
    twice = deny("shop/twice", "[{when: [{key: 'request.headers[x-a]', values: ['1,2']}]}]")
    folder.write("web.yaml", strict(), admin, twice)
    question = ("explain", folder.path, "--from", "shop/front", *TO_WEB)

    assert "denied by rules[0] of the DENY policy shop/admin" in policy.says(
        1, *question, "--path", "http://web.shop/a/../%61dmin", "--host", "other"
    )
    policy.says(1, *question, "--path", "/admin", "--header", "Host: WEB.shop")
    policy.says(0, *question, "--path", "/admin", "--host", "other", "--header", "Host: web.shop")
    policy.says(1, *question, "--path", "/", "--header", "X-A: 1", "--header", "x-a: 2")
