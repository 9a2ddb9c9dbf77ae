"""The reader of one YAML text, by both of PyYAML's parsers: libyaml's, and the one that is there without it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from mesh import yaml_values
from mesh.yaml_values import Budget, Fault, Path, Reader, Stop, printable, syntax_fault, told


@pytest.fixture(params=["CSafeLoader", "SafeLoader"], autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(yaml_values, "_Loader", getattr(yaml, request.param))


def read(text: str, *, nodes: int = 1000, depth: int = 8) -> list[tuple[Any, dict[Path, int]]]:
    reader = Reader(text, 1, Budget(nodes), depth)
    try:
        return list(reader.roots())
    finally:
        reader.dispose()


def test_values_come_with_the_lines_of_their_fields() -> None:
    assert read("a: 1\nb:\n- x\n- {c: on}\n") == [
        (
            {"a": 1, "b": ["x", {"c": True}]},
            {(): 1, ("a",): 1, ("b",): 2, ("b", 0): 3, ("b", 1): 4, ("b", 1, "c"): 4},
        )
    ]


def test_an_alias_counts_for_what_it_stands_for() -> None:
    text = "a: &a [1, 2, 3]\nb: [*a, *a]\n"  # the map, two lists, three numbers, and four for each alias

    assert read(text, nodes=14)[0][0] == {"a": [1, 2, 3], "b": [[1, 2, 3], [1, 2, 3]]}
    with pytest.raises(Stop) as stopped:
        read(text, nodes=13)
    assert stopped.value.line == 2


def test_depth_is_counted_in_fields() -> None:
    assert read("a: [[1]]", depth=3)
    with pytest.raises(Fault, match=r"more than 2 deep"):
        read("a: [[1]]", depth=2)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb:\n\tc: 1", 3, "a tab where YAML wants spaces"),
        ("a: \x07", 1, "U+0007 stands in no text"),
        ("a: 1\nb: ]", 2, "no YAML: "),
    ],
)
def test_what_the_parser_refuses_is_told_at_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(yaml.YAMLError) as refused:
        read(text)
    fault = syntax_fault(refused.value, text, 1)

    assert fault.line == line
    assert message in fault.message


def test_values_are_told_by_their_kind() -> None:
    assert [told(value) for value in (None, "", True, 1, 1.5, [], {})] == [
        *("nothing", "a string", "a boolean", "a number", "a number", "a list", "a map")
    ]


def test_text_of_a_stranger_fits_one_line() -> None:
    assert printable("a\nb\x1b[31m") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[31m"
    assert len(printable("x" * 1000)) == 120
