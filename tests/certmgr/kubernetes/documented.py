"""The YAML of docs/operations.md, as an administrator applies it, and accounts that have just those rights."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import yaml

from kube.client import ApiRefused, resource
from mesh.names import AUTHORITY_SERVICE, CONTROL_NAMESPACE, WEBHOOK_NAME
from tests.kube.rig import Place

_DOCUMENT = Path(__file__).parents[3] / "docs" / "operations.md"
_BLOCK = re.compile(r"<!-- rights: ([a-z ]+) -->\n```yaml\n(.*?)```", re.DOTALL)
_RBAC = "apis/rbac.authorization.k8s.io/v1"
_KINDS = {
    "ServiceAccount": ("serviceaccounts", "api/v1"),
    "Service": ("services", "api/v1"),
    "StatefulSet": ("statefulsets", "apis/apps/v1"),
    "Role": ("roles", _RBAC),
    "RoleBinding": ("rolebindings", _RBAC),
    "ClusterRole": ("clusterroles", _RBAC),
    "ClusterRoleBinding": ("clusterrolebindings", _RBAC),
}
# Names of objects that belong to the whole cluster; a test must not touch those of an installation.
_CLUSTER_WIDE = (WEBHOOK_NAME,)


def documented(marker: str) -> list[Any]:
    """The objects of the blocks under this marker."""
    blocks = [text for found, text in _BLOCK.findall(_DOCUMENT.read_text()) if found == marker]
    assert blocks, f"docs/operations.md has no YAML marked `{marker}`"
    return [each for text in blocks for each in yaml.safe_load_all(text)]


def rules(objects: list[Any]) -> Iterator[tuple[str, str, str]]:
    """(kind of role, resource, verb) of all that is granted."""
    for each in objects:
        for rule in each.get("rules", ()):
            for plural in rule["resources"]:
                for verb in rule["verbs"]:
                    yield each["kind"], plural, verb


def moved(objects: list[Any], namespace: str) -> list[Any]:
    """The same for another namespace; names of what belongs to the whole cluster are made the test's own."""
    text = json.dumps(objects).replace(f'"{CONTROL_NAMESPACE}"', f'"{namespace}"')
    for name in _CLUSTER_WIDE:
        text = text.replace(f'"{name}"', f'"{name}-{namespace}"')
    found: list[Any] = json.loads(text)
    for each in found:
        if each.get("kind", "").startswith("Cluster"):
            each["metadata"]["name"] += f"-{namespace}"
        if each.get("kind") == "ClusterRoleBinding":
            each["roleRef"]["name"] += f"-{namespace}"
    return found


def path_of(found: Any) -> str:
    plural, api = _KINDS[found["kind"]]
    return resource(plural, namespace=found["metadata"].get("namespace", ""), api=api)


@contextlib.asynccontextmanager
async def granted(place: Place, *markers: str) -> AsyncIterator[str]:
    """Apply what is documented under `markers` to the place; yield a kubeconfig of the account that has just that."""
    objects = [each for marker in markers for each in moved(documented(marker), place.namespace)]
    try:
        for each in objects:
            await place.cluster.create(path_of(each), each)
        yield await kubeconfig_of(place, AUTHORITY_SERVICE)
    finally:
        for each in objects:
            if each["kind"].startswith("Cluster"):  # what is in the namespace goes with it
                with contextlib.suppress(ApiRefused):
                    await place.cluster.delete(f"{path_of(each)}/{each['metadata']['name']}", {})


async def kubeconfig_of(place: Place, account: str) -> str:
    """A kubeconfig file like the place's, with a token of this service account in it."""
    path = f"{resource('serviceaccounts', namespace=place.namespace, name=account)}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    offered = (await place.cluster.create(path, body))["status"]["token"]
    config = yaml.safe_load(Path(place.kubeconfig).read_text())
    current = next(each for each in config["contexts"] if each["name"] == config["current-context"])
    current["context"]["user"] = "account"
    config.update(contexts=[current], users=[{"name": "account", "user": {"token": offered}}])
    file = place.folder / f"kubeconfig-{place.namespace}-{account}"
    file.write_text(json.dumps(config))
    file.chmod(0o600)
    return str(file)
