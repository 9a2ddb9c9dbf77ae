"""Reading how an endpoint is chosen."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.limits import balancer
from mesh.traffic import ConsistentHash, LoadBalancer
from tests.support.policies import document, faults, resources


def read(value: Any) -> LoadBalancer:
    text = document("DestinationRule", {"host": "db", "trafficPolicy": {"loadBalancer": value}})
    found = resources(text).destination_rules[0].traffic_policy.load_balancer
    assert found is not None
    return found


def test_an_algorithm_and_its_warm_up() -> None:
    assert read({"simple": "ROUND_ROBIN", "warmup": {"duration": "30s"}}) == LoadBalancer("ROUND_ROBIN", None, 30.0)
    assert read({"warmupDurationSecs": "10s"}) == LoadBalancer(warmup=10.0)


@pytest.mark.parametrize(
    ("hash_by", "read_as"),
    [
        ({"httpHeaderName": "x-user"}, ConsistentHash(http_header_name="x-user")),
        ({"httpCookie": {"name": "user", "ttl": "0s"}}, ConsistentHash(http_cookie_name="user")),
        ({"httpQueryParameterName": "q"}, ConsistentHash(http_query_parameter_name="q")),
        ({"useSourceIp": True, "minimumRingSize": 64}, ConsistentHash(use_source_ip=True, ring_size=64)),
        ({"useSourceIp": True, "ringHash": {"minimumRingSize": 64}}, ConsistentHash(use_source_ip=True, ring_size=64)),
        ({"useSourceIp": True, "ringHash": {"minimumRingSize": 1 << 23}}, ConsistentHash("", "", "", True, 1 << 23)),
        (
            {"useSourceIp": True, "maglev": {"tableSize": 251}},
            ConsistentHash(use_source_ip=True, maglev_table_size=251),
        ),
    ],
)
def test_consistent_hashes(hash_by: Any, read_as: ConsistentHash) -> None:
    assert read({"consistentHash": hash_by}) == LoadBalancer(consistent_hash=read_as)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"consistentHash": {"maglev": {}}}, "consistentHash.maglev.tableSize: is missing"),
        *(
            (
                {"consistentHash": {"maglev": {"tableSize": size}}},
                f"consistentHash.maglev.tableSize: {size} is no prime below 5000011, as 65537 is",
            )
            for size in (0, 1, 4, 65536, 5_000_011, 2**32 - 1)
        ),
        (
            {"consistentHash": {"ringHash": {"minimumRingSize": (1 << 23) + 1}}},
            "consistentHash.ringHash.minimumRingSize: 8388609 is more than 8388608, the largest ring there is",
        ),
        (
            {"consistentHash": {"minimumRingSize": 1, "ringHash": {}}},
            "consistentHash.ringHash: only one of minimumRingSize, ringHash, maglev can be set",
        ),
        (
            {"consistentHash": {"httpCookie": {"name": "a", "attributes": [{"name": "b"}, {"name": "b"}]}}},
            "consistentHash.httpCookie.attributes[1].name: is empty, or another attribute has it too",
        ),
        (
            {"localityLbSetting": {}, "zoneAwareLbSetting": {}},
            "zoneAwareLbSetting: only one of localityLbSetting, zoneAwareLbSetting can be set",
        ),
        ({"simple": "FASTEST"}, None),
    ],
)
def test_what_istio_or_envoy_would_refuse_is_refused(value: Any, fault: str | None) -> None:
    (found,) = faults("DestinationRule", {"host": "x", "trafficPolicy": {"loadBalancer": value}})

    assert found.startswith("spec.trafficPolicy.loadBalancer.")
    assert fault is None or found == f"spec.trafficPolicy.loadBalancer.{fault}"


@pytest.mark.parametrize("size", [2, 3, 65537, 4_999_999])
def test_a_table_that_is_read_is_one_that_can_be_made(size: int) -> None:
    assert balancer(read({"consistentHash": {"useSourceIp": True, "maglev": {"tableSize": size}}})) is not None
