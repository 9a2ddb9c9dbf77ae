"""Shapes: what passes, and in which words and at which place the rest is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.documents import Document
from mesh.reading import (
    COUNT,
    PORT,
    TEXT,
    WORDS,
    Report,
    Shape,
    anything,
    boolean,
    both,
    duration,
    fields,
    integer,
    list_of,
    map_of,
    number,
    reader_of,
    seconds,
    shown,
    text,
)


def faults(shape: Shape, value: Any) -> list[str]:
    report = Report(Document({"kind": "X"}, "x.yaml", {(): 1}))
    shape(value, ("spec",), report)
    return [f"{problem.field}: {problem.message}" for problem in report.problems]


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        (TEXT, ""),
        (TEXT, "x"),
        (WORDS, "x"),
        (text(choices=("A", "B")), "A"),
        (text(pattern="[a-z]+"), "abc"),
        (text(most=3), "abc"),
        (boolean, False),
        (integer(), -(2**31)),
        (integer(1, 3), 3),
        (PORT, 65535),
        (COUNT, 0),
        (number(0, 1), 0.5),
        (number(0, 1), 1),
        (duration(), "1ms"),
        (duration(0), "0s"),
        (list_of(TEXT), []),
        (list_of(TEXT, least=1, most=2), ["a", "b"]),
        (map_of(PORT), {"a": 1}),
        (fields({"a": TEXT}), {}),
        (fields({"a": TEXT}, required=("a",)), {"a": "x"}),
        (fields({"a": TEXT}, nullable=("a",)), {"a": None}),
        (both(TEXT, text(choices=("a",))), "a"),
        (anything, {"whatever": [None]}),
    ],
)
def test_what_has_the_shape_passes(shape: Shape, value: Any) -> None:
    assert faults(shape, value) == []


@pytest.mark.parametrize(
    ("shape", "value", "fault"),
    [
        (TEXT, 80, 'spec: 80 stands where text is wanted; write "80"'),
        (TEXT, True, "spec: true stands where text is wanted"),
        (TEXT, None, "spec: null stands where text is wanted"),
        (TEXT, {}, "spec: a map stands where text is wanted"),
        (TEXT, [], "spec: a list stands where text is wanted"),
        (WORDS, "", "spec: must not be empty"),
        (text(choices=("A", "B")), "a", "spec: 'a' is none of A, B"),
        (text(pattern="[a-z]+", wanted="name"), "a\n", "spec: 'a\\n' is no name"),
        (text(most=3), "abcd", "spec: 4 characters are more than the 3 that are allowed"),
        (boolean, 1, "spec: 1 is neither true nor false"),
        (boolean, "true", "spec: 'true' is neither true nor false"),
        (integer(1, 3), 4, "spec: 4 is not within 1 to 3"),
        (integer(), 2**31, "spec: 2147483648 is not within -2147483648 to 2147483647"),
        (integer(), True, "spec: true is no whole number"),
        (integer(), 1.0, "spec: 1.0 is no whole number"),
        (PORT, 0, "spec: 0 is not within 1 to 65535"),
        (number(0, 1), float("nan"), "spec: nan is not within 0 to 1"),
        (number(0, 1), "1", "spec: '1' is no number"),
        (number(0, 1), True, "spec: true is no number"),
        (duration(), "0s", "spec: '0s' is shorter than 0.001 s"),
        (duration(), 5, "spec: 5 is no duration, as in 5s, 250ms or 1h30m"),
        (duration(), "5", "spec: '5' is no duration, as in 5s, 250ms or 1h30m"),
        (list_of(TEXT), "x", "spec: 'x' stands where a list is wanted"),
        (list_of(TEXT, least=1), [], "spec: must not be empty"),
        (list_of(TEXT, most=1), ["a", "b"], "spec: 2 items are more than the 1 that are allowed"),
        (list_of(TEXT), ["a", 1], 'spec[1]: 1 stands where text is wanted; write "1"'),
        (map_of(TEXT), [], "spec: a list stands where a map is wanted"),
        (map_of(TEXT), {"a": None}, "spec.a: null stands where text is wanted"),
        (map_of(TEXT, key=text(most=1)), {"ab": "x"}, "spec.ab: 2 characters are more than the 1 that are allowed"),
        (fields({"a": TEXT}), "x", "spec: 'x' stands where a map is wanted"),
        (fields({"a": TEXT}), {"b": "x"}, "spec.b: is no field of this resource"),
        (fields({"a": TEXT}), {"a": None}, "spec.a: is null; leave it out where nothing is meant"),
        (fields({"a": TEXT}, required=("a",)), {}, "spec.a: is missing"),
        (
            fields({"a": TEXT, "b": TEXT}, at_most_one=(("a", "b"),)),
            {"a": "", "b": ""},
            "spec.b: only one of a, b can be set",
        ),
        (both(TEXT, text(choices=("a",))), 1, 'spec: 1 stands where text is wanted; write "1"'),
    ],
)
def test_what_has_not_is_refused_at_its_place(shape: Shape, value: Any, fault: str) -> None:
    assert faults(shape, value) == [fault]


@pytest.mark.parametrize(
    ("written", "meant"),
    [("matchLabel", "matchLabels"), ("matchlabels", "matchLabels"), ("match_labels", "matchLabels"), ("match", None)],
)
def test_a_field_that_is_nearly_right_is_told_what_is_meant(written: str, meant: str | None) -> None:
    hint = f"; did you mean {meant}?" if meant else ""

    assert faults(fields({"matchLabels": TEXT}), {written: "x"}) == [
        f"spec.{written}: is no field of this resource{hint}"
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("0", 0),
        ("0s", 0),
        ("1s", 1),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1),
        ("250ms", 0.25),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("10ns", 1e-8),
        ("1h30m", 5400),
        ("1h1m1s1ms", 3661.001),
        ("5m", 300),
    ],
)
def test_durations_are_those_of_go(written: str, meant: float) -> None:
    assert seconds(written) == pytest.approx(meant)


@pytest.mark.parametrize(
    "written",
    ["", "5", "s", "-1s", "+1s", "1d", "1 s", "1s ", "1S", "1e3s", "1..5s", ".s", "٣s", "1s" * 100, "9" * 18 + "h"],
)
def test_what_is_no_duration_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"is no duration|is longer than 292 years"):
        seconds(written)


@given(st.text(alphabet="0123456789.hmsnuµ -", max_size=140))
def test_any_text_is_a_duration_or_refused(written: str) -> None:
    try:
        found = seconds(written)
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert 0 <= found < 2**63 / 1e9


def test_of_each_severity_a_few_are_kept_and_an_error_is_never_lost_among_warnings() -> None:
    report = Report(Document({"kind": "X"}, "x.yaml", {(): 1}))
    for index in range(100):
        report.warning(("spec", index), "w")
        report.note(("spec", index), "n")
    assert not report.refused()
    report.error((), "e")

    assert report.refused()
    severities = [problem.severity for problem in report.problems]
    assert (severities.count("warning"), severities.count("note"), severities.count("error")) == (20, 20, 1)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_whatever_stands_somewhere_is_shown_in_a_short_line(value: Any) -> None:
    assert len(shown(value)) <= 80
    assert shown(value).isprintable()


def test_a_reader_is_asked_for_what_has_the_shape_alone_and_counts_where_nothing_was_wrong() -> None:
    asked: list[Any] = []

    @reader_of(fields({"port": PORT}, required=("port",)))
    def read(metadata: Any, spec: Any, report: Report) -> str:
        asked.append(spec)
        if spec["port"] == 7:
            report.error(("spec", "port"), "is taken")
        if spec["port"] == 8:
            report.warning(("spec", "port"), "is unusual")
        return f"{metadata} on {spec['port']}"

    def found(spec: Any) -> tuple[Any, list[str]]:
        report = Report(Document({"kind": "X"}, "x.yaml", {(): 1}))
        return read("web", spec, report), [problem.message for problem in report.problems]  # type: ignore[arg-type]

    assert found({"port": 9}) == ("web on 9", [])
    assert found({"port": 8}) == ("web on 8", ["is unusual"])
    assert found({"port": 7}) == (None, ["is taken"])
    assert found({"port": 0}) == (None, ["0 is not within 1 to 65535"])
    assert found({}) == (None, ["is missing"])
    assert asked == [{"port": 9}, {"port": 8}, {"port": 7}]
