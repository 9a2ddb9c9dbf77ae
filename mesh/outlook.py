"""What can be said about a peer before it says anything: allowed, denied, or what its requests would have to be like.

A decision wants facts; whoever asks "may A call B?" has none of the request and none of the addresses. Here each rule
is split into what is known (who, which port) and what is open, and the open part is told in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, Literal, TypeVar

from mesh import names
from mesh.authorization import HTTP_KEYS, Action, AuthorizationPolicy, Condition, Operation, Rule, Source
from mesh.decision import Compiled, Decision, Facts
from mesh.yaml_values import printable

Answer = Literal["allowed", "denied", "depends"]

# What is open of a rule, and how it reads: of lists, one value must hold; of not- forms, none may.
_SOURCE: Final[Mapping[str, str]] = {
    "request_principals": "token of",
    "ip_blocks": "address in",
    "remote_ip_blocks": "client address in",
}
_OPERATION: Final[Mapping[str, str]] = {"methods": "method", "paths": "path", "hosts": "host"}
_KEYS: Final = ("source.ip", "remote.ip", "destination.ip", "connection.sni")
# A rule of many sources and operations has as many alternatives as their product; a reader has seen enough before. So
# it is with many such rules: beyond this number in all, each tells one.
_MOST_ALTERNATIVES: Final = 1024
_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Clause:
    """One rule that matches some requests of the peer and not others."""

    policy: str  # "namespace/name"
    rule: int
    action: Action
    where: str  # what a request must be like for it

    def __str__(self) -> str:
        return f"{self.where} (rules[{self.rule}] of {self.policy})"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What awaits one peer at one port."""

    answer: Answer
    decision: Decision  # where `answer` is no "depends": of every request; else of a request that nothing speaks of
    allowed_for: tuple[Clause, ...] = ()  # of ALLOW rules: one of them must match
    denied_for: tuple[Clause, ...] = ()  # of DENY and CUSTOM rules: none of them may match

    def __str__(self) -> str:
        if self.answer != "depends":
            return self.decision.reason
        parts = []
        if self.allowed_for:
            parts.append(f"allowed for {_several(self.allowed_for)}")
        if self.denied_for:
            parts.append(f"denied for {_several(self.denied_for)}")
        return f"{'; '.join(parts)}; otherwise {self.decision.reason}"


class Forecast:
    """The policies of one workload, ready to be asked what awaits peers."""

    def __init__(
        self,
        compiled: Compiled,
        *,
        trust_domain: str = names.DEFAULT_TRUST_DOMAIN,
        trust_domain_aliases: Sequence[str] = (),
    ) -> None:
        def ready(*policies: AuthorizationPolicy) -> Compiled:
            return Compiled(policies, trust_domain, trust_domain_aliases)

        policies = [one for one in compiled.policies if not one.dry_run and one.action is not Action.AUDIT]
        self._certain = ready(*(replace(one, rules=tuple(map(_closed_part, one.rules))) for one in policies))
        # Each open way to match a rule as a policy of its own: whether that matches is whether the way is open.
        self._open: list[tuple[Clause, Compiled]] = []
        for policy in policies:
            for number, rule in enumerate(policy.rules):
                for kept, where in _open_alternatives(rule, max(1, _MOST_ALTERNATIVES - len(self._open))):
                    clause = Clause(policy.metadata.key, number, policy.action, where)
                    self._open.append((clause, ready(replace(policy, rules=(kept,)))))

    def of(self, principal: str | None, port: int) -> Outlook:
        """What awaits `principal` (None: a peer without identity) at `port` of the workload."""
        known = Facts(port, principal)
        clauses = [clause for clause, way in self._open if way.decide(known).allowed == (clause.action is Action.ALLOW)]
        return _answer(self._certain.decide(known), clauses)


def _answer(certain: Decision, clauses: Sequence[Clause]) -> Outlook:
    """What certain rules decide, unless one that is open decides otherwise."""
    allowing = tuple(one for one in clauses if one.action is Action.ALLOW)
    denying = tuple(one for one in clauses if one.action is not Action.ALLOW)
    if certain.allowed:
        return Outlook("depends" if denying else "allowed", certain, (), denying)
    if certain.policy is None and allowing:  # no ALLOW rule matches yet, and one may
        return Outlook("depends", certain, allowing, denying)
    return Outlook("denied", certain)


# Rules, split

# Takes the place of a rule whose alternatives are all open, so that the others keep their numbers: nobody dials port 0.
_NEVER: Final = Rule(operations=(Operation(ports=("0",)),))


def _closed_part(rule: Rule) -> Rule:
    """The rule with those alternatives alone that ask for nothing open."""
    sources = tuple(one for one in rule.sources if not _words(one, _SOURCE))
    operations = tuple(one for one in rule.operations if not _words(one, _OPERATION))
    is_closed = (
        not any(map(_is_open, rule.conditions))
        and bool(sources) == bool(rule.sources)
        and bool(operations) == bool(rule.operations)
    )
    return Rule(sources, operations, rule.conditions) if is_closed else _NEVER


def _open_alternatives(rule: Rule, most: int) -> Iterator[tuple[Rule, str]]:
    """Each way to match the rule that asks for something open: what else it asks for, and the open part in words.

    Of more than `most`, those that follow are one way that asks for nothing else.
    """
    pairs = product(rule.sources or (Source(),), rule.operations or (Operation(),))
    open_conditions = [_condition_words(one) for one in rule.conditions if _is_open(one)]
    conditions = tuple(one for one in rule.conditions if not _is_open(one))
    for number, (source, operation) in enumerate(pairs):
        words = [*_words(source, _SOURCE), *_words(operation, _OPERATION), *open_conditions]
        if not words:
            continue
        where = " and ".join(words)
        if number >= most:
            yield Rule((), (), conditions), "what further alternatives say"
            return
        yield Rule((_without(source, _SOURCE),), (_without(operation, _OPERATION),), conditions), where


_Part = TypeVar("_Part", Source, Operation)


def _words(part: Source | Operation, fields: Mapping[str, str]) -> list[str]:
    """What a part asks for that is open, in words."""
    found = []
    for name, words in fields.items():
        if values := getattr(part, name):
            found.append(f"{words} {_values(values)}")
        if values := getattr(part, f"not_{name}"):
            found.append(f"{words} not {_values(values)}")
    return found


def _without(part: _Part, fields: Mapping[str, str]) -> _Part:
    return replace(part, **{name: () for field in fields for name in (field, f"not_{field}")})


def _is_open(condition: Condition) -> bool:
    return condition.key.startswith(HTTP_KEYS) or condition.key in _KEYS


def _condition_words(condition: Condition) -> str:
    words = [f"{printable(condition.key)} {_values(condition.values)}"] if condition.values else []
    if condition.not_values:
        words.append(f"{printable(condition.key)} not {_values(condition.not_values)}")
    return " and ".join(words)


def _values(values: Sequence[str]) -> str:
    """A list of values of which one must hold."""
    if tuple(values) == ("*",):
        return "any"
    shown = [printable(one) for one in values[:_NAMED]]
    if len(values) > _NAMED:
        shown.append(f"{len(values) - _NAMED} more")
    return " or ".join(shown)


def _several(clauses: Sequence[Clause]) -> str:
    shown = [str(one) for one in clauses[:_NAMED]]
    if len(clauses) > _NAMED:
        shown.append(f"{len(clauses) - _NAMED} more")
    return ", or ".join(shown)
