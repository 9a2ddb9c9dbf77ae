"""What a pod asks for by annotation, before it is checked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.annotations import ALIASES, ISTIO_PROXY_CONFIG, STATUS, Asked, read_annotations


@pytest.mark.parametrize("name", ALIASES)
def test_each_wish_is_read_under_our_name(name: str) -> None:
    assert read_annotations({f"qbitel.io/{name}": " x "}) == ({name: Asked(f"qbitel.io/{name}", "x")}, [])


@pytest.mark.parametrize(("name", "alias"), [(name, alias) for name, alias in ALIASES.items() if alias])
def test_each_alias_is_read_as_our_wish(name: str, alias: str) -> None:
    assert read_annotations({alias: "x"}) == ({name: Asked(alias, "x")}, [])


def test_the_same_said_twice_is_no_warning() -> None:
    both = {"qbitel.io/proxy-image": "a", "sidecar.istio.io/proxyImage": "a"}

    assert read_annotations(both) == ({"proxy-image": Asked("qbitel.io/proxy-image", "a")}, [])


def test_ours_wins_over_an_alias_and_the_author_hears_of_it() -> None:
    asked, warnings = read_annotations({"sidecar.istio.io/proxyImage": "b", "qbitel.io/proxy-image": "a"})

    assert asked["proxy-image"].value == "a"
    assert warnings == ["qbitel.io/proxy-image and sidecar.istio.io/proxyImage differ; qbitel.io/proxy-image holds"]


@pytest.mark.parametrize("key", [STATUS, "qbitel.io/inject", "example.org/exclude-ports", "sidecar.istio.io/unknown"])
def test_what_is_no_wish_of_ours_is_passed_over(key: str) -> None:
    assert read_annotations({key: "x"}) == ({}, [])


def test_an_unknown_key_of_ours_is_a_warning_with_what_may_be_meant() -> None:
    assert read_annotations({"qbitel.io/Exclude-UIDs": "1"})[1] == [
        "qbitel.io/Exclude-UIDs is no annotation that we know, and does nothing; do you mean qbitel.io/exclude-uids?"
    ]


@pytest.mark.parametrize(
    "text", ['{"holdApplicationUntilProxyStarts": true}', "holdApplicationUntilProxyStarts: true\n"]
)
def test_hold_is_read_out_of_istio_s_proxy_config_in_json_and_yaml(text: str) -> None:
    asked, warnings = read_annotations({ISTIO_PROXY_CONFIG: text})

    assert (asked["hold-application"].value, warnings) == ("true", [])


@pytest.mark.parametrize("text", ["concurrency: 2", 'holdApplicationUntilProxyStarts: "perhaps"', ""])
def test_a_proxy_config_that_says_nothing_of_it_is_no_wish(text: str) -> None:
    assert read_annotations({ISTIO_PROXY_CONFIG: text}) == ({}, [])


def test_a_proxy_config_that_cannot_be_read_is_a_warning() -> None:
    asked, (warning,) = read_annotations({ISTIO_PROXY_CONFIG: "{"})

    assert asked == {}
    assert warning.startswith("proxy.istio.io/config is left out: no YAML")


@given(
    st.dictionaries(
        st.sampled_from([ISTIO_PROXY_CONFIG, "qbitel.io/", *map("qbitel.io/{}".format, ALIASES)]), st.text()
    )
)
def test_no_text_is_too_strange_to_be_read(annotations: dict[str, str]) -> None:
    asked, warnings = read_annotations(annotations)

    assert set(asked) <= set(ALIASES)
    assert all("\n" not in warning for warning in warnings)
