"""Whether a connection or a request is allowed, by which policy, and why: Istio's rules of AuthorizationPolicy.

The order is CUSTOM, DENY, ALLOW: what matches a CUSTOM policy is denied (its authorizer cannot be asked here), what
matches a DENY policy is denied; where ALLOW policies apply to the workload one of them must match; else it is allowed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, Final

from mesh import names
from mesh.authorization import Action, AuthorizationPolicy
from mesh.conditions import READS, Mesh, conditions_of
from mesh.facts import Facts, HttpFacts, View
from mesh.rule_index import NeverMatches, ReadyRule, RuleIndex, make_ready
from mesh.selectors import ROOT_NAMESPACE, Workload

__all__ = ["Compiled", "Decision", "Facts", "HttpFacts", "closed", "compile_policies", "decide"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done, and who decided it."""

    allowed: bool
    action: Action | None  # of the policy that decided; ALLOW too where no ALLOW policy matched; None: no policy did
    policy: str | None  # "namespace/name"; None where none matched
    rule: int | None  # its place within the policy's rules
    reason: str  # one sentence for a person
    dry_run: Decision | None = None  # what it would be if the policies in dry run counted; None: there are none
    audited: tuple[str, ...] = ()  # the AUDIT policies that matched, as "namespace/name"


# More peers than a workload has at one time, at a few hundred bytes each.
_MOST_REMEMBERED: Final = 1024


class Compiled:
    """The policies of one workload, ready. Decisions depend on the facts alone.

    It may be shared by everything within a process. What was decided for a connection is remembered, for peers come
    again and again; how much is bounded.
    """

    def __init__(self, policies: Sequence[AuthorizationPolicy], trust_domain: str, aliases: Sequence[str]) -> None:
        self._policies = tuple(policies)
        self._trust_domain = trust_domain
        self._aliases = tuple(aliases)
        self._connections = self._compiled(http=False)
        self._requests: _Verdicts | None = None  # most sidecars never read a request
        self._remembered: dict[tuple[Any, ...], Decision] = {}
        self._what_counts = attrgetter(*_fields_that_count(self._policies))

    @property
    def policies(self) -> tuple[AuthorizationPolicy, ...]:
        """The policies that apply to the workload, the oldest first: the first that matches is named."""
        return self._policies

    def decide(self, facts: Facts) -> Decision:
        """What these policies say of a connection, or of a request where `facts.http` has one."""
        if facts.http is None:
            what_counts = self._what_counts(facts)
            decision = self._remembered.get(what_counts)
            if decision is None:
                decision = self._connections.decide(View(facts))
                if len(self._remembered) >= _MOST_REMEMBERED:
                    self._remembered.clear()
                self._remembered[what_counts] = decision
            return decision
        if self._requests is None:
            self._requests = self._compiled(http=True)
        return self._requests.decide(View(facts))

    def _compiled(self, *, http: bool) -> _Verdicts:
        return _Verdicts(self._policies, self._trust_domain, self._aliases, http=http)


def _fields_that_count(policies: Iterable[AuthorizationPolicy]) -> list[str]:
    """The fields of Facts that decide about a connection: who the peer is, and what a rule asks for beside that.

    Two at least, so that what is got by them is a tuple.
    """
    found = {"principal": None, "destination_port": None}
    for policy in policies:
        for rule in policy.rules:
            parts = (*map(conditions_of, rule.sources), *map(conditions_of, rule.operations))
            for condition in chain(rule.conditions, *parts):
                found.update(dict.fromkeys(READS.get(condition.key, ())))
    return list(found)


def compile_policies(
    policies: Iterable[AuthorizationPolicy],
    workload: Workload,
    *,
    trust_domain: str = names.DEFAULT_TRUST_DOMAIN,
    trust_domain_aliases: Sequence[str] = (),
    root_namespace: str = ROOT_NAMESPACE,
) -> Compiled:
    """Those of `policies` that apply to `workload`, ready to decide.

    `trust_domain` is the mesh's own; a principal in a policy that names it, `cluster.local` or one of the aliases, is
    meant under each of these names.
    """
    mine = [
        policy for policy in policies if policy.selector.selects(workload, policy.metadata.namespace, root_namespace)
    ]
    return Compiled(sorted(mine, key=lambda policy: policy.metadata.age), trust_domain, trust_domain_aliases)


def decide(policies: Iterable[AuthorizationPolicy], facts: Facts) -> Decision:
    """What `policies`, all of which apply, say of `facts`: compiled for one question. The mesh is `cluster.local`."""
    in_order = sorted(policies, key=lambda policy: policy.metadata.age)
    return Compiled(in_order, names.DEFAULT_TRUST_DOMAIN, ()).decide(facts)


class _Closed(Compiled):
    def __init__(self, decision: Decision) -> None:
        super().__init__((), names.DEFAULT_TRUST_DOMAIN, ())
        self._decision = decision

    def decide(self, facts: Facts) -> Decision:
        return self._decision


def closed(reason: str) -> Compiled:
    """Denies everything for `reason`: where policies cannot be read and there are no last good ones."""
    return _Closed(Decision(allowed=False, action=None, policy=None, rule=None, reason=f"denied: {reason}"))


class _Verdicts:
    """One workload's policies, ready for connections or for requests."""

    def __init__(
        self, policies: Sequence[AuthorizationPolicy], trust_domain: str, aliases: Sequence[str], *, http: bool
    ) -> None:
        self._http = http
        self._trust_domain = trust_domain
        self._aliases = tuple(aliases)
        enforced = [policy for policy in policies if not policy.dry_run]
        self._enforced = self._order(enforced)
        # As if those in dry run counted.
        self._dry_run = self._order(policies) if len(enforced) < len(policies) else None
        self._audits = self._index(enforced, Action.AUDIT)

    def decide(self, view: View) -> Decision:
        decision = self._enforced.decide(view)
        dry_run = self._dry_run.decide(view) if self._dry_run is not None else None
        audits = tuple(dict.fromkeys(each.policy for each in self._audits.all(view) if each.policy is not None))
        if dry_run is None and not audits:
            return decision
        return dataclasses.replace(decision, dry_run=dry_run, audited=audits)

    def _order(self, policies: Sequence[AuthorizationPolicy]) -> _Order:
        denying = [self._index(policies, action) for action in (Action.CUSTOM, Action.DENY)]
        allows = [policy for policy in policies if policy.action is Action.ALLOW]
        return _Order(
            [index for index in denying if index],
            self._index(policies, Action.ALLOW) if allows else None,
            *_otherwise(policies, allows, http=self._http),
        )

    def _index(self, policies: Sequence[AuthorizationPolicy], action: Action) -> RuleIndex[Decision]:
        rules: list[ReadyRule[Decision]] = []
        for policy in policies:
            if policy.action is not action:
                continue
            mesh = Mesh(policy.metadata.namespace, self._trust_domain, self._aliases)
            for number, rule in enumerate(policy.rules):
                decided = _decided(policy, number)
                try:
                    rules.append(make_ready(rule, action, mesh, http=self._http, meaning=decided))
                except NeverMatches:
                    continue
        return RuleIndex(rules)


class _Order:
    """What is asked, in order, and what is decided where nothing matches."""

    def __init__(
        self,
        denying: Sequence[RuleIndex[Decision]],
        allowing: RuleIndex[Decision] | None,
        otherwise: Decision,
        otherwise_nobody: Decision,
    ) -> None:
        self._denying = denying
        self._allowing = allowing
        self._otherwise = otherwise
        self._otherwise_nobody = otherwise_nobody

    def decide(self, view: View) -> Decision:
        for index in self._denying:
            if (denied := index.first(view)) is not None:
                return denied
        if self._allowing is not None and (allowed := self._allowing.first(view)) is not None:
            return allowed
        return self._otherwise if view.principal else self._otherwise_nobody


# Sentences


def _decided(policy: AuthorizationPolicy, rule: int) -> Decision:
    """What is decided where a rule of `policy` matches."""
    key, action = policy.metadata.key, policy.action
    where = f"rules[{rule}] of the {action.value} policy {key}"
    allowed = action in (Action.ALLOW, Action.AUDIT)
    if action is Action.CUSTOM:
        reason = f"denied: {where} asks the authorizer {policy.provider!r}, which cannot be asked here"
    else:
        reason = f"{'allowed' if allowed else 'denied'} by {where}"
    return Decision(allowed=allowed, action=action, policy=key, rule=rule, reason=reason)


# Enough to know where to look; a thousand names help nobody.
_NAMED: Final = 3


def _otherwise(
    policies: Sequence[AuthorizationPolicy], allows: Sequence[AuthorizationPolicy], *, http: bool
) -> tuple[Decision, Decision]:
    """What is decided where no rule matches: for a peer with an identity, and for one without."""
    if not allows:
        blocking = any(policy.action in (Action.DENY, Action.CUSTOM) for policy in policies)
        reason = "no DENY policy matches, and there is no ALLOW policy" if blocking else "no policy applies"
        decision = Decision(allowed=True, action=None, policy=None, rule=None, reason=f"allowed: {reason}")
        return decision, decision
    keys = [policy.metadata.key for policy in allows]
    listed = ", ".join(keys[:_NAMED]) + (f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "")
    reason = f"denied: no ALLOW policy matches ({listed})"
    if not http and any(policy.has_http_rules for policy in allows):
        reason += "; rules with HTTP conditions match no connection"
    decision = Decision(allowed=False, action=Action.ALLOW, policy=None, rule=None, reason=reason)
    nobody = dataclasses.replace(decision, reason=f"{reason}; the peer has shown no identity")
    return decision, nobody
