"""What resources, wherever they are, would make of connections between two services."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from control.folder import Reading, read_path
from mesh.building import checks
from mesh.documents import Document, Problem
from mesh.resources import ResourceSet
from mesh.verification import Verification, verify

# What documents that came as Python values show in the place of a file's name.
GIVEN: Final = "resources"


class MTLSVerification(dict[str, Any]):
    """The answer as data, with JSON's types alone; `str()` and `print()` tell it to a person.

    Beside what `mesh.verification.Verification.as_dict` says there is `problems`: what could not be read, or is odd,
    among the resources that were looked at. An error there means that something in force may be missing here.
    """

    def __init__(self, verification: Verification, problems: Iterable[Problem]) -> None:
        told = [str(problem) for problem in problems if problem.severity != "note"]
        super().__init__(verification.as_dict(), problems=told)
        self.verification = verification

    def __str__(self) -> str:
        lines = [str(self.verification)]
        if self["problems"]:
            lines += ["problems of what was read", *(f"  {problem}" for problem in self["problems"])]
        return "\n".join(lines)


def verification_of(
    readings: Iterable[Reading],
    source: str,
    destination: str,
    port: int | None,
    *,
    namespace: str,
    root_namespace: str,
    trust_domain: str,
) -> MTLSVerification:
    """Verify what `readings` hold together; of two with the same kind, namespace and name, the later one counts."""
    documents: dict[object, Document] = {}
    problems: list[Problem] = []
    for reading in readings:
        # Within one reading, twice the same is a mistake that the reader of resources tells.
        mine: dict[object, Document] = {}
        for index, document in enumerate(reading.documents):
            key = _identity(document)
            mine[key if key not in mine else (key, index)] = document
        documents |= mine
        problems += reading.problems
    resources = ResourceSet.of(documents.values(), root_namespace=root_namespace)
    found = verify(resources, source, destination, port, namespace=namespace, trust_domain=trust_domain)
    return MTLSVerification(found, [*problems, *resources.problems])


def given(argument: str, resources: Iterable[Mapping[str, Any]] | Mapping[str, Any]) -> Reading:
    """Resources as Python values, which have no lines. ValueError names the one that is none."""
    several = [resources] if isinstance(resources, Mapping) else resources
    if not isinstance(several, list | tuple):
        raise checks.refused(argument, resources, "a list of resources as dicts")
    documents = []
    for index, resource in enumerate(several):
        try:
            value = json.loads(json.dumps(resource, allow_nan=False)) if isinstance(resource, Mapping) else None
        except (TypeError, ValueError, RecursionError):
            value = None
        if value is None:
            raise checks.refused(f"{argument}[{index}]", resource, "a resource as a dict of JSON's types")
        documents.append(Document(value, GIVEN, {}))
    return Reading(tuple(documents))


def place(argument: str, where: str | Path) -> Reading:
    """A folder of policies, or one file; UserError where it cannot be read."""
    if not isinstance(where, str | Path) or not str(where):
        raise checks.refused(argument, where, "the path of a folder or a file")
    return read_path(Path(where))


def cluster(argument: str, kubeconfig: str | Path) -> Reading:
    """What is in force in a cluster. Needs the extra `kubernetes`; UserError where the cluster cannot be asked."""
    if not isinstance(kubeconfig, str | Path) or not str(kubeconfig):
        raise checks.refused(argument, kubeconfig, "the path of a kubeconfig")
    from control.cluster import read_cluster  # noqa: PLC0415  # an extra brings what it needs

    return read_cluster(str(kubeconfig))


def _identity(document: Document) -> object:
    value = document.value
    metadata = value.get("metadata")
    names = metadata if isinstance(metadata, Mapping) else {}
    group = str(value.get("apiVersion", "")).rpartition("/")[0]
    return group, str(value.get("kind")), str(names.get("namespace", "default")), str(names.get("name"))
