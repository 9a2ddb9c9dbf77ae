"""What a pod's annotations come to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.annotations import ALIASES
from injector.config import InjectorConfig, SidecarConfig
from injector.interception import Interception
from injector.refusal import PodRefused
from injector.wishes import Wishes, read_wishes
from mesh.modes import MTLSMode

CONFIG = InjectorConfig()


def wishes(**annotations: str) -> Wishes:
    return read(**annotations)[0]


def read(**annotations: str) -> tuple[Wishes, list[str]]:
    return read_wishes({f"qbitel.io/{name.replace('_', '-')}": value for name, value in annotations.items()}, CONFIG)


def test_a_pod_that_asks_for_nothing_gets_what_the_installation_has() -> None:
    config = InjectorConfig(
        sidecar=SidecarConfig(image="own", proxy_port=16001), mtls_mode=MTLSMode.PERMISSIVE, log_level="error"
    )

    found, warnings = read_wishes({}, config)

    assert (found.image, found.mode, found.log_level, warnings) == ("own", MTLSMode.PERMISSIVE, "error", [])
    assert found.interception == Interception(outbound_port=16001)
    assert found.captured and found.native and found.hold and found.rewrite_probes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("interception_mode", "some"),
        ("interception_mode", ""),
        ("proxy_image", "a b"),
        ("proxy_image", ""),
        ("proxy_image", "docker.io/istio/proxyv2:1.28"),
        ("proxy_cpu", "-1"),
        ("log_level", "loud"),
        ("rewrite_probes", "no"),
        ("native_sidecar", ""),
        ("hold_application", "1"),
        ("user_volume", "[1]"),
        ("user_volume", '[{"emptyDir": {}}]'),
        ("user_volume", '"x"'),
        ("user_volume_mount", "{"),
        ("opaque_ports", "80-90"),
        ("opaque_ports", "0"),
        ("profile", ""),
        ("profile", "qbitel,qbitel"),
        ("mtls_mode", "strictest"),
        ("drain_seconds", "-1"),
        ("drain_seconds", "nan"),
        ("drain_seconds", "inf"),
        ("drain_seconds", "soon"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_the_annotation_s_name(name: str, value: str) -> None:
    with pytest.raises(PodRefused) as refused:
        wishes(**{name: value})

    assert str(refused.value).startswith(f"qbitel.io/{name.replace('_', '-')}: ")
    assert "\n" not in str(refused.value)


def test_drain_seconds_may_have_a_unit() -> None:
    assert wishes(drain_seconds="7.5").drain_seconds == wishes(drain_seconds="7.5s").drain_seconds == 7.5


def test_a_request_above_the_usual_limit_takes_the_limit_along() -> None:
    found, warnings = read(proxy_memory="1Gi")

    assert found.resources["limits"]["memory"] == found.resources["requests"]["memory"] == "1Gi"
    assert len(warnings) == 1


def test_a_limit_below_the_usual_request_takes_the_request_along() -> None:
    assert wishes(proxy_cpu_limit="50m").resources["requests"] == {"cpu": "50m", "memory": "128Mi"}


def test_a_request_above_the_limit_that_was_asked_for_is_refused() -> None:
    with pytest.raises(PodRefused, match=r"more than qbitel\.io/proxy-cpu-limit"):
        wishes(proxy_cpu="2", proxy_cpu_limit="1")


def test_the_same_volumes_are_read_from_a_list_and_by_name() -> None:
    as_list = wishes(user_volume='[{"name": "a", "emptyDir": {}}]')

    assert as_list.user_volumes == wishes(user_volume='{"a": {"emptyDir": {}}}').user_volumes


def test_capture_of_nothing_makes_the_lists_of_ports_idle_and_says_so() -> None:
    found, warnings = read(interception_mode="NONE", exclude_inbound_ports="22")

    assert not found.captured
    assert warnings == ["qbitel.io/interception-mode is NONE, so qbitel.io/exclude-inbound-ports do nothing"]


@given(
    st.dictionaries(
        st.sampled_from([f"qbitel.io/{name}" for name in ALIASES]),
        st.text() | st.sampled_from(["1", "{}", "[]", "true"]),
    )
)
def test_whatever_the_annotations_say_is_a_wish_or_a_refusal_in_one_line(annotations: dict[str, str]) -> None:
    try:
        _, warnings = read_wishes(annotations, CONFIG)
    except PodRefused as error:
        warnings = [str(error)]

    assert all(line.isprintable() for line in warnings)
