"""What must not be injected, with the reason; and what will work, but perhaps not as its author thinks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from injector import pods
from injector.config import InjectorConfig
from injector.containers import DEFAULT_GRACE
from injector.refusal import PodRefused
from injector.wishes import Wishes
from mesh import names

_FOREIGN: Final = {
    "istio-proxy": "Istio",
    "linkerd-proxy": "Linkerd",
    "kuma-sidecar": "Kuma",
    "consul-dataplane": "Consul",
}


def refuse_unsafe(pod: Mapping[str, Any]) -> None:
    """Raise PodRefused for a pod whose traffic a sidecar would not catch, or that another mesh has."""
    ids = (("runAsUser", names.SIDECAR_UID, "UID"), ("runAsGroup", names.SIDECAR_GID, "GID"))
    whole = pods.part(pod, "spec", "securityContext")
    for _, container in pods.containers(pod):
        name = str(container.get("name"))[:63]
        if name in pods.OURS:
            continue
        if name in _FOREIGN:
            raise PodRefused(f"it has {_FOREIGN[name]}'s sidecar ({name}) already; a pod is in one mesh")
        own = pods.part(container, "securityContext")
        for field, number, what in ids:
            if own.get(field, whole.get(field)) == number:
                raise PodRefused(
                    f"its container {name} runs as {what} {number}, which is the sidecar's: its traffic would be "
                    f"neither captured nor encrypted; give it another {field}"
                )


def warn_of(pod: Mapping[str, Any], wishes: Wishes, config: InjectorConfig) -> list[str]:
    """What the author of `pod` should know."""
    return [
        *_ports_taken(pod, config),
        *_short_grace(pod, wishes),
        *_unending_job(pod, wishes),
        *_no_volume(pod, wishes),
    ]


def _ports_taken(pod: Mapping[str, Any], config: InjectorConfig) -> list[str]:
    ours = {
        *(names.INBOUND_PORT, names.TUNNEL_PORT, names.ADMIN_PORT, names.HEALTH_PORT),
        *(config.sidecar.metrics_port, config.sidecar.proxy_port),
    }
    return [
        f"its container {str(container.get('name'))[:63]} has port {port['containerPort']}, which the sidecar needs: "
        "one of the two will not start"
        for _, container in pods.containers(pod)
        if container.get("name") not in pods.OURS
        for port in pods.listed(container, "ports")
        if port.get("containerPort") in ours
    ]


def _short_grace(pod: Mapping[str, Any], wishes: Wishes) -> list[str]:
    if wishes.drain_seconds is None:
        return []
    grace = pods.part(pod, "spec").get("terminationGracePeriodSeconds")
    seconds = grace if isinstance(grace, int) else DEFAULT_GRACE
    if wishes.drain_seconds < seconds:
        return []
    return [
        f"the sidecar drains for {wishes.drain_seconds:g} s, and the pod is killed after {seconds} s "
        "(terminationGracePeriodSeconds)"
    ]


def _no_volume(pod: Mapping[str, Any], wishes: Wishes) -> list[str]:
    present = {volume.get("name") for volume in [*pods.listed(pods.part(pod, "spec"), "volumes"), *wishes.user_volumes]}
    return [
        f"the sidecar is to mount the volume {mount['name'][:63]}, which the pod does not have: it is refused"
        for mount in wishes.user_mounts
        if mount["name"] not in present
    ]


def _unending_job(pod: Mapping[str, Any], wishes: Wishes) -> list[str]:
    if wishes.native or pods.part(pod, "spec").get("restartPolicy") not in ("Never", "OnFailure"):
        return []
    return [
        f"it ends only when its program asks the sidecar to (POST http://127.0.0.1:{names.ADMIN_PORT}/quitquitquit): "
        "without native sidecars Kubernetes waits for every container"
    ]
