"""For whom something changes where one set of policies takes the place of another.

A resource may change without any consequence, and one word may let a stranger in. So both sets are asked about
everybody whom one of them tells apart (mesh/questions.py), and where the answers differ, that is the change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Final

from mesh import names
from mesh.decision import Facts, compile_policies
from mesh.outlook import Forecast, Outlook
from mesh.pair import Pair, Transport, named_ports, transport_between, unnamed_port
from mesh.peer_authentication import effective_mode
from mesh.questions import ANY_OTHER_IDENTITY, ANY_OTHER_OF, Caller, callers, has_patterns, workloads
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from mesh.shares import Share, Shares
from mesh.traffic import DestinationRule, TlsMode

# Both sets are asked each question. A thousand workloads with ten callers and ten ports each are half of it.
MOST_QUESTIONS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What awaits a caller. Two are the same where a caller cannot tell them apart."""

    transport: Transport
    allowed: bool  # a connection, by a sidecar that reads no requests
    requests: str  # by one that reads them: "allowed", "denied", or for which requests
    reason: str

    def same_as(self, other: Outcome) -> bool:
        """Whether nothing changes for the caller: reasons may be others."""
        return (self.transport, self.allowed, self.requests) == (other.transport, other.allowed, other.requests)

    def __str__(self) -> str:
        if self.transport == "refused":
            return "refused"
        over = "" if self.transport == "mutual TLS" else f" over {self.transport}"
        connection = f"{'allowed' if self.allowed else 'denied'}{over}"
        return connection if self.requests in {"allowed", "denied"} else f"{connection} ({self.requests})"


@dataclass(frozen=True, slots=True)
class DecisionChange:
    """An answer that becomes another one."""

    workload: Workload
    caller: Caller
    port: int | None  # of the pods; None: every port but those that are `named`
    named: tuple[int, ...]
    before: Outcome
    after: Outcome

    @property
    def opens(self) -> bool:
        """Whether somebody comes in who did not."""
        return self.after.allowed and not self.before.allowed


@dataclass(frozen=True, slots=True)
class DecisionChanges:
    """The answers that change. `complete` False: there was more to ask than is asked, and some may be missing."""

    changes: tuple[DecisionChange, ...]
    complete: bool = True


def decision_changes(
    before: ResourceSet,
    after: ResourceSet,
    *,
    trust_domain: str = names.DEFAULT_TRUST_DOMAIN,
    most_questions: int = MOST_QUESTIONS,
) -> DecisionChanges:
    """For whom something changes from `before` to `after`, at which port of which workload."""
    found: list[DecisionChange] = []
    left = most_questions
    spoken_to = _spoken_to((*before.destination_rules, *after.destination_rules))
    shares = Shares(before), Shares(after)
    for workload in workloads((before, after)):
        was_about, is_about = (each.of(workload) for each in shares)
        if _decides_the_same(was_about, is_about):
            continue
        old, new = _Answers(was_about, workload, trust_domain), _Answers(is_about, workload, trust_domain)
        policies, rules = (*old.policies, *new.policies), (*old.rules, *new.rules)
        # An account that nobody names gets the answers of "any other identity", unless a rule speaks to its namespace
        # or a pattern fits the one and not the other.
        everybody = callers(policies, spoken_to if has_patterns(policies) else _spoken_to(rules), trust_domain)
        named = tuple(sorted(old.named | new.named))
        for port in (*named, None):
            asked = unnamed_port(named) if port is None else port
            for caller in everybody:
                if (left := left - 1) < 0:
                    return DecisionChanges(tuple(found), complete=False)
                was, becomes = old.of(caller, asked), new.of(caller, asked)
                if not was.same_as(becomes):
                    found.append(DecisionChange(workload, caller, port, named, was, becomes))
    return DecisionChanges(tuple(_without_repetition(found)))


def _decides_the_same(old: Share, new: Share) -> bool:
    """Whether nothing that decides about a workload is another thing in the other share.

    A Service decides how callers dial where a DestinationRule speaks of its host or its ports, and else nothing.
    """
    return old.resources == new.resources and (not old.resources.destination_rules or old.place == new.place)


# What `exportTo` may say in place of a namespace.
_NO_NAMES: Final = frozenset({"*", ".", "~"})


def _spoken_to(rules: Iterable[DestinationRule]) -> Set[str]:
    """The namespaces whose callers a rule may single out: its own, and those that it is exported to by name."""
    return {name for one in rules for name in (one.metadata.namespace, *one.export_to)} - _NO_NAMES


def _without_repetition(changes: list[DecisionChange]) -> Iterator[DecisionChange]:
    """The changes without those of one port that are the same at every other port, and those of one namespace's
    accounts that are the same for everybody.
    """
    ports = {(*_what(one), one.caller) for one in changes if one.port is None}
    everybody = {(*_what(one), one.port) for one in changes if one.caller.words == ANY_OTHER_IDENTITY}
    for one in changes:
        is_general = one.port is None or (*_what(one), one.caller) not in ports
        is_own = not one.caller.words.startswith(ANY_OTHER_OF) or (*_what(one), one.port) not in everybody
        if is_general and is_own:
            yield one


def _what(change: DecisionChange) -> tuple[str, str, str]:
    return str(change.workload), str(change.before), str(change.after)


class _Answers:
    """One set's answers about one workload."""

    def __init__(self, share: Share, workload: Workload, trust_domain: str) -> None:
        self._resources = share.resources
        self._place = share.place
        self._workload = workload
        self._compiled = compile_policies(
            share.resources.authorization_policies,
            workload,
            trust_domain=trust_domain,
            root_namespace=share.resources.root_namespace,
        )
        self._forecast = Forecast(self._compiled, trust_domain=trust_domain)
        self._pairs: dict[str, Pair] = {}
        self._transports: dict[tuple[str, int], tuple[Transport, str]] = {}
        self.policies = self._compiled.policies
        self.rules = share.resources.destination_rules
        self.named = frozenset(named_ports(share.resources, workload, self.policies))

    def of(self, caller: Caller, port: int) -> Outcome:
        """What awaits `caller` at a port of the pods."""
        transport, refusal = self._transport(caller, port)
        if transport == "refused":
            return Outcome(transport, False, "denied", refusal)
        principal = caller.principal if transport == "mutual TLS" else None
        decision = self._compiled.decide(Facts(port, principal))
        return Outcome(transport, decision.allowed, _in_words(self._forecast.of(principal, port)), decision.reason)

    def _transport(self, caller: Caller, port: int) -> tuple[Transport, str]:
        """How the caller's bytes would travel, and why not where they would not."""
        if caller.principal is None:
            server = effective_mode(self._resources, self._workload, port)
            return transport_between(TlsMode.DISABLE, server.mode), f"refused: {server.decided_by} is STRICT"
        key = (caller.namespace, port)
        if key not in self._transports:
            pair = self._from(caller.namespace)
            of_service = self._place.port_of_service(port)
            server, client, transport = pair.speak(port, port if of_service is None else of_service)
            dials = client.mode.value if client.mode else ""
            self._transports[key] = (
                transport,
                f"refused: {client.decided_by} dials {dials}, against {server.decided_by}",
            )
        return self._transports[key]

    def _from(self, namespace: str) -> Pair:
        if namespace not in self._pairs:
            self._pairs[namespace] = Pair(self._resources, Workload(namespace, {}, ""), self._workload, self._place)
        return self._pairs[namespace]


def _in_words(seen: Outlook) -> str:
    """An outlook without the names of policies: who says it may change."""
    if seen.answer != "depends":
        return seen.answer
    allowed = " or ".join(sorted({one.where for one in seen.allowed_for}))
    denied = " or ".join(sorted({one.where for one in seen.denied_for}))
    parts = [f"allowed for {allowed}" if allowed else "", f"denied for {denied}" if denied else ""]
    return "requests: " + ", ".join(part for part in parts if part)
