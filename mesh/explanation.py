"""What each policy of a workload says of a connection or a request, beside the one that decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mesh import names
from mesh.authorization import Action, AuthorizationPolicy
from mesh.decision import Compiled, Facts


@dataclass(frozen=True, slots=True)
class Statement:
    """What one policy says of some facts."""

    policy: AuthorizationPolicy
    rule: int | None  # the first that matches; None: none does
    decides: bool  # whether the decision is this policy's

    @property
    def words(self) -> str:
        """The statement for a person."""
        if not self.policy.rules:
            return "has no rules: it matches nothing"
        if self.rule is None:
            return "no rule matches"
        if self.policy.dry_run:
            return f"rules[{self.rule}] matches, in dry run: nothing follows"
        return f"rules[{self.rule}] matches"


def statements(
    compiled: Compiled,
    facts: Facts,
    *,
    trust_domain: str = names.DEFAULT_TRUST_DOMAIN,
    trust_domain_aliases: Sequence[str] = (),
) -> tuple[Statement, ...]:
    """What each of the workload's policies says, in the order in which they are asked: CUSTOM, DENY, ALLOW, AUDIT."""
    decided = compiled.decide(facts)
    order = (Action.CUSTOM, Action.DENY, Action.ALLOW, Action.AUDIT)
    found = []
    for policy in sorted(compiled.policies, key=lambda one: order.index(one.action)):
        # Alone and in force, a policy is what is decided if one of its rules matches. An audit denies nothing, and
        # its rules match as those of a denial do.
        action = Action.DENY if policy.action is Action.AUDIT else policy.action
        alone = Compiled([replace(policy, action=action, dry_run=False)], trust_domain, trust_domain_aliases)
        rule = alone.decide(facts).rule
        is_it = not policy.dry_run and policy.action is not Action.AUDIT and policy.metadata.key == decided.policy
        found.append(Statement(policy, rule, is_it and rule == decided.rule))
    return tuple(found)
