"""What a decision costs: a workload's policies compiled, beside a reading of each policy in turn.

An index is only as good as what it is given, hence several kinds of policies: each names its principal; each names one
with a wildcard; each names a block of addresses; each excludes somebody (notPrincipals alone); each names a namespace
with a wildcard in the middle; each names paths of requests, or templates of them. "First time" is a peer that was not
seen before, "again" one that is remembered; of requests, nothing is remembered.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence

from bench.rounds import ROUNDS
from mesh.authorization import Action, AuthorizationPolicy, Operation, Rule, Source
from mesh.conditions import Mesh
from mesh.decision import Facts, compile_policies
from mesh.facts import HttpFacts, View
from mesh.metadata import Metadata
from mesh.rule_index import make_ready
from mesh.selectors import Selector, Workload

_WORKLOAD = Workload("shop", {"app": "web"}, "web")
_COUNTS = (10, 100, 1000)
# The promise of the product: a thousand policies, in microseconds.
_PROMISE = 20.0


def _principal(number: int) -> str:
    return f"cluster.local/ns/team-{number % 50}/sa/app-{number}"


def _exact(number: int) -> Rule:
    return Rule((Source(principals=(_principal(number),)),), (Operation(ports=("8080", "9090")),))


def _wildcard(number: int) -> Rule:
    return Rule((Source(principals=(f"*/sa/app-{number}",)),), (Operation(ports=("8080", "9090")),))


def _excluding(number: int) -> Rule:
    return Rule((Source(not_principals=("cluster.local/ns/other/sa/*",), ip_blocks=(f"10.{number % 256}.0.0/16",)),))


def _everybody_but(number: int) -> Rule:
    return Rule((Source(not_principals=(_principal(number), "cluster.local/ns/other/sa/*")),))


def _middle(number: int) -> Rule:
    return Rule((Source(namespaces=(f"team*{number}",)),))


def _path(number: int) -> Rule:
    return Rule((), (Operation(methods=("GET", "POST"), paths=(f"/orders/{number}", f"/orders/{number}/*")),))


def _template(number: int) -> Rule:
    return Rule((), (Operation(paths=(f"/team-{number}/{{*}}/orders/{{**}}",)),))


_KINDS: dict[str, tuple[Action, Callable[[int], Rule]]] = {
    "named principals": (Action.ALLOW, _exact),
    "wildcards": (Action.ALLOW, _wildcard),
    "blocks, with exclusions": (Action.ALLOW, _excluding),
    "exclusions alone": (Action.DENY, _everybody_but),
    "wildcards in the middle": (Action.ALLOW, _middle),
    "requests: paths": (Action.DENY, _path),
    "requests: templates": (Action.ALLOW, _template),
}
_OF_REQUESTS = frozenset(name for name in _KINDS if name.startswith("requests"))


def _policies(count: int, action: Action, rule: Callable[[int], Rule]) -> list[AuthorizationPolicy]:
    return [
        AuthorizationPolicy(
            Metadata("AuthorizationPolicy", "shop", f"policy-{number:04}"), action, (rule(number),), Selector({})
        )
        for number in range(count)
    ]


# More than what Compiled remembers, each another: nothing is answered from memory.
_DIFFERENT = 1500


def _requests(count: int) -> dict[str, list[Facts]]:
    """By kind of request: of a path that one policy names, of one whose template it fits, of another."""

    def asked(path: str) -> list[Facts]:
        return [
            Facts(8080, _principal(1), http=HttpFacts("GET", path.format(number % count), "web.shop"))
            for number in range(_DIFFERENT)
        ]

    return {"named": asked("/orders/{0}"), "fitting": asked("/team-{0}/a/orders/b"), "stranger": asked("/else/{0}")}


def _questions(count: int) -> dict[str, list[Facts]]:
    """By kind of peer: a policy names it, none does, every exclusion excludes it, or it has no identity."""

    def asked(peers: Sequence[str | None]) -> list[Facts]:
        return [
            Facts(1 + number, principal=peers[number % len(peers)], source_ip=f"192.0.{number % 7}.{number % 256}")
            for number in range(_DIFFERENT)
        ]

    return {
        "named": asked([_principal(number) for number in range(count)]),
        "stranger": asked([f"cluster.local/ns/nobody/sa/stranger-{number}" for number in range(100)]),
        "excluded": asked([f"cluster.local/ns/other/sa/stranger-{number}" for number in range(100)]),
        "nobody": asked([None]),
    }


def _microseconds(ask: Callable[[Facts], object], questions: Sequence[Facts]) -> float:
    """The median over the rounds of the time of CPU that one decision takes."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for question in questions:
            ask(question)
        rounds.append((time.process_time() - start) / len(questions) * 1e6)
    return statistics.median(rounds)


def _one_by_one(policies: Sequence[AuthorizationPolicy], *, http: bool) -> Callable[[Facts], object]:
    """Each rule looked at in turn, ready as the compiled form's are, but without an index."""
    mesh = Mesh("shop", "cluster.local", ())
    rules = [
        make_ready(rule, policy.action, mesh, http=http, meaning=None) for policy in policies for rule in policy.rules
    ]

    def ask(facts: Facts) -> bool:
        view = View(facts)
        return any(rule.matches(view) for rule in rules)

    return ask


def main() -> None:
    """Print a table."""
    print("microseconds per decision; 'slowest' names the kind of peer for whom a first decision takes longest\n")
    print(
        f"{'each policy':<24} {'policies':>8} {'one by one':>11} {'first time':>11} {'slowest':>20} {'again':>6}"
        f" {'compiling, ms':>14} {'KiB':>6}"
    )
    for name, (action, rule) in _KINDS.items():
        for count in _COUNTS:
            _row(name, count, _policies(count, action, rule))


def _row(name: str, count: int, policies: Sequence[AuthorizationPolicy]) -> None:
    http = name in _OF_REQUESTS
    questions = _requests(count) if http else _questions(count)
    one = next(iter(questions.values()))[0]
    start = time.process_time()
    compile_policies(policies, _WORKLOAD).decide(one)  # what is for requests is compiled for the first of them
    compiling = (time.process_time() - start) * 1e3
    tracemalloc.start()
    compiled = compile_policies(policies, _WORKLOAD)
    compiled.decide(one)
    size = tracemalloc.get_traced_memory()[0] / 1024
    tracemalloc.stop()
    one_by_one = _one_by_one(policies, http=http)
    each = statistics.median(_microseconds(one_by_one, asked[: max(2, 1000 // count)]) for asked in questions.values())
    first = {who: _microseconds(compiled.decide, asked) for who, asked in questions.items()}
    again = statistics.median(_microseconds(compiled.decide, asked[:500]) for asked in questions.values())
    slowest = max(first, key=lambda who: first[who])
    print(
        f"{name:<24} {count:>8} {each:>11.1f} {statistics.median(first.values()):>11.2f}"
        f" {slowest:>12} {first[slowest]:>7.2f} {again:>6.2f} {compiling:>14.1f} {size:>6.0f}"
        + ("" if first[slowest] < _PROMISE else f"   over {_PROMISE:g}")
    )


if __name__ == "__main__":
    main()
