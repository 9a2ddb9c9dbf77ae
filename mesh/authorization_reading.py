"""Reads AuthorizationPolicy, as strictly as Istio's schema and its webhook do.

Where a policy will not do on a sidecar what its writer may expect, there is a warning.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from mesh.authorization import (
    ENVOY_METADATA,
    HTTP_KEYS,
    HTTP_SOURCE,
    Action,
    AuthorizationPolicy,
    Condition,
    Operation,
    Rule,
    Source,
    is_http_rule,
)
from mesh.documents import Path
from mesh.metadata import Metadata
from mesh.reading import Report, Shape, both, fields, list_of, reader_of, shown, text
from mesh.request_paths import TEMPLATE_REST, TEMPLATE_SEGMENT
from mesh.selectors import ONE_SCOPE, SCOPE, read_selector
from mesh.shapes import address
from mesh.spiffe import SCHEME

DRY_RUN_ANNOTATION: Final = "istio.io/dry-run"

_T = TypeVar("_T", Source, Operation)

_VALUES: Final = list_of(text(least=1))


def _principal(value: str, path: Path, report: Report) -> None:
    if value.startswith(SCHEME):
        report.warning(path, f"is compared with what stands behind {SCHEME}; leave that out")


def _port(value: str, path: Path, report: Report) -> None:
    if not (re.fullmatch(r"[0-9]{1,5}", value) and int(value) <= 65535):
        report.error(path, f"{shown(value)} is no port, as in 8080")


def _service_account(value: str, path: Path, report: Report) -> None:
    parts = value.split("/")
    if len(parts) > 2 or not all(parts) or "*" in value:
        report.error(
            path, f"{shown(value)} is no service account, as in web or shop/web (wildcards are not known here)"
        )


def _at_one_end(value: str, path: Path, report: Report) -> None:
    if "*" in value[1:-1] or value.count("*") > 1:
        report.error(path, f"{shown(value)}: one '*', at the start or the end, is what is understood here")


def _trust_domain(value: str, path: Path, report: Report) -> None:
    if "/" in value:
        report.error(path, f"{shown(value)} is no trust domain: it has no '/'")
    _at_one_end(value, path, report)


# RFC 3986 §3.3, and '%' for its escapes: what stands between two slashes of a template.
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~%!$&'()+,;:@=-]+")


def _path(value: str, path: Path, report: Report) -> None:
    if "{" not in value and "}" not in value:
        return
    segments = value.strip("/").split("/")
    if not all(each in (TEMPLATE_SEGMENT, TEMPLATE_REST) or _SEGMENT.fullmatch(each) for each in segments):
        report.error(path, f"{shown(value)}: {{*}} and {{**}} stand for whole segments, and the others are plain")
    elif not value.startswith("/"):
        report.error(path, f"{shown(value)}: a template starts with '/'")
    elif TEMPLATE_REST in segments and _is_template(segments[segments.index(TEMPLATE_REST) + 1 :]):
        report.error(path, f"{shown(value)}: {{**}} is the last of its kind in a template")


def _is_template(segments: Sequence[str]) -> bool:
    return any(segment in (TEMPLATE_SEGMENT, TEMPLATE_REST) for segment in segments)


def _each(check: Shape, most: int | None = None) -> Shape:
    return list_of(both(text(least=1), check), most=most)


# Istio's schema bounds these so.
_ACCOUNTS: Final = _each(both(text(most=320), _service_account), most=16)
_KINDS: Final[Mapping[str, Shape]] = {
    "principals": _each(_principal),
    "requestPrincipals": _VALUES,
    "namespaces": _VALUES,
    "serviceAccounts": _ACCOUNTS,
    "trustDomains": _each(_trust_domain),
    "ipBlocks": _each(address),
    "remoteIpBlocks": _each(address),
    "hosts": _VALUES,
    "ports": _each(_port),
    "methods": _VALUES,
    "paths": _each(_path),
}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _shapes(of: type[Source] | type[Operation]) -> dict[str, Shape]:
    """The shape of each field of Source or Operation under its name in YAML; a not- form has that of its positive."""
    shapes = {}
    for each in dataclasses.fields(of):
        positive = _camel(each.name.removeprefix("not_"))
        shapes[_camel(each.name)] = _KINDS[positive]
    return shapes


def _says_something(value: Mapping[str, Any], path: Path, report: Report) -> None:
    if not any(value.values()):
        report.error(path, "is empty; leave it out where anything is meant")
    for name, values in value.items():
        if not values:
            report.warning((*path, name), "is empty, which means anything")


def _accounts_alone(value: Mapping[str, Any], path: Path, report: Report) -> None:
    accounts = value.get("serviceAccounts") or value.get("notServiceAccounts")
    for name in ("principals", "notPrincipals", "namespaces", "notNamespaces"):
        if accounts and value.get(name):
            report.error((*path, name), "cannot be set beside serviceAccounts")


# The attributes of `when` and what their values must be; those with a name in brackets stand with "[".
_ATTRIBUTES: Final[Mapping[str, Shape]] = {
    "source.ip": _each(address),
    "remote.ip": _each(address),
    "source.namespace": _VALUES,
    "source.principal": _each(_principal),
    "source.serviceAccount": _ACCOUNTS,
    "source.trustDomain": _each(_trust_domain),
    "request.auth.principal": _VALUES,
    "request.auth.audiences": _VALUES,
    "request.auth.presenter": _VALUES,
    "destination.ip": _each(address),
    "destination.port": _each(_port),
    "connection.sni": _VALUES,
}
_BRACKETED: Final = re.compile(
    r"request\.headers\[[^\[\]\s]+\]|request\.auth\.claims(\[[^\[\]]+\])+|experimental\.envoy\.filters\.[^\[\]]+\[.+\]"
)


def _condition(value: Mapping[str, Any], path: Path, report: Report) -> None:
    key = value["key"]
    if key not in _ATTRIBUTES and not _BRACKETED.fullmatch(key):
        report.error((*path, "key"), f"{shown(key)} is no attribute that Istio knows{_attribute_meant(key)}")
        return
    if not value.get("values") and not value.get("notValues"):
        report.error(path, "at least one of values and notValues must be set")
    if key.startswith(ENVOY_METADATA):
        report.warning(
            (*path, "key"), "is not understood by a sidecar: in ALLOW it never matches, elsewhere it is left out"
        )
    for name in ("values", "notValues"):
        if name in value:
            _ATTRIBUTES.get(key, _VALUES)(value[name], (*path, name), report)


def _attribute_meant(key: str) -> str:
    for prefix in ("request.headers", "request.auth.claims"):
        if key.startswith(prefix):
            return f"; write {prefix}[NAME]"
    return ""


_SOURCE: Final = both(fields(_shapes(Source)), _says_something, _accounts_alone)
_OPERATION: Final = both(fields(_shapes(Operation)), _says_something)
_RULE: Final = fields(
    {
        "from": list_of(fields({"source": _SOURCE}, required=("source",)), least=1, most=512),
        "to": list_of(fields({"operation": _OPERATION}, required=("operation",)), least=1),
        "when": list_of(
            both(
                fields(
                    {"key": text(least=1), "values": list_of(text()), "notValues": list_of(text())}, required=("key",)
                ),
                _condition,
            )
        ),
    }
)
SPEC: Final = fields(
    {
        **SCOPE,
        "action": text(choices=[action.value for action in Action]),
        "provider": fields({"name": text()}),
        "rules": list_of(_RULE, most=512),
    },
    at_most_one=ONE_SCOPE,
)


@reader_of(SPEC)
def read_authorization_policy(metadata: Metadata, spec: Mapping[str, Any], report: Report) -> AuthorizationPolicy:
    """The policy that `spec` writes."""
    policy = AuthorizationPolicy(
        metadata,
        Action(spec.get("action", "ALLOW")),
        tuple(_read_rule(rule) for rule in spec.get("rules", ())),
        read_selector(spec, report),
        _read_dry_run(metadata, report),
        spec.get("provider", {}).get("name", ""),
    )
    _check_action(policy, spec, report)
    _warn_of_tcp(policy, report)
    return policy


def _read_rule(rule: Mapping[str, Any]) -> Rule:
    return Rule(
        tuple(_read(Source, each["source"]) for each in rule.get("from", ())),
        tuple(_read(Operation, each["operation"]) for each in rule.get("to", ())),
        tuple(
            Condition(each["key"], tuple(each.get("values", ())), tuple(each.get("notValues", ())))
            for each in rule.get("when", ())
        ),
    )


def _read(of: type[_T], value: Mapping[str, Any]) -> _T:
    return of(**{each.name: tuple(value.get(_camel(each.name), ())) for each in dataclasses.fields(of)})


# What Go's strconv.ParseBool takes, which Istio reads the annotation with.
_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
_FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")


def _read_dry_run(metadata: Metadata, report: Report) -> bool:
    value = metadata.annotations.get(DRY_RUN_ANNOTATION, "false")
    if value not in _TRUE + _FALSE:
        report.error(("metadata", "annotations", DRY_RUN_ANNOTATION), f"{shown(value)} is neither true nor false")
    return value in _TRUE


def _check_action(policy: AuthorizationPolicy, spec: Mapping[str, Any], report: Report) -> None:
    action = policy.action
    if action is not Action.CUSTOM and "provider" in spec:
        report.error(("spec", "provider"), f"belongs to the action CUSTOM, and this one is {action.value}")
    if action in (Action.CUSTOM, Action.DENY) and not policy.rules:
        report.error(
            ("spec", "rules"),
            f"are missing: {action.value} without rules never matches; an empty rule, - {{}}, matches everything",
        )
    if action is Action.CUSTOM:
        if not policy.provider:
            report.error(("spec", "provider", "name"), "is missing: CUSTOM names the authorizer to be asked")
        report.warning(("spec", "action"), "CUSTOM asks an external authorizer, which a sidecar has none of: it denies")


def _warn_of_tcp(policy: AuthorizationPolicy, report: Report) -> None:
    """Where a rule has HTTP conditions, a connection that is not read as HTTP is decided without them."""
    for index, rule in enumerate(policy.rules):
        if not is_http_rule(rule):
            continue
        path = ("spec", "rules", index)
        if policy.action is Action.ALLOW:
            report.note(path, "has HTTP conditions: it allows nothing where connections are decided (TCP)")
        elif policy.action is not Action.AUDIT and not _is_bound_to_tcp(rule):
            report.warning(
                path, "has only HTTP conditions, which are left out for TCP: there it denies everything; name the ports"
            )


def _is_bound_to_tcp(rule: Rule) -> bool:
    """Whether something is left of the rule once its HTTP conditions are left out."""
    return (
        (bool(rule.sources) and all(_without(source, HTTP_SOURCE) for source in rule.sources))
        or (bool(rule.operations) and all(each.ports or each.not_ports for each in rule.operations))
        or any(not condition.key.startswith((HTTP_KEYS, ENVOY_METADATA)) for condition in rule.conditions)
    )


def _without(source: Source, names: Sequence[str]) -> bool:
    return any(getattr(source, each.name) for each in dataclasses.fields(source) if each.name not in names)
