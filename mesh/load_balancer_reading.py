"""Reads the loadBalancer of a DestinationRule, as strictly as Istio's schema and its webhook do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mesh.consistent_hash import is_prime
from mesh.documents import Path
from mesh.reading import (
    COUNT,
    TEXT,
    WORDS,
    Report,
    boolean,
    both,
    duration,
    fields,
    integer,
    list_of,
    map_of,
    number,
    seconds,
    text,
)
from mesh.traffic import ConsistentHash, LoadBalancer

_LARGEST_RING: Final = 1 << 23  # Envoy's bound; it refuses a cluster with a larger one
_TABLES_END: Final = 5_000_011  # Istio's bound, which itself is not allowed


def _table_size(value: int, path: Path, report: Report) -> None:
    if value >= _TABLES_END or not is_prime(value):
        report.error(path, f"{value} is no prime below {_TABLES_END}, as 65537 is")


def _ring_size(value: int, path: Path, report: Report) -> None:
    if value > _LARGEST_RING:
        report.error(path, f"{value} is more than {_LARGEST_RING}, the largest ring there is")


_RING_SIZE: Final = both(COUNT, _ring_size)


def _cookie(value: Mapping[str, Any], path: Path, report: Report) -> None:
    names: set[str] = set()
    for index, attribute in enumerate(value.get("attributes", ())):
        if attribute["name"] in names or not attribute["name"]:
            report.error((*path, "attributes", index, "name"), "is empty, or another attribute has it too")
        names.add(attribute["name"])


_HASHED_BY: Final = ("httpHeaderName", "httpCookie", "httpQueryParameterName", "useSourceIp")
_FAILOVER: Final = list_of(fields({"from": TEXT, "to": TEXT}))
LOAD_BALANCER: Final = fields(
    {
        "simple": text(choices=("UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST")),
        "consistentHash": fields(
            {
                "httpHeaderName": WORDS,
                "httpQueryParameterName": WORDS,
                "useSourceIp": boolean,
                "httpCookie": both(
                    fields(
                        {
                            "name": WORDS,
                            "path": TEXT,
                            "ttl": duration(0),
                            "attributes": list_of(fields({"name": TEXT, "value": TEXT}, required=("name",))),
                        },
                        required=("name",),
                    ),
                    _cookie,
                ),
                "minimumRingSize": _RING_SIZE,
                "ringHash": fields({"minimumRingSize": _RING_SIZE}),
                "maglev": fields({"tableSize": both(COUNT, _table_size)}, required=("tableSize",)),
            },
            at_most_one=(_HASHED_BY, ("minimumRingSize", "ringHash", "maglev")),
        ),
        "backendUtilization": fields(
            {
                "errorUtilizationPenaltyPercent": COUNT,
                "metricNamesForComputingUtilization": list_of(TEXT),
                "weightExpirationPeriod": duration(0),
                "weightStabilizationPeriod": duration(0),
                "weightUpdatePeriod": duration(0),
            }
        ),
        "localityLbSetting": fields(
            {
                "distribute": list_of(fields({"from": TEXT, "to": map_of(COUNT)})),
                "enabled": boolean,
                "failover": _FAILOVER,
                "failoverPriority": list_of(TEXT),
            },
            nullable=("enabled",),
        ),
        "zoneAwareLbSetting": fields(
            {
                "enabled": boolean,
                "failover": _FAILOVER,
                "failoverPriority": list_of(TEXT),
                "minClusterSize": integer(1, 2**32 - 1),
            },
            nullable=("enabled", "minClusterSize"),
        ),
        "warmup": fields(
            {"aggression": number(0, 1e6), "duration": duration(), "minimumPercent": number(0, 100)},
            required=("duration",),
            nullable=("aggression", "minimumPercent"),
        ),
        "warmupDurationSecs": duration(),
    },
    at_most_one=(("simple", "consistentHash", "backendUtilization"), ("localityLbSetting", "zoneAwareLbSetting")),
)


def load_balancer(value: Mapping[str, Any]) -> LoadBalancer:
    """How an endpoint is chosen, as a loadBalancer of the right shape writes it."""
    warmup = value.get("warmup", {}).get("duration", value.get("warmupDurationSecs"))
    return LoadBalancer(
        value.get("simple", "UNSPECIFIED"),
        _consistent_hash(value["consistentHash"]) if "consistentHash" in value else None,
        None if warmup is None else seconds(warmup),
    )


def _consistent_hash(value: Mapping[str, Any]) -> ConsistentHash:
    ring = value.get("ringHash", {}).get("minimumRingSize", value.get("minimumRingSize"))
    return ConsistentHash(
        value.get("httpHeaderName", ""),
        value.get("httpCookie", {}).get("name", ""),
        value.get("httpQueryParameterName", ""),
        value.get("useSourceIp", False),
        # Istio takes 0 for nothing said.
        ring or ConsistentHash().ring_size,
        value["maglev"]["tableSize"] if "maglev" in value else None,
    )
