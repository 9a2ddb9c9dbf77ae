"""What the sidecar is given to read: its token, the authority's roots, policies and peers; a place for keys."""

from __future__ import annotations

from typing import Final

from injector.pods import Object
from mesh import names

_TOKEN_FOLDER, _, _TOKEN_FILE = names.TOKEN_FILE.rpartition("/")

TOKEN: Final = "qbitel-token"  # noqa: S105  # a volume's name
ROOTS: Final = "qbitel-roots"
KEYS: Final = "qbitel-keys"
MESH: Final = "qbitel-mesh"
# An hour: the kubelet renews it after four fifths. Shorter than ten minutes the API server does not make them.
_TOKEN_LIFE: Final = 3600
# A key, a chain and a list of revocations have some tens of kilobytes.
_KEYS_SIZE: Final = "4Mi"
_MESH_FOLDER: Final = "/etc/qbitel/mesh"
_MESH_FILES: Final = {
    names.POLICIES_KEY: f"{names.POLICY_FOLDER}/{names.POLICIES_KEY}",
    names.PEERS_KEY: names.PEERS_FILE,
}


def volumes(*, discovery: bool = False) -> list[Object]:
    """The volumes of an injected pod; with `discovery` what that publishes is among them."""
    token = {
        "audience": names.TOKEN_AUDIENCE,
        "expirationSeconds": _TOKEN_LIFE,
        "path": _TOKEN_FILE,
    }
    # Not optional: without policies a sidecar would let everybody in, so the pod waits for them.
    items = [{"key": key, "path": path.removeprefix(f"{_MESH_FOLDER}/")} for key, path in _MESH_FILES.items()]
    mesh = {"name": MESH, "configMap": {"name": names.MESH_CONFIG_MAP, "items": items}}
    return [
        {"name": TOKEN, "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": ROOTS, "configMap": {"name": names.ROOTS_CONFIG_MAP}},
        {"name": KEYS, "emptyDir": {"medium": "Memory", "sizeLimit": _KEYS_SIZE}},
        *([mesh] if discovery else []),
    ]


def mounts(*, discovery: bool = False) -> list[Object]:
    """Where the sidecar finds them."""
    return [
        {"name": TOKEN, "mountPath": _TOKEN_FOLDER, "readOnly": True},
        {"name": ROOTS, "mountPath": names.ROOTS_FOLDER, "readOnly": True},
        {"name": KEYS, "mountPath": names.CERTIFICATE_FOLDER},
        *([{"name": MESH, "mountPath": _MESH_FOLDER, "readOnly": True}] if discovery else []),
    ]
