"""A ServicePolicy as a file: its fields by their names, in YAML or JSON, one document for each service."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from typing import Any, Final

from control.service_policy import ServicePolicy
from mesh.building.traffic_policy import ConnectionPool, LoadBalancer, OutlierDetection
from mesh.building.virtual_service import Retries
from mesh.documents import Document, field_name
from mesh.errors import UserError

# The fields that are values of their own.
_PARTS: Final[Mapping[str, type[Any]]] = {
    "connection_pool": ConnectionPool,
    "outlier_detection": OutlierDetection,
    "load_balancer": LoadBalancer,
    "retries": Retries,
}
# What a reader of Kubernetes' files writes without thinking.
_WRAPPING: Final = frozenset({"apiVersion", "kind", "metadata", "spec"})


def read_service_policy(document: Document) -> ServicePolicy:
    """The policy that a document writes. UserError names the line and the field that is wrong.

    Fields are spelt as in Python (`rate_limit`) or as in Kubernetes (`rateLimit`).
    """
    if _WRAPPING & document.value.keys():
        raise _wrong(document, (), "is a Kubernetes resource; a service's policy has service_name at the top")
    values = {}
    for written, value in document.value.items():
        name = _field(document, (written,), ServicePolicy)
        if name in values:
            raise _wrong(document, (written,), f"is {name}, which stands here already")
        values[name] = _part(document, written, _PARTS[name]) if name in _PARTS else value
    if "service_name" not in values:
        raise _wrong(document, ("service_name",), "is missing: the name of the Service")
    policy: ServicePolicy = _made(document, (), ServicePolicy, values)
    return policy


def _part(document: Document, written: str, kind: type[Any]) -> Any:
    value = document.value[written]
    if not isinstance(value, Mapping):
        raise _wrong(document, (written,), f"is no map of {', '.join(one.name for one in dataclasses.fields(kind))}")
    values = {_field(document, (written, name), kind): inner for name, inner in value.items()}
    return _made(document, (written,), kind, values)


def _field(document: Document, path: tuple[str, ...], kind: type[Any]) -> str:
    """The field of `kind` that the last name of `path` spells."""
    known = [one.name for one in dataclasses.fields(kind)]
    name = next((one for one in known if _same(path[-1], one)), None)
    if name is None:
        near = difflib.get_close_matches(path[-1], known, n=1)
        raise _wrong(
            document, path, f"is no field; {f'did you mean {near[0]}?' if near else 'there are: ' + ', '.join(known)}"
        )
    return name


def _made(document: Document, path: tuple[str, ...], kind: type[Any], values: dict[str, Any]) -> Any:
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        # The API's errors begin with the name of the argument: that is a field here, and has a line.
        argument, _, words = str(error).partition(": ")
        written = next((one for one in _written(document, path) if _same(one, argument)), None)
        at = (*path, written) if written is not None else path
        raise _wrong(document, at, words if written is not None else str(error)) from None


def _written(document: Document, path: tuple[str, ...]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = document.value
    for step in path:
        found = found[step]
    return found


def _same(written: str, argument: str) -> bool:
    return re.sub(r"[^a-z0-9]", "", written.lower()) == re.sub(r"[^a-z0-9]", "", argument.partition("[")[0].lower())


def _wrong(document: Document, path: tuple[str, ...], message: str) -> UserError:
    field = field_name(path)
    return UserError(f"{document.source}:{document.line(path)}: {f'{field}: ' if field else ''}{message}")
