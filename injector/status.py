"""The annotation `qbitel.io/status`: what was done to a pod, so that anybody can see it and `remove` can undo it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from injector import pods
from injector.annotations import STATUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Names of what was added, and of what had to be made to hold it.

    `created` are the fields (`metadata`, `metadata.annotations`, `spec.volumes` …) that were not there before.
    `replaced` holds the user's own containers that were merged over ours: by name, the list that held it, its place in
    it, and the container. `probes` are the paths whose originals the sidecar's environment has.
    """

    version: str
    init_containers: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    created: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    replaced: Mapping[str, Any] = field(default_factory=dict)

    def to_text(self) -> str:
        """As the annotation's value: JSON in one line, without what is empty."""
        fields = {_camel(name): value for name, value in asdict(self).items() if value or name == "version"}
        return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def read_status(pod: Mapping[str, Any]) -> Status | None:
    """What a pod says was done to it; None where it says nothing that can be read."""
    try:
        value = json.loads(pods.annotations_of(pod).get(STATUS, ""))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("version"), str):
        return None
    replaced = value.get("replaced", {})
    lists: dict[str, tuple[str, ...]] = {}
    for name in ("init_containers", "containers", "volumes", "annotations", "created", "probes"):
        items = value.get(_camel(name), [])
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            return None
        lists[name] = tuple(items)
    if not isinstance(replaced, dict):
        return None
    return Status(version=value["version"], replaced=replaced, **lists)


def is_injected(pod: Mapping[str, Any]) -> bool:
    """Whether `pod` has our sidecar: it says so, and the containers that it names are there."""
    status = read_status(pod)
    if status is None:
        return False
    present = {container.get("name") for _, container in pods.containers(pod)}
    return pods.SIDECAR in present and {*status.init_containers, *status.containers} <= present


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
