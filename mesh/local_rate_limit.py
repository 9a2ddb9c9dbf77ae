"""EnvoyFilter, as far as it is one of ours: a limit of requests by a token bucket at the sidecars of a workload.

An EnvoyFilter patches Envoy's own configuration, which a sidecar of ours does not have. One shape is understood, that
which the Python API writes: one patch which inserts Envoy's local rate limit into the inbound filters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.documents import Path
from mesh.metadata import Metadata
from mesh.reading import (
    COUNT,
    TEXT,
    Report,
    anything,
    fields,
    integer,
    list_of,
    map_of,
    number,
    reader_of,
    seconds,
    text,
)
from mesh.selectors import WORKLOAD_SELECTOR, Selector

FILTER: Final = "envoy.filters.http.local_ratelimit"
FILTER_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
_TYPED_STRUCTS: Final = (
    "type.googleapis.com/udpa.type.v1.TypedStruct",
    "type.googleapis.com/xds.type.v3.TypedStruct",
)
_INSERTIONS: Final = ("INSERT_BEFORE", "INSERT_FIRST", "INSERT_AFTER", "ADD")


@dataclass(frozen=True, slots=True)
class LocalRateLimit:
    """At most `max_tokens` requests at once, and `tokens_per_fill` more each `fill_interval` seconds, per sidecar."""

    metadata: Metadata
    selector: Selector
    max_tokens: int
    tokens_per_fill: int
    fill_interval: float
    port: int | None = None  # None: all of them together


# Shapes

_LISTENER: Final = fields(
    {
        "name": TEXT,
        "portNumber": COUNT,
        "portName": TEXT,
        "listenerFilter": TEXT,
        "filterChain": fields(
            {
                "name": TEXT,
                "sni": TEXT,
                "transportProtocol": TEXT,
                "applicationProtocols": TEXT,
                "transportSocket": TEXT,
                "destinationPort": COUNT,
                "filter": fields({"name": TEXT, "subFilter": fields({"name": TEXT})}),
            }
        ),
    }
)
SPEC: Final = fields(
    {
        "workloadSelector": WORKLOAD_SELECTOR,
        "targetRefs": anything,
        "priority": integer(),
        "configPatches": list_of(
            fields(
                {
                    "applyTo": TEXT,
                    "match": fields(
                        {
                            "context": text(
                                choices=("ANY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY", "WAYPOINT")
                            ),
                            "proxy": fields({"proxyVersion": TEXT, "metadata": map_of(TEXT)}),
                            "listener": _LISTENER,
                            "routeConfiguration": anything,
                            "cluster": anything,
                            "waypoint": anything,
                        },
                        at_most_one=(("listener", "routeConfiguration", "cluster", "waypoint"),),
                    ),
                    "patch": fields({"operation": TEXT, "filterClass": TEXT, "value": anything}),
                }
            )
        ),
    },
    at_most_one=(("workloadSelector", "targetRefs"),),
)
_BUCKET: Final = fields(
    {"max_tokens": integer(1, 2**32 - 1), "tokens_per_fill": integer(1, 2**32 - 1), "fill_interval": TEXT},
    required=("max_tokens", "fill_interval"),
)
_FRACTION: Final = fields(
    {
        "runtime_key": TEXT,
        "default_value": fields(
            {"numerator": number(0, 1e6), "denominator": text(choices=("HUNDRED", "TEN_THOUSAND", "MILLION"))}
        ),
    }
)
_CONFIG: Final = fields(
    {
        "@type": TEXT,
        "stat_prefix": TEXT,
        "token_bucket": _BUCKET,
        "filter_enabled": _FRACTION,
        "filter_enforced": _FRACTION,
    },
    required=("token_bucket",),
)

# Values


@reader_of(SPEC)
def read_envoy_filter(metadata: Metadata, spec: Mapping[str, Any], report: Report) -> LocalRateLimit | None:
    """The limit that `spec` writes; None where it is another patch, which is a note."""
    patches = spec.get("configPatches", ())
    if len(patches) != 1 or (config := _config(patches[0])) is None:
        report.note(("spec", "configPatches"), "patches Envoy itself, which a sidecar of ours is not: it is left out")
        return None
    place: Path = ("spec", "configPatches", 0, "patch", "value", "typed_config")
    _CONFIG(config, place, report)
    if report.refused():
        return None
    bucket = config["token_bucket"]
    try:
        interval = seconds(bucket["fill_interval"])
    except ValueError as error:
        report.error((*place, "token_bucket", "fill_interval"), str(error))
        return None
    if interval < 0.05:  # what Envoy refuses
        report.error((*place, "token_bucket", "fill_interval"), "is shorter than 50 ms, the shortest that Envoy takes")
    for name in ("filter_enabled", "filter_enforced"):
        if not _always(config.get(name)):
            report.warning((*place, name), "is not 100 percent: the limit is not enforced, or for some requests only")
    if report.refused() or not (_always(config.get("filter_enabled")) and _always(config.get("filter_enforced"))):
        return None
    return LocalRateLimit(
        metadata,
        Selector(dict(spec.get("workloadSelector", {}).get("labels", {}))),
        bucket["max_tokens"],
        bucket.get("tokens_per_fill", 1),
        interval,
        patches[0].get("match", {}).get("listener", {}).get("portNumber"),
    )


def _config(patch: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The configuration of Envoy's local rate limit, where a patch inserts one into the inbound filters."""
    change, match = patch.get("patch", {}), patch.get("match", {})
    value = change.get("value")
    if (
        patch.get("applyTo") != "HTTP_FILTER"
        or match.get("context") != "SIDECAR_INBOUND"
        or change.get("operation") not in _INSERTIONS
        or not isinstance(value, Mapping)
        or value.get("name") != FILTER
    ):
        return None
    config = value.get("typed_config")
    if not isinstance(config, Mapping):
        return None
    if config.get("@type") in _TYPED_STRUCTS and config.get("type_url") == FILTER_TYPE:
        config = config.get("value")
    elif config.get("@type") != FILTER_TYPE:
        return None
    # Without a bucket of its own the filter only serves those of routes.
    return config if isinstance(config, Mapping) and "token_bucket" in config else None


def _always(fraction: Mapping[str, Any] | None) -> bool:
    """Envoy's default is never."""
    value = (fraction or {}).get("default_value", {})
    per = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}[value.get("denominator", "HUNDRED")]
    return bool(value.get("numerator", 0) >= per)
