"""The two containers that a pod is given, as Kubernetes has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from injector import pods, volumes
from injector.config import InjectorConfig
from injector.pods import Object
from injector.probes import ENVIRONMENT
from injector.wishes import Wishes
from mesh import names

# The shell and two or three programs of some MiB, for milliseconds; container runtimes want up to 12 MiB for
# themselves (docs/interception.md).
_INIT_RESOURCES: Final = {
    "requests": {"cpu": "10m", "memory": "16Mi"},
    "limits": {"cpu": "100m", "memory": "32Mi"},
}
# An authority that is away for minutes must not end the pod: it waits, as the sidecar does. Ten minutes.
_STARTUP: Final = {"periodSeconds": 1, "failureThreshold": 600, "timeoutSeconds": 3}
_READINESS: Final = {"periodSeconds": 5, "failureThreshold": 4, "timeoutSeconds": 3}
# Of a sidecar with ports that are not the usual ones: the pod's other addresses are then not served.
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104
DEFAULT_GRACE: Final = 30  # seconds; Kubernetes' terminationGracePeriodSeconds
DEFAULT_DRAIN: Final = 25  # seconds; of `qbitel proxy`
_READY_PATH: Final = "/healthz/ready"


def init_container(script: str, wishes: Wishes, config: InjectorConfig) -> Object:
    """What makes the rules: root with two capabilities, for milliseconds, and nothing else."""
    return {
        "name": pods.INIT_CONTAINER,
        "image": wishes.image,
        **_pull_policy(config),
        "command": ["/bin/sh", "-c", script],
        "securityContext": {
            # Capabilities reach a process of another user by the ambient set alone, which Kubernetes does not fill.
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            **_CONFINED,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
        },
        "resources": _INIT_RESOURCES,
    }


def sidecar(
    pod: Mapping[str, Any],
    wishes: Wishes,
    config: InjectorConfig,
    originals: Mapping[str, Any],
    workload: str = "",
) -> Object:
    """What carries the traffic, for the `pod` as it was; `originals` are the probes that it answers for it."""
    container: Object = {
        "name": pods.SIDECAR,
        "image": wishes.image,
        **_pull_policy(config),
        "command": [*(_AS_SIDECAR if wishes.interception.tproxy else ()), "qbitel"],
        "args": ["proxy", *_flags(pod, wishes, config)],
        "env": _environment(workload or workload_name(pod), originals),
        "ports": _ports(config),
        "securityContext": _security(wishes),
        "resources": wishes.resources,
        "readinessProbe": {"httpGet": _ready(), **_READINESS},
    }
    if wishes.native:
        container["restartPolicy"] = "Always"
        if wishes.hold:
            container["startupProbe"] = {"httpGet": _ready(), **_STARTUP}
    else:
        container["lifecycle"] = _classic_life(wishes)
    container["volumeMounts"] = [*volumes.mounts(discovery=config.discovery), *wishes.user_mounts]
    return container


_CONFINED: Final = {
    "privileged": False,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}

# TPROXY: the sidecar needs NET_ADMIN. Kubernetes gives capabilities to root alone; so util-linux' setpriv, as root,
# becomes the sidecar's user and keeps that one, in the ambient set (docs/adr/0016-interception.md).
_AS_SIDECAR: Final = (
    "setpriv", "--reuid", str(names.SIDECAR_UID), "--regid", str(names.SIDECAR_GID), "--clear-groups",
    "--inh-caps", "-all,+net_admin", "--ambient-caps", "-all,+net_admin", "--",
)  # fmt: skip


def _security(wishes: Wishes) -> Object:
    user, group, capabilities = names.SIDECAR_UID, names.SIDECAR_GID, {}
    if wishes.interception.tproxy:
        user, group, capabilities = 0, 0, {"add": ["NET_ADMIN", "SETGID", "SETUID"]}
    return {
        "runAsUser": user,
        "runAsGroup": group,
        "runAsNonRoot": user != 0,
        **_CONFINED,
        "capabilities": {"drop": ["ALL"], **capabilities},
    }


def _flags(pod: Mapping[str, Any], wishes: Wishes, config: InjectorConfig) -> list[str]:
    sidecar = config.sidecar
    flags = {
        "--authority": config.authority,
        "--trust-domain": config.trust_domain,
        "--profile": wishes.profile,
        "--mode": wishes.mode.value,
        "--log-level": wishes.log_level,
    }
    if labels := pods.labels_of(pod):
        flags["--workload-labels"] = ",".join(f"{key}={value}" for key, value in labels.items())
    if wishes.opaque_ports:
        flags["--opaque-ports"] = wishes.opaque_ports
    drain = _drain_within_grace(pod) if wishes.drain_seconds is None else wishes.drain_seconds
    if drain is not None:
        flags["--drain-seconds"] = f"{drain:g}"
    if sidecar.proxy_port != names.OUTBOUND_PORT:
        flags["--outbound"] = f"{_EVERYWHERE}:{sidecar.proxy_port}"
    if config.discovery:
        flags["--policy"] = names.POLICY_FOLDER
        flags["--peers"] = names.PEERS_FILE
        flags["--root-namespace"] = config.root_namespace or config.control_namespace
    # Without metrics for others they are served to the pod alone.
    if not sidecar.enable_metrics or sidecar.metrics_port != names.METRICS_PORT:
        flags["--metrics"] = f"{_EVERYWHERE if sidecar.enable_metrics else '127.0.0.1'}:{sidecar.metrics_port}"
    if wishes.interception.tproxy:
        flags["--interception-mode"] = "TPROXY"
    words = [word for pair in flags.items() for word in pair]
    for cidr in config.mesh_cidrs:
        words += ["--mesh", cidr]
    return words if wishes.captured else [*words, "--no-self-test"]


def _drain_within_grace(pod: Mapping[str, Any]) -> float | None:
    """How long the sidecar may drain where the pod has less time than is usual; None: as long as it likes."""
    grace = pods.part(pod, "spec").get("terminationGracePeriodSeconds")
    if not isinstance(grace, int) or grace >= DEFAULT_GRACE:
        return None
    # The same share as usual: 25 s of 30.
    return max(grace, 0) * DEFAULT_DRAIN / DEFAULT_GRACE


def _environment(workload: str, originals: Mapping[str, Any]) -> list[Object]:
    def own(name: str, path: str) -> Object:
        return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}

    variables = [
        own("POD_NAME", "metadata.name"),
        own("POD_NAMESPACE", "metadata.namespace"),
        own("POD_UID", "metadata.uid"),
    ]
    if workload:
        variables.append({"name": "QBITEL_WORKLOAD_NAME", "value": workload})
    if originals:
        # Kubernetes replaces $(NAME) in values, and $$ by $: what the application's paths have must stay.
        text = json.dumps(originals, separators=(",", ":")).replace("$", "\\u0024")
        variables.append({"name": ENVIRONMENT, "value": text})
    return variables


def workload_name(pod: Mapping[str, Any]) -> str:
    """What `pod` is one of, as far as the pod itself tells: the name of its Deployment, StatefulSet, Job …"""
    metadata = pods.part(pod, "metadata")
    for owner in pods.listed(metadata, "ownerReferences"):
        if owner.get("controller") and isinstance(name := owner.get("name"), str):
            # A ReplicaSet of a Deployment is called after it, and after the template's hash.
            return name.removesuffix(f"-{pods.labels_of(pod).get('pod-template-hash', '')}")
    name = metadata.get("name") or metadata.get("generateName")
    return name.removesuffix("-") if isinstance(name, str) else ""


def _ports(config: InjectorConfig) -> list[Object]:
    ports = [{"name": "qbitel-health", "containerPort": names.HEALTH_PORT, "protocol": "TCP"}]
    if config.sidecar.enable_metrics:
        metrics = {"name": "qbitel-metrics", "containerPort": config.sidecar.metrics_port, "protocol": "TCP"}
        ports.insert(0, metrics)
    return ports


def _classic_life(wishes: Wishes) -> Object:
    """The kubelet starts containers in their order and waits for a postStart before the next; SIGTERM comes to all of
    them at once, after their preStop."""
    life: Object = {}
    if wishes.hold:
        seconds = str(_STARTUP["failureThreshold"])
        life["postStart"] = {"exec": {"command": ["qbitel", "wait", "--ready", "--timeout", seconds]}}
    life["preStop"] = {"exec": {"command": ["qbitel", "wait", "--drained"]}}
    return life


def _ready() -> Object:
    return {"path": _READY_PATH, "port": names.HEALTH_PORT}


def _pull_policy(config: InjectorConfig) -> Object:
    return {"imagePullPolicy": config.pull_policy} if config.pull_policy else {}
