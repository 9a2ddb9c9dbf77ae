"""Resources for tests, as users write them."""

from __future__ import annotations

from mesh.documents import read_documents
from mesh.resources import ResourceSet

API = {
    "PeerAuthentication": "security.istio.io/v1",
    "AuthorizationPolicy": "security.istio.io/v1",
    "RequestAuthentication": "security.istio.io/v1",
    "DestinationRule": "networking.istio.io/v1",
    "VirtualService": "networking.istio.io/v1",
    "Service": "v1",
    "Deployment": "apps/v1",
}


def resource(kind: str, name: str, spec: str, *, annotations: str = "{}", created: str = "") -> str:
    """One document; `name` is "namespace/name", `spec` YAML in one line."""
    namespace, _, own = name.partition("/")
    time = f", creationTimestamp: {created}" if created else ""
    return (
        f"apiVersion: {API[kind]}\nkind: {kind}\n"
        f"metadata: {{namespace: {namespace}, name: {own}, annotations: {annotations}{time}}}\nspec: {spec}\n"
    )


def strict(name: str = "shop/default") -> str:
    return resource("PeerAuthentication", name, "{mtls: {mode: STRICT}}")


def mode(name: str, mode: str) -> str:
    return resource("PeerAuthentication", name, f"{{mtls: {{mode: {mode}}}}}")


def rule(name: str, host: str, policy: str, **more: str) -> str:
    return resource("DestinationRule", name, f"{{host: {host!r}, trafficPolicy: {policy}}}", **more)


def allow(name: str, rules: str, labels: str = "") -> str:
    return resource("AuthorizationPolicy", name, f"{{{selector(labels)}action: ALLOW, rules: {rules}}}")


def deny(name: str, rules: str, labels: str = "") -> str:
    return resource("AuthorizationPolicy", name, f"{{{selector(labels)}action: DENY, rules: {rules}}}")


def selector(labels: str) -> str:
    return f"selector: {{matchLabels: {labels}}}, " if labels else ""


def from_account(*accounts: str) -> str:
    """A rule's `from` for service accounts "namespace/name"."""
    principals = ", ".join("cluster.local/ns/{}/sa/{}".format(*account.split("/")) for account in accounts)
    return f"from: [{{source: {{principals: [{principals}]}}}}]"


def resources(*texts: str, sound: bool = True) -> ResourceSet:
    """The set that these documents make."""
    documents, problems = read_documents("---\n".join(texts).encode(), "policy.yaml")
    assert problems == ()
    found = ResourceSet.of(documents)
    if sound:
        assert found.errors == ()
    return found
