"""Asking sidecars for their metrics through the API server: which of them, and what they answer."""

from __future__ import annotations

import json
from typing import Final

from cli.checks.exposition import read_figures
from cli.checks.facts import Object, Objects, Scrape, full_name, name_of, namespace_of
from cli.checks.sidecars import alive
from injector import pods
from injector.status import is_injected
from kube.client import ApiUnavailable, Cluster, resource
from mesh import names

METRICS_PORT_NAME: Final = "qbitel-metrics"
# 256 peers' series come to some 400 kB.
_MOST_BYTES: Final = 4 << 20
_LONGEST: Final = 200


def sample_of(found: Objects, most: int) -> Objects:
    """Of the pods with a running sidecar, at most `most`: first those that are not ready, then evenly from the rest."""
    running = sorted(
        (pod for pod in alive(found) if is_injected(pod) and pods.part(pod, "status").get("phase") == "Running"),
        key=full_name,
    )
    troubled = [pod for pod in running if not is_ready(pod)][:most]
    others = [pod for pod in running if is_ready(pod)]
    room = most - len(troubled)
    if len(others) <= room:
        return [*troubled, *others]
    return [*troubled, *(others[index * len(others) // room] for index in range(room))]


async def scrape(cluster: Cluster, pod: Object) -> Scrape:
    """What one sidecar says; where it says nothing that can be read, why. Never raises for what it answers."""
    status, text = await _ask(cluster, pod, metrics_port(pod), "metrics")
    obstacle = "" if is_ready(pod) else (await _ask(cluster, pod, names.HEALTH_PORT, "healthz/ready"))[1]
    obstacle = message_of(obstacle)
    if status != 200:
        return Scrape(error=f"{status or 'no answer'}: {message_of(text)}", obstacle=obstacle)
    try:
        return Scrape(read_figures(text), obstacle=obstacle)
    except ValueError as error:
        return Scrape(error=f"its metrics cannot be read: {error}", obstacle=obstacle)


async def _ask(cluster: Cluster, pod: Object, port: int, page: str) -> tuple[int, str]:
    """A page of a pod, through the API server; status 0 where there is no answer."""
    path = resource("pods", namespace=namespace_of(pod), name=f"{name_of(pod)}:{port}")
    try:
        return await cluster.text(f"{path}/proxy/{page}", most=_MOST_BYTES)
    except ApiUnavailable as error:
        return 0, str(error)


def is_ready(pod: Object) -> bool:
    """Whether the kubelet takes the sidecar for ready."""
    status = pods.part(pod, "status")
    return any(
        one.get("name") == pods.SIDECAR and one.get("ready") is True
        for field in ("containerStatuses", "initContainerStatuses")  # a native sidecar is among the latter
        for one in pods.listed(status, field)
    )


def metrics_port(pod: Object) -> int:
    """The port of a sidecar's metrics."""
    for _, container in pods.containers(pod):
        if container.get("name") == pods.SIDECAR:
            for port in pods.listed(container, "ports"):
                if port.get("name") == METRICS_PORT_NAME and isinstance(port.get("containerPort"), int):
                    return int(port["containerPort"])
    return names.METRICS_PORT


def message_of(answer: str) -> str:
    """What an error says: the message of Kubernetes' Status, or the first line."""
    try:
        status = json.loads(answer)
    except (ValueError, RecursionError):
        status = None
    message = status.get("message") if isinstance(status, dict) else None
    return str(message or answer.strip().partition("\n")[0])[:_LONGEST]
