"""Texts of policies: what is read, at which line it stands, what is refused and how far a bad text comes."""

from __future__ import annotations

import datetime
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.documents import Document, Limits, Problem, field_name, read_documents, to_yaml

DEFAULT = Limits()
POLICY = b"""\
# who may call web
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: web
  namespace: shop
spec:
  action: ALLOW
  rules:
  - from:
    - source:
        principals: ["cluster.local/ns/shop/sa/front", cluster.local/ns/shop/sa/back]
    to:
    - operation:
        ports:
        - "80"
        - '443'
"""


def read(text: str | bytes, limits: Limits = DEFAULT) -> tuple[tuple[Document, ...], tuple[Problem, ...]]:
    return read_documents(text.encode() if isinstance(text, str) else text, "policy.yaml", limits)


def values(text: str | bytes) -> list[Any]:
    documents, problems = read(text)
    assert problems == ()
    return [document.value for document in documents]


def fault(text: str | bytes, limits: Limits = DEFAULT) -> str:
    """The one problem of a text of which nothing can be read."""
    documents, problems = read(text, limits)
    assert documents == ()
    assert len(problems) == 1
    assert problems[0].severity == "error"
    assert str(problems[0]).isprintable()
    return str(problems[0]).removeprefix("policy.yaml:")


# Lines


def test_each_field_knows_its_line() -> None:
    ((document,), problems) = read(POLICY)

    assert problems == ()
    ports = ("spec", "rules", 0, "to", 0, "operation", "ports")
    assert [document.line(path) for path in ((), ("kind",), ("spec",), ("spec", "rules", 0), ports, (*ports, 1))] == [
        *(2, 3, 7, 10, 15, 17)
    ]


def test_a_field_that_is_not_there_has_the_line_of_what_is_around_it() -> None:
    ((document,), _) = read(POLICY)

    assert document.line(("spec", "selector", "matchLabels")) == 7
    assert document.line(("status",)) == 2
    assert Document({}, "memory", {}).line(("spec",)) == 0


def test_a_problem_is_one_line_that_an_editor_can_jump_to() -> None:
    ((document,), _) = read(POLICY)
    path = ("spec", "rules", 0, "to", 0, "operation", "ports", 1)

    assert str(document.problem(path, "no port")) == (
        "policy.yaml:17: AuthorizationPolicy shop/web: spec.rules[0].to[0].operation.ports[1]: no port"
    )
    assert document.problem((), "strange", "note").severity == "note"
    assert str(Problem("here.yaml", 0, "", "", "unreadable")) == "here.yaml: unreadable"


def test_names_that_have_dots_stand_in_brackets() -> None:
    assert field_name(("metadata", "labels", "app.kubernetes.io/name")) == "metadata.labels['app.kubernetes.io/name']"
    assert field_name((0, "spec")) == "[0].spec"
    assert field_name(()) == ""


def test_documents_count_their_lines_from_the_start_of_the_text() -> None:
    documents, problems = read(b"---\n# nothing\n---\n" + POLICY + b"---\r\n\r\na: 1\n---   # last\nb:\n- c\n")

    assert problems == ()
    assert [document.line() for document in documents] == [5, 23, 25]
    assert documents[2].line(("b", 0)) == 26


def test_the_items_of_a_list_are_documents_with_their_own_lines() -> None:
    documents, problems = read(
        "apiVersion: v1\nkind: List\nitems:\n- kind: A\n  metadata: {name: a}\n- kind: B\n  spec:\n    x: 1\n"
    )

    assert problems == ()
    assert [document.resource for document in documents] == ["A a", "B"]
    assert [document.line() for document in documents] == [4, 6]
    assert documents[1].line(("spec", "x")) == 8
    assert values('{"kind": "PeerAuthenticationList", "items": []}') == []
    assert values("kind: Recipe\nitems: [1]") == [{"kind": "Recipe", "items": [1]}]


# What is read


def test_json_is_read_with_its_lines() -> None:
    value = {"kind": "X", "spec": {"list": [1, 2.5, None, True, "a/b", "é", 'q"\\']}}
    ((document,), problems) = read(json.dumps(value, indent="\t", ensure_ascii=False))

    assert problems == ()
    assert document.value == value
    assert document.line(("spec", "list", 2)) == 7


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mode: on", {"mode": True}),
        ("mode: 'on'", {"mode": "on"}),
        ("port: 010", {"port": 8}),
        ("at: 12:30", {"at": "12:30"}),
        ("day: 2026-01-31", {"day": "2026-01-31"}),
        ("on: 1", {"true": 1}),
        ("80: STRICT", {"80": "STRICT"}),
        ("a: !!str 80", {"a": "80"}),
        ("a: ! 80", {"a": "80"}),
        ("a: |\n  80\n", {"a": "80\n"}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1, c: 2}\nd:\n  c: 3\n  <<: *x", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("<<: [{a: 1}, {a: 2, b: 2}]\nc: 3", {"a": 1, "b": 2, "c": 3}),
        ("'<<': 1", {"<<": 1}),
        ("\ufeffa: 1", {"a": 1}),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        ("a: 1\n...\n", {"a": 1}),
    ],
)
def test_a_text_means_what_it_means_to_kubernetes(text: str, value: object) -> None:
    assert values(text) == [value]


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# nothing", "---", "---\n---\n", "--- # nothing\n...\n", "\ufeff", "~", "null"]
)
def test_a_text_without_a_document_is_no_fault(text: str) -> None:
    assert values(text) == []


# What is refused


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("spec:\n  a: 1\n  a: 2", "3: a stands here twice; the other is in line 2"),
        ("80: a\n'80': b", "2: 80 stands here twice; the other is in line 1"),
        ("<<: {}\n<<: {}", "2: << stands here twice; give it a list"),
        ("<<: 3", "1: << wants a map, or a list of maps"),
        ("a: 1\nspec:\n\tb: 2", "3: no YAML: a tab where YAML wants spaces"),
        ("a: b: c", "1: no YAML: mapping values are not allowed in this context"),
        ("a:\n  'x", "2: no YAML: while scanning a quoted scalar, found unexpected end of stream"),
        ("a: 1\nb: \x01", "2: no YAML: U+0001 stands in no text; escape it within quotes"),
        ("? [a]\n: 1", "1: the name of a field is no plain string"),
        ("~: 1", "1: nothing as the name of a field; quote it"),
        ("1.5: 1", "1: a number as the name of a field; quote it"),
        ("{{ a }}: 1", "1: the name of a field is no plain string"),
        ("a: !!binary aGk=", "1: the tag !!binary is not read; write the value itself"),
        ("a: !!python/object:os.system {}", "1: the tag !!python/object:os.system is not read; write the value itself"),
        ("a: .inf", "1: .inf is no number that JSON knows; quote it"),
        ("a: 1e999", "1: 1e999 is no number that JSON knows; quote it"),
        ("a: *b", "1: *b has no &anchor before it"),
        ("a: &a [*a]", "1: *a has no &anchor before it"),
        ("%YAML 1.1\na: 1", "2: no YAML: did not find expected <document start>"),
        ("- a: 1", "1: a list where a resource should be: a map with apiVersion, kind and metadata"),
        ("hello", "1: a string where a resource should be: a map with apiVersion, kind and metadata"),
        ("kind: List\nitems:\n- 3", "3: a number where an item of the list should be a resource"),
    ],
)
def test_a_document_that_cannot_be_read_is_told_with_its_line(text: str, line: str) -> None:
    assert fault(text) == line


def test_a_directive_is_refused() -> None:
    # Cut at the marker, the directive stands alone.
    documents, problems = read("%TAG ! tag:x,2002:\n---\na: 1\n")

    assert [problem.line for problem in problems] == [1]
    assert [document.value for document in documents] == [{"a": 1}]


@pytest.mark.parametrize("text", [b"\xff\xfea\x00", b"a: 1\nb: \xe9\n", b"\x80"])
def test_what_is_not_utf_8_is_refused(text: bytes) -> None:
    assert "is not UTF-8" in fault(text)


def test_the_fault_of_one_document_does_not_hide_the_others() -> None:
    documents, problems = read("a: 1\n---\na: [\n---\nb: 2\n---\nc: *d\n---\ne: 5\n")

    assert [document.value for document in documents] == [{"a": 1}, {"b": 2}, {"e": 5}]
    assert [problem.line for problem in problems] == [3, 7]


def test_an_anchor_ends_with_its_document() -> None:
    _, problems = read("a: &x 1\n---\nb: *x\n")

    assert [str(problem) for problem in problems] == ["policy.yaml:3: *x has no &anchor before it"]


# Bombs


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


def test_a_billion_laughs_are_not_laughed() -> None:
    assert fault(bomb(20)) == (
        "6: there are too many values, or aliases that multiply them (a YAML bomb); what follows is not read"
    )


def test_a_bomb_of_merge_keys_is_refused() -> None:
    text = "a0: &a0 {" + ", ".join(f"k{number}: 1" for number in range(1000)) + "}\n"
    text += "a1:\n  <<: [" + ", ".join(["*a0"] * 1000) + "]"

    assert "a YAML bomb" in fault(text)


def test_the_limit_on_values_holds_over_all_documents_of_a_text() -> None:
    documents, problems = read("a: [1, 2, 3]\n---\nb: [1, 2, 3]\n", Limits(nodes=8))

    assert len(documents) == 1
    assert "too many values" in problems[0].message


@pytest.mark.parametrize("unit", ["[", "{a: ", "- ", "? "])
def test_nesting_without_end_is_refused(unit: str) -> None:
    message = fault("a:\n  " + unit * 100_000)

    assert any(words in message for words in ("more than 64 deep", "maximum nesting depth", "no plain string"))


def test_more_documents_than_can_be_meant_are_not_read() -> None:
    for empty in ("---\n", "---\na: 1\n", "--- {}\n"):
        documents, problems = read(empty * 30, Limits(documents=10))
        assert len(documents) <= 10
        assert [problem.message for problem in problems] == [
            "there are more than 10 documents; what follows is not read"
        ]
    documents, problems = read(json.dumps({"kind": "List", "items": [{}] * 30}), Limits(documents=10))
    assert (len(documents), len(problems)) == (10, 1)


def test_faults_without_number_are_reported_up_to_a_limit() -> None:
    _, problems = read("a: [\n---\n" * 1000, Limits(problems=5))

    assert len(problems) == 6
    assert problems[-1].message == "there are 5 faults; what follows is not read"


def test_a_text_that_is_too_long_is_not_looked_at() -> None:
    assert fault(b"a" * 101, Limits(size=100)) == (
        "policy.yaml: 101 bytes are more than the 100 that are read at once; split the file".removeprefix(
            "policy.yaml:"
        )
    )


def test_a_huge_scalar_is_a_scalar() -> None:
    assert values("a: " + "x" * 1_000_000) == [{"a": "x" * 1_000_000}]


# Whatever comes


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(text: bytes) -> None:
    read(text)


PIECES = (
    *("a", "1", "é", "~", ":", " ", "\n", "\t", "-", "?", ",", "[", "]", "{", "}", "#", "'", '"', "|", ">"),
    *("&x", "*x", "<<", "!", "%", "---", "...", "\u2028"),
)


@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_no_pieces_of_yaml_make_it_fail(pieces: list[str]) -> None:
    text = "".join(pieces)
    documents, problems = read(text)
    for problem in problems:
        assert 0 <= problem.line <= text.count("\n") + text.count("\u2028") + 2
    for document in documents:
        assert document.line() >= 1


def test_the_policy_of_this_file_cut_or_bent_at_each_byte_does_not_make_it_fail() -> None:
    for index in range(len(POLICY)):
        read(POLICY[:index])
        for byte in (0x00, 0x09, 0x0A, 0x22, 0x26, 0x2A, 0x5B, 0x80, 0xFF):
            read(POLICY[:index] + bytes([byte]) + POLICY[index + 1 :])


@pytest.mark.skipif("QBITEL_CORPUS" not in os.environ, reason="QBITEL_CORPUS names no folder of samples")
def test_istio_s_own_samples_are_read() -> None:
    files = sorted((Path(os.environ["QBITEL_CORPUS"]) / "istio-samples").rglob("*.yaml"))
    faulty = {}
    for file in files:
        _, problems = read_documents(file.read_bytes(), str(file))
        if problems and b"{{" not in file.read_bytes():
            faulty[file.name] = problems

    assert files
    assert faulty == {}


# Writing

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | st.sampled_from(["y", "on", "No", "~", "", "1e3", "0o7", "010", "12:30", "2026-01-01"])
    | st.sampled_from(["<<", "a: b", "- a", "---", "=", ".5", "a\nb", "a\n", "\n", " a", "a ", "#", "\t"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(TEXTS, JSON_VALUES), max_size=3))
def test_what_is_written_is_read_back_as_it_was(resources: list[dict[str, Any]]) -> None:
    text = to_yaml(resources)
    documents, problems = read(text)

    assert problems == ()
    assert [document.value for document in documents] == [
        one for one in resources if not isinstance(one.get("items"), list)
    ]
    assert to_yaml(resources) == text


def test_resources_are_documents_in_an_order_that_people_expect() -> None:
    rules = [{"from": [{"source": {"namespaces": ["on"]}}]}]
    text = to_yaml(
        [
            {"spec": {"rules": rules, "again": rules}, "metadata": {"name": "b"}, "kind": "K", "apiVersion": "v1"},
            {"kind": "L", "apiVersion": "v1"},
        ]
    )

    assert text == (
        "---\napiVersion: v1\nkind: K\nmetadata:\n  name: b\nspec:\n  rules:\n  - from:\n    - source:\n"
        '        namespaces:\n        - "on"\n  again:\n  - from:\n    - source:\n        namespaces:\n        - "on"\n'
        "---\napiVersion: v1\nkind: L\n"
    )
    assert to_yaml([]) == ""
    assert to_yaml({"a": "x " * 200}) == f"a: {('x ' * 200)!r}\n"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (datetime.date(2026, 1, 1), "a date is no value of JSON"),
        (b"x", "a bytes is no value of JSON"),
        ({1, 2}, "a set is no value of JSON"),
        (math.inf, "inf is no number that JSON knows"),
        ({1: "a"}, "the name of a field is 1, which is no string"),
    ],
)
def test_what_is_no_json_is_not_written(value: object, message: str) -> None:
    with pytest.raises(ValueError, match="this cannot be written as YAML: ") as refused:
        to_yaml({"a": [value]})
    assert message in str(refused.value)


def test_a_value_that_contains_itself_is_not_written() -> None:
    value: dict[str, Any] = {}
    value["self"] = value

    with pytest.raises(ValueError, match="contains itself"):
        to_yaml(value)
