"""The mutual-TLS modes."""

from __future__ import annotations

import pytest

from mesh.modes import MTLSMode


def test_the_modes_are_istio_s_and_no_others() -> None:
    assert {mode.value for mode in MTLSMode} == {"STRICT", "PERMISSIVE", "DISABLE"}


@pytest.mark.parametrize("mode", list(MTLSMode))
def test_a_mode_is_found_by_the_word_that_a_manifest_holds(mode: MTLSMode) -> None:
    assert MTLSMode(mode.value) is mode


@pytest.mark.parametrize("word", ["strict", "UNSET", ""])
def test_another_word_is_no_mode(word: str) -> None:
    with pytest.raises(ValueError, match="is not a valid MTLSMode"):
        MTLSMode(word)
