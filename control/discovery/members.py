"""Which Services are reached by TLS of the mesh alone: those behind which every pod has a sidecar. Pure.

What was so once stays so through a hiccup. A Service without a pod at this moment, or one whose pod was made while
nothing injected, would otherwise be spoken to in plaintext by whoever dials it next. It ends when somebody says so: a
pod that asks for no sidecar, a namespace that does not, the annotation `qbitel.io/mesh: "off"`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from control.discovery.workloads import Address, Namespace, Pod, Service, ServicePort
from kube.objects import Key
from mesh.modes import MTLSMode
from mesh.peer_authentication import effective_mode
from mesh.resources import ResourceSet
from mesh.selectors import Workload

# (namespace, address of a Service) → the ports that require the mesh; None: every port.
Members: TypeAlias = Mapping[tuple[str, Address], tuple[int, ...] | None]


def members_of(
    services: Mapping[Key, Service],
    pods: Mapping[Key, Pod],
    namespaces: Mapping[Key, Namespace],
    before: Members,
    disabling: Callable[[str], ResourceSet | None],
) -> Members:
    """The Services of the mesh; `before` are those that were found the last time.

    `disabling` gives the PeerAuthentications that hold in a namespace where one of them sets DISABLE, else None: a
    sidecar passes what comes to such a port to the application as it is, and TLS would be no use to that.
    """
    behind = _Behind(pods)
    found: dict[tuple[str, Address], tuple[int, ...] | None] = {}
    for (namespace, _), service in sorted(services.items()):
        if service.is_off or not service.ports or not service.selector:
            continue
        its = behind.pods(namespace, service.selector)
        was = [address for address in service.addresses if (namespace, address) in before]
        if not _requires(its, namespaces.get(("", namespace)), bool(was)):
            continue
        ports = _ports(service, its, namespace, disabling(namespace)) if its else before[namespace, was[0]]
        if ports is None or ports:
            # Two Services of one address: one of them is gone already, and the other's word comes soon.
            found.update({(namespace, address): ports for address in service.addresses})
    return found


def _requires(pods: Sequence[Pod], namespace: Namespace | None, was: bool) -> bool:
    if not pods:
        return was
    if all(pod.capture is not None for pod in pods):
        return True
    asks = namespace is not None and namespace.asks
    return was and all(pod.capture is not None or (not pod.is_injected and _asks(pod, asks)) for pod in pods)


def _asks(pod: Pod, namespace_asks: bool) -> bool:
    return namespace_asks if pod.asks is None else pod.asks


def _ports(
    service: Service, pods: Sequence[Pod], namespace: str, resources: ResourceSet | None
) -> tuple[int, ...] | None:
    """The ports at which every pod's sidecar takes TLS of the mesh; None: all of them."""
    kept = tuple(
        port.number for port in service.ports if all(_takes_mesh(port, pod, namespace, resources) for pod in pods)
    )
    return None if len(kept) == len(service.ports) else tuple(sorted(set(kept)))


def _takes_mesh(port: ServicePort, pod: Pod, namespace: str, resources: ResourceSet | None) -> bool:
    target = port.target if isinstance(port.target, int) else pod.port_names.get(port.target)
    if target is None or pod.capture is None:  # it serves no such port; it has no sidecar yet
        return True
    if target not in pod.capture:
        return False
    default = pod.mode or MTLSMode.PERMISSIVE
    if resources is None:
        return default is not MTLSMode.DISABLE
    workload = Workload(namespace, pod.labels, pod.service_account)
    return effective_mode(resources, workload, target, default=default).mode is not MTLSMode.DISABLE


class _Behind:
    """Pods by namespace and label: which stand behind a Service is found without looking at all of them."""

    def __init__(self, pods: Mapping[Key, Pod]) -> None:
        self._pods: defaultdict[tuple[str, str, str], list[Pod]] = defaultdict(list)
        for (namespace, _), pod in pods.items():
            for key, value in pod.labels.items():
                self._pods[namespace, key, value].append(pod)

    def pods(self, namespace: str, selector: Mapping[str, str]) -> list[Pod]:
        """Those with all labels of `selector`, which has one at least."""
        fewest = min((self._pods.get((namespace, *pair), []) for pair in selector.items()), key=len)
        return [pod for pod in fewest if all(pod.labels.get(key) == value for key, value in selector.items())]


def namespaces_with_sidecars(pods: Mapping[Key, Pod]) -> set[str]:
    """Where pods wait for the documents, labelled or not."""
    return {namespace for (namespace, _), pod in pods.items() if pod.is_injected}


def addresses_of(services: Mapping[Key, Service], which: Callable[[Key], bool]) -> Iterator[Address]:
    """The addresses of some Services."""
    return (address for key, service in services.items() if which(key) for address in service.addresses)
