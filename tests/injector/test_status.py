"""The annotation that says what was done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.status import Status, is_injected, read_status
from tests.injector.rig import inject, pod

NAMES = st.lists(st.text(max_size=4), max_size=3).map(tuple)


def saying(text: str) -> dict[str, object]:
    return pod(metadata={"annotations": {"qbitel.io/status": text}})


@given(st.builds(Status, version=st.text(max_size=8), init_containers=NAMES, containers=NAMES, volumes=NAMES,
                 annotations=NAMES, created=NAMES, probes=NAMES,
                 replaced=st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)))  # fmt: skip
def test_a_status_is_read_back_as_it_was_written(status: Status) -> None:
    text = status.to_text()

    assert read_status(saying(text)) == status
    assert "\n" not in text


def test_a_status_cut_short_or_with_a_bit_flipped_is_none_or_another_and_no_error() -> None:
    text = inject(pod()).pod["metadata"]["annotations"]["qbitel.io/status"]

    for index in range(len(text)):
        read_status(saying(text[:index]))
        read_status(saying(text[:index] + chr(ord(text[index]) ^ 1) + text[index + 1 :]))
        assert read_status(saying(text[:index])) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", "[" * 100_000),
        *('{"version":1}', '{"version":"1","containers":"x"}', '{"version":"1","volumes":[1]}'),
        '{"version":"1","replaced":[]}',
    ],
)
def test_what_is_no_status_is_none(text: str) -> None:
    assert read_status(saying(text)) is None


def test_a_pod_is_injected_only_when_what_it_says_is_there() -> None:
    injected = inject(pod()).pod

    assert is_injected(injected)
    assert not is_injected(pod(metadata=injected["metadata"]))
    assert not is_injected(pod(containers=[{"name": "qbitel-proxy"}]))
