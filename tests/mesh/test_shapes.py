"""Shapes that resources of several kinds have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.documents import Document
from mesh.reading import Report, Shape
from mesh.shapes import ADDRESS, EXPORT_TO, HOST


def faults(shape: Shape, value: object) -> list[str]:
    report = Report(Document({"kind": "X"}, "x.yaml", {(): 1}))
    shape(value, ("spec",), report)
    return [problem.message for problem in report.problems]


@pytest.mark.parametrize("value", ["10.1.2.3", "10.0.0.0/8", "2001:db8::/32"])
def test_an_address_or_a_block(value: str) -> None:
    assert faults(ADDRESS, value) == []


@pytest.mark.parametrize("value", ["", "10.0.0", "web", "10.0.0.0/33", 10, None, ["10.0.0.1"]])
def test_what_is_no_address(value: object) -> None:
    assert len(faults(ADDRESS, value)) == 1


@pytest.mark.parametrize(
    "value", ["web", "web.shop.svc.cluster.local", "*", "*.example.com", "example.com.", "a_b", "x" * 63]
)
def test_a_host(value: str) -> None:
    assert faults(HOST, value) == []


@pytest.mark.parametrize("value", ["", "-a", "a-", "a..b", "a.*", "**", "x" * 64, "é", "a b", "." * 3, 7, "a." * 128])
def test_what_is_no_host(value: object) -> None:
    assert len(faults(HOST, value)) == 1


@pytest.mark.parametrize("value", [[], ["."], ["*"], ["~"], ["shop", "."]])
def test_who_may_see_it(value: object) -> None:
    assert faults(EXPORT_TO, value) == []


@pytest.mark.parametrize("value", ["shop", [""], ["Shop"], ["a/b"], [".."], [1]])
def test_what_is_no_namespace(value: object) -> None:
    assert len(faults(EXPORT_TO, value)) == 1


@given(st.text(max_size=300))
def test_any_text_is_taken_or_refused_in_one_printable_line(value: str) -> None:
    for shape in (ADDRESS, HOST):
        for message in faults(shape, value):
            assert message.isprintable()
