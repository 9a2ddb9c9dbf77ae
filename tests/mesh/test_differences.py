"""For whom something changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.decision import Facts, compile_policies
from mesh.differences import DecisionChange, Outcome, decision_changes
from mesh.inventory import Inventory, Place, Service
from mesh.pair import Pair, named_ports, transport_between, unnamed_port
from mesh.peer_authentication import effective_mode
from mesh.questions import ANY_OTHER_IDENTITY, ANY_OTHER_OF, Caller, callers, workloads
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from mesh.traffic import TlsMode
from tests.mesh.written import allow, deny, from_account, mode, resource, resources, rule, strict

FRONT = f"[{{{from_account('shop/front')}}}]"


def changes(before: ResourceSet, after: ResourceSet) -> list[str]:
    return list(map(told, decision_changes(before, after).changes))


def told(one: DecisionChange) -> str:
    port = "" if one.port is None else f":{one.port}"
    return f"{one.caller.words} → {one.workload}{port}: {one.before} → {one.after}"


def test_the_same_answers_are_no_change() -> None:
    others = "[{from: [{source: {notPrincipals: ['cluster.local/ns/shop/sa/front']}}]}]"
    before = resources(strict(), allow("shop/a", FRONT))
    after = resources(strict(), allow("shop/b", "[{}]"), deny("shop/c", others))

    assert changes(before, before) == []
    assert changes(before, after) == []


def test_a_caller_that_comes_in_is_told_from_one_that_does_not_any_more() -> None:
    found = decision_changes(
        resources(strict(), allow("shop/a", FRONT)),
        resources(strict(), allow("shop/a", f"[{{{from_account('shop/back')}}}]")),
    ).changes

    assert [(one.caller.words.rpartition("/")[2], one.opens) for one in found] == [("back", True), ("front", False)]


def test_a_mode_is_an_answer_too() -> None:
    assert changes(resources(mode("shop/default", "PERMISSIVE")), resources(strict())) == [
        "without identity → shop/any other: allowed over plaintext → refused"
    ]
    before, after = (resources(mode("shop/default", its), allow("shop/a", FRONT)) for its in ("STRICT", "DISABLE"))
    disabled = changes(before, after)
    assert "cluster.local/ns/shop/sa/front → shop/any other: allowed → denied over plaintext" in disabled
    assert "without identity → shop/any other: refused → denied over plaintext" in disabled


def test_how_callers_dial_is_an_answer_too() -> None:
    service = resource("Service", "shop/web", "{selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}")
    governed = (strict(), service, allow("shop/web", "[{to: [{operation: {ports: ['8080']}}]}]", "{app: web}"))
    plain = rule("shop/web", "web", "{portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}")

    assert changes(resources(*governed), resources(*governed, plain)) == [
        "any other identity → shop/app=web:8080: allowed → refused"
    ]


def test_a_rule_for_the_callers_of_one_namespace_is_told_of_them_alone() -> None:
    service = resource("Service", "shop/web", "{selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}")
    governed = (strict(), service, allow("shop/web", "[{}]", "{app: web}"))
    plain = resource(
        "DestinationRule",
        "shop/web",
        "{host: web, exportTo: [batch], trafficPolicy: {tls: {mode: DISABLE}}}",
    )

    assert changes(resources(*governed), resources(*governed, plain)) == [
        "any other account of namespace batch → shop/app=web: allowed → refused"
    ]


def test_a_service_whose_ports_lead_elsewhere_changes_how_callers_dial() -> None:
    plain = rule("shop/web", "web", "{portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}")
    governed = (strict(), plain, allow("shop/web", "[{to: [{operation: {ports: ['8080']}}]}]", "{app: web}"))
    before, after = (
        resource("Service", "shop/web", f"{{selector: {{app: web}}, ports: [{{port: 80, targetPort: {port}}}]}}")
        for port in (80, 8080)
    )

    assert changes(resources(*governed, before), resources(*governed, after)) == [
        "any other identity → shop/app=web:8080: allowed → refused"
    ]


def test_a_mesh_of_many_namespaces_is_asked_about_where_something_changes_alone() -> None:
    many = [
        text
        for number in range(60)
        for text in (
            strict(f"n{number}/default"),
            allow(f"n{number}/web", FRONT, "{app: web}"),
            rule(f"n{number}/web", "web", "{connectionPool: {tcp: {maxConnections: 7}}}"),
        )
    ]
    more = rule("n7/db", "db", "{connectionPool: {tcp: {maxConnections: 7}}}")
    found = decision_changes(
        resources(*many), resources(*many, more, allow("n7/db", FRONT, "{app: db}")), most_questions=10
    )

    assert found.complete
    assert [told(one) for one in found.changes] == [
        "any other identity → n7/app=db: allowed → denied",
    ]


def test_what_hangs_on_requests_is_told_as_such() -> None:
    reads = FRONT.replace("}]}]", "}], to: [{operation: {methods: [GET]}}]}]")

    assert changes(resources(strict(), allow("shop/a", FRONT)), resources(strict(), allow("shop/a", reads))) == [
        "cluster.local/ns/shop/sa/front → shop/any other: allowed → denied (requests: allowed for method GET)"
    ]


def test_a_port_is_named_where_it_alone_changes() -> None:
    before, after = (
        resources(strict(), deny("shop/a", f"[{{to: [{{operation: {{ports: ['{port}']}}}}]}}]")) for port in (80, 81)
    )

    assert changes(before, after) == [
        "any other identity → shop/any other:80: denied → allowed",
        "any other identity → shop/any other:81: allowed → denied",
    ]


def test_a_policy_for_the_whole_mesh_changes_answers_everywhere() -> None:
    found = changes(resources(strict()), resources(strict(), deny("istio-system/a", "[{}]")))

    assert "any other identity → shop/any other: allowed → denied" in found
    assert "any other identity → some-namespace/any other: allowed → denied" in found


def test_there_is_an_end_to_asking() -> None:
    found = decision_changes(resources(), resources(*(allow(f"n{n}/a", FRONT) for n in range(50))), most_questions=60)

    assert not found.complete
    assert 0 < len(found.changes) <= 60


POLICIES = st.lists(
    st.builds(
        lambda action, rules, labels: (action, rules, labels),
        st.sampled_from([allow, deny]),
        st.sampled_from([
            "[{}]",
            FRONT,
            "[{from: [{source: {namespaces: [shop]}}]}]",
            "[{from: [{source: {notPrincipals: ['*']}}]}]",
            "[{to: [{operation: {ports: ['80']}}]}]",
            "[{from: [{source: {serviceAccounts: [back]}}], to: [{operation: {notPorts: ['81']}}]}]",
        ]),
        st.sampled_from(["", "{app: web}"]),
    ),
    max_size=3,
)  # fmt: skip
Made = list[tuple[Callable[[str, str, str], str], str, str]]
MODES = st.sampled_from(["STRICT", "PERMISSIVE", "DISABLE"])
PRINCIPALS = [
    *(f"cluster.local/ns/{account}" for account in ("shop/sa/front", "shop/sa/back", "shop/sa/x", "else/sa/y")),
    None,
]


@settings(max_examples=60, deadline=None)
@given(POLICIES, POLICIES, MODES, MODES)
def test_where_no_change_is_told_nobody_finds_one(first: Made, second: Made, old: str, new: str) -> None:
    before, after = _set(first, old), _set(second, new)

    differs = any(
        outcome(before, workload, principal, port) != outcome(after, workload, principal, port)
        for workload in (Workload("shop", labels, "", "some") for labels in ({}, {"app": "web"}, {"app": "db"}))
        for principal in PRINCIPALS
        for port in (80, 81, 9999)
    )
    assert bool(decision_changes(before, after).changes) == differs


def _set(made: Made, its_mode: str) -> ResourceSet:
    texts = [make(f"shop/p{number}", rules, labels) for number, (make, rules, labels) in enumerate(made)]
    return resources(mode("shop/default", its_mode), *texts)


def outcome(resources: ResourceSet, workload: Workload, principal: str | None, port: int) -> object:
    """What happens, found in another way."""
    server = effective_mode(resources, workload, port).mode.value
    if principal is None and server == "STRICT":
        return "refused"
    known = None if server == "DISABLE" else principal
    decision = compile_policies(resources.authorization_policies, workload).decide(Facts(port, known))
    return server == "DISABLE", decision.allowed


# The plain way: everybody whom anything tells apart is asked about each workload, with the whole set each time.

SPECS = st.sampled_from(
    [
        ("PeerAuthentication", "{mtls: {mode: STRICT}}"),
        ("PeerAuthentication", "{selector: {matchLabels: {app: web}}, mtls: {mode: DISABLE}}"),
        (
            "PeerAuthentication",
            "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {'8080': {mode: PERMISSIVE}}}",
        ),
        ("AuthorizationPolicy", "{}"),
        ("AuthorizationPolicy", "{rules: [{from: [{source: {namespaces: [a]}}]}]}"),
        ("AuthorizationPolicy", "{rules: [{from: [{source: {namespaces: ['b*']}}]}]}"),
        ("AuthorizationPolicy", "{rules: [{from: [{source: {principals: ['*']}}]}]}"),
        ("AuthorizationPolicy", "{action: DENY, rules: [{from: [{source: {notPrincipals: ['*/ns/a/*']}}]}]}"),
        ("AuthorizationPolicy", "{action: DENY, rules: [{to: [{operation: {ports: ['8080']}}]}]}"),
        (
            "AuthorizationPolicy",
            "{selector: {matchLabels: {app: web}}, rules: [{from: [{source: {serviceAccounts: [front]}}]}]}",
        ),
        (
            "AuthorizationPolicy",
            "{selector: {matchLabels: {app: db}}, rules: [{to: [{operation: {methods: [GET]}}]}]}",
        ),
        ("DestinationRule", "{host: web, trafficPolicy: {tls: {mode: DISABLE}}}"),
        ("DestinationRule", "{host: web.a.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}"),
        ("DestinationRule", "{host: '*.a.svc.cluster.local', trafficPolicy: {tls: {mode: SIMPLE}}}"),
        ("DestinationRule", "{host: '*', exportTo: ['.'], trafficPolicy: {tls: {mode: DISABLE}}}"),
        ("DestinationRule", "{host: web, exportTo: [b], trafficPolicy: {tls: {mode: SIMPLE}}}"),
        (
            "DestinationRule",
            "{host: db, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}}",
        ),
        ("Service", "{selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}"),
        ("Service", "{selector: {app: db}, ports: [{port: 8080, targetPort: 80}]}"),
        ("Deployment", "{template: {metadata: {labels: {app: web, tier: one}}, spec: {serviceAccountName: web}}}"),
    ]
)
NAMESPACES = st.sampled_from(["a", "b", "bb", "istio-system"])
WRITTEN = st.tuples(SPECS, NAMESPACES, st.sampled_from(["web", "db", "one"]))
# What both sets have, and what each has alone.
MESHES = st.tuples(*(st.lists(WRITTEN, max_size=most) for most in (6, 3, 3)))
Written = list[tuple[tuple[str, str], str, str]]


@settings(max_examples=150, deadline=None)
@given(MESHES)
def test_not_asking_everybody_about_everything_leaves_no_answer_out(made: tuple[Written, Written, Written]) -> None:
    both, first, second = made
    before, after = _mesh([*both, *first]), _mesh([*second, *both])

    assert list(decision_changes(before, after).changes) == _told_once(list(_asked_plainly(before, after)))


def _mesh(written: Written) -> ResourceSet:
    named = {(kind, namespace, name): spec for (kind, spec), namespace, name in written}
    return resources(*(resource(kind, f"{its}/{name}", spec) for (kind, its, name), spec in named.items()))


def _asked_plainly(before: ResourceSet, after: ResourceSet) -> Iterator[DecisionChange]:
    rules = (*before.destination_rules, *after.destination_rules)
    dialling = {one.metadata.namespace for one in rules} | {name for one in rules for name in one.export_to}
    for workload in workloads((before, after)):
        old, new = (compile_policies(one.authorization_policies, workload).policies for one in (before, after))
        everybody = callers((*old, *new), dialling - {"*", "."}, "cluster.local")
        named = tuple(sorted({*named_ports(before, workload, old), *named_ports(after, workload, new)}))
        for port in (*named, None):
            asked = unnamed_port(named) if port is None else port
            for caller in everybody:
                was, becomes = (_asked_of(one, workload, caller, asked) for one in (before, after))
                if not was.same_as(becomes):
                    yield DecisionChange(workload, caller, port, named, was, becomes)


def _asked_of(mesh: ResourceSet, workload: Workload, caller: Caller, port: int) -> Outcome:
    place = _place(mesh, workload)
    pair = Pair(mesh, Workload(caller.namespace, {}, ""), workload, place)
    of_service = place.port_of_service(port)
    server, client, transport = pair.speak(port, port if of_service is None else of_service)
    dials = client.mode.value if client.mode else ""
    refused = f"refused: {client.decided_by} dials {dials}, against {server.decided_by}"
    if caller.principal is None:
        transport = transport_between(TlsMode.DISABLE, server.mode)
        refused = f"refused: {server.decided_by} is STRICT"
    if transport == "refused":
        return Outcome(transport, False, "denied", refused)
    principal = caller.principal if transport == "mutual TLS" else None
    decision, outlook = pair.decide(port, principal), pair.outlook(port, principal)
    wheres = [" or ".join(sorted({one.where for one in each})) for each in (outlook.allowed_for, outlook.denied_for)]
    said = ", ".join(f"{what} for {where}" for what, where in zip(("allowed", "denied"), wheres, strict=True) if where)
    requests = outlook.answer if outlook.answer != "depends" else f"requests: {said}"
    return Outcome(transport, decision.allowed, requests, decision.reason)


def _place(mesh: ResourceSet, workload: Workload) -> Place:
    inventory = Inventory.of(mesh.foreign)
    for service in inventory.services:
        if service.selects(workload):
            names = inventory.find(service.namespace, service.name).port_names
            return Place((workload,), service, "", names)
    if "app" in workload.labels:
        service = Service(workload.namespace, workload.labels["app"], workload.labels, ())
        return Place((workload,), service, "", inventory.find(service.namespace, service.name).port_names)
    return Place((workload,), None, "")


def _told_once(changes: list[DecisionChange]) -> list[DecisionChange]:
    """Without what is the same at every port, and of one namespace's accounts what is the same for everybody."""

    def what(one: DecisionChange) -> tuple[str, ...]:
        return str(one.workload), str(one.before), str(one.after)

    everywhere = {(what(one), one.caller) for one in changes if one.port is None}
    everybody = {(what(one), one.port) for one in changes if one.caller.words == ANY_OTHER_IDENTITY}
    return [
        one
        for one in changes
        if (one.port is None or (what(one), one.caller) not in everywhere)
        and (not one.caller.words.startswith(ANY_OTHER_OF) or (what(one), one.port) not in everybody)
    ]
