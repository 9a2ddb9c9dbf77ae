"""What a worker has to do about peers while it serves: nothing, or what keeper.py does where there is a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from proxy.config import ProxyConfig
from proxy.metrics import Metrics
from proxy.peers.entries import mesh_entry
from proxy.peers.metrics import PeerMetrics
from proxy.peers.router import Router

if TYPE_CHECKING:  # whoever has no policies does without a reader of them
    from mesh.resources import ResourceSet
    from mesh.selectors import Workload


class Peers(Protocol):
    """Beside the connections of one worker, from its start to its end."""

    async def load(self) -> None:
        """Find out what has to be known before anything is accepted."""

    def follow(self, resources: ResourceSet, client: Workload, trust_domain: str) -> None:
        """These policies hold now; `client` is us."""

    def tend(self) -> None:
        """What has to be done every few seconds."""

    def refresh(self) -> None:
        """What SIGHUP asks for: look for something newer now."""

    async def close(self) -> None:
        """End."""


class NoPeers:
    """Where no document is configured: `--mesh` alone."""

    async def load(self) -> None:
        """There is nothing to find out."""

    def follow(self, resources: ResourceSet, client: Workload, trust_domain: str) -> None:
        """There is nothing that rules could be about."""

    def tend(self) -> None:
        """Nothing changes."""

    def refresh(self) -> None:
        """Nothing changes."""

    async def close(self) -> None:
        """There is nothing to end."""


def router_of(config: ProxyConfig, metrics: Metrics) -> Router:
    """The router of one worker, which knows what `--mesh` says."""
    return Router([mesh_entry(network) for network in config.mesh], PeerMetrics(metrics.registry))


def peers_of(config: ProxyConfig, router: Router) -> Peers:
    """Keeps `router` by the document of `config`. Raises UserError where that cannot be read."""
    if config.peers_file is None:
        return NoPeers()
    # Whoever has no document does without a reader of YAML: some megabytes.
    from proxy.peers.keeper import PeersKeeper  # noqa: PLC0415

    return PeersKeeper(config, config.peers_file, router)


def check_peers(config: ProxyConfig) -> None:
    """Raise UserError where there is a document and it cannot be taken."""
    if config.peers_file is not None:
        from proxy.peers.keeper import read_document  # noqa: PLC0415  # see peers_of

        read_document(config, config.peers_file)
