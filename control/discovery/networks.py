"""The cluster's own networks, as far as it says them: those of pods by its nodes, those of Services by ServiceCIDRs.

What is dialled there and is in no entry yet, because it was made a moment ago or is dialled by its own address, is
asked whether it has a sidecar, and is not spoken to in plaintext from the beginning.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from control.discovery.peers_text import Network
from kube.client import ApiRefused, ApiUnavailable, Cluster, resource
from kube.mirror import Mirror
from kube.objects import Object

# Networks of Services are added by hand, years apart.
_LOOK_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 5.0
# Since Kubernetes 1.33; before that only the API server's command line has them.
_SERVICE_CIDRS: Final = resource("servicecidrs", api="apis/networking.k8s.io/v1")

_log = logging.getLogger("qbitel.discovery")


class ClusterNetworks:
    """`run` follows them; `on_change` is called when they are others."""

    def __init__(self, cluster: Cluster, on_change: Callable[[], None]) -> None:
        self._cluster = cluster
        self._on_change = on_change
        self._nodes: Mirror[tuple[Network, ...]] = Mirror(cluster, resource("nodes"), networks_of_node, self._take_up)
        self._asked = False
        self.pods: tuple[Network, ...] = ()
        self.services: tuple[Network, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether all of them are known that the cluster says."""
        return self._nodes.ready and self._asked

    async def run(self) -> None:
        """Until cancelled; whatever the API server does is survived."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._nodes.run())
            group.create_task(self._follow_services())

    def _take_up(self) -> None:
        # A node's status changes every few minutes: that is no news.
        found = _collapsed(network for networks in self._nodes.items.values() for network in networks)
        if found != self.pods or not self.ready:
            self.pods = found
            self._on_change()

    async def _follow_services(self) -> NoReturn:
        failing = False
        while True:
            try:
                found = _collapsed(await self._service_networks())
            except (ApiUnavailable, ApiRefused) as error:
                if not failing:
                    _log.warning("the networks of Services cannot be found out: %s", error)
                failing = True
            else:
                failing = False
                if found != self.services or not self._asked:
                    self._asked, self.services = True, found
                    self._on_change()
            await asyncio.sleep(_RETRY_SECONDS if failing else _LOOK_SECONDS)

    async def _service_networks(self) -> list[Network]:
        try:
            found, _ = await self._cluster.list(_SERVICE_CIDRS)
        except ApiRefused as error:
            if error.status != 404:
                raise
            return []
        return [network for one in found for network in _networks((one.get("spec") or {}).get("cidrs"))]


def networks_of_node(node: Object) -> tuple[Network, ...]:
    """Those that its pods' addresses are of; none where the cluster's network does not give them by nodes."""
    spec = node.get("spec") or {}
    return tuple(_networks(spec.get("podCIDRs") or [spec.get("podCIDR")]))


def _networks(texts: object) -> Iterable[Network]:
    for text in texts if isinstance(texts, list) else ():
        try:
            network = ipaddress.ip_network(text)
        except (TypeError, ValueError):
            continue  # somebody's CRD of that name, or an unset field
        if isinstance(text, str) and network.prefixlen:
            yield network


def _collapsed(networks: Iterable[Network]) -> tuple[Network, ...]:
    every = list(networks)
    v4 = [one for one in every if isinstance(one, ipaddress.IPv4Network)]
    v6 = [one for one in every if isinstance(one, ipaddress.IPv6Network)]
    return (*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6))
