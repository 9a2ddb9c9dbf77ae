"""What Istio's resources limit on the inbound side of a workload that is only seen as TCP. Pure.

* EnvoyFilter with Envoy's local rate limit (the shape that mesh/local_rate_limit.py reads) limits requests. Each
  connection that is worth having carries one at least: so the same bucket, taken from by each connection, refuses only
  what Envoy would have refused too.
* maxConnections of a DestinationRule for a Service that we stand behind. Istio sets it on the server's side as well as
  on the client's. `inboundConnectionPool` of our Sidecar resource goes before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mesh.inventory import Inventory, Service
from mesh.limits import rate_limit
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from mesh.sidecar_scope import Sidecar
from mesh.token_bucket import RateLimit
from mesh.traffic import ConnectionPool, destination_rule, full_host


@dataclass(frozen=True, slots=True)
class WorkloadRate:
    """A limit of new connections from all sources together; `port` None: to all ports together."""

    name: str
    port: int | None
    limit: RateLimit


@dataclass(frozen=True, slots=True)
class WorkloadConnections:
    """A limit of connections that are open at one time; `port` None: to each port by itself."""

    name: str
    port: int | None
    most: int


def rates_of(resources: ResourceSet, workload: Workload) -> tuple[WorkloadRate, ...]:
    """The rate limits of `workload`."""
    return tuple(
        WorkloadRate(str(rule.metadata), rule.port, rate_limit(rule))
        for rule in resources.local_rate_limits
        if rule.selector.selects(workload, rule.metadata.namespace, resources.root_namespace)
    )


def connections_of(resources: ResourceSet, workload: Workload) -> tuple[WorkloadConnections, ...]:
    """The limits of open connections of `workload`. 0 is no limit, as in Istio."""
    sidecar = _sidecar(resources, workload)
    if sidecar is not None and sidecar.inbound_connection_pool is not None:
        most = sidecar.inbound_connection_pool.max_connections
        return (WorkloadConnections(str(sidecar.metadata), None, most),) if most else ()
    return tuple(_of_services(resources, workload))


def _of_services(resources: ResourceSet, workload: Workload) -> Iterable[WorkloadConnections]:
    services = [one for one in Inventory.of(resources.foreign).services if one.selects(workload)]
    for service in services or _assumed(workload):
        rule = destination_rule(resources, full_host(service.name, service.namespace), workload, service.namespace)
        if rule is None:
            continue
        policy = rule.traffic_policy
        if service.ports:
            numbers = [(port.number, port.target if isinstance(port.target, int) else None) for port in service.ports]
        else:  # nobody says which ports there are: a pod's are taken for those of its Service
            numbers = [(number, number) for number in policy.ports] or [(0, None)]
        for number, on_pod in numbers:
            if most := _most(policy.at(number).connection_pool):
                yield WorkloadConnections(str(rule.metadata), on_pod, most)


def _assumed(workload: Workload) -> list[Service]:
    """Without a document of it: the Service with the name that the pod's label `app` has."""
    name = workload.labels.get("app")
    return [Service(workload.namespace, name, {"app": name}, ())] if name else []


def _most(pool: ConnectionPool | None) -> int:
    return (pool.max_connections or 0) if pool is not None else 0


def _sidecar(resources: ResourceSet, workload: Workload) -> Sidecar | None:
    """The Sidecar resource of a workload: one that selects it, else its namespace's, else the mesh's."""
    mine = [
        one
        for one in resources.sidecars
        if one.selector.selects(workload, one.metadata.namespace, resources.root_namespace)
    ]

    def narrowest(one: Sidecar) -> tuple[bool, bool, tuple[str, str, str]]:
        return one.metadata.namespace != workload.namespace, one.selector.everything, one.metadata.age

    return min(mine, key=narrowest, default=None)
