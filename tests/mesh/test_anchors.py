"""What sidecars acknowledge: the roots as a set, and the round in which they trust them."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from mesh.anchors import anchors_of

ROOTS = st.lists(st.binary(max_size=40), max_size=4)


@given(ROOTS, st.randoms(), st.integers(0, 2**53))
def test_order_and_repetition_of_roots_do_not_count(roots, chance, number):
    shuffled = [*roots, *roots[:1]]
    chance.shuffle(shuffled)
    assert anchors_of(number, shuffled) == anchors_of(number, roots)


@given(ROOTS, ROOTS, st.integers(0, 2**53), st.integers(0, 2**53))
def test_other_roots_and_other_rounds_have_other_names(one, other, first, second):
    assert (anchors_of(first, one) == anchors_of(second, other)) == (first == second and set(one) == set(other))


def test_the_name_is_what_the_api_promises():
    one, two = (hashlib.sha256(root).digest() for root in (b"A", b"B"))
    assert anchors_of(7, [b"A", b"B"]) == hashlib.sha256(bytes(7) + b"\x07" + b"".join(sorted((one, two)))).hexdigest()
