"""A container of the user's that has the name of one of ours: what it says holds, the rest is ours."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from injector import pods
from injector.pods import Object
from injector.refusal import PodRefused
from mesh import names

# Lists of a container whose entries have names of their own; every other list is taken whole.
_KEYS: Final = {"env": "name", "volumeMounts": "mountPath", "ports": "containerPort"}
# What the API server demands of a container, and nobody means who overrides a part of one. Istio's users know it.
_NO_IMAGE: Final = "auto"


@dataclass(frozen=True, slots=True)
class Override:
    """The user's container, and where it stood."""

    field: str
    index: int
    container: Object

    def to_json(self) -> Object:
        """As the status keeps it."""
        return {"field": self.field, "index": self.index, "container": self.container}


def take_overrides(pod: Object) -> dict[str, Override]:
    """Take the user's containers with our names out of `pod`, in place. Raises PodRefused where one is given twice."""
    found: dict[str, Override] = {}
    spec = pods.part(pod, "spec")
    for field in ("initContainers", "containers"):
        items = pods.listed(spec, field)
        for index, container in enumerate(items):
            name = container.get("name")
            if name not in pods.OURS:
                continue
            if name in found:
                raise PodRefused(f"it has two containers named {name}; leave one of them")
            found[name] = Override(field, index, copy.deepcopy(container))
        kept = [container for container in items if container.get("name") not in pods.OURS]
        if len(kept) < len(items):
            spec[field] = kept
    return found


def merged(ours: Object, theirs: Override | None) -> Object:
    """Our container under what the user's says. Raises PodRefused where it would be none of the mesh any more."""
    if theirs is None:
        return ours
    container = dict(theirs.container)
    if container.get("image") in (None, "", _NO_IMAGE):
        container.pop("image", None)
    result = _merge(ours, container)
    if ours["name"] == pods.SIDECAR:
        context, meant = pods.part(result, "securityContext"), pods.part(ours, "securityContext")
        if any(context.get(name) != meant.get(name) for name in ("runAsUser", "runAsGroup")):
            raise PodRefused(
                f"its container {pods.SIDECAR} sets a user or group of its own; interception knows the sidecar by "
                f"{names.SIDECAR_UID}, so leave them out"
            )
        if context["runAsUser"] == 0 and result["command"] != ours["command"]:
            raise PodRefused(
                f"its container {pods.SIDECAR} has a command of its own; with TPROXY ours makes a root process the "
                f"user {names.SIDECAR_UID}, so leave it out"
            )
    return result


def _merge(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Object:
    result = dict(ours)
    for name, value in theirs.items():
        mine = ours.get(name)
        if isinstance(value, Mapping) and isinstance(mine, Mapping):
            result[name] = _merge(mine, value)
        elif name in _KEYS and isinstance(value, list) and isinstance(mine, list):
            result[name] = _merge_lists(mine, value, _KEYS[name])
        else:
            result[name] = value
    return result


def _merge_lists(ours: list[Any], theirs: list[Any], key: str) -> list[Any]:
    def name_of(item: Any) -> Any:
        return item.get(key) if isinstance(item, dict) else None

    given = {name_of(item) for item in theirs}
    return [*(item for item in ours if name_of(item) not in given), *theirs]
