"""The cluster's own networks: of pods by its nodes, of Services by ServiceCIDRs, and whatever else is written there."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from control.discovery.networks import ClusterNetworks, networks_of_node
from kube.client import resource
from tests.kube.places import Where, fake
from tests.kube.rig import beside, run, until

__all__ = ["fake"]

SERVICE_CIDRS = resource("servicecidrs", api="apis/networking.k8s.io/v1")


def node(name: str, *cidrs: str) -> dict[str, Any]:
    spec = {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)} if cidrs else {}
    return {"metadata": {"name": name}, "spec": spec}


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text)


def test_nodes_and_service_cidrs_say_the_networks_and_later_ones_too(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            await place.cluster.create(resource("nodes"), node("one", "10.244.0.0/24", "fd00:1::/64"))
            await place.cluster.create(
                SERVICE_CIDRS, {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}
            )
            changes: list[None] = []
            networks = ClusterNetworks(place.cluster, lambda: changes.append(None))
            assert not networks.ready
            async with beside(networks.run()):
                await until(lambda: networks.ready)
                assert networks.pods == (network("10.244.0.0/24"), network("fd00:1::/64"))
                assert networks.services == (network("10.96.0.0/16"),)
                seen = len(changes)
                await place.cluster.create(resource("nodes"), node("two", "10.244.1.0/24"))
                await until(lambda: networks.pods[0] == network("10.244.0.0/23"))  # neighbours become one
                assert len(changes) > seen

    run(main())


def test_a_node_whose_status_alone_changes_is_no_news(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            await place.cluster.create(resource("nodes"), node("one", "10.244.0.0/24"))
            changes: list[None] = []
            networks = ClusterNetworks(place.cluster, lambda: changes.append(None))
            async with beside(networks.run()):
                await until(lambda: networks.ready)
                await until(lambda: changes)
                seen = len(changes)
                await place.cluster.patch(resource("nodes", name="one"), {"status": {"phase": "Running"}})
                await place.cluster.create(resource("nodes"), node("two", "10.250.0.0/24"))
                await until(lambda: len(networks.pods) == 2)
                assert len(changes) == seen + 1

    run(main())


def test_a_cluster_that_says_nothing_of_its_networks_has_none(fake: Where) -> None:
    async def main() -> None:
        async with fake() as place:
            await place.cluster.create(resource("nodes"), node("one"))
            networks = ClusterNetworks(place.cluster, lambda: None)
            async with beside(networks.run()):
                await until(lambda: networks.ready)
            assert (networks.pods, networks.services) == ((), ())

    run(main())


@given(
    spec=st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {"podCIDRs": st.lists(st.one_of(st.text(), st.integers(), st.none(), st.just("0.0.0.0/0")))}
        ),
        st.fixed_dictionaries({"podCIDR": st.one_of(st.text(), st.integers(), st.lists(st.text()))}),
    )
)
def test_whatever_a_node_says_is_networks_or_nothing(spec: Any) -> None:
    assert all(one.prefixlen for one in networks_of_node({"metadata": {}, "spec": spec}))
