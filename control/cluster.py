"""Policies from a cluster, with the Services and workloads that they are about: what `folder` reads from files.

It only lists; nothing is changed and no Secret is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from control.folder import CLUSTER, Reading
from kube.client import ApiRefused, ApiUnavailable, Cluster, connect, resource
from kube.objects import Object
from mesh.documents import Document, Problem
from mesh.errors import UserError


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of resource, and whether an answer without it could be wrong."""

    name: str
    plural: str
    api: str
    decides: bool = True

    def path(self, namespace: str | None) -> str:
        root = "api" if self.api == "v1" else "apis"
        return resource(self.plural, namespace=namespace or "", api=f"{root}/{self.api}")


_KINDS: Final = (
    _Kind("PeerAuthentication", "peerauthentications", "security.istio.io/v1"),
    _Kind("AuthorizationPolicy", "authorizationpolicies", "security.istio.io/v1"),
    _Kind("RequestAuthentication", "requestauthentications", "security.istio.io/v1"),
    _Kind("DestinationRule", "destinationrules", "networking.istio.io/v1"),
    _Kind("VirtualService", "virtualservices", "networking.istio.io/v1"),
    _Kind("ServiceEntry", "serviceentries", "networking.istio.io/v1"),
    _Kind("Sidecar", "sidecars", "networking.istio.io/v1"),
    _Kind("EnvoyFilter", "envoyfilters", "networking.istio.io/v1alpha3"),
    _Kind("Service", "services", "v1", decides=False),
    _Kind("Deployment", "deployments", "apps/v1", decides=False),
    _Kind("StatefulSet", "statefulsets", "apps/v1", decides=False),
    _Kind("DaemonSet", "daemonsets", "apps/v1", decides=False),
    _Kind("Pod", "pods", "v1", decides=False),
)
# Istio's chart installs the CRDs together; one that is missing means that nobody can have written such a resource.
_NOT_FOUND: Final = 404
_MOST: Final = 100_000  # objects: more pods than Kubernetes supports in fifty nodes, and a bound for what is not it
# What policy looks at; managedFields and status are most of an object and say nothing here.
_METADATA: Final = ("name", "namespace", "labels", "annotations", "creationTimestamp")


def read_cluster(
    kubeconfig: str | None, *, namespace: str | None = None, root_namespace: str = "istio-system"
) -> Reading:
    """Read the policies, Services and workloads of the cluster that `kubeconfig` names; None: the one of this pod.

    With `namespace`, only what lies there and in `root_namespace` is read: whoever may not read the whole cluster can
    still ask about one namespace. Raises UserError where the cluster cannot be used at all; a kind that may not be
    read is a problem of the answer. Waits for the network: inside an event loop, await `cluster_reading` instead.
    """
    return asyncio.run(cluster_reading(kubeconfig, namespace=namespace, root_namespace=root_namespace))


async def cluster_reading(
    kubeconfig: str | None, *, namespace: str | None = None, root_namespace: str = "istio-system"
) -> Reading:
    """As `read_cluster`."""
    namespaces = [None] if namespace is None else list(dict.fromkeys([namespace, root_namespace]))
    documents: list[Document] = []
    problems: list[Problem] = []
    async with connect(kubeconfig, "qbitel-policy") as cluster:
        for kind in _KINDS:
            for one in namespaces:
                try:
                    async for item in _items(cluster, kind, one):
                        documents.append(_document(kind, item))
                        if len(documents) > _MOST:
                            raise UserError(f"the cluster has more than {_MOST} objects; ask about one namespace")
                except ApiRefused as refusal:
                    if refusal.status != _NOT_FOUND:
                        problems.append(_missing(kind, one, refusal))
                except ApiUnavailable as error:
                    raise UserError(str(error)) from None
    return Reading(tuple(documents), tuple(problems), (CLUSTER,))


def usual_kubeconfig(given: str | None, environment: Mapping[str, str]) -> str | None:
    """The kubeconfig that kubectl would use: `given`, $KUBECONFIG, ~/.kube/config; None: none of them is there."""
    if given or environment.get("KUBECONFIG"):
        return given or environment["KUBECONFIG"]
    usual = Path("~/.kube/config").expanduser()
    return str(usual) if usual.exists() else None


async def _items(cluster: Cluster, kind: _Kind, namespace: str | None) -> AsyncIterator[Object]:
    async with aclosing(cluster.pages(kind.path(namespace))) as pages:
        async for page, _ in pages:
            for item in page:
                if not _is_made_by_another(kind, item):
                    yield item


def _is_made_by_another(kind: _Kind, item: Object) -> bool:
    """Whether this is a pod of a Deployment or the like, which is read itself."""
    return kind.name == "Pod" and bool(item["metadata"].get("ownerReferences"))


def _document(kind: _Kind, item: Object) -> Document:
    metadata = item.get("metadata") or {}
    value = {
        "apiVersion": kind.api,
        "kind": kind.name,
        "metadata": {name: metadata[name] for name in _METADATA if name in metadata},
        "spec": item.get("spec") or {},
    }
    return Document(value, CLUSTER, {})


def _missing(kind: _Kind, namespace: str | None, refusal: ApiRefused) -> Problem:
    where = f"namespace {namespace}" if namespace else "the cluster"
    message = f"those of {where} cannot be read: {refusal}"
    return Problem(CLUSTER, 0, "", kind.name, message, "error" if kind.decides else "warning")
