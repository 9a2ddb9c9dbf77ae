"""The peers document: what is read from it, and what is refused, with the line where it stands."""

from __future__ import annotations

import json
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import UserError
from proxy.peers.document import MAX_NAMES, Refused, read_peers
from proxy.peers.entries import Balancing, Ejection, PeerEndpoint, Retrying
from proxy.peers.table import network_of
from proxy.routes import EVERY_PORT, Mode, PortRange

HEAD = "apiVersion: qbitel.io/v1\nkind: Peers\npeers:\n"
FULL = b"""\
apiVersion: qbitel.io/v1
kind: Peers
metadata: {name: from-discovery}
peers:
- name: orders
  hosts: [orders.shop.svc, "*.orders.shop.svc"]
  cidrs: [10.96.7.1/32, 10.9.9.9, "fd00::/8", "::ffff:10.7.0.0/112"]
  ports: [8080, "9000-9100", "443"]
  mode: require
  identities: [spiffe://cluster.local/ns/shop/sa/orders]
  profile: qbitel
  tunnelPort: 15008
  endpoints:
  - address: 10.0.0.5
  - {address: "10.0.0.6:81", weight: 3}
  - {address: "[fd00::1]:80"}
  - {address: "fd00::2"}
  balancing: latency
  connectTimeout: 250ms
  retries: {attempts: 3, budgetPercent: 50, minPerSecond: 1}
  outlierEjection: {failures: 2, interval: 1s, time: 1m, maxPercent: 100}
  maxConnections: 1000
  maxPending: 100
- name: shop
  mode: require
  services: {stock.shop.svc.cluster.local: [10.96.7.2, "fd01::2"], web.shop.svc.cluster.local: [10.96.7.3]}
- name: rest
  cidrs: [10.0.0.0/8]
  mode: prefer
- name: db
  cidrs: [10.1.0.0/16]
  mode: off
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: stock, namespace: shop}
spec: {host: stock, trafficPolicy: {connectionPool: {tcp: {maxConnections: 5}}}}
"""


def read(text: str):
    return read_peers(text.encode(), "peers.yaml").entries


def entry(text: str):
    (found,) = read(HEAD + textwrap.indent(textwrap.dedent(text), "  ").replace("  name:", "- name:", 1))
    return found


def test_everything_that_can_be_said_is_read():
    document = read_peers(FULL, "peers.yaml")
    orders, shop, rest, db = document.entries
    assert orders.name == "orders"
    assert orders.mode is Mode.REQUIRE
    assert orders.hosts == ("orders.shop.svc", "*.orders.shop.svc")
    assert orders.networks == tuple(map(network_of, ("10.96.7.1/32", "10.9.9.9/32", "fd00::/8", "10.7.0.0/16")))
    assert orders.ports == (PortRange(8080, 8080), PortRange(9000, 9100), PortRange(443, 443))
    assert orders.identities == {"spiffe://cluster.local/ns/shop/sa/orders"}
    assert (orders.profile, orders.tunnel_port, orders.connect_timeout) == ("qbitel", 15008, 0.25)
    assert orders.endpoints == (
        PeerEndpoint("10.0.0.5"), PeerEndpoint("10.0.0.6", 81, 3), PeerEndpoint("fd00::1", 80), PeerEndpoint("fd00::2"),
    )  # fmt: skip
    assert orders.balancing is Balancing.LATENCY
    assert orders.retrying == Retrying(3, 0.5, 1)
    assert orders.ejection == Ejection(2, 1, 60, 100)
    assert (orders.max_connections, orders.max_pending) == (1000, 100)
    assert {"mode", "maxPending"} <= orders.said
    stock = tuple(map(network_of, ("10.96.7.2/32", "fd01::2/128")))
    web = (network_of("10.96.7.3/32"),)
    assert shop.services == {"stock.shop.svc.cluster.local": stock, "web.shop.svc.cluster.local": web}
    assert shop.networks == (*stock, *web)
    assert [rule.full_host for rule in document.rules] == ["stock.shop.svc.cluster.local"]
    assert (rest.mode, rest.ports, rest.needs_state) == (Mode.PREFER, (EVERY_PORT,), False)
    assert db.mode is Mode.OFF  # YAML 1.1 reads `off` as a boolean


def test_json_says_the_same():
    document = {
        "apiVersion": "qbitel.io/v1",
        "kind": "Peers",
        "peers": [{"name": "db", "cidrs": ["10.1.0.0/16"], "mode": "off"}],
    }
    (found,) = read_peers(json.dumps(document).encode(), "peers.json").entries
    assert (found.name, found.mode) == ("db", Mode.OFF)


def test_no_entries_at_all_is_a_document():
    assert read(HEAD.replace("peers:\n", "peers: []\n")) == ()


def test_several_endpoints_are_balanced_retried_and_watched_unless_told_otherwise():
    found = entry("name: a\nmode: require\ncidrs: [10.0.0.1]\nendpoints: [{address: 10.0.0.2}]\n")
    assert found.balancing is Balancing.LEAST_CONNECTIONS
    assert found.retrying == Retrying()
    assert found.ejection == Ejection()
    found = entry(
        "name: a\nmode: require\ncidrs: [10.0.0.1]\nendpoints: [{address: 10.0.0.2}]\nretries: {attempts: 0}\n"
        "outlierEjection: {failures: 0}\n"
    )
    assert (found.retrying, found.ejection) == (None, None)


@pytest.mark.parametrize(
    ("text", "line", "field", "says"),
    [
        ("name: a\nmode: require\n", 4, "peers[0]", "neither cidrs nor hosts"),
        ("name: a\nmode: on\ncidrs: [10.0.0.1]\n", 5, "mode", "true stands where text is wanted"),
        ("name: a\nmode: always\ncidrs: [10.0.0.1]\n", 5, "mode", "is none of require, prefer, off"),
        ("name: a\nmode: require\ncidrs: [10.0.0.1/8]\n", 6, "cidrs[0]", "has host bits set"),
        ("name: a\nmode: require\ncidrs: [ten]\n", 6, "cidrs[0]", "is no network"),
        ("name: a\nmode: require\nhosts: [10.0.0.1]\n", 6, "hosts[0]", "those stand in cidrs"),
        ("name: a\nmode: require\nhosts: ['2130706433']\n", 6, "hosts[0]", "it looks like an address"),
        ("name: a\nmode: require\nhosts: ['a.*.b']\n", 6, "hosts[0]", "is no host"),
        ("name: a\nmode: require\nhosts: [Orders]\n", 6, "hosts[0]", "small letters"),
        ("name: a\nmode: require\nhosts: [a]\nports: [0]\n", 7, "ports[0]", "not within 1 to 65535"),
        ("name: a\nmode: require\nhosts: [a]\nports: [90-80]\n", 7, "ports[0]", "ends before it begins"),
        ("name: a\nmode: require\nhosts: [a]\nports: [http]\n", 7, "ports[0]", "neither a port nor a range"),
        ("name: a\nmode: prefer\nhosts: [a]\nidentities: ['spiffe://a/b']\n", 7, "identities", "only mode require"),
        ("name: a\nmode: require\nhosts: [a]\nidentities: [orders]\n", 7, "identities[0]", "is no SPIFFE ID"),
        ("name: a\nmode: off\nhosts: [a]\nprofile: qbitel\n", 7, "profile", "means nothing in mode off"),
        ("name: a\nmode: off\nhosts: [a]\ntunnelPort: 1\n", 7, "tunnelPort", "means nothing in mode off"),
        ("name: a\nmode: require\nhosts: [a]\nprofile: best\n", 7, "profile", "is none of"),
        ("name: a\nmode: require\nhosts: [a]\nendpoints: [{address: b}]\n", 7, "endpoints[0].address", "is no address"),
        ("name: a\nmode: require\nhosts: [a]\nendpoints: [{address: 0.0.0.0}]\n", 7, "address", "of one machine"),
        ("name: a\nmode: require\nhosts: [a]\nendpoints: [{address: '10.0.0.1:0'}]\n", 7, "address", "0 is no port"),
        ("name: a\nmode: require\nhosts: [a]\nendpoints: [{address: 1.1.1.1}, {address: 1.1.1.1}]\n", 7, "", "twice"),
        ("name: a\nmode: require\ncidrs: [10.0.0.1]\nbalancing: random\n", 7, "balancing", "needs endpoints"),
        ("name: a\nmode: require\nhosts: [a]\nconnectTimeout: 3m\n", 7, "connectTimeout", "longer than 120 s"),
        ("name: a\nmode: require\nhosts: [a]\nretry: {}\n", 7, "retry", "is no field"),
        ("name: a\nmode: require\nservices: {web: [10.0.0.1]}\n", 6, "services.web", "as in web.shop.svc"),
        ("name: a\nmode: require\nservices: {'*.b.svc.cluster.local': [10.0.0.1]}\n", 6, "services", "is no full name"),
        ("name: a\nmode: require\nservices: {a.b.svc.cluster.local.: [10.0.0.1]}\n", 6, "services", "is no full name"),
        ("name: a\nmode: require\nservices: {a.b.svc.cluster.local: []}\n", 6, "services", "must not be empty"),
        ("name: a\nmode: require\nservices: {a.b.svc.cluster.local: [10.0.0.1]}\nendpoints: [{address: 1.1.1.1}]\n",
         7, "endpoints", "several destinations"),
        ("name: '--mesh'\nmode: require\nhosts: [a]\n", 4, "name", "is no name"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_its_line(text, line, field, says):
    with pytest.raises(Refused) as refused:
        entry(text)
    message = str(refused.value)
    assert message.startswith(f"peers.yaml:{line}: Peers: ")
    assert field in message
    assert says in message
    assert "\n" not in message


def test_two_entries_about_the_same_are_refused_and_the_second_is_named():
    with pytest.raises(Refused, match=r"peers.yaml:7: Peers: peers\[1\]: 10.0.0.0/8, every port: peers\[0\] is about"):
        read(
            HEAD + "- name: a\n  mode: require\n  cidrs: [10.0.0.0/8]\n- name: b\n  mode: off\n  cidrs: [10.0.0.0/8]\n"
        )


def test_an_address_of_two_services_is_refused():
    entry = "- name: {}\n  mode: require\n  services: {{{}.b.svc.cluster.local: [10.0.0.1]}}\n"
    with pytest.raises(Refused, match=r"peers\[1\]: 10.0.0.1/32, every port: peers\[0\] is about the same"):
        read(HEAD + entry.format("a", "a") + entry.format("b", "b"))


def test_two_entries_of_one_name_are_refused():
    with pytest.raises(Refused, match=r"peers\[1\].name: 'a' is the name of peers\[0\] too"):
        read(HEAD + "- name: a\n  mode: require\n  hosts: [a]\n- name: a\n  mode: off\n  hosts: [b]\n")


def test_more_names_than_a_resolver_can_be_asked_for_are_refused():
    hosts = ", ".join(f"h{number}" for number in range(MAX_NAMES // 2 + 1))
    entries = (f"- name: {letter}\n  mode: require\n  hosts: [{hosts.replace('h', letter)}]\n" for letter in "ab")
    text = HEAD + "".join(entries)
    with pytest.raises(Refused, match="host names are more than"):
        read(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no document in it"),
        ("a: {", "flow"),
        (f"{HEAD}- name: a\n  mode: require\n  hosts: [a]\n---\n{HEAD}", "more than one document"),
        ("apiVersion: v1\nkind: Peers\npeers: []\n", "apiVersion: 'v1' is none of qbitel.io/v1"),
        ("apiVersion: qbitel.io/v1\nkind: Secret\npeers: []\n", "kind: 'Secret' is none of Peers"),
        (
            "kind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: a}\nspec: {host: a}\n",
            "no document in it",
        ),
        (
            HEAD
            + " []\n---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {name: a}\nspec: {}\n",
            "peers.yaml:9: DestinationRule a: spec.host: is missing",
        ),
        (
            f"{HEAD} []\n---\nkind: DestinationRule\napiVersion: example.org/v1\nmetadata: {{name: a}}\n",
            "none of Istio's",
        ),
        (f"{HEAD}  a: b\n", "a map stands where a list is wanted"),
        (f"{HEAD}- name: a\n  name: b\n", "twice"),
    ],
)
def test_what_is_no_peers_document_is_refused_in_one_line(text, says):
    with pytest.raises(UserError) as refused:
        read(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(content):
    with_head(content)


@settings(max_examples=300)
@given(st.integers(0, len(FULL) - 1), st.integers(0, 255))
def test_a_document_with_one_byte_changed_is_read_or_refused(place, byte):
    with_head(FULL[:place] + bytes((byte,)) + FULL[place + 1 :])


def test_a_document_that_is_cut_anywhere_is_read_or_refused():
    for length in range(len(FULL)):
        with_head(FULL[:length])


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = (
    "name", "mode", "cidrs", "hosts", "ports", "identities", "profile", "tunnelPort", "endpoints", "balancing",
    "connectTimeout", "retries", "outlierEjection", "maxConnections", "maxPending", "services",
)  # fmt: skip


@settings(max_examples=300)
@given(st.sampled_from(_FIELDS), _values)
def test_any_value_in_any_field_is_read_or_refused(field, value):
    peer = {"name": "a", "mode": "require", "cidrs": ["10.0.0.0/8"], field: value}
    with_head(json.dumps({"apiVersion": "qbitel.io/v1", "kind": "Peers", "peers": [peer]}).encode())


def with_head(content: bytes) -> None:
    try:
        read_peers(content, "peers.yaml")
    except Refused as refused:
        assert str(refused).startswith("peers.yaml")
        assert "\n" not in str(refused)


def identities_in(*identities: str) -> frozenset[str]:
    """What a document with one entry of these identities says."""
    entry = {"name": "a", "mode": "require", "cidrs": ["10.0.0.1"], "identities": list(identities)}
    content = json.dumps({"apiVersion": "qbitel.io/v1", "kind": "Peers", "peers": [entry]})
    return read_peers(content.encode(), "peers.yaml").entries[0].identities


def test_an_identity_may_be_every_service_account_of_a_namespace() -> None:
    assert identities_in("spiffe://cluster.local/ns/shop/sa/*") == {"spiffe://cluster.local/ns/shop/sa/*"}


@pytest.mark.parametrize(
    "pattern",
    [
        *("spiffe://cluster.local/ns/*/sa/web", "spiffe://cluster.local/ns/*/sa/*", "spiffe://cluster.local/*"),
        *(
            "spiffe://*/ns/shop/sa/*",
            "spiffe://cluster.local/ns/shop/sa/w*",
            "spiffe://cluster.local/ns/Shop/sa/*",
            "*",
        ),
    ],
)
def test_no_other_pattern_is_an_identity(pattern: str) -> None:
    with pytest.raises(Refused, match="is no SPIFFE ID"):
        identities_in(pattern)
