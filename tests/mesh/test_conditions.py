"""Each attribute: that there is one, what an index may know of it, and what it reads."""

from __future__ import annotations

import pytest

from mesh.addresses import Blocks
from mesh.authorization import Condition, Operation, Source
from mesh.conditions import READS, Key, Mesh, attribute, conditions_of
from mesh.facts import Facts, HttpFacts, View
from mesh.matching import Ends, Texts

MESH = Mesh("shop", "cluster.local", ("old.td",))


@pytest.mark.parametrize(
    "key",
    [
        "request.headers",
        "request.headers[]",
        "request.headers[a][b]",
        "request.headers[a b]",
        "request.auth.claims",
        "request.auth.claims[]",
        "request.auth.claims[a]b",
        "source.labels[app]",
        "destination.namespace",
        "source.Principal",
        "experimental.envoy.filters.x[y]",
        "",
    ],
)
def test_other_keys_are_not_understood(key: str) -> None:
    assert attribute(key) is None


@pytest.mark.parametrize(
    ("key", "values", "filed"),
    [
        (
            "source.principal",
            ("cluster.local/ns/a/sa/b",),
            Key("principal", Texts.of(["cluster.local/ns/a/sa/b", "old.td/ns/a/sa/b"])),
        ),
        ("source.principal", ("*/sa/b", "x*"), Key("principal", Texts.of(["*/sa/b", "x*"]))),
        ("source.principal", ("a", "*"), None),
        ("source.serviceAccount", ("web", "a/b"), Key("account", Texts.of(["shop/web", "a/b"]))),
        ("source.namespace", ("a", "b*", "*c"), Key("namespace", Texts.of(["a", "b*", "*c"]))),
        ("source.namespace", ("a*b", "c"), Key("namespace", Ends(frozenset({"c"}), frozenset({("a", "b")})))),
        ("source.namespace", ("a*b", "*c"), Key("namespace", Ends(frozenset(), frozenset({("a", "b"), ("", "c")})))),
        ("source.namespace", ("*a*",), None),
        ("source.namespace", ("*",), None),
        ("source.ip", ("10.0.0.0/8",), Key("address", Blocks.of(["10.0.0.0/8"]))),
        ("destination.port", ("0080", "443"), Key("port", Texts.of(["80", "443"]))),
        ("to.hosts", ("A.example",), Key("host", Texts.of(["a.example"]))),
        ("to.paths", ("/a*",), Key("path", Texts.of(["/a*"]))),
        ("to.paths", ("/a", "/{*}", "/b*"), Key("path", Ends(frozenset({"/a"}), frozenset({("/", ""), ("/b", "")})))),
        ("to.paths", ("*", "/{*}"), None),
        ("source.trustDomain", ("a",), Key("trust domain", Texts.of(["a"]))),
        ("source.trustDomain", ("old.td",), Key("trust domain", Texts.of(["cluster.local", "old.td"]))),
        ("source.trustDomain", ("a", "*"), None),
        ("remote.ip", ("10.0.0.1",), Key("client address", Blocks.of(["10.0.0.1"]))),
        ("destination.ip", ("10.0.0.1",), Key("own address", Blocks.of(["10.0.0.1"]))),
        ("connection.sni", ("A.example", "*.b"), Key("server name", Texts.of(["a.example", "*.b"]))),
        ("connection.sni", ("*",), None),
        ("request.headers[x]", ("a",), None),
    ],
)
def test_what_a_rule_is_filed_under(key: str, values: tuple[str, ...], filed: Key | None) -> None:
    known = attribute(key)

    assert known is not None
    assert known.key(values, MESH) == filed


@pytest.mark.parametrize("key", ["source.ip", "remote.ip", "destination.ip"])
def test_an_address_that_is_not_known_is_neither_inside_nor_outside(key: str) -> None:
    known = attribute(key)

    assert known is not None
    assert known.predicate(("0.0.0.0/0", "::/0"), MESH)(View(Facts(80))) is None


def test_every_key_that_reads_a_fact_beside_the_principal_says_so() -> None:
    """Facts that are not named in READS must not change an answer: decisions are remembered by those that are."""
    changed = {
        "source_ip": "10.0.0.1",
        "destination_ip": "10.0.0.1",
        "remote_ip": "10.0.0.1",
        "sni": "10.0.0.1",
        "destination_port": 10,
    }
    values = {"destination.port": ("10",)}
    plain = Facts(1, "a/ns/b/sa/c", "9.9.9.9", "9.9.9.9", None, "x")
    for key in ("source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain", *READS):
        known = attribute(key)
        assert known is not None
        predicate = known.predicate(values.get(key, ("10.0.0.1",)), MESH)
        reads = {
            name
            for name, value in changed.items()
            if predicate(View(plain)) != predicate(View(Facts(**{**_as_dict(plain), name: value})))  # type: ignore[arg-type]
        }
        assert reads == set(READS.get(key, ())), key


def _as_dict(facts: Facts) -> dict[str, object]:
    return {name: getattr(facts, name) for name in Facts.__dataclass_fields__}


def test_fields_are_conditions_by_other_names() -> None:
    assert conditions_of(Source(principals=("a",), not_ip_blocks=("10.0.0.1",))) == (
        Condition("source.principal", ("a",)),
        Condition("source.ip", (), ("10.0.0.1",)),
    )
    assert conditions_of(Operation(ports=("1",), not_paths=("/a",))) == (
        Condition("destination.port", ("1",)),
        Condition("to.paths", (), ("/a",)),
    )
    assert conditions_of(Source()) == ()


@pytest.mark.parametrize("part", [Source, Operation])
def test_each_field_has_a_condition(part: type[Source] | type[Operation]) -> None:
    for name in part.__dataclass_fields__:
        (condition,) = conditions_of(part(**{name: ("10.0.0.1",)}))
        assert attribute(condition.key) is not None
        assert bool(condition.not_values) is name.startswith("not_")


def test_a_claim_is_looked_for_where_there_is_a_token_alone() -> None:
    known = attribute("request.auth.claims[a]")
    assert known is not None
    predicate = known.predicate(("x",), MESH)

    assert predicate(View(Facts(1, http=HttpFacts("GET", "/", claims={"a": "x"}))))
    assert not predicate(View(Facts(1, http=HttpFacts("GET", "/"))))
