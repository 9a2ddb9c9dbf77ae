"""`qbitel policy explain`: whether one may call another, why, and which line of which file decided it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from cli.ca.answers import EXIT_NO, Answer
from cli.policy import tokens, words
from cli.policy.places import Policies, add_places, found
from mesh.authorization import AuthorizationPolicy
from mesh.conflicts import of_pair
from mesh.decision import Decision, Facts, HttpFacts
from mesh.errors import UserError
from mesh.explanation import Statement, statements
from mesh.following import unfollowed
from mesh.inventory import Place
from mesh.metadata import Metadata
from mesh.outlook import Outlook
from mesh.pair import Pair, PortVerification, Transport, transport_between
from mesh.request_authentication import jwt_rules
from mesh.selectors import Workload
from mesh.traffic import ConnectionPool, DestinationRule, TlsMode
from mesh.verification import place_of, problem_as_dict

_LABEL_WIDTH: Final = 10
_DEFAULT_METHOD: Final = "GET"
_DEFAULT_PATH: Final = "/"


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """`explain PATH… --from ACCOUNT --to NAME:PORT`."""
    parser = commands.add_parser(
        "explain",
        parents=[common],
        help="say whether one may call another, why, and which policy decides",
        description="Decides one connection, or one request where --method, --path, --host, --header or --jwt is "
        "given, as a sidecar would. Exit code 0: it is allowed; 1: it is not; 2: there is no answer.",
    )
    add_places(parser)
    parser.add_argument(
        "--from",
        dest="caller",
        type=words.caller,
        metavar="[NAMESPACE/]ACCOUNT",
        help="the caller's service account (shop/front), or its whole SPIFFE ID; without it, nobody who is known",
    )
    parser.add_argument(
        "--to",
        dest="target",
        type=words.target,
        required=True,
        metavar="[NAMESPACE/]NAME[:PORT]",
        help="the Service or workload that is called, and its port; its pods have the label app=NAME unless a document "
        "or --label says otherwise",
    )
    parser.add_argument("-n", "--namespace", type=words.namespace, default="default", help="of names without one")
    parser.add_argument(
        "--label", type=words.label, action="append", metavar="KEY=VALUE", help="a label of the pods that are called"
    )
    parser.add_argument("--plaintext", action="store_true", help="the caller speaks no TLS of the mesh")
    parser.add_argument("--source-ip", type=words.address, metavar="ADDRESS", help="where the connection comes from")
    parser.add_argument("--sni", default="", metavar="NAME", help="the server's name that the caller asks for")
    request = parser.add_argument_group("a request")
    request.add_argument(
        "--method", type=words.method, metavar="METHOD", help=f"as in GET (default: {_DEFAULT_METHOD})"
    )
    request.add_argument("--path", type=words.path, metavar="PATH", help="as in /orders?page=2 (default: /)")
    request.add_argument("--host", metavar="HOST", help="the host that is asked for")
    request.add_argument("--header", type=words.header, action="append", metavar="NAME=VALUE")
    request.add_argument(
        "--jwt", metavar="FILE|CLAIMS", help="a file with a token, or claims as JSON, which are taken as verified"
    )
    request.add_argument("--jwks", metavar="FILE", help="the keys of the token's issuer (nothing is fetched)")
    parser.set_defaults(run=_run)


@dataclass(frozen=True, slots=True)
class _Explained:
    """The answer for one workload."""

    target: Workload
    port: PortVerification
    principal: str | None
    is_plaintext: bool  # by the caller's choice, whatever DestinationRules say
    transport: Transport
    token: tokens.Believed
    decision: Decision
    connection: Decision  # of a sidecar that reads no requests
    outlook: Outlook  # of one that reads them, before it has read one
    said: tuple[Statement, ...]
    http: HttpFacts | None
    problems: tuple[dict[str, Any], ...]
    limits: str  # of each of the caller's sidecars
    unfollowed: tuple[dict[str, Any], ...]  # what of the DestinationRule no sidecar does

    @property
    def allowed(self) -> bool:
        return self.decided_by_policy and self.decision.allowed

    @property
    def decided_by_policy(self) -> bool:
        return self.transport != "refused" and not self.token.refused

    @property
    def reason(self) -> str:
        if self.transport == "refused" and self.is_plaintext:
            return f"refused: it comes in plaintext, and {self.port.server.decided_by} is STRICT"
        if self.transport == "refused":
            return self.port.reason
        return "denied: its token is refused" if self.token.refused else self.decision.reason


def _run(options: argparse.Namespace) -> int:
    policies = found(options).complete()
    place = _place(policies, options)
    explained = [_explain(policies, place, workload, options) for workload in place.workloads]
    lines = [line for one in explained for line in (*_lines(one, options), "")][:-1]
    if place.assumed:
        lines += ["", f"assumed: {place.assumed}"]
    data = {
        "allowed": all(one.allowed for one in explained),
        "workloads": [_as_dict(one) for one in explained],
        "assumptions": [place.assumed] if place.assumed else [],
    }
    return Answer(lines, data, 0 if data["allowed"] else EXIT_NO).tell(options)


def _place(policies: Policies, options: argparse.Namespace) -> Place:
    target: words.Target = options.target
    namespace = target.namespace or options.namespace
    if options.label:
        return Place((Workload(namespace, dict(options.label), target.name, target.name),), None, "")
    return policies.inventory.find(namespace, target.name)


def _explain(policies: Policies, place: Place, target: Workload, options: argparse.Namespace) -> _Explained:
    caller: words.Caller | None = options.caller
    namespace = caller.namespace or options.namespace if caller else options.namespace
    source = Workload(namespace, {}, caller.account if caller else "")
    pair = Pair(
        policies.resources,
        source,
        target,
        place,
        trust_domain=options.trust_domain,
        principal=caller.principal if caller else "",
    )
    port = pair.at(options.target.port)
    is_plaintext = options.plaintext or caller is None
    transport = transport_between(TlsMode.DISABLE, port.server.mode) if is_plaintext else port.transport
    is_known = not is_plaintext and transport in {"mutual TLS", "refused"}
    principal = pair.principal if is_known else None
    token, http = _request(policies, target, options)
    facts = Facts(pair.asked(port.port), principal, options.source_ip, sni=options.sni, http=http)
    connection = replace(facts, http=None)
    said = statements(pair.compiled, facts, trust_domain=options.trust_domain)
    problems = () if is_plaintext else of_pair(pair, [port])
    return _Explained(
        target,
        port,
        principal,
        is_plaintext,
        transport,
        token,
        pair.compiled.decide(facts),
        pair.compiled.decide(connection),
        pair.outlook(port.port, principal),
        said,
        http,
        tuple(problem_as_dict(one) for one in problems if one.severity == "error"),
        "" if is_plaintext or pair.rule is None else _limits(pair.rule, port),
        tuple(map(problem_as_dict, () if is_plaintext or pair.rule is None else unfollowed(pair.rule))),
    )


def _request(
    policies: Policies, target: Workload, options: argparse.Namespace
) -> tuple[tokens.Believed, HttpFacts | None]:
    """The request that is asked about, and what becomes of its token; (no token, None) for a connection."""
    parts = (options.method, options.path, options.host, options.header, options.jwt)
    if all(part is None for part in parts):
        if options.jwks is not None:
            raise UserError("--jwks has keys for a token; give that by --jwt")
        return tokens.NONE, None
    token = tokens.believed(options.jwt, options.jwks, jwt_rules(policies.resources, target), time.time())
    headers: dict[str, str] = {}
    for name, value in options.header or ():  # fields of one name are one field (RFC 9110 §5.3)
        lower = name.lower()
        headers[lower] = f"{headers[lower]},{value}" if lower in headers else value
    http = HttpFacts(
        options.method or _DEFAULT_METHOD,
        options.path or _DEFAULT_PATH,
        options.host if options.host is not None else headers.get("host", ""),
        headers,
        token.claims,
    )
    return token, http


# Words


def _lines(one: _Explained, options: argparse.Namespace) -> Iterator[str]:
    caller = one.principal or "nobody who is known"
    if one.port.service_port is not None and one.port.service_port != one.port.port:
        port = f" port {one.port.service_port} ({one.port.port} of the pods)"
    else:
        port = f" port {one.port.port}" if one.port.port is not None else ""
    request = f", {one.http.method} {one.http.path}" if one.http is not None else ""
    yield f"{caller} → {one.target}{port}{request}: {'allowed' if one.allowed else 'denied'}"
    yield _row("why", f"{one.reason}{_decided_at(one)}")
    yield _row("mode", f"{one.port.server.mode.value}, by {one.port.server.decided_by}{_mode_at(one)}")
    yield _row("transport", _transport(one))
    if one.limits:
        yield _row("limits", one.limits)
    if one.http is not None:
        yield _row("token", one.token.words)
    for number, statement in enumerate(one.said):
        yield _row("" if number else "policies", _statement_line(statement))
    if not one.said:
        yield _row("policies", "none is about this workload")
    if one.http is None and one.outlook.answer == "depends":
        yield _row("requests", f"{one.outlook}")
        yield _row("", "a sidecar decides connections: ask about a request by --method and --path")
    if one.decision.dry_run is not None:
        yield _row("dry run", one.decision.dry_run.reason)
    if one.decision.audited:
        yield _row("audited", f"by {', '.join(one.decision.audited)}")
    for problem in one.problems:
        yield _row("conflict", f"{problem['resource']}: {problem['message']}")
    for problem in one.unfollowed:
        yield _row("but", f"{problem['resource']}: {problem['message']}")
    if one.http is not None and one.allowed and not one.connection.allowed:
        yield _row("but", f"a sidecar that reads no requests says: {one.connection.reason}")


def _limits(rule: DestinationRule, port: PortVerification) -> str:
    """What a caller's sidecar holds itself to, in words."""
    dialled = port.port if port.service_port is None else port.service_port
    policy = rule.traffic_policy if dialled is None else rule.traffic_policy.at(dialled)
    pool = policy.connection_pool or ConnectionPool()
    said = [
        f"at most {pool.max_connections} connections" if pool.max_connections else "",
        f"at most {pool.http1_max_pending_requests} being made" if pool.http1_max_pending_requests else "",
        f"made within {pool.connect_timeout:g} s" if pool.connect_timeout is not None else "",
    ]
    words = ", ".join(filter(None, said))
    return f"{words}, by {rule.metadata}" if words else ""


def _transport(one: _Explained) -> str:
    if one.transport == "mutual TLS":
        return f"mutual TLS, profile {one.port.client.profile}: {one.port.client.decided_by}"
    if one.transport == "refused":
        return "none"
    return f"{one.transport}: the caller shows no identity"


def _statement_line(statement: Statement) -> str:
    policy = statement.policy
    mark = ", which decides" if statement.decides else ""
    return f"{policy.action.value:<6} {policy.metadata.key}: {statement.words}{mark}{_rule_at(policy, statement.rule)}"


def _decided_at(one: _Explained) -> str:
    if not one.decided_by_policy:
        return ""
    return next((_rule_at(each.policy, each.rule) for each in one.said if each.decides), "")


def _rule_at(policy: AuthorizationPolicy, rule: int | None) -> str:
    """Where a rule stands, for the end of a line."""
    metadata = policy.metadata
    if rule is None or not metadata.source:
        return place_of(metadata)
    line = metadata.line(("spec", "rules", rule))
    return f" ({metadata.source}:{line})" if line else f" ({metadata.source})"


def _mode_at(one: _Explained) -> str:
    metadata: Metadata | None = one.port.server.policy.metadata if one.port.server.policy else None
    return place_of(metadata)


def _row(label: str, text: str) -> str:
    return f"  {label:<{_LABEL_WIDTH}} {text}"


def _as_dict(one: _Explained) -> dict[str, Any]:
    return {
        "workload": str(one.target),
        "labels": dict(one.target.labels),
        "port": one.port.port,
        "principal": one.principal,
        "allowed": one.allowed,
        "reason": one.reason,
        "policy": one.decision.policy if one.decided_by_policy else None,
        "rule": one.decision.rule if one.decided_by_policy else None,
        "mode": {"mode": one.port.server.mode.value, "decided_by": one.port.server.decided_by},
        "transport": one.transport,
        "profile": one.port.client.profile if one.transport == "mutual TLS" else None,
        "token": one.token.words if one.http is not None else None,
        "request": {"method": one.http.method, "path": one.http.path, "host": one.http.host} if one.http else None,
        "connection": {
            "allowed": one.transport != "refused" and one.connection.allowed,
            "reason": one.connection.reason if one.transport != "refused" else one.reason,
        },
        "requests": {"answer": one.outlook.answer, "words": str(one.outlook)},
        "dry_run": one.decision.dry_run.reason if one.decision.dry_run else None,
        "audited": list(one.decision.audited),
        "policies": [
            {
                "policy": each.policy.metadata.key,
                "action": each.policy.action.value,
                "source": each.policy.metadata.source,
                "line": each.policy.metadata.line(("spec", "rules", each.rule) if each.rule is not None else ()),
                "rule": each.rule,
                "decides": each.decides,
                "words": each.words,
            }
            for each in one.said
        ],
        "conflicts": list(one.problems),
        "limits": one.limits,
        "unfollowed": list(one.unfollowed),
    }
