"""The peers document of a cluster: what it says, that sidecars take it, and that it stays the same."""

from __future__ import annotations

import ipaddress
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.discovery.client_rules import NO_RULES, ClientRules, client_rules
from control.discovery.members import Members
from control.discovery.peers_text import MeshSettings, Network, peers_text, published_members
from control.discovery.policies import part_of, read_resource
from control.discovery.workloads import Address, read_service
from kube.objects import key_of
from mesh.selectors import Workload
from proxy.peers.document import read_peers
from proxy.peers.entries import PeerEntry
from proxy.peers.rules import Rules, entries_with
from proxy.peers.table import PeerTable
from proxy.routes import Mode
from tests.control.discovery.objects import service

PODS: Network = ipaddress.ip_network("10.244.0.0/16")
SERVICES: Network = ipaddress.ip_network("10.96.0.0/16")


def settings(*networks: Network, mode: str = "prefer") -> MeshSettings:
    return MeshSettings(trust_domain="cluster.local", networks=networks, mode=mode)


def at(text: str) -> Address:
    return ipaddress.ip_address(text)


def text(
    members: Members | None = None,
    *services: dict[str, Any],
    given: MeshSettings | None = None,
    named: ClientRules = NO_RULES,
) -> str:
    found = {key_of(one): read_service(one) for one in services}
    known = {key: one for key, one in found.items() if one is not None}
    return peers_text(members or {}, known, given or settings(PODS), named)


def entries(content: str) -> tuple[PeerEntry, ...]:
    return read_peers(content.encode(), "peers.yaml").entries


def entry_at(content: str, address: str, port: int) -> PeerEntry | None:
    return PeerTable(entries(content)).by_address(address, port)


def test_the_services_of_a_namespace_are_one_entry_that_is_pinned_to_it() -> None:
    content = text({("shop", at("10.96.0.10")): None, ("shop", at("10.96.0.9")): None, ("bank", at("10.96.1.1")): None})
    by_name = {entry.name: entry for entry in entries(content)}

    assert set(by_name) == {"shop", "bank", "NETWORKS"}
    assert by_name["shop"].mode is Mode.REQUIRE
    assert [str(one) for one in by_name["shop"].networks] == ["10.96.0.9/32", "10.96.0.10/32"]
    assert by_name["shop"].identities == {"spiffe://cluster.local/ns/shop/sa/*"}
    assert by_name["shop"].tunnel_port is None


def test_no_host_is_named_because_each_sidecar_would_ask_for_it() -> None:
    content = text({("shop", at("10.96.0.10")): None}, service("bank", "b", "10.96.0.12"))

    assert not any(entry.hosts for entry in entries(content))


def test_ports_that_do_not_require_the_mesh_are_what_the_networks_say() -> None:
    content = text({("shop", at("10.96.0.10")): (80, 443)}, given=settings(PODS))

    assert entry_at(content, "10.96.0.10", 443).mode is Mode.REQUIRE  # type: ignore[union-attr]
    assert entry_at(content, "10.96.0.10", 9090) is None


def test_pods_are_dialled_at_their_tunnel_port() -> None:
    found = entry_at(text(), "10.244.3.7", 8080)

    assert found is not None
    assert (found.mode, found.tunnel_port) == (Mode.PREFER, 15008)


def test_the_control_plane_and_the_api_server_pass_as_they_are() -> None:
    plane = service("qbitel-system", "qbitel-certmgr", "10.96.0.3")
    content = text({}, plane, service("default", "kubernetes", "10.96.0.1"), given=settings(SERVICES, mode="require"))

    for address in ("10.96.0.1", "10.96.0.3"):
        assert entry_at(content, address, 443).mode is Mode.OFF  # type: ignore[union-attr]


@pytest.mark.parametrize(("mode", "wanted"), [("prefer", Mode.OFF), ("require", Mode.REQUIRE)])
def test_a_service_within_the_networks_is_never_dialled_at_a_tunnel_port_of_its_own(mode: str, wanted: Mode) -> None:
    content = text({}, service("bank", "b", "10.96.0.12"), given=settings(SERVICES, mode=mode))
    found = entry_at(content, "10.96.0.12", 80)

    assert found is not None
    assert (found.mode, found.tunnel_port) == (wanted, None)


def test_with_mode_off_the_networks_pass_as_they_are_and_services_of_the_mesh_do_not() -> None:
    content = text({("shop", at("10.96.0.10")): None}, given=settings(PODS, mode="off"))

    assert entry_at(content, "10.244.0.1", 80).mode is Mode.OFF  # type: ignore[union-attr]
    assert entry_at(content, "10.96.0.10", 80).mode is Mode.REQUIRE  # type: ignore[union-attr]


def test_a_cluster_without_anything_has_a_document_all_the_same() -> None:
    assert entries(text(given=settings())) == ()


def test_an_address_is_in_one_entry_whoever_claims_it() -> None:
    twice = {("shop", at("10.96.0.10")): None, ("bank", at("10.96.0.10")): (80,)}
    content = text(
        twice,
        *(service("qbitel-system", "a", "10.96.0.10"), service("x", "y", "10.96.0.10")),
        given=settings(SERVICES, ipaddress.ip_network("10.96.0.10/32"), SERVICES),
    )

    assert sum("10.96.0.10/32" in map(str, entry.networks) for entry in entries(content)) == 1


def test_more_services_than_an_entry_may_list_are_several_entries() -> None:
    first = at("10.96.0.0")
    content = text({("n" * 63, first + number): None for number in range(2500)})
    found = [entry for entry in entries(content) if entry.mode is Mode.REQUIRE]

    assert [len(entry.networks) for entry in found] == [1000, 1000, 500]
    assert len({entry.name for entry in found}) == 3


def test_a_service_with_more_ports_than_an_entry_may_list_breaks_nobody_s_document() -> None:
    content = text({("shop", at("10.96.0.10")): tuple(range(1, 1500)), ("bank", at("10.96.0.11")): None})

    assert [entry.name for entry in entries(content)] == ["bank", "NETWORKS"]


def test_five_thousand_services_in_a_thousand_namespaces_fit_four_times() -> None:
    first = at("10.96.0.0")
    content = text({(f"namespace-{number % 1000:04}", first + number): None for number in range(5000)})

    assert len(content) < 256 * 1024
    assert sum(len(entry.networks) for entry in entries(content) if entry.mode is Mode.REQUIRE) == 5000


ADDRESSES = st.one_of(
    st.integers(0, 30).map(lambda number: at("10.96.0.0") + number),
    st.integers(0, 5).map(lambda number: at("fd00::") + number),
)
PORTS = st.none() | st.lists(st.integers(1, 65535), min_size=1, max_size=4, unique=True).map(lambda x: tuple(sorted(x)))
NAMESPACES = st.sampled_from(["shop", "bank", "n" * 63, "a-1"])
MEMBERS = st.dictionaries(st.tuples(NAMESPACES, ADDRESSES), PORTS, max_size=12)
SOME_SERVICES = st.lists(
    st.tuples(st.sampled_from(["shop", "qbitel-system", "default"]), st.sampled_from(["a", "kubernetes"]), ADDRESSES),
    max_size=6,
    unique_by=lambda one: one[:2],
)
NETWORKS = st.lists(st.sampled_from([PODS, SERVICES, ipaddress.ip_network("10.96.0.3/32")]), max_size=3)


@given(MEMBERS, SOME_SERVICES, NETWORKS, st.sampled_from(["require", "prefer", "off"]))
def test_every_document_is_taken_by_sidecars_and_what_it_requires_is_read_back(
    members: Members, services: list[tuple[str, str, Address]], networks: list[Network], mode: str
) -> None:
    made = [service(namespace, name, str(address)) for namespace, name, address in services]
    content = text(members, *made, given=settings(*networks, mode=mode))

    entries(content)
    assert json.loads(content)["kind"] == "Peers"
    back = published_members(content)
    assert back.items() <= members.items()
    assert {address for _, address in back} == {address for _, address in members}


@given(MEMBERS, st.randoms(use_true_random=False))
def test_the_same_members_in_any_order_are_the_same_bytes(members: Members, shuffled: random.Random) -> None:
    items = list(members.items())
    shuffled.shuffle(items)
    unique = {address: (namespace, ports) for (namespace, address), ports in items}
    kept = {(namespace, address): ports for address, (namespace, ports) in unique.items()}
    again = list(kept.items())
    shuffled.shuffle(again)

    assert text(dict(again)) == text(kept)


def test_a_document_that_somebody_has_edited_never_breaks_the_reading_of_it() -> None:
    content = text({("shop", at("10.96.0.10")): None, ("bank", at("10.96.0.11")): (80,)})
    shop = {("shop", at("10.96.0.10")): None}

    assert published_members("") == published_members("{}") == {}
    for place in range(len(content)):
        published_members(content[:place])
        for other in ('"', "{", "[", "9", "\x00"):
            published_members(content[:place] + other + content[place + 1 :])
    broken = content.replace('"10.96.0.11"', '"nonsense"')
    assert published_members(broken) == shop


def test_a_service_that_no_entry_names_yet_is_asked_at_its_own_address() -> None:
    content = text(given=MeshSettings(trust_domain="cluster.local", networks=(PODS,), service_networks=(SERVICES,)))
    found = entry_at(content, "10.96.7.7", 80)

    assert found is not None
    assert (found.mode, found.tunnel_port) == (Mode.PREFER, None)


def test_within_the_networks_of_services_those_that_are_known_to_be_outside_the_mesh_are_not_asked() -> None:
    given = MeshSettings(trust_domain="cluster.local", service_networks=(SERVICES,))
    content = text({("shop", at("10.96.0.10")): (80,)}, service("bank", "b", "10.96.0.12"), given=given)

    assert entry_at(content, "10.96.0.12", 80).mode is Mode.OFF  # type: ignore[union-attr]
    assert entry_at(content, "10.96.0.10", 80).mode is Mode.REQUIRE  # type: ignore[union-attr]
    assert entry_at(content, "10.96.0.10", 9090).mode is Mode.OFF  # type: ignore[union-attr]


def test_a_network_that_is_both_of_pods_and_of_services_is_in_one_entry() -> None:
    given = MeshSettings(trust_domain="cluster.local", networks=(PODS,), service_networks=(PODS,))
    assert [entry.name for entry in entries(text(given=given))] == ["NETWORKS"]


# -- Services that a DestinationRule is about ------------------------------------------------------------------------

WEB = "web.shop.svc.cluster.local"


def rules(host: str = "web", namespace: str = "shop") -> ClientRules:
    spec = {"host": host, "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 2}}}}
    found = {"metadata": {"name": "limits", "namespace": namespace}, "spec": spec}
    made, faults = part_of([read_resource(found, "networking.istio.io/v1", "DestinationRule")])
    assert faults == ()
    return client_rules([made], "istio-system")


def test_a_service_that_a_rule_is_about_stands_under_its_name_and_the_rule_beside_it() -> None:
    members: Members = {("shop", at("10.96.0.10")): None, ("shop", at("10.96.0.11")): None}
    made = service("shop", "web", ["10.96.0.10", "fd00::10"]), service("shop", "stock", "10.96.0.11")
    both: Members = {**members, ("shop", at("fd00::10")): None}
    content = text(both, *made, named=rules())
    found = read_peers(content.encode(), "peers.yaml")
    shop = found.entries[0]

    assert {host: [*map(str, its)] for host, its in shop.services.items()} == {WEB: ["10.96.0.10/32", "fd00::10/128"]}
    assert entry_at(content, "10.96.0.11", 80) == shop
    assert [str(one.metadata) for one in found.rules] == ["DestinationRule shop/limits"]
    assert published_members(content) == both


@pytest.mark.parametrize("mode", ["require", "prefer", "off"])
def test_naming_services_changes_nothing_of_how_they_are_reached(mode: str) -> None:
    """Whatever the installation says, and wherever the Service is."""
    members: Members = {("shop", at("10.96.0.10")): None, ("shop", at("10.96.0.11")): (80, 443)}
    made = [
        service("shop", "web", "10.96.0.10"), service("shop", "partly", "10.96.0.11"),
        service("bank", "outside", "10.96.0.12"), service("bank", "far", "172.20.0.1"),
        service("qbitel-system", "qbitel-certmgr", "10.96.0.3"), service("default", "kubernetes", "10.96.0.1"),
    ]  # fmt: skip
    for said in (settings(PODS, mode=mode), settings(PODS, SERVICES, mode=mode)):
        plain, named = text(members, *made, given=said), text(members, *made, given=said, named=rules("*"))
        assert named != plain
        for one in made:
            for port in (80, 443, 8080):
                address = one["spec"]["clusterIP"]
                before, now = entry_at(plain, address, port), entry_at(named, address, port)
                how = (Mode.OFF, frozenset(), None) if before is None else _how(before)
                assert (Mode.OFF, frozenset(), None) if now is None else _how(now) == how
                is_open = one["metadata"]["namespace"] in {"shop", "bank"}
                if is_open and now is not None:
                    host = f"{one['metadata']['name']}.{one['metadata']['namespace']}.svc.cluster.local"
                    assert host in now.services or now.name in {"NETWORKS", "SERVICE-NETWORKS"}
                else:
                    assert now is None or now.services == {}


def _how(entry: PeerEntry) -> tuple[Any, ...]:
    return entry.mode, entry.identities, entry.tunnel_port


def test_five_thousand_services_fit_with_their_names() -> None:
    first = at("10.96.0.0")
    members = {(f"namespace-{number % 1000:04}", first + number): None for number in range(5000)}
    made = [service(namespace, f"service-{int(address)}", str(address)) for namespace, address in members]
    content = text(members, *made, named=rules("*.local", "namespace-0001"))

    assert len(content) < 512 * 1024
    assert sum(len(entry.services) for entry in entries(content)) == 5000


@given(MEMBERS, SOME_SERVICES, NETWORKS, st.sampled_from(["require", "prefer", "off"]))
def test_every_document_with_names_is_taken_and_what_it_requires_is_read_back(
    members: Members, services: list[tuple[str, str, Address]], networks: list[Network], mode: str
) -> None:
    made = [service(namespace, name, str(address)) for namespace, name, address in services]
    content = text(members, *made, given=settings(*networks, mode=mode), named=rules("*"))

    found = read_peers(content.encode(), "peers.yaml")
    assert len(found.rules) == 1
    # As a sidecar uses it.
    profiles = frozenset({"qbitel"})
    client = Rules((), Workload("bank", {}, "b"), "cluster.local", "istio-system", profiles)
    used = PeerTable(entries_with(found.entries, found.rules, client))
    assert list(used.clashes()) == []
    back = published_members(content)
    assert back.items() <= members.items()
    assert {address for _, address in back} == {address for _, address in members}


def test_a_document_with_rules_that_somebody_has_edited_never_breaks_the_reading_of_it() -> None:
    content = text({("shop", at("10.96.0.10")): None}, service(), named=rules())

    assert published_members(content) == {("shop", at("10.96.0.10")): None}
    for place in range(len(content)):
        published_members(content[:place])
        for other in ('"', "{", "]", "9", "\x00"):
            published_members(content[:place] + other + content[place + 1 :])
