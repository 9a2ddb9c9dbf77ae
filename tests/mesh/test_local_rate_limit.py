"""Reading EnvoyFilter: one shape is understood, and everything else is noted and left alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from mesh.building.local_rate_limit import local_rate_limit
from mesh.documents import read_documents, to_yaml
from mesh.local_rate_limit import FILTER, FILTER_TYPE, LocalRateLimit
from mesh.resources import ResourceSet
from mesh.selectors import Selector
from tests.support.policies import document, faults, resource_set, resources, told

PLACE = "spec.configPatches[0].patch.value.typed_config"


def always() -> dict[str, Any]:
    return {"runtime_key": "x", "default_value": {"numerator": 100, "denominator": "HUNDRED"}}


def limiting(**config: Any) -> dict[str, Any]:
    return {
        "workloadSelector": {"labels": {"app": "web"}},
        "configPatches": [
            {
                "applyTo": "HTTP_FILTER",
                "match": {
                    "context": "SIDECAR_INBOUND",
                    "listener": {"filterChain": {"filter": {"name": "envoy.filters.network.http_connection_manager"}}},
                },
                "patch": {
                    "operation": "INSERT_BEFORE",
                    "value": {
                        "name": FILTER,
                        "typed_config": {
                            "@type": FILTER_TYPE,
                            "stat_prefix": "http_local_rate_limiter",
                            "token_bucket": {"max_tokens": 10, "tokens_per_fill": 5, "fill_interval": "60s"},
                            "filter_enabled": always(),
                            "filter_enforced": always(),
                            **config,
                        },
                    },
                },
            }
        ],
    }


def read(spec: Any) -> tuple[LocalRateLimit, ...]:
    return resources(document("EnvoyFilter", spec)).local_rate_limits


def values(limit: LocalRateLimit) -> tuple[Any, ...]:
    return limit.selector, limit.max_tokens, limit.tokens_per_fill, limit.fill_interval, limit.port


def test_a_local_rate_limit_is_read() -> None:
    (found,) = read(limiting())

    assert values(found) == (Selector({"app": "web"}), 10, 5, 60.0, None)


@pytest.mark.parametrize("struct", ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"])
def test_a_local_rate_limit_may_stand_in_a_typed_struct(struct: str) -> None:
    spec = limiting()
    value = spec["configPatches"][0]["patch"]["value"]
    config = value["typed_config"]
    del config["@type"]
    value["typed_config"] = {"@type": f"type.googleapis.com/{struct}", "type_url": FILTER_TYPE, "value": config}

    assert values(read(spec)[0]) == (Selector({"app": "web"}), 10, 5, 60.0, None)


@pytest.mark.parametrize(("rate", "burst", "port"), [(100, 200, None), (1 / 60, 3, 8080), (0.5, None, None)])
def test_what_the_api_writes_is_understood(rate: float, burst: int | None, port: int | None) -> None:
    built = local_rate_limit("limit", "shop", {"app": "web"}, rate, burst, port=port)
    documents, _ = read_documents(to_yaml([built]).encode(), "built.yaml")
    found = ResourceSet.of(documents)
    (limit,) = found.local_rate_limits

    assert [problem for problem in found.problems if problem.severity != "note"] == []
    assert limit.tokens_per_fill / limit.fill_interval == pytest.approx(rate)
    assert limit.max_tokens == (burst if burst is not None else 1)
    assert limit.port == port


@pytest.mark.parametrize(
    "change",
    [
        {"applyTo": "HTTP_ROUTE"},
        {"match": {"context": "GATEWAY"}},
        {"match": {}},
        {"patch": {"operation": "REMOVE"}},
        {"patch": {"operation": "INSERT_BEFORE", "value": {"name": "envoy.filters.http.lua"}}},
        {"patch": {"operation": "INSERT_BEFORE", "value": {"name": FILTER}}},
        {"patch": {"operation": "INSERT_BEFORE", "value": {"name": FILTER, "typed_config": {"@type": "x"}}}},
        {"patch": {"operation": "INSERT_BEFORE", "value": {"name": FILTER, "typed_config": {"@type": FILTER_TYPE}}}},
        {"patch": {"operation": "INSERT_BEFORE", "value": "x"}},
    ],
)
def test_other_patches_are_noted_and_left_alone(change: dict[str, Any]) -> None:
    spec = limiting()
    spec["configPatches"][0].update(change)
    found = resource_set(document("EnvoyFilter", spec))

    assert found.local_rate_limits == ()
    assert told(found.problems, "note") == [
        "spec.configPatches: patches Envoy itself, which a sidecar of ours is not: it is left out"
    ]
    assert told(found.problems) == []


def test_two_patches_are_not_understood_by_half() -> None:
    spec = limiting()
    spec["configPatches"].append(copy.deepcopy(spec["configPatches"][0]))

    assert read(spec) == ()


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (
            {"token_bucket": {"max_tokens": 0, "fill_interval": "1s"}},
            ".token_bucket.max_tokens: 0 is not within 1 to 4294967295",
        ),
        ({"token_bucket": {"max_tokens": 1}}, ".token_bucket.fill_interval: is missing"),
        (
            {"token_bucket": {"max_tokens": 1, "fill_interval": "soon"}},
            ".token_bucket.fill_interval: 'soon' is no duration, as in 5s, 250ms or 1h30m",
        ),
        (
            {"token_bucket": {"max_tokens": 1, "fill_interval": "49ms"}},
            ".token_bucket.fill_interval: is shorter than 50 ms, the shortest that Envoy takes",
        ),
        ({"descriptors": []}, ".descriptors: is no field of this resource"),
    ],
)
def test_a_limit_that_is_written_wrongly_is_refused(config: Any, fault: str) -> None:
    assert faults("EnvoyFilter", limiting(**config)) == [f"{PLACE}{fault}"]


@pytest.mark.parametrize(
    "fraction",
    [{}, {"default_value": {"numerator": 50}}, {"default_value": {"numerator": 100, "denominator": "MILLION"}}],
)
@pytest.mark.parametrize("name", ["filter_enabled", "filter_enforced"])
def test_a_limit_that_is_not_enforced_for_all_requests_is_none_and_is_warned_of(name: str, fraction: Any) -> None:
    spec = limiting(**{name: fraction})

    assert read(spec) == ()
    assert faults("EnvoyFilter", spec, "warning") == [
        f"{PLACE}.{name}: is not 100 percent: the limit is not enforced, or for some requests only"
    ]
