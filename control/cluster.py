"""Policies from a cluster, with the Services and workloads that they are about: what `folder` reads from files.

It only lists; nothing is changed and no Secret is read. Of kubernetes_asyncio it takes what certmgr takes (ADR 14):
kubeconfig files, service accounts, TLS and the connection pool.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from kubernetes_asyncio.client import ApiClient
from kubernetes_asyncio.client.configuration import Configuration
from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config

from control.folder import CLUSTER, Reading
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
        within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        return f"/{root}/{self.api}{within}/{self.plural}"


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
# An object has 1.5 MiB at most; a page of them stays small enough to be held.
_PAGE: Final = 250
_MOST: Final = 100_000  # objects: more pods than Kubernetes supports in fifty nodes, and a bound for what is not it
_SECONDS: Final = 30.0  # for one page; an API server that is well answers in a tenth
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
    async with _connected(kubeconfig) as api:
        for kind in _KINDS:
            for one in namespaces:
                try:
                    async for item in _items(api, kind, one):
                        documents.append(_document(kind, item))
                        if len(documents) > _MOST:
                            raise UserError(f"the cluster has more than {_MOST} objects; ask about one namespace")
                except _Refused as refusal:
                    if refusal.status != _NOT_FOUND:
                        problems.append(_missing(kind, one, refusal))
    return Reading(tuple(documents), tuple(problems), (CLUSTER,))


def usual_kubeconfig(given: str | None, environment: Mapping[str, str]) -> str | None:
    """The kubeconfig that kubectl would use: `given`, $KUBECONFIG, ~/.kube/config; None: none of them is there."""
    if given or environment.get("KUBECONFIG"):
        return given or environment["KUBECONFIG"]
    usual = Path("~/.kube/config").expanduser()
    return str(usual) if usual.exists() else None


class _Refused(Exception):
    """The API server answers that it will not."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def _items(api: ApiClient, kind: _Kind, namespace: str | None) -> AsyncIterator[dict[str, Any]]:
    query = {"limit": str(_PAGE)}
    while True:
        page = await _get(api, kind.path(namespace), query)
        items, metadata = page.get("items") or [], page.get("metadata") or {}
        if not isinstance(items, list) or not isinstance(metadata, dict):
            raise UserError("what answers in the API server's place is none")
        for item in items:
            if isinstance(item, dict) and not _is_made_by_another(kind, item):
                yield item
        if not metadata.get("continue"):
            return
        query["continue"] = str(metadata["continue"])


def _is_made_by_another(kind: _Kind, item: dict[str, Any]) -> bool:
    """Whether this is a pod of a Deployment or the like, which is read itself."""
    return kind.name == "Pod" and bool((item.get("metadata") or {}).get("ownerReferences"))


async def _get(api: ApiClient, path: str, query: Mapping[str, str]) -> dict[str, Any]:
    """The answer, read here: the library's own reading logs it whole at level DEBUG."""
    try:
        response: aiohttp.ClientResponse = await api.call_api(
            path,
            "GET",
            query_params=list(query.items()),
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=_SECONDS,
        )
        async with response:
            text = await response.read()
            found = json.loads(text) if response.content_type == "application/json" else None
    except (aiohttp.ClientError, TimeoutError, OSError, ConfigException) as error:
        raise UserError(f"the API server cannot be reached: {_told(error)}") from None
    except ValueError:
        raise UserError("what answers in the API server's place is none: no JSON") from None
    if response.status != 200:
        message = found.get("message") if isinstance(found, dict) else None
        raise _Refused(response.status, str(message or f"HTTP status {response.status}")[:300])
    if not isinstance(found, dict):
        raise UserError("what answers in the API server's place is none: no object")
    return found


def _document(kind: _Kind, item: dict[str, Any]) -> Document:
    metadata = item.get("metadata") or {}
    value = {
        "apiVersion": kind.api,
        "kind": kind.name,
        "metadata": {name: metadata[name] for name in _METADATA if name in metadata},
        "spec": item.get("spec") or {},
    }
    return Document(value, CLUSTER, {})


def _missing(kind: _Kind, namespace: str | None, refusal: _Refused) -> Problem:
    where = f"namespace {namespace}" if namespace else "the cluster"
    message = f"those of {where} cannot be read: {refusal}"
    return Problem(CLUSTER, 0, "", kind.name, message, "error" if kind.decides else "warning")


@asynccontextmanager
async def _connected(kubeconfig: str | None) -> AsyncIterator[ApiClient]:
    configuration = Configuration()
    # Python 3.13 began to refuse authorities without the key usage extension (RFC 5280 §4.2.1.3), which many clusters
    # have had for years and kubectl takes. Chain, name and time are checked all the same.
    configuration.disable_strict_ssl_verification = True
    if kubeconfig is None:
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as error:
            raise UserError(
                f"this is no pod with a service account ({_told(error)}); name a cluster by --kubeconfig"
            ) from None
    else:
        await _use(kubeconfig, configuration)
    try:
        api = ApiClient(configuration)
    except OSError as error:  # ssl.SSLError among them: certificates that cannot be read
        raise UserError(f"the certificates for the API server cannot be used: {_told(error)}") from None
    async with api:
        api.user_agent = "qbitel-policy"
        yield api


async def _use(kubeconfig: str, configuration: Configuration) -> None:
    if not any(Path(path).expanduser().exists() for path in kubeconfig.split(os.pathsep) if path):
        raise UserError(f"{_shown(kubeconfig)} does not exist; give a kubeconfig file")
    try:
        await load_kube_config(config_file=kubeconfig, client_configuration=configuration, persist_config=False)
    except Exception as error:  # noqa: BLE001  # a file that is broken makes the library raise whatever comes
        # Its messages quote the file, tokens included: only the kind is told.
        raise UserError(
            f"{_shown(kubeconfig)} cannot be used as a kubeconfig ({type(error).__name__}); "
            f"try it with `kubectl --kubeconfig {_shown(kubeconfig)} version`"
        ) from None


def _told(error: BaseException) -> str:
    """An error in one line; a timeout has no words of its own."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _shown(text: str) -> str:
    return text if text.isprintable() else repr(text)
