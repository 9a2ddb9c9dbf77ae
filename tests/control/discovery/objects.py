"""Objects of a cluster as its API server shows them; pods with a sidecar are made by the real injector."""

from __future__ import annotations

from typing import Any

from injector.config import InjectorConfig
from injector.decide import Namespace
from injector.inject import Injector
from tests.injector.rig import VERSION, short_script

INJECTOR = Injector(config=InjectorConfig(discovery=True), render_script=short_script, version=VERSION)


def pod(
    namespace: str = "shop",
    name: str = "web-1",
    *,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    sidecar: bool = True,
    phase: str = "Running",
    account: str = "web",
    **spec: Any,
) -> dict[str, Any]:
    """A pod with the label app=web and a port 8080 called http."""
    container = {
        "name": "web",
        "image": "example.org/web:1",
        "ports": [{"name": "http", "containerPort": 8080}],
    }
    given: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app": "web"} if labels is None else labels,
            "annotations": annotations or {},
        },
        "spec": {"serviceAccountName": account, "containers": [container], **spec},
    }
    made = INJECTOR.inject(given, Namespace(namespace, "enabled")).pod if sidecar else given
    return {**made, "status": {"phase": phase}}


def service(
    namespace: str = "shop",
    name: str = "web",
    address: str | list[str] = "10.96.0.10",
    *,
    selector: dict[str, str] | None = None,
    ports: list[dict[str, Any]] | None = None,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A Service for app=web with the port 80, which is the pods' http."""
    addresses = [address] if isinstance(address, str) else address
    return {
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations or {}},
        "spec": {
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "selector": {"app": "web"} if selector is None else selector,
            "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}] if ports is None else ports,
        },
    }


def namespace(name: str = "shop", label: str | None = "enabled", **metadata: Any) -> dict[str, Any]:
    """A namespace with that injection label."""
    labels = {} if label is None else {"qbitel-injection": label}
    return {"metadata": {"name": name, "labels": labels, **metadata}}


def peer_authentication(mode: str, ports: dict[str, str] | None = None, **match: str) -> dict[str, Any]:
    """The spec of one."""
    spec: dict[str, Any] = {"mtls": {"mode": mode}}
    if match:
        spec["selector"] = {"matchLabels": match}
    if ports:
        spec["portLevelMtls"] = {port: {"mode": its} for port, its in ports.items()}
    return spec


def allow(account: str) -> dict[str, Any]:
    """The spec of an AuthorizationPolicy that lets one account of `shop` in."""
    return {
        "action": "ALLOW",
        "rules": [{"from": [{"source": {"principals": [f"cluster.local/ns/shop/sa/{account}"]}}]}],
    }
