"""Kubernetes' quantities."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.quantity import quantity


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 1),
        ("100m", "0.1"),
        ("0.5", "0.5"),
        (".5", "0.5"),
        ("1.", 1),
        ("2k", 2000),
        ("128Mi", 2**27),
        ("1Gi", 2**30),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("5e-1", "0.5"),
        ("0", 0),
    ],
)
def test_a_quantity_is_read_as_kubernetes_does(text: str, amount: object) -> None:
    assert quantity(text) == Decimal(str(amount))


@pytest.mark.parametrize("text", ["", "m", "-1", "1 Mi", "1mi", "1KI", "0x1", "1e", "٣", "1" * 30, "NaN", "1Mi\n"])
def test_what_is_no_quantity_is_none(text: str) -> None:
    assert quantity(text) is None


@given(st.text())
def test_any_text_is_a_quantity_or_not(text: str) -> None:
    amount = quantity(text)

    assert amount is None or amount >= 0
