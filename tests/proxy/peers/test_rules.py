"""What DestinationRules make of the entries of a peers document: Istio's fields and defaults, and whose word holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.documents import read_documents
from mesh.errors import UserError
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from mesh.traffic import DestinationRule
from proxy.peers import rules as module
from proxy.peers.document import read_peers
from proxy.peers.entries import Balancing, Ejection, PeerEntry, Retrying
from proxy.peers.rules import Rules, entries_with
from proxy.peers.table import PeerTable
from proxy.routes import Mode
from tests.proxy.peers.test_document import read

ROOT = "istio-system"
HOST = "orders.shop.svc.cluster.local"
OTHER = "stock.shop.svc.cluster.local"
PIN = "spiffe://cluster.local/ns/shop/sa/*"
# As discovery writes it.
SERVICES = {"name": "shop", "mode": "require", "identities": [PIN], "cidrs": ["10.96.0.7/32"]}
SERVICES["services"] = {HOST: ["10.96.0.8/32", "fd00::8/128"], OTHER: ["10.96.0.9/32"]}


def rule_of(policy: dict[str, Any] | None = None, host: str = HOST, namespace: str = "shop", **more: Any) -> dict:
    spec = {"host": host, **({} if policy is None else {"trafficPolicy": policy}), **more.pop("spec", {})}
    metadata = {"name": more.pop("name", "orders"), "namespace": namespace, **more}
    return {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata, "spec": spec}


def values(*rules: dict) -> tuple[DestinationRule, ...]:
    found = ResourceSet.of(read_documents("\n---\n".join(map(json.dumps, rules)).encode(), "rules.yaml")[0])
    assert found.errors == ()
    return found.destination_rules


def folder(*rules: dict, namespace: str = "front", profiles: frozenset[str] = frozenset({"qbitel"}), **labels) -> Rules:
    return Rules(values(*rules), Workload(namespace, labels, "web"), "cluster.local", ROOT, profiles)


def document(*entries: dict[str, Any]) -> tuple[PeerEntry, ...]:
    head = {"apiVersion": "qbitel.io/v1", "kind": "Peers", "peers": list(entries)}
    return read(json.dumps(head))


def made(entry: dict[str, Any], *published: dict, rules: Rules | None = None) -> tuple[PeerEntry, ...]:
    found = entries_with(document(entry), values(*published), rules or folder())
    assert len({one.name for one in found}) == len(found)
    assert list(PeerTable(found).clashes()) == []
    return found


def at(found: tuple[PeerEntry, ...], address: str = "10.96.0.8", port: int = 80) -> PeerEntry:
    entry = PeerTable(found).by_address(address, port)
    assert entry is not None
    return entry


def tcp(**fields: Any) -> dict[str, Any]:
    return {"connectionPool": {"tcp": fields}}


# -- services, as discovery names them -------------------------------------------------------------------------------


def test_a_rule_of_the_service_s_namespace_limits_what_others_dial():
    pool = {"tcp": {"maxConnections": 7, "connectTimeout": "250ms"}, "http": {"http1MaxPendingRequests": 3}}
    found = made(SERVICES, rule_of({"connectionPool": pool}))
    limited = at(found)
    assert (limited.max_connections, limited.max_pending, limited.connect_timeout) == (7, 3, 0.25)
    assert (limited.mode, limited.identities) == (Mode.REQUIRE, {PIN})
    assert limited.rule == "DestinationRule shop/orders"
    assert limited is at(found, "fd00::8")
    for other in ("10.96.0.7", "10.96.0.9"):
        assert at(found, other).name == "shop"
        assert (at(found, other).max_connections, at(found, other).rule) == (None, "")


def test_without_rules_and_with_rules_that_add_nothing_the_document_stays_as_it_is():
    plain = document(SERVICES)
    for rules in ([], [rule_of()], [rule_of({"tls": {"mode": "ISTIO_MUTUAL"}}, "*.local")], [rule_of(tcp(), OTHER)]):
        assert entries_with(plain, values(*rules), folder()) == plain


def test_0_is_no_limit_and_nobody_waits_longer_than_a_system_does():
    (rest, limited) = made(SERVICES, rule_of(tcp(maxConnections=0, connectTimeout="1h")))
    assert rest.name == "shop"
    assert (limited.max_connections, limited.connect_timeout) == (None, 120)


@pytest.mark.parametrize(
    ("rules", "published", "most"),
    [
        ([("front", "a", 1)], [("shop", "b", 2)], 1),  # the client's namespace first
        ([(ROOT, "a", 1)], [("shop", "b", 2)], 2),  # then the Service's, then the root
        ([(ROOT, "a", 1)], [], 1),
        ([], [("front", "a", 1)], None),  # the folder alone speaks for the client's namespace
        ([], [("bank", "a", 1)], None),  # nobody else has a say
    ],
)
def test_which_rule_holds_is_istio_s_order(rules, published, most):
    mine, theirs = (
        [rule_of(tcp(maxConnections=limit), namespace=namespace, name=name) for namespace, name, limit in each]
        for each in (rules, published)
    )
    assert at(made(SERVICES, *theirs, rules=folder(*mine))).max_connections == most


def test_a_rule_for_some_clients_holds_for_those_and_one_that_is_not_exported_for_nobody_else():
    mine = rule_of(tcp(maxConnections=1), namespace="front", spec={"workloadSelector": {"matchLabels": {"app": "web"}}})
    assert at(made(SERVICES, rules=folder(mine, app="web"))).max_connections == 1
    assert at(made(SERVICES, rules=folder(mine, app="other"))).max_connections is None
    for exported, most in ((["."], None), (["bank"], None), (["front"], 2), (["*"], 2)):
        theirs = rule_of(tcp(maxConnections=2), spec={"exportTo": exported})
        assert at(made(SERVICES, theirs)).max_connections == most


def test_a_wildcard_gives_each_service_a_limit_of_its_own():
    found = made(SERVICES, rule_of(tcp(maxConnections=5), "*.shop.svc.cluster.local"))
    assert {one.name: one.max_connections for one in found} == {"shop": None, f"{HOST}:*": 5, f"{OTHER}:*": 5}


def test_a_port_s_settings_take_the_place_of_all_others():
    apart = [{"port": {"number": 443}, **tcp(connectTimeout="1s")}]
    found = made(SERVICES, rule_of({**tcp(maxConnections=5), "portLevelSettings": apart}))
    assert (at(found).name, at(found).max_connections) == (f"{HOST}:*", 5)
    https = at(found, port=443)
    assert (https.name, https.max_connections, https.connect_timeout) == (f"{HOST}:443", None, 1)


def test_a_port_s_settings_meet_an_entry_for_that_port_alone():
    apart = [{"port": {"number": 80}, **tcp(maxConnections=2)}]
    rule = rule_of({**tcp(maxConnections=9), "portLevelSettings": apart})
    only = {**SERVICES, "name": "shop.ONLY-80", "ports": [80]}
    others = {"name": "shop.OTHER-PORTS", "mode": "off", "services": SERVICES["services"], "cidrs": ["10.96.0.7"]}
    found = entries_with(document(only, others), values(rule), folder())
    assert list(PeerTable(found).clashes()) == []
    assert (at(found).mode, at(found).max_connections, at(found).name) == (Mode.REQUIRE, 2, f"{HOST}:80")
    assert (at(found, port=81).mode, at(found, port=81).max_connections) == (Mode.OFF, 9)
    assert len({one.name for one in found}) == len(found) == 4


def test_disable_is_plain_tcp_and_istio_mutual_is_the_mesh_pinned_to_the_namespace():
    plain = at(made(SERVICES, rule_of({"tls": {"mode": "DISABLE"}})))
    assert (plain.mode, plain.identities, plain.profile) == (Mode.OFF, frozenset(), None)
    off = {"name": "NOT-IN-MESH", "mode": "off", "services": {HOST: ["10.96.0.8"]}}
    meshed = at(made(off, rule_of({"tls": {"mode": "ISTIO_MUTUAL"}})))
    assert (meshed.mode, meshed.identities) == (Mode.REQUIRE, {PIN})


def test_subject_alt_names_are_who_may_answer():
    accounts = ["spiffe://cluster.local/ns/shop/sa/orders"]
    found = at(made(SERVICES, rule_of({"tls": {"mode": "ISTIO_MUTUAL", "subjectAltNames": accounts}})))
    assert found.identities == set(accounts)


@pytest.mark.parametrize("tls", [{"mode": "SIMPLE"}, {"mode": "MUTUAL", "credentialName": "partner"}])
def test_tls_that_no_sidecar_of_ours_makes_changes_nothing(tls):
    assert at(made(SERVICES, rule_of({"tls": tls}))).rule == ""


def test_what_stands_behind_an_address_of_the_cluster_is_not_chosen_among():
    policy = {"loadBalancer": {"simple": "ROUND_ROBIN"}, "outlierDetection": {"consecutive5xxErrors": 1}}
    assert made(SERVICES, rule_of(policy)) == document(SERVICES)


def test_a_profile_that_we_speak_is_followed_and_another_is_told():
    rule = rule_of(namespace="front", annotations={"qbitel.io/profile": "cnsa2"})
    spoken = folder(rule, profiles=frozenset({"qbitel", "cnsa2"}))
    assert at(made(SERVICES, rules=spoken)).profile == "cnsa2"
    assert spoken.unspoken == ()
    assert at(made(SERVICES, rules=folder(rule))).profile is None
    assert [one.metadata.name for one in folder(rule).unspoken] == ["orders"]


def test_more_entries_than_a_sidecar_holds_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_MADE", 3)
    apart = [{"port": {"number": port}, **tcp(maxConnections=1)} for port in range(1, 5)]
    with pytest.raises(UserError, match="make more than 3 entries"):
        made(SERVICES, rule_of({"portLevelSettings": apart}))
    assert made(SERVICES) == document(SERVICES)


# -- names, as a person writes them ----------------------------------------------------------------------------------


def named(**more: Any) -> dict[str, Any]:
    return {"name": "orders", "mode": "require", "hosts": [HOST], **more}


def test_an_entry_of_one_name_keeps_its_own_and_its_networks_and_its_fields_go_before_the_rule_s():
    entry = named(cidrs=["10.96.0.8/32"], maxConnections=50)
    rule = rule_of({"connectionPool": {"tcp": {"maxConnections": 7, "connectTimeout": "2s"}}})
    (found,) = made(entry, rules=folder(rule))
    assert (found.name, found.max_connections, found.connect_timeout) == ("orders", 50, 2)
    assert (found.hosts, len(found.networks)) == ((HOST,), 1)


def test_of_several_names_each_has_the_limit_by_itself():
    entry = named(hosts=[HOST, OTHER, "db.example.com", "*.shop.svc.cluster.local"])
    rule = rule_of(tcp(maxConnections=7), "*.shop.svc.cluster.local")
    found = {one.name: one for one in made(entry, rule)}
    assert set(found) == {"orders", f"orders/{HOST}:*", f"orders/{OTHER}:*"}
    assert found["orders"].hosts == ("db.example.com", "*.shop.svc.cluster.local")
    assert found[f"orders/{HOST}:*"].max_connections == 7


def test_a_name_that_is_no_service_has_rules_of_the_client_and_the_root_alone():
    entry = named(hosts=["db.example.com"])
    for namespace, most in (("front", 3), (ROOT, 3), ("shop", None)):
        rule = rule_of(tcp(maxConnections=3), "db.example.com", namespace)
        mine = (folder(rule),) if namespace != "shop" else (folder(),)
        published = () if namespace != "shop" else (rule,)
        assert made(entry, *published, rules=mine[0])[0].max_connections == most


def test_the_mode_of_a_name_is_the_document_s():
    for mode in ("require", "prefer", "off"):
        for word in ("DISABLE", "ISTIO_MUTUAL"):
            entry = named(mode=mode)
            assert made(entry, rule_of({"tls": {"mode": word}})) == document(entry)


def test_who_may_answer_to_a_name_is_the_document_s_word_or_else_the_rule_s():
    tls = {"mode": "ISTIO_MUTUAL", "subjectAltNames": ["spiffe://cluster.local/ns/shop/sa/orders"]}
    assert made(named(), rule_of({"tls": tls}))[0].identities == set(tls["subjectAltNames"])
    assert made(named(identities=[PIN]), rule_of({"tls": tls}))[0].identities == {PIN}
    assert made(named(mode="prefer"), rule_of({"tls": tls}))[0].identities == frozenset()


@pytest.mark.parametrize(
    ("simple", "balancing"),
    [
        ("ROUND_ROBIN", Balancing.ROUND_ROBIN),
        ("LEAST_REQUEST", Balancing.LEAST_CONNECTIONS),
        ("LEAST_CONN", Balancing.LEAST_CONNECTIONS),
        ("RANDOM", Balancing.RANDOM),
        ("PASSTHROUGH", None),
        ("UNSPECIFIED", None),
    ],
)
def test_the_addresses_of_a_name_are_chosen_among_as_the_rule_says(simple, balancing):
    (found,) = made(named(), rule_of({"loadBalancer": {"simple": simple}}))
    assert found.balancing is balancing
    assert (found.retrying, found.ejection) == ((Retrying(), Ejection()) if balancing else (None, None))
    (own,) = made(named(balancing="latency"), rule_of({"loadBalancer": {"simple": simple}}))
    assert own.balancing is Balancing.LATENCY


def test_names_and_services_of_one_entry_are_each_what_they_are():
    entry = named(services={OTHER: ["10.96.0.9"]})
    found = made(entry, rule_of({"loadBalancer": {"simple": "RANDOM"}}, "*.shop.svc.cluster.local"))
    by_name = PeerTable(found).by_name(HOST, 80)
    assert by_name is not None
    assert by_name.balancing is Balancing.RANDOM
    assert at(found, "10.96.0.9").balancing is None


@pytest.mark.parametrize(
    ("detection", "ejection"),
    [
        ({}, Ejection(5, 10, 30, 10)),  # Istio's defaults
        ({"consecutive5xxErrors": 3}, Ejection(3, 10, 30, 10)),
        ({"consecutiveGatewayErrors": 2}, Ejection(2, 10, 30, 10)),
        ({"consecutiveGatewayErrors": 9}, Ejection(5, 10, 30, 10)),  # that of 5xx is still 5
        ({"consecutive5xxErrors": 0, "consecutiveGatewayErrors": 9}, Ejection(9, 10, 30, 10)),
        ({"consecutive5xxErrors": 0}, None),
        ({"splitExternalLocalOriginErrors": True, "consecutive5xxErrors": 1}, Ejection(5, 10, 30, 10)),
        ({"splitExternalLocalOriginErrors": True, "consecutiveLocalOriginFailures": 2}, Ejection(2, 10, 30, 10)),
        ({"splitExternalLocalOriginErrors": True, "consecutiveLocalOriginFailures": 0}, None),
        (
            {"interval": "1s", "baseEjectionTime": "1m", "maxEjectionPercent": 100, "minHealthPercent": 40},
            Ejection(5, 1, 60, 100, 40),
        ),
        ({"interval": "100h", "baseEjectionTime": "100h"}, Ejection(5, 86400, 86400, 10)),
    ],
)
def test_what_fails_is_left_out_by_the_count_that_a_connection_which_cannot_be_made_adds_to(detection, ejection):
    rule = rule_of({"outlierDetection": detection})
    (found,) = made(named(endpoints=[{"address": "10.0.0.1"}]), rule)
    assert found.ejection == ejection
    (own,) = made(named(endpoints=[{"address": "10.0.0.1"}], outlierEjection={"failures": 4}), rule)
    assert own.ejection == Ejection(failures=4)
    (single,) = made(named(), rule)  # there is nothing to leave it out for
    assert single.ejection is None


# -- whatever is said ------------------------------------------------------------------------------------------------

_POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "connectionPool": st.builds(lambda most: {"tcp": {"maxConnections": most}}, st.integers(0, 9)),
        "tls": st.sampled_from([{"mode": "DISABLE"}, {"mode": "ISTIO_MUTUAL"}, {"mode": "SIMPLE"}]),
        "loadBalancer": st.builds(lambda simple: {"simple": simple}, st.sampled_from(["RANDOM", "PASSTHROUGH"])),
        "outlierDetection": st.just({}),
    },
).filter(bool)
_PORTS = st.dictionaries(st.sampled_from([80, 443, 8080]), _POLICIES, max_size=3)
_HOSTS = st.sampled_from([HOST, OTHER, "*.shop.svc.cluster.local", "*", "db.example.com"])
_RULES = st.lists(st.tuples(_HOSTS, _POLICIES, _PORTS, st.sampled_from(["shop", "front", ROOT])), max_size=4)


@settings(max_examples=150, deadline=None)
@given(rules=_RULES)
def test_whatever_rules_say_each_destination_has_one_entry_and_no_destination_is_lost(rules):
    written = [
        rule_of(
            {**policy, "portLevelSettings": [{"port": {"number": port}, **its} for port, its in ports.items()]},
            host, namespace, name=f"r{number}",
        )
        for number, (host, policy, ports, namespace) in enumerate(rules)
    ]  # fmt: skip
    entries = document(
        {**SERVICES, "ports": [80, "8000-9000"]},
        {"name": "OTHER", "mode": "off", "services": SERVICES["services"]},
        named(hosts=[HOST, "db.example.com"], cidrs=["10.0.0.0/8"]),
    )
    theirs = [one for one in written if one["metadata"]["namespace"] == "shop"]
    mine = folder(*(one for one in written if one not in theirs))
    found = entries_with(entries, values(*theirs), mine)
    before, after = PeerTable(entries), PeerTable(found)
    assert list(after.clashes()) == []
    assert len({one.name for one in found}) == len(found)
    for address in ("10.96.0.7", "10.96.0.8", "fd00::8", "10.96.0.9", "10.1.1.1", "192.0.2.1"):
        for port in (80, 443, 8080, 8500, 1):
            was, now = before.by_address(address, port), after.by_address(address, port)
            assert (was is None) == (now is None)
            assert was is None or now.rule or (was.mode, was.identities) == (now.mode, now.identities)
    for host in (HOST, "db.example.com", OTHER):
        assert (before.by_name(host, 80) is None) == (after.by_name(host, 80) is None)


def test_the_rules_of_a_document_are_those_that_are_published():
    text = json.dumps({"apiVersion": "qbitel.io/v1", "kind": "Peers", "peers": [SERVICES]})
    found = read_peers(f"{text}\n---\n{json.dumps(rule_of(tcp(maxConnections=4)))}".encode(), "peers.yaml")
    assert at(entries_with(found.entries, found.rules, folder())).max_connections == 4
