"""What every resource has: its kind, its name, its namespace, and where it was read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mesh.documents import Document, Path, Problem, Severity
from mesh.reading import Report, fields, map_of, text

# Where kubectl puts what names no namespace, unless its context says otherwise.
DEFAULT_NAMESPACE: Final = "default"

# RFC 1123 as Kubernetes applies it: a namespace is a label, a name a subdomain.
_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAMESPACE: Final = text(pattern=_LABEL, wanted="namespace: up to 63 lower-case letters, digits and '-'")
_NAME: Final = text(pattern=rf"{_LABEL}(\.{_LABEL})*", wanted="name: lower-case letters, digits, '-' and '.'", most=253)
_TEXTS: Final = map_of(text())
# As the API server writes it, always in UTC and without fractions: then text sorts as time does.
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
# Sorts behind every time: what the API server has not yet seen is younger than what it has.
_YOUNGEST: Final = "~"


@dataclass(frozen=True, slots=True)
class Metadata:
    """Who a resource is. Two are equal where they say the same, wherever they were read."""

    kind: str
    namespace: str
    name: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    created: str = _YOUNGEST  # "2026-01-31T12:00:00Z"
    api_version: str = field(default="", compare=False)
    document: Document | None = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> str:
        """`namespace/name`, as decisions name a policy."""
        return f"{self.namespace}/{self.name}"

    @property
    def age(self) -> tuple[str, str, str]:
        """Sorts the oldest first, as Istio does where several compete: by time, then by name and namespace."""
        return (self.created, self.name, self.namespace)

    @property
    def source(self) -> str:
        """The file (or other source) that the resource was read from; "" where it was built."""
        return self.document.source if self.document is not None else ""

    def line(self, path: Path = ()) -> int:
        """The line of one of the resource's fields, from 1; 0 where it is not known."""
        return self.document.line(path) if self.document is not None else 0

    def problem(self, path: Path, message: str, severity: Severity) -> Problem:
        """A problem of one of the resource's fields."""
        if self.document is not None:
            return self.document.problem(path, message, severity)
        return Problem("", 0, "", str(self), message, severity)

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


_KNOWN: Final = fields(
    {"name": _NAME, "namespace": _NAMESPACE, "labels": _TEXTS, "annotations": _TEXTS}, required=("name",)
)


def read_metadata(document: Document, report: Report) -> Metadata | None:
    """Who the resource of `document` is, or None where that cannot be said; `report` holds why.

    What else metadata may hold (uid, managedFields …) is the API server's and not read.
    """
    value = document.value
    found = value.get("metadata")
    if not isinstance(found, Mapping):
        report.error(("metadata",), "is missing: each resource has a name")
        return None
    known = ("name", "namespace", "labels", "annotations")
    # Dumps of an API server write an empty map as null here, and it takes that back.
    mine = {name: found[name] for name in known if name in found and not (name in known[2:] and found[name] is None)}
    _KNOWN(mine, ("metadata",), report)
    if report.refused():
        return None
    if "namespace" not in mine:
        report.note(("metadata",), f"names no namespace: read as {DEFAULT_NAMESPACE}")
    created = found.get("creationTimestamp")
    return Metadata(
        kind=str(value.get("kind")),
        namespace=mine.get("namespace", DEFAULT_NAMESPACE),
        name=mine["name"],
        annotations=dict(mine.get("annotations", {})),
        labels=dict(mine.get("labels", {})),
        created=created if isinstance(created, str) and _TIME.fullmatch(created) else _YOUNGEST,
        api_version=str(value.get("apiVersion")),
        document=document,
    )
