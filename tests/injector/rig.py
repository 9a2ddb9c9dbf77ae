"""An injector whose scripts are short enough to read, and what is done with it to whole manifests."""

from __future__ import annotations

import dataclasses
from typing import Any

from cli.injection import rendered
from injector import workloads
from injector.config import InjectorConfig
from injector.decide import Namespace
from injector.inject import Injected, Injector
from injector.interception import Interception
from injector.remove import remove
from mesh.documents import Document

ENABLED = Namespace("shop", "enabled")
VERSION = "0.0.0"


def short_script(wanted: Interception) -> str:
    """Names what differs from the defaults, after the real renderer has judged it."""
    rendered(wanted)
    defaults = Interception()
    said = [
        f"{field.name}={getattr(wanted, field.name)}"
        for field in dataclasses.fields(wanted)
        if getattr(wanted, field.name) != getattr(defaults, field.name)
    ]
    return f"rules {' '.join(said) or 'as usual'}"


def injector(**settings: Any) -> Injector:
    return Injector(config=InjectorConfig(**settings), render_script=short_script, version=VERSION)


CLASSIC = {"native_sidecars": False}


def pod(**spec: Any) -> dict[str, Any]:
    """A pod with one container; `metadata` is its own, everything else of its spec."""
    metadata = spec.pop("metadata", {"name": "web"})
    spec.setdefault("containers", [{"name": "web", "image": "example.org/web:1"}])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def annotated(**annotations: str) -> dict[str, Any]:
    """A pod with annotations of ours, written with underscores."""
    named = {f"qbitel.io/{name.replace('_', '-')}": value for name, value in annotations.items()}
    return pod(metadata={"name": "web", "annotations": named})


def inject(value: dict[str, Any], **settings: Any) -> Injected:
    return injector(**settings).inject(value, ENABLED)


def containers(value: dict[str, Any]) -> dict[str, Any]:
    """Every container by its name."""
    spec = value["spec"]
    return {one["name"]: one for one in [*spec.get("initContainers", []), *spec["containers"]]}


def sidecar(value: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The sidecar that a pod is given."""
    found: dict[str, Any] = containers(inject(value, **settings).pod)["qbitel-proxy"]
    return found


def flags(container: dict[str, Any]) -> dict[str, str]:
    """The sidecar's flags with their values."""
    words = container["args"][1:]
    return {word: value for word, value in zip(words, [*words[1:], ""], strict=True) if word.startswith("--")}


def injected_resource(document: Document, one: Injector, namespace: Namespace = ENABLED) -> Any:
    """The resource with sidecars in its pods."""
    path = workloads.path_of_pod(document.value)
    if path is None:
        return document.value
    outcome = one.inject(workloads.pod_of(document.value, path), namespace)
    return workloads.with_pod(dict(document.value), path, outcome.pod) if outcome.decision.inject else document.value


def resource_without(document: Document) -> Any:
    """The resource without our sidecar."""
    path = workloads.path_of_pod(document.value)
    if path is None:
        return document.value
    given = workloads.pod_of(document.value, path)
    before = remove(given)
    return document.value if before is given else workloads.with_pod(dict(document.value), path, before)
