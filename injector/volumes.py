"""What the sidecar is given to read: its token, the authority's roots, a place in memory for keys."""

from __future__ import annotations

from typing import Final

from injector.pods import Object
from mesh import names

_TOKEN_FOLDER, _, _TOKEN_FILE = names.TOKEN_FILE.rpartition("/")

TOKEN: Final = "qbitel-token"  # noqa: S105  # a volume's name
ROOTS: Final = "qbitel-roots"
KEYS: Final = "qbitel-keys"
# An hour: the kubelet renews it after four fifths. Shorter than ten minutes the API server does not make them.
_TOKEN_LIFE: Final = 3600
# A key, a chain and a list of revocations have some tens of kilobytes.
_KEYS_SIZE: Final = "4Mi"


def volumes() -> list[Object]:
    """The volumes of an injected pod."""
    token = {
        "audience": names.TOKEN_AUDIENCE,
        "expirationSeconds": _TOKEN_LIFE,
        "path": _TOKEN_FILE,
    }
    return [
        {"name": TOKEN, "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": ROOTS, "configMap": {"name": names.ROOTS_CONFIG_MAP}},
        {"name": KEYS, "emptyDir": {"medium": "Memory", "sizeLimit": _KEYS_SIZE}},
    ]


def mounts() -> list[Object]:
    """Where the sidecar finds them."""
    return [
        {"name": TOKEN, "mountPath": _TOKEN_FOLDER, "readOnly": True},
        {"name": ROOTS, "mountPath": names.ROOTS_FOLDER, "readOnly": True},
        {"name": KEYS, "mountPath": names.CERTIFICATE_FOLDER},
    ]
