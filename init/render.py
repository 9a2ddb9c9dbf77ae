"""Plans as text for `iptables-restore --noflush`. Pure.

The text of one family is one run of iptables-restore, and each table in it is one transaction in the kernel:
a packet sees the old rules or the new ones, nothing in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from init.plan import Match, Plan, Rule, Table
from mesh import names

if TYPE_CHECKING:
    from init.state import State

# Which module an option comes from; `--dport` comes from the protocol's own.
_MODULES: Final = {
    "--uid-owner": "owner",
    "--gid-owner": "owner",
    "--ctstate": "conntrack",
    "--tcp-flags": "tcp",
}


def rule_text(rule: Rule) -> str:
    """Return `rule` as iptables-save writes it after `-A CHAIN`."""
    words: list[str] = []
    module = protocol = ""
    for match in rule.matches:
        needed = protocol if match.option == "--dport" else _MODULES.get(match.option, "")
        if needed and needed != module:
            words += ["-m", needed]
            module = needed
        if match.option == "-p":
            protocol = match.value
        words += _match_words(match)
    words += ["-m", "comment", "--comment", _quoted(rule.reason), "-j", rule.target]
    if rule.to_port is not None:
        words += ["--to-ports", str(rule.to_port)]
    return " ".join(words)


def plan_text(plan: Plan) -> str:
    """Return the text that puts `plan` into a family that holds nothing of ours yet."""
    return "".join(_section(table.name, _additions(table)) for table in plan.tables)


def transaction(plan: Plan, state: State, differing: Iterable[str]) -> str:
    """Return the text that turns what `state` holds of ours into `plan`, in the tables named by `differing`.

    Foreign chains and rules are not mentioned, so they stay as they are. Order within a table: our chains are
    made or emptied, our old jumps removed, rules and jumps added, chains that the plan no longer has deleted.
    """
    planned = {table.name: table for table in plan.tables}
    sections: list[str] = []
    for name in differing:
        table = planned.get(name, Table(name, (), ()))
        wanted = {chain.name for chain in table.chains}
        stale = [chain for chain in state.own_chains(name) if chain not in wanted]
        sections.append(
            _section(
                name,
                [
                    *(f":{chain} - [0:0]" for chain in stale),
                    *_additions(table, removals=[f"-D {hook} {rule}" for hook, rule in state.own_jumps(name)]),
                    *(f"-X {chain}" for chain in stale),
                ],
            )
        )
    return "".join(sections)


def dry_run_text(plans: Iterable[Plan]) -> str:
    """Return what a first application would do; each part is valid input for the program named above it."""
    parts = ["# Nothing is applied. Each part is the input of one run of the program that it names.\n"]
    for plan in plans:
        program = "iptables-restore" if plan.family.version == 4 else "ip6tables-restore"
        if plan.family.version == 6:
            parts.append(f"# {plan.family.value}: ip -6 address add {names.INBOUND_SOURCE_V6}/128 dev lo\n")
        parts.append(f"# {plan.family.value}: {program} --noflush\n{plan_text(plan)}")
    return "".join(parts)


def _additions(table: Table, removals: Iterable[str] = ()) -> list[str]:
    hooks = dict.fromkeys(jump.hook for jump in table.jumps)
    jumps = {hook: [jump.rule for jump in table.jumps if jump.hook == hook] for hook in hooks}
    return [
        *(f":{chain.name} - [0:0]" for chain in table.chains),
        *removals,
        *(f"-A {chain.name} {rule_text(rule)}" for chain in table.chains for rule in chain.rules),
        # Last, as a reader expects it: what a jump leads to stands above it.
        # elsewhere.
        *(
            f"-I {hook} {place} {rule_text(rule)}"
            for hook, rules in jumps.items()
            for place, rule in enumerate(rules, 1)
        ),
    ]


def _section(table: str, lines: Iterable[str]) -> str:
    return "\n".join([f"*{table}", *lines, "COMMIT", ""])


def _match_words(match: Match) -> list[str]:
    return [*(["!"] if match.negated else []), match.option, match.value]


def _quoted(reason: str) -> str:
    # iptables-save quotes only what needs it; reasons are our own words, without quotes or backslashes.
    return f'"{reason}"'
