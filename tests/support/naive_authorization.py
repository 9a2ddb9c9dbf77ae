"""Istio's AuthorizationPolicy once more, as plainly as it can be written: no index, no sharing, regular expressions.

It is made after the descriptions of the fields and the configuration that Istio makes for Envoy, and shares nothing
with mesh/ but the dataclasses: where both agree on everything that hypothesis thinks of, a slip would have to be made
twice.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

from mesh.authorization import Action, AuthorizationPolicy, Condition, Operation, Rule, Source
from mesh.decision import Facts

# True, False, or None: not known.
Answer = bool | None


def verdict(
    policies: Sequence[AuthorizationPolicy],
    facts: Facts,
    *,
    trust_domain: str = "cluster.local",
    aliases: Sequence[str] = (),
) -> bool:
    """Whether `facts` are allowed by `policies`, all of which apply and none of which is in dry run."""
    names = [trust_domain, *aliases]
    matching = {
        action: [policy for policy in policies if policy.action is action and matches(policy, facts, names)]
        for action in Action
    }
    if matching[Action.CUSTOM] or matching[Action.DENY]:
        return False
    return bool(matching[Action.ALLOW]) or not any(policy.action is Action.ALLOW for policy in policies)


def matches(policy: AuthorizationPolicy, facts: Facts, names: Sequence[str]) -> bool:
    return any(_rule(rule, policy, facts, names) for rule in policy.rules)


def _rule(rule: Rule, policy: AuthorizationPolicy, facts: Facts, names: Sequence[str]) -> bool:
    allow = policy.action is Action.ALLOW
    namespace = policy.metadata.namespace
    everything = [*rule.conditions]
    sources = [_as_conditions(source) for source in rule.sources] or [[]]
    operations = [_as_conditions(operation) for operation in rule.operations] or [[]]
    for alternative in (*sources, *operations):
        everything += alternative
    if allow and any(not _has(condition.key, facts) for condition in everything):
        return False

    def holds(condition: Condition) -> bool:
        if not _has(condition.key, facts):
            return True
        unknown = not allow
        if condition.values:
            answers = [_value(condition.key, value, namespace, facts, names) for value in condition.values]
            if not (any(answers) or (unknown and None in answers)):
                return False
        if condition.not_values:
            answers = [_value(condition.key, value, namespace, facts, names) for value in condition.not_values]
            if any(answers) or (None in answers and not unknown):
                return False
        return True

    return any(
        all(holds(condition) for condition in (*source, *operation, *rule.conditions))
        for source in sources
        for operation in operations
    )


def _as_conditions(part: Source | Operation) -> list[Condition]:
    if isinstance(part, Source):
        found = [
            Condition("source.principal", part.principals, part.not_principals),
            Condition("source.namespace", part.namespaces, part.not_namespaces),
            Condition("source.serviceAccount", part.service_accounts, part.not_service_accounts),
            Condition("source.trustDomain", part.trust_domains, part.not_trust_domains),
            Condition("source.ip", part.ip_blocks, part.not_ip_blocks),
            Condition("remote.ip", part.remote_ip_blocks, part.not_remote_ip_blocks),
            Condition("request.auth.principal", part.request_principals, part.not_request_principals),
        ]
    else:
        found = [
            Condition("destination.port", part.ports, part.not_ports),
            Condition("request.the.method", part.methods, part.not_methods),
            Condition("request.the.path", part.paths, part.not_paths),
            Condition("request.the.host", part.hosts, part.not_hosts),
        ]
    return [condition for condition in found if condition.values or condition.not_values]


def _has(key: str, facts: Facts) -> bool:
    if key.startswith("experimental."):
        return False
    return facts.http is not None or not key.startswith("request.")


def _text(value: str, text: str | None, *, present: str = ".+", flags: int = 0) -> bool:
    if text is None:
        return False
    if value == "*":
        pattern = present
    elif value.startswith("*"):
        pattern = ".*" + re.escape(value[1:])
    elif value.endswith("*"):
        pattern = re.escape(value[:-1]) + ".*"
    else:
        pattern = re.escape(value)
    return re.fullmatch(pattern, text, re.DOTALL | flags) is not None


def _if_unusual(uri: str, pattern: str) -> Answer:
    """What Istio would find in an identity that is not the usual one is not known here; in a usual one it is not."""
    usual = uri == "" or re.fullmatch("spiffe://[^/]+/ns/[^/]+/sa/[^/]+", uri)
    return None if not usual and re.fullmatch(pattern, uri) else False


def _value(key: str, value: str, namespace: str, facts: Facts, names: Sequence[str]) -> Answer:  # noqa: PLR0912
    principal = facts.principal or None
    uri = f"spiffe://{principal}" if principal else ""
    match key:
        case "source.principal":
            return any(_text(each, principal) for each in _under_each_name(value, names))
        case "source.namespace":
            pattern = ".*".join(map(re.escape, value.split("*")))
            usual = re.fullmatch(r"spiffe://[^/]+/ns/([^/]+)(/[^/]+/[^/]+)*", uri)
            if usual and re.fullmatch(pattern, usual[1]):
                return True
            return _if_unusual(uri, f".*/ns/(?:{pattern})/.*")
        case "source.serviceAccount":
            where, _, account = value.rpartition("/")
            of = re.escape(where or namespace)
            if re.fullmatch(f"spiffe://[^/]+/ns/{of}/sa/{re.escape(account)}", uri):
                return True
            return _if_unusual(uri, f"spiffe://.+/ns/{of}/(.+/|)sa/{re.escape(account)}(/.+)?")
        case "source.trustDomain":
            values = names if value in names else [value]
            return any(_text(each, principal.split("/")[0] if principal else None) for each in values)
        case "source.ip":
            return _within(value, facts.source_ip)
        case "remote.ip":
            return _within(value, facts.remote_ip or facts.source_ip)
        case "destination.ip":
            return _within(value, facts.destination_ip)
        case "destination.port":
            return int(value) == facts.destination_port
        case "connection.sni":
            return _text(value, facts.sni, flags=re.IGNORECASE)
    assert facts.http is not None
    claims: Any = facts.http.claims or {}
    match key:
        case "request.the.method":
            return _text(value, facts.http.method, present=".*")
        case "request.the.host":
            return _text(value, facts.http.host or None, flags=re.IGNORECASE)
        case "request.the.path":
            if "{" in value:
                pattern = re.escape(value).replace(r"\{\*\*\}", r"[^*?#\s]*").replace(r"\{\*\}", r"[^/*?#\s]+")
                return re.fullmatch(pattern, facts.http.path) is not None
            return _text(value, facts.http.path)
        case "request.auth.principal":
            return _request_principal(value, claims)
        case "request.auth.audiences":
            return _claim(value, claims.get("aud"))
        case "request.auth.presenter":
            return _claim(value, claims.get("azp"))
    if key.startswith("request.headers["):
        name = key[len("request.headers[") : -1].lower()
        return _text(value, facts.http.headers.get(name), present=".*")
    for name in re.findall(r"\[(.*?)\]", key):
        claims = claims.get(name) if isinstance(claims, dict) else None
    return _claim(value, claims)


def _request_principal(value: str, claims: Any) -> bool:
    issuer, subject = claims.get("iss"), claims.get("sub")
    if not isinstance(issuer, str) or not isinstance(subject, str):
        return False
    if value == "*":
        return issuer != "" and subject != ""
    if value.startswith("*"):
        # The wildcard is the issuer's; a subject without a slash is the last part.
        head, slash, tail = value.rpartition("/")
        return (_text(head, issuer) and subject == tail) if slash else (issuer != "" and _text(value, subject))
    if value.endswith("*"):
        head, slash, tail = value.rpartition("/")
        return (issuer == head and _text(tail, subject)) if slash else (_text(value, issuer) and subject != "")
    head, slash, tail = value.rpartition("/")
    return (issuer, subject) == ((head, tail) if slash else (value, ""))


def _claim(value: str, claim: Any) -> bool:
    return any(_text(value, each) for each in (claim if isinstance(claim, list) else [claim]) if isinstance(each, str))


def _within(value: str, text: str | None) -> Answer:
    if text is None:
        return None
    return ipaddress.ip_address(text) in ipaddress.ip_network(value, strict=False)


def _under_each_name(value: str, names: Sequence[str]) -> list[str]:
    domain, *rest = value.split("/")
    if len(rest) != 4 or domain == "*":
        return [value]
    if domain != "cluster.local" and not any(_text(domain, name) for name in names):
        return [value]
    return [value if domain.startswith("*") and _text(domain, name) else "/".join([name, *rest]) for name in names]
