"""Objects of the Kubernetes API as they come: dicts, lists, strings, numbers; and what all of them have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]
# (namespace, name); the namespace of what has none is "".
Key = tuple[str, str]


def key_of(found: Object) -> Key:
    """What tells an object from all others of its kind."""
    return found["metadata"].get("namespace", ""), found["metadata"]["name"]


def version_of(found: Object) -> int:
    """How new it is: resourceVersions of one kind grow (API concepts, "Resource versions"): etcd's do."""
    return int(found["metadata"]["resourceVersion"])
