"""Documents → resources: what is ours, what is left alone, what keeps a resource out; for any document, any bytes."""

from __future__ import annotations

import functools
import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.documents import Document, Problem, read_documents, to_yaml
from mesh.resources import ResourceSet
from tests.support.istio_schemas import needs_schemas, schema_faults
from tests.support.policies import document, resource_set, resources, told

KINDS = {
    "PeerAuthentication": "peer_authentications",
    "AuthorizationPolicy": "authorization_policies",
    "RequestAuthentication": "request_authentications",
    "DestinationRule": "destination_rules",
    "VirtualService": "virtual_services",
    "Sidecar": "sidecars",
    "ServiceEntry": "service_entries",
    "EnvoyFilter": "local_rate_limits",
}
ONE_OF_EACH = """
    apiVersion: security.istio.io/v1
    kind: PeerAuthentication
    metadata: {name: a, namespace: shop}
    spec: {selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}}}
    ---
    apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: b, namespace: shop, annotations: {istio.io/dry-run: "true"}}
    spec:
      action: DENY
      rules:
      - from: [{source: {principals: ["*/sa/a"], notIpBlocks: [10.0.0.0/8]}}]
        to: [{operation: {ports: ["80"], paths: ["/{*}", "/x*"], methods: [GET]}}]
        when: [{key: "request.headers[a]", values: [b], notValues: ["c*"]}]
    ---
    apiVersion: security.istio.io/v1
    kind: RequestAuthentication
    metadata: {name: c, namespace: shop}
    spec: {jwtRules: [{issuer: "https://i", audiences: [a], fromHeaders: [{name: x, prefix: z}], timeout: 1s}]}
    ---
    apiVersion: networking.istio.io/v1
    kind: DestinationRule
    metadata: {name: d, namespace: shop}
    spec:
      host: web
      trafficPolicy:
        tls: {mode: ISTIO_MUTUAL}
        connectionPool: {tcp: {connectTimeout: 1s, maxConnections: 3}}
        outlierDetection: {consecutive5xxErrors: 5}
        loadBalancer: {consistentHash: {useSourceIp: true}}
      subsets: [{name: v1, labels: {v: "1"}}]
    ---
    apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {name: e, namespace: shop}
    spec:
      hosts: [web]
      http: [{match: [{uri: {prefix: /}}], route: [{destination: {host: web}}], timeout: 1s, retries: {attempts: 2}}]
    ---
    apiVersion: networking.istio.io/v1
    kind: Sidecar
    metadata: {name: f, namespace: shop}
    spec: {egress: [{hosts: ["./*"]}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
    ---
    apiVersion: networking.istio.io/v1
    kind: ServiceEntry
    metadata: {name: g, namespace: shop}
    spec: {hosts: [a.example], ports: [{number: 443, name: tls}], addresses: [10.0.0.0/8]}
    ---
    apiVersion: networking.istio.io/v1alpha3
    kind: EnvoyFilter
    metadata: {name: h, namespace: shop}
    spec:
      workloadSelector: {labels: {app: web}}
      configPatches:
      - applyTo: HTTP_FILTER
        match: {context: SIDECAR_INBOUND}
        patch:
          operation: INSERT_FIRST
          value:
            name: envoy.filters.http.local_ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              token_bucket: {max_tokens: 2, tokens_per_fill: 1, fill_interval: 1s}
              filter_enabled: {default_value: {numerator: 100}}
              filter_enforced: {default_value: {numerator: 100}}
"""
DOCUMENTS = [dict(each.value) for each in read_documents(textwrap.dedent(ONE_OF_EACH).encode(), "x.yaml")[0]]


def test_each_kind_has_its_place() -> None:
    found = resources(ONE_OF_EACH)

    assert {kind: len(getattr(found, place)) for kind, place in KINDS.items()} == dict.fromkeys(KINDS, 1)
    assert found.foreign == ()
    for kind, place in KINDS.items():
        assert getattr(found, place)[0].metadata.kind == kind


def test_what_is_not_ours_is_noted_and_left_alone() -> None:
    found = resource_set(
        """
        apiVersion: v1
        kind: Service
        metadata: {name: web}
        ---
        apiVersion: networking.istio.io/v1
        kind: Gateway
        metadata: {name: web}
        ---
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: web}
        """
    )

    assert [each.value["kind"] for each in found.foreign] == ["Service", "Gateway", "NetworkPolicy"]
    assert told(found.problems, "note") == [
        ": Service of v1 does not govern the mesh: it is left alone",
        ": Gateway is Istio's, and not followed by a sidecar of ours: it is left alone",
        ": NetworkPolicy of networking.k8s.io/v1 does not govern the mesh: it is left alone",
    ]
    assert found.errors == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("kind: AuthorizationPolicy", ": is no resource: apiVersion and kind are missing, or no text"),
        ("apiVersion: security.istio.io/v1", ": is no resource: apiVersion and kind are missing, or no text"),
        ("{apiVersion: 1, kind: x}", ": is no resource: apiVersion and kind are missing, or no text"),
        (
            "{apiVersion: security.istio.io/v1alpha1, kind: AuthorizationPolicy, metadata: {name: a}}",
            "apiVersion: 'security.istio.io/v1alpha1' is not read; write security.istio.io/v1",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: EnvoyFilter, metadata: {name: a}}",
            "apiVersion: 'networking.istio.io/v1' is not read; write networking.istio.io/v1alpha3",
        ),
        (
            "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a}, mtls: {mode: STRICT}}",
            "mtls: is no field of a resource: its settings stand under spec",
        ),
        (
            "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicies, metadata: {name: a}, spec: {}}",
            "kind: 'AuthorizationPolicies' is no kind of security.istio.io",
        ),
        (
            "{apiVersion: security.istio.io/v1, kind: Authorizationpolicy, metadata: {name: a}, spec: {}}",
            "kind: 'Authorizationpolicy' is no kind of security.istio.io; did you mean AuthorizationPolicy?",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a}, spec: {}}",
            "kind: 'AuthorizationPolicy' is no kind of networking.istio.io",
        ),
        (
            "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a}, spec: }",
            "spec: null stands where a map is wanted",
        ),
    ],
)
def test_what_can_not_be_read_is_an_error_and_is_kept_out(text: str, fault: str) -> None:
    found = resource_set(text)

    assert told(found.problems) == [fault]
    assert [len(getattr(found, place)) for place in KINDS.values()] == [0] * len(KINDS)


@pytest.mark.parametrize(
    ("version", "severity"),
    [("security.istio/v1", "warning"), ("security.istіo.io/v1", "warning"), ("policy.linkerd.io/v1alpha1", "note")],
)
def test_a_policy_of_another_group_is_left_alone_and_named(version: str, severity: str) -> None:
    found = resource_set(f"{{apiVersion: {version}, kind: AuthorizationPolicy, metadata: {{name: a}}, spec: {{}}}}")

    assert [(each.field, each.severity) for each in found.problems] == [("apiVersion", severity)]
    assert "is left alone; the AuthorizationPolicy that governs a mesh is of security.istio.io" in str(
        found.problems[0]
    )
    assert len(found.foreign) == 1


def test_one_name_twice_is_an_error_that_says_where_the_other_is() -> None:
    both = document("PeerAuthentication", {"mtls": {"mode": "STRICT"}}) + "---\n" + document("PeerAuthentication", {})
    found = resource_set(both)

    assert told(found.problems) == ["metadata.name: is given twice: test.yaml:1 has one of this name"]
    assert [str(each.mode) for each in found.peer_authentications] == ["MTLSMode.STRICT"]


def test_one_name_in_two_kinds_or_namespaces_is_two_resources() -> None:
    texts = [
        document("PeerAuthentication", {}),
        document("PeerAuthentication", {}, namespace="bar"),
        document("AuthorizationPolicy", {}),
    ]

    assert told(resource_set("---\n".join(texts)).problems) == []


def test_one_document_s_fault_does_not_hide_the_next() -> None:
    found = resource_set(
        "---\n".join([document("AuthorizationPolicy", {"action": "x"}), document("PeerAuthentication", {})])
    )

    assert len(found.errors) == 1
    assert len(found.peer_authentications) == 1


# Beside Istio's schemas


def test_the_samples_of_these_tests_are_valid_for_istio() -> None:
    assert [fault for value in DOCUMENTS for fault in schema_faults(value)] == []


def corpus() -> Path:
    folder = os.environ.get("QBITEL_CORPUS", "")
    if not Path(folder, "istio-samples").is_dir() or not folder:
        pytest.skip("QBITEL_CORPUS names no folder with istio-samples")
    return Path(folder)


def test_istio_s_samples_are_read_without_an_error() -> None:
    count = 0
    for file in sorted(corpus().glob("istio-samples/**/*.yaml")):
        documents, _ = read_documents(file.read_bytes(), file.name)
        # A few files are templates or another program's values.
        ours = [each for each in documents if ".istio.io/" in str(each.value.get("apiVersion"))]
        found = ResourceSet.of(ours)
        assert [str(problem) for problem in found.errors] == []
        count += len(ours) - len(found.foreign)
    assert count > 5


@pytest.mark.parametrize("kind", KINDS)
def test_each_field_of_istio_s_schema_is_known(kind: str) -> None:
    """A resource with one field of the schema after another: whatever is said of it, it is known."""
    for spec in each_field(istio_s_schema(kind)["properties"]["spec"], ()):
        value = sample(kind, spec)
        report = ResourceSet.of([Document(value, "x.yaml", {(): 1})])
        unknown = [str(each) for each in report.problems if "is no field of" in each.message]
        assert unknown == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_that_istio_s_schema_has_not_is_refused_wherever_it_stands(kind: str) -> None:
    """… but where Istio takes anything, and within what is left to Istio's own proxies."""
    for spec in each_field(istio_s_schema(kind)["properties"]["spec"], ()):
        for place in maps_of_known_fields(spec, istio_s_schema(kind)["properties"]["spec"]):
            place["noSuchField"] = "x"
            found = ResourceSet.of([Document(sample(kind, spec), "x.yaml", {(): 1})])
            del place["noSuchField"]
            assert found.errors, spec


@functools.cache
def istio_s_schema(kind: str) -> dict[str, Any]:
    needs_schemas()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for definition in yaml.load_all(Path(os.environ["QBITEL_CORPUS"], "istio-crds.yaml").read_bytes(), loader):
        if definition["spec"]["names"]["kind"] == kind:
            schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            return schema
    raise AssertionError(kind)


def sample(kind: str, spec: Any) -> dict[str, Any]:
    version = "security.istio.io/v1" if kind.endswith(("Authentication", "Policy")) else "networking.istio.io/v1"
    return {
        "apiVersion": f"{version}alpha3" if kind == "EnvoyFilter" else version,
        "kind": kind,
        "metadata": {"name": "a", "namespace": "b"},
        "spec": spec,
    }


def each_field(schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Specs, each with one leaf of the schema and what is around it."""
    for name, of_field in schema.get("properties", {}).items():
        for value in values_of(of_field, (*path, name)):
            yield {name: value}


def values_of(schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Any]:
    if "items" in schema:
        for value in values_of(schema["items"], path):
            yield [value]
    elif isinstance(schema.get("additionalProperties"), dict):
        for value in values_of(schema["additionalProperties"], path):
            yield {"80": value}
    elif schema.get("properties"):
        yield from each_field(schema, path)
    else:
        yield {"string": "x", "boolean": True, "integer": 1, "number": 1, "object": {}}[schema.get("type", "string")]


def maps_of_known_fields(value: Any, schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for item in value:
            yield from maps_of_known_fields(item, schema["items"])
    elif isinstance(value, dict) and isinstance(schema.get("additionalProperties"), dict):
        for item in value.values():
            yield from maps_of_known_fields(item, schema["additionalProperties"])
    elif isinstance(value, dict) and schema.get("properties"):
        yield value
        for name, item in list(value.items()):
            # What is Envoy's alone, or a gateway's TLS, is passed over.
            if name not in ("routeConfiguration", "cluster", "waypoint", "targetRefs") and not (
                name == "tls" and "cipherSuites" in schema["properties"][name].get("properties", {})
            ):
                yield from maps_of_known_fields(item, schema["properties"][name])


# Fuzzing


def must_be_orderly(found: ResourceSet) -> None:
    for problem in found.problems:
        assert isinstance(problem, Problem)
        assert str(problem).isprintable(), ascii(str(problem))
        assert len(problem.message) < 500


def test_every_sample_with_a_part_missing_or_another_is_read_or_refused() -> None:
    odd: list[Any] = [
        None,
        "",
        "*",
        "x" * 1000,
        0,
        -1,
        2**70,
        1.5,
        float("nan"),
        True,
        [],
        {},
        [None],
        [[]],
        {"": None},
    ]
    for value in DOCUMENTS:
        for changed in variations(value, odd):
            if isinstance(changed, dict):  # nothing else is a document
                must_be_orderly(ResourceSet.of([Document(changed, "x.yaml", {(): 1})]))


def variations(value: Any, odd: list[Any]) -> Iterator[Any]:
    """The value with each part of it replaced by something odd, left out, or given something beside it."""
    yield from odd
    if isinstance(value, dict):
        yield {**value, "more": 1}
        for name, item in value.items():
            yield {key: each for key, each in value.items() if key != name}
            for changed in variations(item, odd):
                yield {**value, name: changed}
    elif isinstance(value, list):
        for index, item in enumerate(value):
            for changed in variations(item, odd):
                yield [*value[:index], changed, *value[index + 1 :]]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(KINDS)), _json, st.dictionaries(st.text(max_size=5), _json, max_size=2))
def test_any_spec_is_read_or_refused(kind: str, spec: Any, more: dict[str, Any]) -> None:
    must_be_orderly(ResourceSet.of([Document({**sample(kind, spec), **more}, "x.yaml", {(): 1})]))


def test_any_bytes_cut_or_flipped_are_read_or_refused() -> None:
    whole = to_yaml(DOCUMENTS[:2]).encode()
    for index in range(len(whole)):
        flipped = bytearray(whole)
        flipped[index] ^= 1 << (index % 8)
        for text in (whole[:index], bytes(flipped)):
            documents, _ = read_documents(text, "x.yaml")
            must_be_orderly(ResourceSet.of(documents))
