"""Istio's DestinationRule, by its own kind and as text, decides how a pod that runs dials a Service."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import pytest

from tests.cluster import cluster
from tests.cluster.cluster import Object
from tests.cluster.workloads import HTTP_PORT, Running, Workload, curl, meet, nginx, start

Seen = TypeVar("Seen")

_KIND = "destinationrules.networking.istio.io"
# Open for longer than the question behind it takes, and gone before the next.
_HELD_SECONDS = 4


def at_most_one(namespace: str) -> Object:
    """A rule of the clients' own namespace: one connection to the web server at a time."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"host": "web", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 1}}}},
    }


def as_text(rule: Object) -> Object:
    """The same for a cluster that does not know the kind."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "rules", "labels": {"qbitel.io/policy": "true"}},
        "data": {"web.yaml": json.dumps(rule)},
    }


@pytest.mark.parametrize("form", ["resource", "text"])
def test_a_destination_rule_limits_the_connections_of_its_clients_until_it_is_gone(
    namespace: str, form: str, saw: Callable[[str], None]
) -> None:
    if form == "resource" and not cluster.has_kind(_KIND):
        pytest.skip(f"the cluster does not know {_KIND}")
    web, client = start(namespace, Workload(name="web", command=nginx(), port=HTTP_PORT), Workload(name="client"))
    meet(client, web.url)
    assert _second_at_once(client, web)
    rule = at_most_one(namespace) if form == "resource" else as_text(at_most_one(namespace))
    cluster.apply(rule, namespace=namespace)

    refused = _until_refused(client, web)
    assert f"maxConnections of DestinationRule {namespace}/web" in refused[-1]["message"]
    assert "hello from web" in client.run(*curl(web.url))

    cluster.kubectl("delete", "-n", namespace, rule["kind"], rule["metadata"]["name"])
    _until(client, "the second connection is let through again", lambda: _second_at_once(client, web))
    saw(f"by {'its own kind' if form == 'resource' else 'a ConfigMap'}: {refused[-1]['message']}")


def _second_at_once(client: Running, web: Running) -> bool:
    """Whether curl is answered while another connection of the same pod to the same Service is open."""
    hold = (
        "import socket, time; "
        f"held = socket.create_connection(('{web.address}', {HTTP_PORT})); time.sleep({_HELD_SECONDS})"
    )
    shell = 'python3 -c "$0" >/dev/null 2>&1 & sleep 1; exec "$@"'
    code, _said = client.try_to("sh", "-c", shell, hold, *curl(web.url))
    # It must be gone before the next question, and before whoever wants a connection of his own.
    client.run("sleep", str(_HELD_SECONDS))
    return code == 0


def _until_refused(client: Running, web: Running) -> list[Object]:
    """The lines of what was refused by the limit: nothing else may keep the second connection from being made."""
    failed = 0

    def look() -> list[Object] | None:
        nonlocal failed
        failed += not _second_at_once(client, web)
        return [line for line in client.access_log() if line.get("flag") == "CIRCUIT_OPEN"] or None

    refused = _until(client, "the second connection is refused", look)
    assert len(refused) == failed
    return refused


def _until(client: Running, what: str, look: Callable[[], Seen | None]) -> Seen:
    def touching() -> Seen | None:
        found = look()
        if not found:
            client.touch()
        return found

    return cluster.until(what, touching, otherwise=lambda: cluster.diagnosis(client.namespace))
