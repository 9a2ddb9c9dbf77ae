"""Which resources are in one set of documents and not in another, or say something else there: by field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal

from mesh.documents import Document, Path, field_name

What = Literal["added", "removed", "changed"]
# Istio's groups: Services and workloads are what is governed, and do not govern.
GROUP: Final = ".istio.io"
# Annotations that mean something; others are notes, and those of kubectl repeat the resource.
_ANNOTATIONS: Final = ("qbitel.io", "istio.io")
_MOST_FIELDS: Final = 20


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """A resource that is in one set alone, or not the same in both."""

    what: What
    resource: str  # "AuthorizationPolicy shop/web"
    before: Document | None
    after: Document | None
    fields: tuple[str, ...] = ()  # of one that changed: which


def governs(document: Document) -> bool:
    """Whether this is one of Istio's resources."""
    return str(document.value.get("apiVersion")).partition("/")[0].endswith(GROUP)


def identity(document: Document) -> tuple[str, str, str, str]:
    """Group, kind, namespace and name: of two documents with the same, a cluster keeps the later one."""
    metadata = document.value.get("metadata")
    names = metadata if isinstance(metadata, Mapping) else {}
    group = str(document.value.get("apiVersion")).rpartition("/")[0]
    kind = str(document.value.get("kind"))
    return group, kind, str(names.get("namespace", "default")), str(names.get("name"))


def resource_changes(before: Iterable[Document], after: Iterable[Document]) -> tuple[ResourceChange, ...]:
    """What changes among the resources that govern, by kind and name. Order, comments and what a server adds do not."""
    old = {identity(one): one for one in before if governs(one)}
    new = {identity(one): one for one in after if governs(one)}
    found = []
    for key in sorted(old.keys() | new.keys()):
        was, becomes = old.get(key), new.get(key)
        if was is None or becomes is None:
            found.append(ResourceChange("added" if was is None else "removed", _name(key), was, becomes))
            continue
        paths = islice(_changed(_meaning(was), _meaning(becomes), ()), _MOST_FIELDS)
        if fields := tuple(dict.fromkeys(map(field_name, paths))):
            found.append(ResourceChange("changed", _name(key), was, becomes, fields))
    return tuple(found)


def _name(key: tuple[str, str, str, str]) -> str:
    _, kind, namespace, name = key
    return f"{kind} {namespace}/{name}"


def _meaning(document: Document) -> dict[str, Any]:
    """What of a document is its writer's."""
    metadata = document.value.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    kept = {
        key: value
        for key, value in (annotations.items() if isinstance(annotations, Mapping) else ())
        if key.partition("/")[0] in _ANNOTATIONS
    }
    return {"metadata": {"annotations": kept}, "spec": document.value.get("spec") or {}}


def _changed(before: Any, after: Any, path: Path) -> Iterator[Path]:
    """The fields, as deep as they go, that are not the same."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in (*before, *(key for key in after if key not in before)):
            yield from _changed(before.get(key), after.get(key), (*path, key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _changed(one, other, (*path, index))
    elif before != after:
        yield path
