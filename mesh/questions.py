"""Who may be asked about: the callers, workloads and ports that a set of policies sets apart, and one for all others.

Between two callers that no policy tells apart nothing needs to be asked twice. So what policies name, and one sample of
what they do not name, stand for everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Final

from mesh.authorization import AuthorizationPolicy, Rule, Source
from mesh.inventory import Inventory, KnownWorkload
from mesh.resources import ResourceSet
from mesh.selectors import Selector, Workload, by_namespace

# Names that nobody gives: they stand for all that are not named.
SOME_NAMESPACE: Final = "some-namespace"
SOME_ACCOUNT: Final = "some-account"
ANY_OTHER: Final = "any other"
ANY_OTHER_IDENTITY: Final = "any other identity"
ANY_OTHER_OF: Final = "any other account of namespace"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who calls; `principal` None: without an identity. `words` is what it stands for."""

    principal: str | None
    words: str
    namespace: str = ""


def callers(
    policies: Iterable[AuthorizationPolicy], namespaces: Iterable[str], trust_domain: str
) -> tuple[Caller, ...]:
    """Everybody whom `policies` tell apart, somebody of each of `namespaces`, somebody else, and nobody."""
    found: dict[str | None, Caller] = {}
    for policy in policies:
        for source in _sources(policy.rules):
            for principal, words in _named_by(source, policy.metadata.namespace, trust_domain):
                _add(found, principal, words)
    for namespace in namespaces:
        _add(found, _principal(trust_domain, namespace, SOME_ACCOUNT), f"{ANY_OTHER_OF} {namespace}")
    ordered = sorted(found.values(), key=lambda one: one.principal or "")
    other = Caller(_principal(trust_domain, SOME_NAMESPACE, SOME_ACCOUNT), ANY_OTHER_IDENTITY, SOME_NAMESPACE)
    return (*ordered, other, Caller(None, "without identity"))


def _add(found: dict[str | None, Caller], principal: str, words: str) -> None:
    parts = principal.split("/")
    namespace = parts[2] if len(parts) == 5 and parts[1] == "ns" else ""
    found.setdefault(principal, Caller(principal, words or principal, namespace))


def _sources(rules: Iterable[Rule]) -> Iterator[Source]:
    """The sources of rules; conditions on who calls are sources in other words."""
    for rule in rules:
        yield from rule.sources
        for condition in rule.conditions:
            values = (*condition.values, *condition.not_values)
            match condition.key:
                case "source.principal":
                    yield Source(principals=values)
                case "source.namespace":
                    yield Source(namespaces=values)
                case "source.serviceAccount":
                    yield Source(service_accounts=values)
                case "source.trustDomain":
                    yield Source(trust_domains=values)


def _named_by(source: Source, namespace: str, trust_domain: str) -> Iterator[tuple[str, str]]:
    """Principals that a source names, and in words whom each stands for ("": itself)."""
    for value in (*source.principals, *source.not_principals):
        if "*" not in value:
            yield value, ""
        elif value != "*":
            sample = value.replace("*", SOME_ACCOUNT)
            yield sample.removeprefix(f"{SOME_ACCOUNT}/") if value.startswith("*/") else sample, f"principals {value}"
    for value in (*source.service_accounts, *source.not_service_accounts):
        its, _, account = value.rpartition("/")
        yield _principal(trust_domain, its or namespace, account), ""
    for value in (*source.namespaces, *source.not_namespaces):
        sample = value.replace("*", SOME_NAMESPACE)
        yield _principal(trust_domain, sample, SOME_ACCOUNT), f"{ANY_OTHER_OF} {value}"
    for value in (*source.trust_domains, *source.not_trust_domains):
        sample = value.replace("*", "some-domain")
        yield _principal(sample, SOME_NAMESPACE, SOME_ACCOUNT), f"any identity of trust domain {value}"


def has_patterns(policies: Iterable[AuthorizationPolicy]) -> bool:
    """Whether a source names accounts or namespaces by a pattern, which fits some of those that nobody names.

    `*` alone is none: it fits all.
    """
    return any(
        "*" in value and value != "*"
        for policy in policies
        for source in _sources(policy.rules)
        for values in (
            source.principals,
            source.not_principals,
            source.service_accounts,
            source.not_service_accounts,
            source.namespaces,
            source.not_namespaces,
        )
        for value in values
    )


def _principal(trust_domain: str, namespace: str, account: str) -> str:
    return f"{trust_domain}/ns/{namespace}/sa/{account}"


def workloads(sets: Sequence[ResourceSet]) -> tuple[Workload, ...]:
    """Every workload that a document makes or a selector means, and one for all others of each namespace.

    Where selectors overlap, pods that several of them mean are asked about only where a document makes such pods.
    """
    known = by_namespace((one.workload.namespace, one.workload) for each in sets for one in _documented(each))
    scopes = by_namespace(
        (its, (number, selector)) for number, (its, selector) in enumerate(chain(*map(_scopes, sets)))
    )
    roots = {one.root_namespace for one in sets}
    found: dict[str, Workload] = {}
    for namespace in (*sorted((known.keys() | scopes.keys()) - roots), SOME_NAMESPACE):
        there = _There(known.get(namespace, ()))
        here = sorted(chain(*(scopes.get(its, ()) for its in {namespace, *roots})), key=itemgetter(0))
        for _, selector in here:
            if selector.match_labels and not there.selected(selector):
                there.add(Workload(namespace, selector.match_labels, "", _in_words(selector.match_labels)))
        there.add(Workload(namespace, {}, "", ANY_OTHER))
        for one in there.workloads:
            found.setdefault(f"{one} {_in_words(one.labels)}", one)
    return tuple(found.values())


class _There:
    """Workloads of one namespace, filed under their labels."""

    def __init__(self, workloads: Iterable[Workload]) -> None:
        self.workloads: list[Workload] = []
        self._labelled: dict[tuple[str, str], list[Workload]] = {}
        for one in workloads:
            self.add(one)

    def add(self, workload: Workload) -> None:
        self.workloads.append(workload)
        for label in workload.labels.items():
            self._labelled.setdefault(label, []).append(workload)

    def selected(self, selector: Selector) -> bool:
        """Whether `selector`, which has labels, selects one of them."""
        rarest = min((self._labelled.get(label, []) for label in selector.match_labels.items()), key=len)
        return any(selector.selects_labels(one.labels) for one in rarest)


def _documented(resources: ResourceSet) -> Iterable[KnownWorkload]:
    return Inventory.of(resources.foreign).workloads


def _scopes(resources: ResourceSet) -> Iterator[tuple[str, Selector]]:
    """The namespace and the selector of everything that is about workloads."""
    for peer in resources.peer_authentications:
        yield peer.metadata.namespace, peer.selector
    for policy in resources.authorization_policies:
        yield policy.metadata.namespace, policy.selector
    for rule in resources.destination_rules:
        yield rule.metadata.namespace, Selector({})


def _in_words(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
