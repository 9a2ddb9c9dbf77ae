"""The checks of arguments."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from mesh.building import checks

TAKEN: list[tuple[Callable[..., object], object]] = [
    (checks.text, "a b é"),
    (checks.label_name, "web"),
    (checks.label_name, "a" * 63),
    (checks.object_name, "web.v1"),
    (checks.object_name, ".".join(["a" * 62] * 4)),  # 251 characters
    (checks.host, "web"),
    (checks.host, "Web.Example"),
    (checks.host, "*.example.com"),
    (checks.host, "*"),
    (checks.host, "*-web.example"),
    (checks.address, "10.1.2.3"),
    (checks.address, "10.1.2.3/8"),
    (checks.address, "::1"),
    (checks.address, "2001:db8::/32"),
    (checks.single_address, "::1"),
    (checks.port, 1),
    (checks.port, 65535),
    (checks.percentage, 0.5),
    (checks.percentage, 100),
    (checks.flag, False),
    (checks.token, "X-User"),
    (checks.method, "M-SEARCH"),
    (checks.label_key, "app.kubernetes.io/name"),
    (checks.label_key, "A_b.c"),
]
REFUSED: list[tuple[Callable[..., object], object]] = [
    *((checks.text, value) for value in ("", "a\nb", "\x00", None, b"a", 1, "a" * 4097)),
    *((checks.label_name, value) for value in ("", "A", "-a", "a-", "a.b", "a" * 64, "a\n", None, 1, "é")),
    *(
        (checks.object_name, value)
        for value in ("", "A", "a..b", ".a", "a.", "a" * 64, "a/b", f"{'a' * 63}." * 4 + "a")
    ),
    *((checks.host, value) for value in ("", "a..b", "a_b", "a.*.b", "**", "1.2.3.4", "a b", "a.", "http://a", None)),
    *(
        (checks.address, value)
        for value in ("", "10.0.0", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "fe80::1%eth0", 167772160)
    ),
    *((checks.address, value) for value in ("10.0.0.0/", "10.0.0.0/08", "010.0.0.1", "10.0.0.0/٨")),
    (checks.single_address, "10.0.0.0/8"),
    *((checks.port, value) for value in (0, 65536, -1, "80", 80.0, True, None)),
    *((checks.percentage, value) for value in (-1, 100.1, float("nan"), "50", True)),
    *((checks.flag, value) for value in (0, 1, "true", None)),
    *((checks.token, value) for value in ("", "a b", "a:b", "é", "a\n", 1)),
    *((checks.method, value) for value in ("get", "Get", "GET ", "")),
    *((checks.label_key, value) for value in ("", "/a", "a/", "A/a", "a/b/c", "-a", "a" * 64, "*", 1, None, [])),
]


@pytest.mark.parametrize(("check", "value"), TAKEN)
def test_what_is_allowed_is_given_back(check: Callable[..., object], value: object) -> None:
    assert check("argument", value) == value


@pytest.mark.parametrize(("check", "value"), REFUSED)
def test_what_is_not_allowed_is_refused_by_the_argument_s_name(check: Callable[..., object], value: object) -> None:
    with pytest.raises(ValueError, match=r"^argument: .+ give ") as refusal:
        check("argument", value)

    assert str(refusal.value).isprintable()


def test_a_host_may_be_asked_for_without_wildcards() -> None:
    assert checks.host("host", "web.shop", wildcard=False) == "web.shop"
    with pytest.raises(ValueError, match=r"no wildcard"):
        checks.host("host", "*.shop", wildcard=False)


def test_a_refused_value_is_shown_shortened() -> None:
    with pytest.raises(ValueError, match=r"^name: 'AAAA.*… is not allowed") as refusal:
        checks.label_name("name", "A" * 10_000)

    assert len(str(refusal.value)) < 250


def test_a_choice_tells_what_there_is() -> None:
    assert checks.choice("mode", "A", ("A", "B")) == "A"
    with pytest.raises(ValueError, match=r"mode: 'a' is not allowed; give one of A, B"):
        checks.choice("mode", "a", ("A", "B"))


@pytest.mark.parametrize("values", ["GET", None, {"GET": 1}, {"GET"}, iter(["GET"])])
def test_what_is_no_list_is_not_taken_for_one(values: object) -> None:
    with pytest.raises(ValueError, match=r"methods: .* give a list of"):
        checks.several("methods", values, checks.method)


def test_entries_of_a_list_are_named_by_their_number() -> None:
    assert checks.several("methods", ("GET", "POST"), checks.method) == ["GET", "POST"]
    with pytest.raises(ValueError, match=re.escape("methods[1]: 'x'")):
        checks.several("methods", ["GET", "x"], checks.method)
    with pytest.raises(ValueError, match=re.escape("methods[1]: 'GET' stands in the list twice")):
        checks.several("methods", ["GET", "GET"], checks.method)
    with pytest.raises(ValueError, match=r"methods: .* list of 1 to 512 entries"):
        checks.several("methods", [], checks.method, fewest=1)
    with pytest.raises(ValueError, match=r"methods: .* at most 512 entries"):
        checks.several("methods", [str(number) for number in range(513)], checks.text)


def test_a_dict_has_the_fields_that_are_allowed_and_those_that_are_needed() -> None:
    assert checks.fields("rule", {"a": 1}, ("a", "b"), needed=("a",)) == {"a": 1}
    with pytest.raises(ValueError, match=r"rule: 'c' is no field here; allowed are a, b"):
        checks.fields("rule", {"c": 1}, ("a", "b"))
    with pytest.raises(ValueError, match=r"rule: a is missing"):
        checks.fields("rule", {"b": 1}, ("a", "b"), needed=("a",))
    with pytest.raises(ValueError, match=r"rule: .* a dict with a, b"):
        checks.fields("rule", ["a"], ("a", "b"))


@pytest.mark.parametrize("labels", [{"app": "web"}, {"app.kubernetes.io/name": ""}, {"a": "A_b.c-1"}])
def test_labels_are_those_of_kubernetes(labels: dict[str, str]) -> None:
    assert checks.label_set("selector", labels) == labels


@pytest.mark.parametrize(
    "labels",
    [None, "app=web", {"": "a"}, {"app": "*"}, {"app": "a" * 64}, {"app": 1}, {"app": "-a"}, {1: "a"}, {"*": "a"}],
)
def test_other_labels_are_refused(labels: object) -> None:
    with pytest.raises(ValueError, match=r"^selector"):
        checks.label_set("selector", labels)


def test_a_selector_needs_a_label() -> None:
    with pytest.raises(ValueError, match=r"selector: .* with at least 1"):
        checks.label_set("selector", {}, fewest=1)


def test_annotations_may_hold_any_text() -> None:
    assert checks.annotation_set("annotations", {"qbitel.io/note": "any\ntext *"}) == {"qbitel.io/note": "any\ntext *"}
    with pytest.raises(ValueError, match=r"annotations\['a'\]: 1 is not allowed"):
        checks.annotation_set("annotations", {"a": 1})
