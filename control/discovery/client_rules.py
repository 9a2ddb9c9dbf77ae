"""What the DestinationRules of a cluster mean for its peers document: which Services it names, and which rules it has.

A sidecar follows rules itself (proxy/peers/rules.py): it is the one that knows its labels. Those of its own namespace
and of the root namespace it has in its policies. What it lacks is which address is which Service, and what other
namespaces say about the Services that are theirs; nobody else's word counts outside of his own namespace. Pure.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass

from control.discovery.policies import Part, Policy, json_line
from mesh.building.metadata import PROFILE_ANNOTATION
from mesh.documents import Document
from mesh.resources import ResourceSet
from mesh.traffic import (
    CLUSTER_DOMAIN,
    DestinationRule,
    TlsMode,
    TrafficPolicy,
    service_namespace,
    wildcards_over,
)


@dataclass(frozen=True, slots=True)
class ClientRules:
    """`hosts` are the names and wildcards that rules are about; `lines` the rules that a document has, as JSON."""

    hosts: frozenset[str] = frozenset()
    lines: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.hosts)

    def name(self, namespace: str, service: str) -> str | None:
        """The full name of a Service, where a rule is about it."""
        host = f"{service}.{namespace}.svc.{CLUSTER_DOMAIN}"
        return host if self.are_about(host) else None

    def are_about(self, host: str) -> bool:
        """Whether one is about this host."""
        return host in self.hosts or not self.hosts.isdisjoint(wildcards_over(host))


NO_RULES = ClientRules()


def client_rules(parts: Iterable[Part], root_namespace: str) -> ClientRules:
    """Those of all namespaces."""
    found = [_read(policy) for part in parts for policy in part.policies if policy.kind == "DestinationRule"]
    about = ClientRules(frozenset(rule.host for rule in found if rule.says_something))
    if not about:
        return NO_RULES
    # One that says nothing is in the way of others all the same: it is the narrower one, or nearer to the client.
    lines = (
        rule.line
        for rule in found
        if rule.line and rule.namespace != root_namespace and (rule.host.startswith("*") or about.are_about(rule.host))
    )
    return ClientRules(about.hosts, tuple(sorted(lines)))


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule; `line` "" where it means nothing to clients of other namespaces."""

    namespace: str
    host: str
    says_something: bool
    line: str


# A rule stays the same for months; all of a large cluster's fit in.
@functools.lru_cache(maxsize=16_384)
def _read(policy: Policy) -> _Rule:
    value = json.loads(policy.line)
    (rule,) = ResourceSet.of([Document(value, "the cluster", {})]).destination_rules
    host = rule.full_host.lower()
    line = ""
    if _is_exported(rule) and _may_be_of(host, policy.namespace):
        # Without its subsets, which no sidecar follows and which come and go with each roll-out.
        spec = {key: its for key, its in value["spec"].items() if key != "subsets"}
        line = json_line({**value, "spec": spec})
    return _Rule(policy.namespace, host, _says_something(rule), line)


def _is_exported(rule: DestinationRule) -> bool:
    own = {".", "~", rule.metadata.namespace}
    # With a selector a rule is for clients of its own namespace (mesh/traffic.py).
    return rule.selector is None and any(each not in own for each in rule.export_to or ("*",))


def _may_be_of(host: str, namespace: str) -> bool:
    if not host.startswith("*"):
        return service_namespace(host) == namespace
    return f".{namespace}.svc.{CLUSTER_DOMAIN}".endswith(host[1:])


def _says_something(rule: DestinationRule) -> bool:
    """Whether it changes how a Service is dialled (docs/peers.md, "DestinationRules")."""
    policy = rule.traffic_policy
    return PROFILE_ANNOTATION in rule.metadata.annotations or any(map(_matters, (policy, *policy.ports.values())))


def _matters(policy: TrafficPolicy) -> bool:
    pool, tls = policy.connection_pool, policy.tls
    limits = pool and (pool.max_connections or pool.http1_max_pending_requests or pool.connect_timeout)
    return bool(limits) or (tls is not None and tls.mode in (TlsMode.DISABLE, TlsMode.ISTIO_MUTUAL))
