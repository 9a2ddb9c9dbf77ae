"""What of a set of resources is about one workload: its share.

Whatever is asked about a workload is answered by what stands in its own namespace and in the root's, and by the
DestinationRules that name its host: of a mesh with a thousand namespaces, a thousandth. Who asks about every workload
in turn must not look at the whole set for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mesh.inventory import Inventory, Place, Service
from mesh.metadata import Metadata
from mesh.pair import dialled_host
from mesh.resources import ResourceSet
from mesh.selectors import Selector, Workload, by_namespace
from mesh.traffic import DestinationRule


class _Selecting(Protocol):
    """A resource that is about the workloads of its namespace that it selects."""

    @property
    def metadata(self) -> Metadata: ...
    @property
    def selector(self) -> Selector: ...


S = TypeVar("S", bound=_Selecting)


@dataclass(frozen=True, slots=True)
class Share:
    """What is about one workload.

    `resources` has the PeerAuthentications and AuthorizationPolicies that select it and the DestinationRules for its
    host, the oldest first, and nothing else. `place` is by which Service callers know it.
    """

    resources: ResourceSet
    place: Place


class Shares:
    """A set of resources, ready to be asked for many shares."""

    def __init__(self, resources: ResourceSet) -> None:
        self._root = resources.root_namespace
        self._peers = by_namespace((one.metadata.namespace, one) for one in resources.peer_authentications)
        self._policies = by_namespace((one.metadata.namespace, one) for one in resources.authorization_policies)
        self._rules = _RulesByHost(resources.destination_rules)
        inventory = Inventory.of(resources.foreign)
        services = by_namespace((one.namespace, one) for one in inventory.services)
        workloads = by_namespace((one.workload.namespace, one) for one in inventory.workloads)
        self._inventories = {
            namespace: Inventory(tuple(services.get(namespace, ())), tuple(workloads.get(namespace, ())))
            for namespace in services.keys() | workloads.keys()
        }

    def of(self, workload: Workload) -> Share:
        """The share of `workload`, which need not be one that a document makes."""
        place = self._place(workload)
        mine = ResourceSet(
            peer_authentications=self._selecting(workload, self._peers),
            authorization_policies=self._selecting(workload, self._policies),
            destination_rules=self._rules.of(dialled_host(workload, place)),
            root_namespace=self._root,
        )
        return Share(mine, place)

    def _selecting(self, workload: Workload, kept: Mapping[str, list[S]]) -> tuple[S, ...]:
        near = [one for namespace in {workload.namespace, self._root} for one in kept.get(namespace, ())]
        mine = (one for one in near if one.selector.selects(workload, one.metadata.namespace, self._root))
        return tuple(sorted(mine, key=lambda one: one.metadata.age))

    def _place(self, workload: Workload) -> Place:
        """By which Service callers know a workload; without one in the set, by that of the name in the label app."""
        inventory = self._inventories.get(workload.namespace, Inventory())
        service = next((one for one in inventory.services if one.selects(workload)), None)
        if service is None and "app" in workload.labels:
            service = Service(workload.namespace, workload.labels["app"], workload.labels, ())
        names = inventory.find(service.namespace, service.name).port_names if service else {}
        return Place((workload,), service, "", names)


class _RulesByHost:
    """DestinationRules, filed under what their hosts are or end with."""

    def __init__(self, rules: Iterable[DestinationRule]) -> None:
        self._named: dict[str, list[DestinationRule]] = {}
        self._ending: dict[int, dict[str, list[DestinationRule]]] = {}  # by the length of what stands behind the star
        for rule in rules:
            host = rule.full_host.lower()
            if host.startswith("*"):
                self._ending.setdefault(len(host) - 1, {}).setdefault(host[1:], []).append(rule)
            else:
                self._named.setdefault(host, []).append(rule)

    def of(self, host: str) -> tuple[DestinationRule, ...]:
        """The rules whose hosts cover `host`, as `traffic.host_matches` has it; the oldest first."""
        host = host.lower()
        found = list(self._named.get(host, ()))
        for length, by_end in self._ending.items():
            if length <= len(host):
                found += by_end.get(host[len(host) - length :], ())
        return tuple(sorted(found, key=lambda one: one.metadata.age))
