"""Resources out of YAML, for tests that are about what they mean and not about reading them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from mesh.authorization import AuthorizationPolicy
from mesh.decision import Facts, HttpFacts
from mesh.documents import Problem, Severity, read_documents, to_yaml
from mesh.resources import ResourceSet
from mesh.selectors import ROOT_NAMESPACE, Workload

CURL = "cluster.local/ns/foo/sa/curl"
OTHER = "cluster.local/ns/bar/sa/curl"
HTTPBIN = Workload("foo", {"app": "httpbin", "version": "v1"}, "httpbin", "httpbin")


def resource_set(text: str, *, root_namespace: str = ROOT_NAMESPACE) -> ResourceSet:
    """What a file with `text` holds, with whatever problems it has."""
    documents, problems = read_documents(textwrap.dedent(text).encode(), "test.yaml")
    assert problems == ()
    return ResourceSet.of(documents, root_namespace=root_namespace)


def resources(text: str, *, root_namespace: str = ROOT_NAMESPACE) -> ResourceSet:
    """What a file with `text` holds, which has no errors."""
    found = resource_set(text, root_namespace=root_namespace)
    assert [str(problem) for problem in found.errors] == []
    return found


def policies(text: str) -> tuple[AuthorizationPolicy, ...]:
    """The AuthorizationPolicies of a file with `text`, which has no errors."""
    return resources(text).authorization_policies


def document(
    kind: str, spec: Any, *, version: str = "", name: str = "web", namespace: str = "foo", **metadata: Any
) -> str:
    """One resource as YAML."""
    security = kind in ("AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication")
    default = "security.istio.io/v1" if security else "networking.istio.io/v1"
    if kind == "EnvoyFilter":
        default = "networking.istio.io/v1alpha3"
    return to_yaml(
        [
            {
                "apiVersion": version or default,
                "kind": kind,
                "metadata": {"name": name, "namespace": namespace, **metadata},
                "spec": spec,
            }
        ]
    )


def told(problems: tuple[Problem, ...], severity: Severity = "error") -> list[str]:
    """The problems of one severity, each as `field: message`."""
    return [f"{each.field}: {each.message}" for each in problems if each.severity == severity]


def faults(kind: str, spec: Any, severity: Severity = "error") -> list[str]:
    """What reading one resource complains of, each as `field: message`."""
    return told(resource_set(document(kind, spec)).problems, severity)


def policy(spec: Any, *, name: str = "web", namespace: str = "foo", **metadata: Any) -> AuthorizationPolicy:
    """One policy, which has no errors."""
    (found,) = policies(document("AuthorizationPolicy", spec, name=name, namespace=namespace, **metadata))
    return found


def tcp(port: int = 9000, principal: str | None = CURL, **facts: Any) -> Facts:
    """A connection; from curl in foo unless told."""
    return Facts(port, principal, **facts)


def request(
    method: str = "GET",
    path: str = "/",
    principal: str | None = CURL,
    *,
    port: int = 8000,
    host: str = "httpbin.foo:8000",
    headers: Mapping[str, str] | None = None,
    claims: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Facts:
    """A request; from curl in foo unless told."""
    return Facts(port, principal, http=HttpFacts(method, path, host, headers or {}, claims), **facts)
