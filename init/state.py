"""What a packet filter holds now, read from `iptables-save`, and how it differs from a plan. Pure.

Rules are compared by their meaning, not by their spelling: versions of iptables-save differ in what they
write out.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final, TypeAlias

from init import istio
from init.render import rule_text
from init.rules import OURS, PREFIX, Plan, Table
from mesh.errors import UserError

# One condition or action of a rule: its option, whether `!` stands before it, and what follows it.
Term: TypeAlias = tuple[str, bool, tuple[str, ...]]

# `-m NAME` of these only says where the options after it come from; alone they match everything.
_IMPLIED_MODULES: Final = frozenset({"tcp", "udp", "owner", "conntrack", "comment"})
# iptables-nft-save lists all the other tables, and succeeds. "Table `nat' contains incompatible base-chains" is no such
# line: there are chains beside the built-in ones then, and it lists those that it manages.
_UNLISTED: Final = re.compile(r"# Table `(.*)' is incompatible")
# Some versions of iptables-save write numbers (IANA protocol numbers).
_PROTOCOL_NUMBERS: Final = {"6": "tcp", "17": "udp"}


@dataclass(frozen=True, slots=True)
class State:
    """The rules of one family in one back end: table → chain → rules.

    A rule is the text that iptables-save writes after `-A CHAIN`.
    """

    tables: Mapping[str, Mapping[str, tuple[str, ...]]]

    @property
    def holds_rules(self) -> bool:
        """Whether there is any rule at all, ours or foreign."""
        return any(rules for chains in self.tables.values() for rules in chains.values())

    @property
    def holds_ours(self) -> bool:
        """Whether there is any chain or rule of ours."""
        return self.holds_of(OURS)

    def holds_of(self, owned: Collection[str]) -> bool:
        """Whether there is any chain whose name starts with one of `owned`, or a rule that leads to such a one."""
        return any(self.own_chains(table, owned) or self.own_jumps(table, owned) for table in self.tables)

    def own_chains(self, table: str, owned: Collection[str] = OURS) -> tuple[str, ...]:
        """The names of the chains in `table` that start with one of `owned`."""
        return tuple(chain for chain in self.tables.get(table, {}) if chain.startswith(tuple(owned)))

    def own_jumps(self, table: str, owned: Collection[str] = OURS) -> tuple[tuple[str, str], ...]:
        """Every rule that is owned in a chain that is not, as (chain, rule text)."""
        return tuple(
            (chain, rule)
            for chain, rules in self.tables.get(table, {}).items()
            if not chain.startswith(tuple(owned))
            for rule in rules
            if self.owns(chain, rule, owned)
        )

    def owns(self, chain: str, rule: str, owned: Collection[str] = OURS) -> bool:
        """Whether a rule is owned that stands in `chain`, which is not: because it leads to a chain that is.

        With Istio's chains those rules are owned, too, that Istio writes straight into built-in ones.
        """
        if leads_to(rule, owned):
            return True
        if istio.PREFIX not in owned:
            return False
        return istio.is_direct(chain, rule) or (istio.is_beside(chain, rule) and self._has_istio)

    @property
    def _has_istio(self) -> bool:
        return any(
            chain.startswith(istio.PREFIX) or any(istio.is_direct(chain, rule) for rule in rules)
            for chains in self.tables.values()
            for chain, rules in chains.items()
        )

    def only(self, chain: str) -> State:
        """Return the part of this state that is `chain` and the rules in foreign chains that lead to it."""
        return State(
            {
                table: {
                    name: rules if name == chain else tuple(rule for rule in rules if target_of(rule) == chain)
                    for name, rules in chains.items()
                    if name == chain or not name.startswith(PREFIX)
                }
                for table, chains in self.tables.items()
            }
        )


def parse_save(text: str) -> State:
    """Read the output of iptables-save; UserError for a rule without a chain, which it never writes.

    UserError, too, where it says that it cannot list a table: then nobody knows what stands there. Counters, other
    comments and chain policies are left out.
    """
    tables: dict[str, dict[str, list[str]]] = {}
    chains: dict[str, list[str]] = {}
    for line in text.splitlines():
        unlisted = _UNLISTED.match(line)
        if unlisted:
            raise UserError(
                f"iptables cannot list the table {unlisted[1]}, because somebody has put rules there that only nft can "
                "write, and what cannot be seen is not changed: see `nft list ruleset`, delete those rules or move "
                "them to a table of another name, and run this again"
            )
        if line.startswith("*"):
            chains = tables.setdefault(line[1:].strip(), {})
        elif line.startswith(":"):
            chains.setdefault(line[1:].split(" ", 1)[0], [])
        elif line.startswith("-A "):
            _, chain, rule = (*line.split(" ", 2), "")[:3]
            if not chain.strip():
                raise UserError(f"cannot read what iptables-save printed: {line[:80]!r}; is it iptables' own?")
            chains.setdefault(chain.rstrip(), []).append(rule.rstrip())
    return State({name: {chain: tuple(rules) for chain, rules in own.items()} for name, own in tables.items()})


def leads_to(rule: str, owned: Collection[str] = OURS) -> bool:
    """Whether the target of a rule, written as iptables-save does, is a chain that starts with one of `owned`."""
    # Most rules of a busy host are foreign; they are told by a plain search, without being taken apart.
    return any(prefix in rule for prefix in owned) and target_of(rule).startswith(tuple(owned))


def target_of(rule: str) -> str:
    """Return where a rule, written as iptables-save does, goes to; "" for a rule that only counts."""
    return next((values[0] for option, _, values in meaning(rule) if option in ("-j", "-g") and values), "")


def meaning(rule: str) -> tuple[Term, ...]:
    """Return what a rule says, the same for every spelling of it that iptables-save or we write."""
    try:
        words = shlex.split(rule)
    except ValueError:
        # Quotes that do not close are nothing that iptables-save writes; such a rule equals only itself.
        return ((rule, False, ()),)
    terms: list[Term] = []
    negated = False
    for word in words:
        if word == "!":
            negated = True
        elif word.startswith("-") or not terms:
            terms.append((word, negated, ()))
            negated = False
        else:
            option, negation, values = terms[-1]
            terms[-1] = (option, negation, (*values, word))
    return tuple(sorted(_canonical(term) for term in terms if not _is_implied(term)))


def differences(plan: Plan, state: State, owned: Collection[str] = OURS) -> dict[str, tuple[str, ...]]:
    """Return table → one line for each way in which `state` is not exactly `plan`, as far as it is ours.

    Ours are the chains that start with one of `owned`. Tables without a difference are left out: an empty answer says
    that the plan stands.
    """
    planned = {table.name: table for table in plan.tables}
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted(planned.keys() | state.tables.keys()):
        table = planned.get(name, Table(name, (), ()))
        lines = [*_chain_differences(table, state, owned), *_jump_differences(table, state, owned)]
        if lines:
            found[name] = tuple(f"{plan.family.value} {name} {line}" for line in lines)
    return found


def _chain_differences(table: Table, state: State, owned: Collection[str]) -> list[str]:
    present = state.tables.get(table.name, {})
    lines: list[str] = []
    for chain in table.chains:
        if chain.name not in present:
            lines.append(f"{chain.name}: the chain is missing")
            continue
        wanted = [rule_text(rule) for rule in chain.rules]
        lines += [f"{chain.name}: {line}" for line in _rule_differences(wanted, present[chain.name])]
    names = {chain.name for chain in table.chains}
    lines += [f"{name}: the chain is left over" for name in state.own_chains(table.name, owned) if name not in names]
    return lines


def _jump_differences(table: Table, state: State, owned: Collection[str]) -> list[str]:
    lines: list[str] = []
    present = state.tables.get(table.name, {})
    standing = [hook for hook, _ in state.own_jumps(table.name, owned)]
    hooks = [*dict.fromkeys([jump.hook for jump in table.jumps] + standing)]
    for hook in hooks:
        wanted = [rule_text(jump.rule) for jump in table.jumps if jump.hook == hook]
        rules = present.get(hook, ())
        ours = [rule for rule in rules if state.owns(hook, rule, owned)]
        wrong = _rule_differences(wanted, ours)
        lines += [f"{hook}: {line}" for line in wrong]
        if not wrong and tuple(rules[: len(ours)]) != tuple(ours):
            foreign = next(rule for rule in rules if not state.owns(hook, rule, owned))
            lines.append(f"{hook}: a foreign rule stands before ours: {foreign}")
    return lines


def _rule_differences(wanted: Sequence[str], present: Sequence[str]) -> list[str]:
    lines: list[str] = []
    matcher = SequenceMatcher(
        None, [meaning(rule) for rule in wanted], [meaning(rule) for rule in present], autojunk=False
    )
    for tag, first, last, present_first, present_last in matcher.get_opcodes():
        if tag != "equal":
            lines += [f"rule {number + 1} is missing: {wanted[number]}" for number in range(first, last)]
            lines += [
                f"rule {number + 1} does not belong here: {present[number]}"
                for number in range(present_first, present_last)
            ]
    return lines


def _is_implied(term: Term) -> bool:
    option, negated, values = term
    return option == "-m" and not negated and len(values) == 1 and values[0] in _IMPLIED_MODULES


def _canonical(term: Term) -> Term:
    option, negated, values = term
    match option, values:
        case "-p", (number,):
            return option, negated, (_PROTOCOL_NUMBERS.get(number, number),)
        case (("-s" | "-d"), (network,)):
            return option, negated, (_canonical_network(network),)
    return term


def _canonical_network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return text  # a mask with holes in it: nothing that we write, so only equality with itself matters
