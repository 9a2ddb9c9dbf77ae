"""AuthorizationPolicy: who may do what to workloads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mesh.building import checks
from mesh.building.metadata import SECURITY, match_labels, resource
from mesh.building.path_templates import path
from mesh.spiffe import InvalidSpiffeId, SpiffeId

ACTIONS: Final = ("ALLOW", "DENY", "AUDIT", "CUSTOM")
DRY_RUN_ANNOTATION: Final = "istio.io/dry-run"


def authorization_policy(
    name: str,
    namespace: str,
    action: str = "ALLOW",
    rules: Sequence[Mapping[str, Any]] = (),
    *,
    selector: Mapping[str, str] | None = None,
    provider: str | None = None,
    dry_run: bool = False,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return an AuthorizationPolicy for the workloads that `selector` names, or else for the namespace.

    `rules` are as Istio spells them, dicts with `from`, `to` and `when`; every part is checked. A rule `{}` matches
    everything. ALLOW without rules matches nothing, so that nothing is allowed which no other policy allows. DENY and
    CUSTOM without rules would never act and are refused, as Istio refuses them. CUSTOM needs the `provider`, the name
    of an external authorizer; our own sidecars refuse what such a policy covers. `dry_run` logs instead of enforcing
    (ALLOW and DENY).
    """
    checks.choice("action", action, ACTIONS)
    checked = [_rule(f"rules[{index}]", rule) for index, rule in enumerate(checks.listed("rules", rules))]
    if not checked and action != "ALLOW":
        raise ValueError(f"rules: {action} without a rule never acts; give a rule, or [{{}}] for everything")
    spec: dict[str, Any] = {}
    if selector is not None:
        spec["selector"] = match_labels("selector", selector)
    # An ALLOW that holds nothing else is written as the empty spec by which people know it.
    if action != "ALLOW" or checked:
        spec["action"] = action
    if provider is not None or action == "CUSTOM":
        spec["provider"] = _provider(provider, action, checked)
    if checked:
        spec["rules"] = checked
    if checks.flag("dry_run", dry_run):
        if action not in {"ALLOW", "DENY"}:
            raise ValueError(f"dry_run: {action} has no dry run; give it for ALLOW or DENY")
        annotations = {**(annotations or {}), DRY_RUN_ANNOTATION: "true"}
    return resource(SECURITY, "AuthorizationPolicy", name, namespace, spec, labels=labels, annotations=annotations)


def service_account_principal(trust_domain: str, namespace: str, service_account: str) -> str:
    """The principal of a service account: its SPIFFE ID without the scheme."""
    try:
        identity = SpiffeId.for_service_account(namespace, service_account, trust_domain)
    except InvalidSpiffeId as error:
        raise ValueError(f"trust_domain: {error}") from None
    return str(identity).removeprefix("spiffe://")


def _provider(provider: object, action: str, rules: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    if action != "CUSTOM":
        raise ValueError(f"provider: only CUSTOM has one, and the action is {action}")
    for index, rule in enumerate(rules):
        _custom_rule(f"rules[{index}]", rule)
    return {"name": checks.text("provider", provider)}


def _custom_rule(argument: str, rule: Mapping[str, Any]) -> None:
    """Istio asks an external authorizer before it knows who the peer is: no part of a rule may name one."""
    for index, entry in enumerate(rule.get("from", ())):
        for field in entry["source"]:
            if field not in {"ipBlocks", "notIpBlocks", "remoteIpBlocks", "notRemoteIpBlocks"}:
                raise ValueError(f"{argument}.from[{index}].source: CUSTOM takes addresses alone, not {field}")
    for index, condition in enumerate(rule.get("when", ())):
        key = condition["key"]
        if key.startswith("request.auth.") or key in _IDENTITY_KEYS:
            raise ValueError(f"{argument}.when[{index}].key: CUSTOM takes no {key}")


# One rule

_RULE: Final = ("from", "to", "when")


def _rule(argument: str, rule: object) -> dict[str, Any]:
    found: dict[str, Any] = {}
    given = checks.fields(argument, rule, _RULE)
    if "from" in given:
        found["from"] = [
            {
                "source": _source(
                    f"{where}.source", checks.fields(where, entry, ("source",), needed=("source",))["source"]
                )
            }
            for where, entry in _numbered(f"{argument}.from", given["from"])
        ]
    if "to" in given:
        found["to"] = [
            {
                "operation": _operation(
                    f"{where}.operation",
                    checks.fields(where, entry, ("operation",), needed=("operation",))["operation"],
                )
            }
            for where, entry in _numbered(f"{argument}.to", given["to"])
        ]
    if "when" in given:
        found["when"] = [_condition(where, entry) for where, entry in _numbered(f"{argument}.when", given["when"])]
    return found


def _numbered(argument: str, values: object) -> list[tuple[str, Any]]:
    entries = checks.listed(argument, values, fewest=1)
    return [(f"{argument}[{index}]", entry) for index, entry in enumerate(entries)]


def pattern(argument: str, value: object) -> str:
    """Text to match exactly, by prefix (`a*`), by suffix (`*a`) or, with `*` alone, by being there."""
    found = checks.text(argument, value)
    if "*" in found[1:-1] or (len(found) > 1 and found[0] == found[-1] == "*"):
        raise checks.refused(argument, value, "at most one *, as the first or the last character")
    return found


def _principal(argument: str, value: object) -> str:
    found = pattern(argument, value)
    if found.startswith("spiffe:"):
        raise checks.refused(argument, value, "a SPIFFE ID without its scheme, as in cluster.local/ns/shop/sa/web")
    if "*" not in found:
        try:
            SpiffeId.parse(f"spiffe://{found}")
        except InvalidSpiffeId as error:
            raise ValueError(
                f"{argument}: {checks.shown(value)} is no principal ({error}); give one as in "
                "cluster.local/ns/shop/sa/web"
            ) from None
    return found


def _namespace(argument: str, value: object) -> str:
    found = pattern(argument, value)
    if "*" not in found:
        checks.label_name(argument, found)
    return found


def _service_account(argument: str, value: object) -> str:
    """`name`, of the policy's namespace, or `namespace/name`; wildcards are not for service accounts."""
    if isinstance(value, str):
        namespace, slash, name = value.rpartition("/")
        if (not slash or _matches(checks.label_name, namespace)) and _matches(checks.object_name, name):
            return value
    raise checks.refused(argument, value, "a service account, as in web or shop/web")


def _matches(check: Callable[[str, object], object], value: object) -> bool:
    try:
        check("", value)
    except ValueError:
        return False
    return True


def _trust_domain(argument: str, value: object) -> str:
    found = pattern(argument, value)
    if "*" not in found:
        return checks.trust_domain(argument, found)
    if "/" in found:
        raise checks.refused(argument, value, "the name of a trust domain, without a path")
    return found


def _port_text(argument: str, value: object) -> str:
    """A port as text: Istio's schema has strings here, and a number in YAML would be refused."""
    if (
        not isinstance(value, str)
        or not value.isascii()
        or not value.isdigit()
        or not 1 <= int(value[:6]) <= checks.MAX_PORT
    ):
        raise checks.refused(argument, value, "a port as text, '1' to '65535'")
    return value


def _method(argument: str, value: object) -> str:
    found = pattern(argument, value)
    if found != "*":
        checks.method(argument, found.strip("*"))
    return found


_SOURCE: Final[dict[str, Callable[[str, object], str]]] = {
    "principals": _principal,
    "requestPrincipals": pattern,
    "namespaces": _namespace,
    "serviceAccounts": _service_account,
    "trustDomains": _trust_domain,
    "ipBlocks": checks.address,
    "remoteIpBlocks": checks.address,
}
_OPERATION: Final[dict[str, Callable[[str, object], str]]] = {
    "hosts": pattern,
    "ports": _port_text,
    "methods": _method,
    "paths": path,
}


def _with_negations(table: Mapping[str, Callable[[str, object], str]]) -> dict[str, Callable[[str, object], str]]:
    return {
        spelling: check for field, check in table.items() for spelling in (field, f"not{field[0].upper()}{field[1:]}")
    }


_SOURCE_FIELDS: Final = _with_negations(_SOURCE)
_OPERATION_FIELDS: Final = _with_negations(_OPERATION)
_BY_ACCOUNT: Final = ("serviceAccounts", "notServiceAccounts")
_BY_PRINCIPAL: Final = ("principals", "notPrincipals", "namespaces", "notNamespaces")
_MOST_SERVICE_ACCOUNTS: Final = 16  # Istio's schema


def _source(argument: str, source: object) -> dict[str, list[str]]:
    found = _matchers(argument, source, _SOURCE_FIELDS)
    by_account = [field for field in _BY_ACCOUNT if field in found]
    others = [field for field in _BY_PRINCIPAL if field in found]
    if by_account and others:
        raise ValueError(f"{argument}: {by_account[0]} and {others[0]} cannot stand together; give one of them")
    for field in by_account:
        checks.listed(f"{argument}.{field}", found[field], most=_MOST_SERVICE_ACCOUNTS)
    return found


def _operation(argument: str, operation: object) -> dict[str, list[str]]:
    return _matchers(argument, operation, _OPERATION_FIELDS)


def _matchers(argument: str, value: object, table: Mapping[str, Callable[[str, object], str]]) -> dict[str, list[str]]:
    given = checks.fields(argument, value, table)
    if not given:
        raise ValueError(f"{argument}: empty; leave it out for everything, or give one of {', '.join(table)}")
    return {field: checks.several(f"{argument}.{field}", given[field], table[field], fewest=1) for field in given}


# Conditions

_IDENTITY_KEYS: Final = ("source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain")
_CONDITIONS: Final[dict[str, Callable[[str, object], str]]] = {
    "source.ip": checks.address,
    "remote.ip": checks.address,
    "source.namespace": _namespace,
    "source.principal": _principal,
    "source.serviceAccount": _service_account,
    "source.trustDomain": _trust_domain,
    "request.auth.principal": pattern,
    "request.auth.audiences": pattern,
    "request.auth.presenter": pattern,
    "destination.ip": checks.address,
    "destination.port": _port_text,
    "connection.sni": pattern,
}
# Keys that name one of many, in brackets: request.headers[User-Agent], request.auth.claims[iss].
_CONDITION_MAPS: Final = ("request.headers", "request.auth.claims", "experimental.envoy.filters.")


def _condition(argument: str, condition: object) -> dict[str, Any]:
    given = checks.fields(argument, condition, ("key", "values", "notValues"), needed=("key",))
    key = given["key"]
    check = _condition_check(f"{argument}.key", key)
    found: dict[str, Any] = {"key": key}
    for field in ("values", "notValues"):
        if field in given:
            found[field] = checks.several(f"{argument}.{field}", given[field], check, fewest=1)
    if len(found) == 1:
        raise ValueError(f"{argument}: values or notValues is missing; give what {key} shall be, or shall not be")
    return found


def _condition_check(argument: str, key: object) -> Callable[[str, object], str]:
    if isinstance(key, str):
        if key in _CONDITIONS:
            return _CONDITIONS[key]
        if key.startswith(_CONDITION_MAPS) and key.endswith("]") and 0 < key.find("[") < len(key) - 2:
            return pattern
    known = (*_CONDITIONS, "request.headers[name]", "request.auth.claims[name]")
    raise checks.refused(argument, key, f"one of {', '.join(known)}")
