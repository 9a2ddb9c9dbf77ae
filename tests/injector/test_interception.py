"""What of a pod's traffic is captured."""

from __future__ import annotations

from injector.annotations import ALIASES
from injector.interception import FROM_ANNOTATIONS, Interception, annotation_of


def test_each_field_but_the_installation_s_port_is_an_annotation() -> None:
    assert set(FROM_ANNOTATIONS) <= set(ALIASES)
    assert "outbound-port" not in FROM_ANNOTATIONS


def test_an_annotation_is_called_after_its_field() -> None:
    assert annotation_of("exclude_uids") == "qbitel.io/exclude-uids"


def test_equal_wishes_are_one_key_of_a_cache() -> None:
    assert hash(Interception(exclude_uids="1")) == hash(Interception(exclude_uids="1"))
