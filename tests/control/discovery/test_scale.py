"""A large cluster: 1,000 namespaces, 5,000 Services, 10,000 pods, 2,020 policies (`pytest -s`: time and memory)."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")

from control.discovery.discovery import Discovery
from control.discovery.istio_kinds import _kept
from control.discovery.metrics import Metrics
from control.discovery.peers_text import MeshSettings
from control.discovery.published import MAX_BYTES, present_of
from control.discovery.workloads import read_namespace, read_pod, read_service
from kube.client import Cluster
from kube.mirror import Mirror
from tests.control.discovery.objects import allow, namespace, pod, service

NAMESPACES, SERVICES, PODS, POLICIES, ROOT_POLICIES = 1_000, 5_000, 10_000, 2_000, 20
HOME = "qbitel-system"
NOBODY = cast(Cluster, None)  # nothing is asked of an API server here


def megabytes() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def name(number: int) -> str:
    return f"n{number % NAMESPACES:04}"


def large_cluster() -> Discovery:
    """A discovery whose mirrors hold all of it."""
    settings = MeshSettings(trust_domain="cluster.local", networks=(ipaddress.ip_network("10.244.0.0/16"),))
    made = Discovery(NOBODY, lambda: True, settings, Metrics(), root_namespace=HOME)
    namespaces = [*(namespace(name(number)) for number in range(NAMESPACES)), namespace(HOME, None)]
    made._namespaces._items = {("", one["metadata"]["name"]): read_namespace(one) for one in namespaces}
    template = pod()
    for number in range(PODS):
        labels = {"app": f"a{number // NAMESPACES % 5}", "pod-template-hash": str(number // 7)}
        metadata = {**template["metadata"], "name": f"p{number}", "namespace": name(number), "labels": labels}
        made._pods._items[name(number), f"p{number}"] = read_pod({**template, "metadata": metadata})
    first = ipaddress.ip_address("10.96.0.0")
    for number in range(SERVICES):
        selector = {"app": f"a{number // NAMESPACES % 5}"}
        found = service(name(number), f"s{number}", str(first + number), selector=selector)
        made._services._items[name(number), f"s{number}"] = read_service(found)
    for kind in made._kinds:
        kind._asked = True
    policies: Mirror[Any] = Mirror(NOBODY, "", _kept, lambda: None)
    for number in range(POLICIES + ROOT_POLICIES):
        of = name(number) if number < POLICIES else HOME
        policies._items[of, f"p{number}"] = {
            "metadata": {"name": f"p{number}", "namespace": of},
            "spec": allow("api"),
        }
    followed = made._kinds[1]
    followed._mirror, followed._version = policies, "v1"
    for mirror in (made._namespaces, made._pods, made._services, made._config_maps, made._present, policies):
        mirror.ready = True
    return made


def test_a_large_cluster_is_planned_whole_and_then_only_what_changes() -> None:
    before = megabytes()
    made = large_cluster()

    async def planned() -> Any:
        began = time.process_time()
        steps = await made._plan()
        spent = time.process_time() - began
        print(f"\n{len(steps)} writes planned in {spent:.2f} s of CPU, {megabytes() - before:.0f} MiB more in memory")
        return steps

    async def main() -> None:
        steps = await planned()
        assert len(steps) == NAMESPACES + 1
        for step in steps:
            of, wanted = step.act.args
            assert wanted.size < MAX_BYTES / 4
            body = wanted.created(of)
            body["metadata"] |= {"resourceVersion": "1", "uid": of}
            made._present._items[of, "qbitel-mesh"] = present_of(body, HOME)
        assert made._members.keys() == {
            (of, address) for (of, _), found in made._services.items.items() for address in found.addresses
        }
        assert await planned() == []

        policies = made._kinds[1]._mirror
        assert policies is not None
        policies._items[name(1), "p1"] = {"metadata": {"name": "p1", "namespace": name(1)}, "spec": allow("web")}
        assert [step.about for step in await planned()] == [name(1)]

    asyncio.run(main())
