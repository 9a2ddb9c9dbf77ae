"""Reading AuthorizationPolicy: every field, and in which words and at which place the rest is refused or warned of."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.authorization import Action, AuthorizationPolicy, Condition, Operation, Rule, Source
from tests.support.policies import document, faults, policies, resource_set, told


def policy(spec: Any, **metadata: Any) -> AuthorizationPolicy:
    (found,) = policies(document("AuthorizationPolicy", spec, **metadata))
    return found


def source_faults(source: Any, severity: Any = "error") -> list[str]:
    place = "spec.rules[0].from[0].source"
    found = faults("AuthorizationPolicy", {"rules": [{"from": [{"source": source}]}]}, severity)
    assert all(fault.startswith(place) for fault in found)
    return [fault.removeprefix(place).removeprefix(".") for fault in found]


def operation_faults(operation: Any) -> list[str]:
    place = "spec.rules[0].to[0].operation"
    found = faults("AuthorizationPolicy", {"rules": [{"to": [{"operation": operation}]}]})
    assert all(fault.startswith(place) for fault in found)
    return [fault.removeprefix(place).removeprefix(".") for fault in found]


def condition_faults(condition: Any) -> list[str]:
    return faults("AuthorizationPolicy", {"rules": [{"when": [condition]}]})


# What is read


def test_every_field_of_a_policy_is_read() -> None:
    found = policy(
        {
            "action": "DENY",
            "selector": {"matchLabels": {"app": "web"}},
            "rules": [
                {
                    "from": [
                        {
                            "source": {
                                "principals": ["p"],
                                "notPrincipals": ["np"],
                                "requestPrincipals": ["r"],
                                "notRequestPrincipals": ["nr"],
                                "namespaces": ["n"],
                                "notNamespaces": ["nn"],
                                "trustDomains": ["t"],
                                "notTrustDomains": ["nt"],
                                "ipBlocks": ["10.0.0.1"],
                                "notIpBlocks": ["10.0.0.2"],
                                "remoteIpBlocks": ["10.0.0.3"],
                                "notRemoteIpBlocks": ["10.0.0.4"],
                            }
                        },
                        {"source": {"serviceAccounts": ["s"], "notServiceAccounts": ["n/s"]}},
                    ],
                    "to": [
                        {
                            "operation": {
                                "hosts": ["h"],
                                "notHosts": ["nh"],
                                "ports": ["1"],
                                "notPorts": ["2"],
                                "methods": ["GET"],
                                "notMethods": ["PUT"],
                                "paths": ["/p"],
                                "notPaths": ["/np"],
                            }
                        }
                    ],
                    "when": [{"key": "source.ip", "values": ["10.0.0.5"], "notValues": ["10.0.0.6"]}],
                },
                {},
            ],
        },
        annotations={"istio.io/dry-run": "true"},
    )

    assert found.action is Action.DENY
    assert found.dry_run
    assert found.selector.match_labels == {"app": "web"}
    first = Source(
        ("p",), ("np",), ("r",), ("nr",), ("n",), ("nn",), (), (), ("t",), ("nt",),
        ("10.0.0.1",), ("10.0.0.2",), ("10.0.0.3",), ("10.0.0.4",),
    )  # fmt: skip
    operation = Operation(("h",), ("nh",), ("1",), ("2",), ("GET",), ("PUT",), ("/p",), ("/np",))
    assert found.rules == (
        Rule(
            (first, Source(service_accounts=("s",), not_service_accounts=("n/s",))),
            (operation,),
            (Condition("source.ip", ("10.0.0.5",), ("10.0.0.6",)),),
        ),
        Rule(),
    )


@pytest.mark.parametrize("version", ["security.istio.io/v1", "security.istio.io/v1beta1"])
def test_both_versions_say_the_same(version: str) -> None:
    (found,) = policies(document("AuthorizationPolicy", {"rules": [{}]}, version=version))

    assert found.rules == (Rule(),)


@pytest.mark.parametrize("spec", ["spec: {}", ""])
def test_without_a_spec_a_policy_allows_nothing(spec: str) -> None:
    found = policies(
        f"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a, namespace: b}}\n{spec}"
    )

    assert [(each.action, each.rules) for each in found] == [(Action.ALLOW, ())]


@pytest.mark.parametrize(
    ("value", "dry"), [("true", True), ("1", True), ("T", True), ("false", False), ("0", False), ("FALSE", False)]
)
def test_dry_run_is_read_as_istio_reads_it(value: str, dry: bool) -> None:
    assert policy({}, annotations={"istio.io/dry-run": value}).dry_run is dry


def test_a_dry_run_that_is_neither_keeps_the_policy_out() -> None:
    found = resource_set(document("AuthorizationPolicy", {}, annotations={"istio.io/dry-run": "yes"}))

    assert told(found.problems) == ["metadata.annotations['istio.io/dry-run']: 'yes' is neither true nor false"]
    assert found.authorization_policies == ()


def test_a_custom_policy_has_a_provider_and_is_warned_of() -> None:
    spec = {"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{"to": [{"operation": {"ports": ["1"]}}]}]}

    assert policy(spec).provider == "opa"
    assert faults("AuthorizationPolicy", spec, "warning") == [
        "spec.action: CUSTOM asks an external authorizer, which a sidecar has none of: it denies"
    ]


# What is refused


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"action": "allow"}, "spec.action: 'allow' is none of ALLOW, DENY, AUDIT, CUSTOM"),
        ({"action": None}, "spec.action: is null; leave it out where nothing is meant"),
        ({"rule": []}, "spec.rule: is no field of this resource; did you mean rules?"),
        ({"rules": None}, "spec.rules: is null; leave it out where nothing is meant"),
        ({"rules": [None]}, "spec.rules[0]: null stands where a map is wanted"),
        ({"rules": {}}, "spec.rules: a map stands where a list is wanted"),
        ({"rules": [{}] * 513}, "spec.rules: 513 items are more than the 512 that are allowed"),
        ({"rules": [{"from": []}]}, "spec.rules[0].from: must not be empty"),
        ({"rules": [{"to": []}]}, "spec.rules[0].to: must not be empty"),
        ({"rules": [{"from": [{}]}]}, "spec.rules[0].from[0].source: is missing"),
        (
            {"rules": [{"to": [{"operations": {}, "operation": {"ports": ["1"]}}]}]},
            "spec.rules[0].to[0].operations: is no field of this resource; did you mean operation?",
        ),
        ({"rules": [{"principals": ["x"]}]}, "spec.rules[0].principals: is no field of this resource"),
        ({"provider": {"name": "opa"}}, "spec.provider: belongs to the action CUSTOM, and this one is ALLOW"),
        (
            {"action": "CUSTOM", "rules": [{}]},
            "spec.provider.name: is missing: CUSTOM names the authorizer to be asked",
        ),
        (
            {"action": "DENY"},
            "spec.rules: are missing: DENY without rules never matches; an empty rule, - {}, matches everything",
        ),
        (
            {"action": "DENY", "rules": []},
            "spec.rules: are missing: DENY without rules never matches; an empty rule, - {}, matches everything",
        ),
        (
            {"action": "CUSTOM", "provider": {"name": "opa"}},
            "spec.rules: are missing: CUSTOM without rules never matches; an empty rule, - {}, matches everything",
        ),
    ],
)
def test_a_policy_that_is_written_wrongly_is_refused(spec: Any, fault: str) -> None:
    found = resource_set(document("AuthorizationPolicy", spec))

    assert told(found.problems) == [fault]
    assert found.authorization_policies == ()


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({}, ": is empty; leave it out where anything is meant"),
        ({"principals": []}, ": is empty; leave it out where anything is meant"),
        ({"principals": [""]}, "principals[0]: must not be empty"),
        ({"principals": "x"}, "principals: 'x' stands where a list is wanted"),
        ({"principals": [7]}, 'principals[0]: 7 stands where text is wanted; write "7"'),
        ({"principal": ["x"]}, "principal: is no field of this resource; did you mean principals?"),
        (
            {"ipBlocks": ["10.0.0.0/33"]},
            "ipBlocks[0]: '10.0.0.0/33' is no address and no block of addresses, as in 10.1.2.3 or 10.1.0.0/16",
        ),
        (
            {"notRemoteIpBlocks": ["x"]},
            "notRemoteIpBlocks[0]: 'x' is no address and no block of addresses, as in 10.1.2.3 or 10.1.0.0/16",
        ),
        (
            {"serviceAccounts": ["a/b/c"]},
            "serviceAccounts[0]: 'a/b/c' is no service account, as in web or shop/web (wildcards are not known here)",
        ),
        (
            {"serviceAccounts": ["a/"]},
            "serviceAccounts[0]: 'a/' is no service account, as in web or shop/web (wildcards are not known here)",
        ),
        (
            {"notServiceAccounts": ["*"]},
            "notServiceAccounts[0]: '*' is no service account, as in web or shop/web (wildcards are not known here)",
        ),
        ({"serviceAccounts": ["a"] * 17}, "serviceAccounts: 17 items are more than the 16 that are allowed"),
        ({"serviceAccounts": ["a"], "principals": ["b"]}, "principals: cannot be set beside serviceAccounts"),
        ({"notServiceAccounts": ["a"], "notNamespaces": ["b"]}, "notNamespaces: cannot be set beside serviceAccounts"),
        ({"trustDomains": ["a/b"]}, "trustDomains[0]: 'a/b' is no trust domain: it has no '/'"),
        (
            {"trustDomains": ["a*b"]},
            "trustDomains[0]: 'a*b': one '*', at the start or the end, is what is understood here",
        ),
        (
            {"trustDomains": ["**"]},
            "trustDomains[0]: '**': one '*', at the start or the end, is what is understood here",
        ),
    ],
)
def test_a_source_that_is_written_wrongly_is_refused(source: Any, fault: str) -> None:
    assert source_faults(source) == [fault]


def test_an_empty_list_beside_others_means_anything_and_is_warned_of() -> None:
    assert source_faults({"principals": [], "namespaces": ["a"]}) == []
    assert source_faults({"principals": [], "namespaces": ["a"]}, "warning") == [
        "principals: is empty, which means anything"
    ]


def test_a_principal_with_a_scheme_is_warned_of() -> None:
    """Istio compares it with what stands behind spiffe://, so that it would never match."""
    for source in ({"principals": ["spiffe://td/ns/a/sa/b"]}, {"notPrincipals": ["spiffe://td/ns/a/sa/b"]}):
        (name,) = source
        assert source_faults(source, "warning") == [
            f"{name}[0]: is compared with what stands behind spiffe://; leave that out"
        ]


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ({}, ": is empty; leave it out where anything is meant"),
        ({"ports": [8080]}, 'ports[0]: 8080 stands where text is wanted; write "8080"'),
        ({"ports": ["http"]}, "ports[0]: 'http' is no port, as in 8080"),
        ({"ports": ["65536"]}, "ports[0]: '65536' is no port, as in 8080"),
        ({"ports": ["-1"]}, "ports[0]: '-1' is no port, as in 8080"),
        ({"ports": ["٣"]}, "ports[0]: '٣' is no port, as in 8080"),
        ({"notPorts": [""]}, "notPorts[0]: must not be empty"),
        ({"method": ["GET"]}, "method: is no field of this resource; did you mean methods?"),
        (
            {"paths": ["/{*}.txt"]},
            "paths[0]: '/{*}.txt': {*} and {**} stand for whole segments, and the others are plain",
        ),
        (
            {"paths": ["/{name}"]},
            "paths[0]: '/{name}': {*} and {**} stand for whole segments, and the others are plain",
        ),
        ({"paths": ["/{*}/*"]}, "paths[0]: '/{*}/*': {*} and {**} stand for whole segments, and the others are plain"),
        ({"paths": ["{*}/a"]}, "paths[0]: '{*}/a': a template starts with '/'"),
        ({"notPaths": ["/{**}/{*}"]}, "notPaths[0]: '/{**}/{*}': {**} is the last of its kind in a template"),
        ({"notPaths": ["/{**}/a/{**}"]}, "notPaths[0]: '/{**}/a/{**}': {**} is the last of its kind in a template"),
    ],
)
def test_an_operation_that_is_written_wrongly_is_refused(operation: Any, fault: str) -> None:
    assert operation_faults(operation) == [fault]


@pytest.mark.parametrize(
    "path", ["/", "/a*", "*/a", "/a*b", "/{*}", "/{*}/", "/a/{**}", "/a/{**}/b", "/{*}/{**}", "/%41/{*}", "/a b", "//a"]
)
def test_paths_that_are_written_rightly_are_read(path: str) -> None:
    assert operation_faults({"paths": [path], "notPaths": [path]}) == []


@pytest.mark.parametrize(
    ("condition", "fault"),
    [
        ({}, "key: is missing"),
        ({"key": ""}, "key: must not be empty"),
        ({"key": "source.ip"}, ": at least one of values and notValues must be set"),
        ({"key": "source.ip", "values": []}, ": at least one of values and notValues must be set"),
        (
            {"key": "source.ip", "values": ["x"]},
            "values[0]: 'x' is no address and no block of addresses, as in 10.1.2.3 or 10.1.0.0/16",
        ),
        ({"key": "destination.port", "notValues": ["x"]}, "notValues[0]: 'x' is no port, as in 8080"),
        (
            {"key": "source.serviceAccount", "values": ["*"]},
            "values[0]: '*' is no service account, as in web or shop/web (wildcards are not known here)",
        ),
        ({"key": "connection.sni", "values": [""]}, "values[0]: must not be empty"),
        ({"key": "request.headers[a]", "values": [""]}, "values[0]: must not be empty"),
        (
            {"key": "request.headers", "values": ["x"]},
            "key: 'request.headers' is no attribute that Istio knows; write request.headers[NAME]",
        ),
        (
            {"key": "request.auth.claims.iss", "values": ["x"]},
            "key: 'request.auth.claims.iss' is no attribute that Istio knows; write request.auth.claims[NAME]",
        ),
        ({"key": "source.labels[app]", "values": ["x"]}, "key: 'source.labels[app]' is no attribute that Istio knows"),
        (
            {"key": "destination.labels[app]", "values": ["x"]},
            "key: 'destination.labels[app]' is no attribute that Istio knows",
        ),
        ({"key": "Source.ip", "values": ["10.0.0.1"]}, "key: 'Source.ip' is no attribute that Istio knows"),
        (
            {"key": "source.ip", "value": ["10.0.0.1"], "values": ["10.0.0.1"]},
            "value: is no field of this resource; did you mean values?",
        ),
    ],
)
def test_a_condition_that_is_written_wrongly_is_refused(condition: Any, fault: str) -> None:
    assert [each.removeprefix("spec.rules[0].when[0]").removeprefix(".") for each in condition_faults(condition)] == [
        fault
    ]


def test_several_faults_are_told_at_once_each_at_its_line() -> None:
    found = resource_set(
        """
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: web, namespace: shop}
        spec:
          action: PERMIT
          rules:
          - to:
            - operation:
                ports:
                - 80
                paths: ["/{x}"]
        """
    )

    assert [str(problem) for problem in found.problems] == [
        "test.yaml:6: AuthorizationPolicy shop/web: spec.action: 'PERMIT' is none of ALLOW, DENY, AUDIT, CUSTOM",
        "test.yaml:11: AuthorizationPolicy shop/web: spec.rules[0].to[0].operation.ports[0]: "
        '80 stands where text is wanted; write "80"',
        "test.yaml:12: AuthorizationPolicy shop/web: spec.rules[0].to[0].operation.paths[0]: "
        "'/{x}': {*} and {**} stand for whole segments, and the others are plain",
    ]


# What is warned of

METHODS = {"operation": {"methods": ["GET"]}}
METHODS_OF_A_PORT = {"operation": {"methods": ["GET"], "ports": ["80"]}}
SOMEBODY = {"source": {"principals": ["a"]}}
TOKEN = {"source": {"requestPrincipals": ["*"]}}


@pytest.mark.parametrize(
    ("rule", "warned"),
    [
        ({}, False),
        ({"to": [METHODS]}, True),
        ({"to": [METHODS_OF_A_PORT]}, False),
        ({"to": [METHODS_OF_A_PORT, METHODS]}, True),
        ({"from": [SOMEBODY], "to": [METHODS]}, False),
        ({"from": [TOKEN]}, True),
        ({"from": [TOKEN, SOMEBODY]}, True),
        ({"from": [TOKEN], "to": [METHODS_OF_A_PORT]}, False),
        ({"when": [{"key": "request.headers[a]", "values": ["b"]}]}, True),
        ({"when": [{"key": "source.namespace", "values": ["b"]}], "to": [METHODS]}, False),
        ({"from": [SOMEBODY]}, False),
    ],
)
def test_a_deny_rule_of_which_nothing_is_left_for_tcp_is_warned_of(rule: Any, warned: bool) -> None:
    found = faults("AuthorizationPolicy", {"action": "DENY", "rules": [rule]}, "warning")

    assert found == (
        [
            "spec.rules[0]: has only HTTP conditions, which are left out for TCP: there it denies everything; "
            "name the ports"
        ]
        if warned
        else []
    )


def test_an_allow_rule_about_requests_is_noted() -> None:
    assert faults("AuthorizationPolicy", {"rules": [{"to": [METHODS]}]}, "note") == [
        "spec.rules[0]: has HTTP conditions: it allows nothing where connections are decided (TCP)"
    ]


def test_a_condition_that_no_sidecar_understands_is_warned_of() -> None:
    spec = {"rules": [{"when": [{"key": "experimental.envoy.filters.a.b[c]", "values": ["d"]}]}]}

    assert faults("AuthorizationPolicy", spec, "warning") == [
        "spec.rules[0].when[0].key: is not understood by a sidecar: in ALLOW it never matches, elsewhere it is left out"
    ]
