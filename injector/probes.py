"""Probes and hooks that the kubelet makes over the network, sent to the sidecar, which asks the application instead.

Under STRICT the application's ports take TLS of the mesh alone, which the kubelet does not speak. The wire between
injector and sidecar is written down in docs/adr/0021-injection.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from injector import pods
from injector.pods import Object
from mesh import names

ENVIRONMENT: Final = names.APP_PROBES_VARIABLE

# Field of a container → the last part of its path; Kubernetes' own names for these endpoints.
_PROBES: Final = {"livenessProbe": "livez", "readinessProbe": "readyz", "startupProbe": "startupz"}
_HOOKS: Final = {"postStart": "poststart", "preStop": "prestop"}
_NETWORKED: Final = ("httpGet", "tcpSocket", "grpc")
_DEFAULT_TIMEOUT: Final = 1  # second, of Kubernetes' probes
# Kubernetes has no timeout for hooks but the pod's grace; as long as its default.
_HOOK_TIMEOUT: Final = 30


def rewrite_probes(pod: Object) -> tuple[dict[str, Any], list[str]]:
    """Point the networked probes and hooks of `pod`, in place, at the sidecar.

    Returns what the sidecar must know by path, and warnings about what stays as it is.
    """
    originals: dict[str, Any] = {}
    warnings: list[str] = []
    for field, container in pods.containers(pod):
        if container.get("name") in pods.OURS:
            continue
        if field == "initContainers" and not pods.is_native_sidecar(field, container):
            continue
        for path, holder, timeout in _questions(container):
            _rewrite(path, holder, timeout, container, originals, warnings)
    return originals, warnings


def restore_probes(pod: Object, originals: Mapping[str, Any], paths: tuple[str, ...]) -> None:
    """Undo `rewrite_probes` in place, for `paths`."""
    for _, container in pods.containers(pod):
        for path, holder, _ in _questions(container):
            handler = pods.part(pods.part(originals, path), "handler")
            if path in paths and len(handler) == 1 and "httpGet" in holder:
                _swap(holder, "httpGet", *next(iter(handler.items())))


def read_originals(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """What the container `sidecar` was told; nothing where that cannot be read."""
    for variable in pods.listed(sidecar, "env"):
        if variable.get("name") == ENVIRONMENT and isinstance(variable.get("value"), str):
            try:
                value = json.loads(variable["value"])
            except (ValueError, RecursionError):
                return {}
            return value if isinstance(value, dict) else {}
    return {}


def _questions(container: Object) -> Iterator[tuple[str, Object, int]]:
    """Each probe and hook: its path at the sidecar, the map that holds the handler, and its timeout in seconds."""
    name = container.get("name")
    for field, word in _PROBES.items():
        if probe := pods.part(container, field):
            timeout = probe.get("timeoutSeconds")
            yield f"/app-health/{name}/{word}", probe, timeout if isinstance(timeout, int) else _DEFAULT_TIMEOUT
    for field, word in _HOOKS.items():
        if hook := pods.part(container, "lifecycle", field):
            yield f"/app-lifecycle/{name}/{word}", hook, _HOOK_TIMEOUT


def _rewrite(
    path: str, holder: Object, timeout: int, container: Object, originals: dict[str, Any], warnings: list[str]
) -> None:
    kind = next((kind for kind in _NETWORKED if isinstance(holder.get(kind), dict)), None)
    if kind is None or (path.startswith("/app-lifecycle/") and kind != "httpGet"):
        return  # exec and sleep need no network; a hook's tcpSocket is deprecated, and never did anything
    handler = holder[kind]
    if handler.get("host"):
        return  # asks another host than the pod, which interception of the pod does not concern
    port = _number(handler.get("port"), container)
    if port is None:
        warnings.append(
            f"{path}: the port {str(handler.get('port'))[:40]!r} is none of the container's; it stays as it is"
        )
        return
    originals[path] = {"handler": {kind: dict(handler)}, "port": port, "timeoutSeconds": timeout}
    _swap(holder, kind, "httpGet", _rewritten(path, kind, handler))


def _rewritten(path: str, kind: str, handler: Object) -> Object:
    if kind != "httpGet":
        return {"path": path, "port": names.HEALTH_PORT}
    # The fields keep their order, so that a file changes as little as it can.
    changed = {"path": path, "port": names.HEALTH_PORT, **({"scheme": "HTTP"} if "scheme" in handler else {})}
    return {**handler, **changed}


def _swap(holder: Object, old: str, new: str, value: object) -> None:
    """Put `new` in the place of `old`; the order of the other fields stays."""
    items = [(new, value) if name == old else (name, its) for name, its in holder.items()]
    holder.clear()
    holder.update(items)


def _number(port: object, container: Object) -> int | None:
    if isinstance(port, str) and not port.isdigit():
        port = pods.ports(container).get(port)
    if isinstance(port, str) and port.isascii() and len(port) <= 5:
        port = int(port)
    return port if isinstance(port, int) and not isinstance(port, bool) and 1 <= port <= 65535 else None
