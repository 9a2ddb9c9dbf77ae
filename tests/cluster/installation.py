"""The mesh as users install it: the manifests of deploy/, with the images that the environment names."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from mesh import names
from tests.cluster import cluster
from tests.cluster.cluster import Object

_DEPLOY: Final = Path(__file__).parents[2] / "deploy"
CONTROL_IMAGE: Final = os.environ.get("QBITEL_E2E_CONTROL_IMAGE", "qbitel/control:latest")
SIDECAR_IMAGE: Final = os.environ.get("QBITEL_E2E_SIDECAR_IMAGE", "qbitel/quantum-sidecar:latest")
NATIVE_SINCE: Final = (1, 29)
PROGRAMS: Final = {
    names.AUTHORITY_SERVICE: "statefulset",
    names.WEBHOOK_NAME: "deployment",
    names.DISCOVERY_SERVICE: "deployment",
}


@dataclass(frozen=True)
class Mesh:
    """What is installed: the objects, as they were applied, and what had to be changed for this cluster. `ours` is
    whether this suite has installed it, and may take it away.
    """

    objects: tuple[Object, ...]
    changes: tuple[str, ...]
    version: tuple[int, int]
    namespace: str = names.CONTROL_NAMESPACE
    ours: bool = True

    @property
    def native(self) -> bool:
        """Whether its sidecars are native ones."""
        return self.version >= NATIVE_SINCE

    def apply(self) -> None:
        """Install it, or what is missing of it, and wait until all of it runs."""
        cluster.apply(*self.objects)
        self.wait()

    def wait(self) -> None:
        """Return when every program is there and the API server can call the webhook."""
        for name, kind in PROGRAMS.items():
            seconds = f"--timeout={cluster.PATIENCE:.0f}s"
            done = cluster.attempt(
                "rollout", "status", f"{kind}/{name}", "-n", self.namespace, seconds, seconds=cluster.PATIENCE + 30
            )
            assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{cluster.diagnosis(self.namespace)}"
        cluster.until("the webhook's authority is known to the API server", self._is_trusted)

    def _is_trusted(self) -> bool:
        webhooks = cluster.get("mutatingwebhookconfiguration", names.WEBHOOK_NAME)["webhooks"]
        return all(one["clientConfig"].get("caBundle") for one in webhooks)

    def delete(self) -> None:
        """Take it away as docs/installation.md says, pods of the mesh being gone already."""
        cluster.kubectl("delete", "mutatingwebhookconfiguration", names.WEBHOOK_NAME, "--ignore-not-found")
        everything = {"apiVersion": "v1", "kind": "List", "items": list(self.objects)}
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", given=everything, seconds=2 * cluster.PATIENCE)
        for name in (names.ROOTS_CONFIG_MAP, names.MESH_CONFIG_MAP):
            for one in cluster.listed("configmap"):
                if one["metadata"]["name"] == name:
                    cluster.kubectl(
                        "delete", "configmap", name, "-n", one["metadata"]["namespace"], "--ignore-not-found"
                    )


def shipped(version: tuple[int, int]) -> list[Object]:
    """The manifests for a cluster of this version."""
    name = "qbitel.yaml" if version >= NATIVE_SINCE else "qbitel-classic.yaml"
    documents = yaml.safe_load_all((_DEPLOY / name).read_text(encoding="utf-8"))
    return [document for document in documents if document]


@contextlib.contextmanager
def installed() -> Iterator[Mesh]:
    """Install it for as long as this lasts; with QBITEL_E2E_INSTALLED=1 take what is there, and leave it."""
    is_there = os.environ.get("QBITEL_E2E_INSTALLED") == "1"
    assert is_there or cluster.find("namespace", names.CONTROL_NAMESPACE) is None, (
        f"{names.CONTROL_NAMESPACE} exists, and this suite installs a mesh of its own; QBITEL_E2E_INSTALLED=1 takes "
        "the one that is there"
    )
    mesh = fitted(cluster.version())
    for change in mesh.changes:
        print(f"\n    for this cluster: {change}", flush=True)
    if is_there:
        mesh.wait()
        yield dataclasses.replace(mesh, ours=False)
        return
    try:
        mesh.apply()
        yield mesh
    finally:
        if os.environ.get("QBITEL_E2E_KEEP") != "1":
            mesh.delete()


def fitted(version: tuple[int, int]) -> Mesh:
    """The manifests with the images of the environment, and with what an old cluster or one without DNS needs."""
    objects, changes = shipped(version), []
    changes.append(
        f"Kubernetes {version[0]}.{version[1]}: {'native' if version >= NATIVE_SINCE else 'classic'} sidecars"
    )
    for one in objects:
        for container in _containers(one):
            container["image"] = CONTROL_IMAGE
            # A tag `latest` would be asked for at a registry each time, where there may be none.
            container["imagePullPolicy"] = "IfNotPresent"
    _change_flag(_injector(objects), "--image", SIDECAR_IMAGE)
    _injector(objects)["args"].append("--pull-policy=IfNotPresent")
    changes.append(f"images {CONTROL_IMAGE} and {SIDECAR_IMAGE}")
    # The chart knows that; the plain manifests are for clusters of 1.21 and newer.
    if not cluster.has_version("policy/v1"):
        for one in objects:
            if one["kind"] == "PodDisruptionBudget":
                one["apiVersion"] = "policy/v1beta1"
        changes.append("PodDisruptionBudgets are policy/v1beta1")
    if not has_dns():
        address = _authority_s_address(objects)
        _change_flag(_injector(objects), "--authority", f"{address}:{names.AUTHORITY_PORT}")
        changes.append(f"no DNS: sidecars know the authority as {address}")
    return Mesh(tuple(objects), tuple(changes), version)


def has_dns() -> bool:
    """Whether names of Services can be resolved in this cluster."""
    return any(
        port.get("port") == 53
        for service in cluster.listed("services", "kube-system")
        for port in service["spec"].get("ports", [])
    )


def _authority_s_address(objects: list[Object]) -> str:
    """Of its Service, which is made now if it is not there, because only the cluster knows a free address."""
    if cluster.find("service", names.AUTHORITY_SERVICE, names.CONTROL_NAMESPACE) is None:
        mine = [one for one in objects if one["kind"] in ("Namespace", "Service")]
        cluster.apply(*(one for one in mine if one["kind"] == "Namespace" or _name(one) == names.AUTHORITY_SERVICE))
    address: str = cluster.get("service", names.AUTHORITY_SERVICE, names.CONTROL_NAMESPACE)["spec"]["clusterIP"]
    return address


def _name(one: Object) -> str:
    name: str = one["metadata"]["name"]
    return name


def _containers(one: Object) -> list[Object]:
    spec = one.get("spec", {}).get("template", {}).get("spec", {})
    return [*spec.get("initContainers", []), *spec.get("containers", [])]


def _injector(objects: list[Object]) -> Object:
    (found,) = (one for one in objects if one["kind"] == "Deployment" and _name(one) == names.WEBHOOK_NAME)
    return _containers(found)[0]


def _change_flag(container: Object, flag: str, value: str) -> None:
    assert sum(word.startswith(f"{flag}=") for word in container["args"]) == 1, f"{flag} is not in the manifests"
    container["args"] = [f"{flag}={value}" if word.startswith(f"{flag}=") else word for word in container["args"]]
