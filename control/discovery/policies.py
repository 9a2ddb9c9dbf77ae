"""Policies as a cluster has them → lines of the document that sidecars read. Pure.

The document is JSON, which is YAML as well, with a resource in each line: cheap to write, the same bytes for the same
policies, and a difference shows line by line. What is published was read before by the reader of the sidecars: one
resource that they refuse would keep all others of the namespace from them, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kube.objects import Object
from mesh.documents import Document, Problem, read_documents
from mesh.metadata import DEFAULT_NAMESPACE
from mesh.names import ANNOTATION_PREFIX
from mesh.resources import ResourceSet

# What a sidecar follows (docs/policy-enforcement.md). Others of Istio's kinds would take room and be left alone there.
FOLLOWED: Final = frozenset(
    {"PeerAuthentication", "AuthorizationPolicy", "DestinationRule", "Sidecar", "EnvoyFilter"}
)  # fmt: skip
# A sidecar reads 500,000 nodes and 10,000 documents at once (mesh.documents.Limits); the List around them is some more.
MAX_NODES: Final = 490_000
MAX_POLICIES: Final = 9_900
# Of annotations those that mean something to a policy; kubectl's copy of the whole object is not among them.
_ANNOTATIONS: Final = ("istio.io/", ANNOTATION_PREFIX)
# A fault becomes a line of a log, and a part of an annotation.
_LONGEST_FAULT: Final = 400
_MOST_FAULTS: Final = 10
_HEAD: Final = '{"apiVersion":"v1","kind":"List","items":[\n'
_TAIL: Final = "\n]}\n"
# JSON may have these as they are; YAML has some only as escapes (YAML 1.1 §5.1), and takes others for ends of lines.
_ESCAPED: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True, order=True)
class Policy:
    """One resource: the `line` is its JSON; `nodes` is what it counts against a reader's limit."""

    namespace: str
    kind: str
    name: str
    line: str
    nodes: int

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one object of the cluster says, and why the rest of it cannot be followed."""

    policies: tuple[Policy, ...] = ()
    faults: tuple[str, ...] = ()


def read_resource(found: Object, api_version: str, kind: str) -> Reading:
    """An object of one of Istio's kinds."""
    metadata = found["metadata"]
    value = {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": found.get("spec") or {}}
    return _reading(Document(value, "the cluster", {}))


def read_config_map(found: Object) -> Reading:
    """A ConfigMap whose values are policies as YAML: they are its own namespace's, whatever they say."""
    metadata = found["metadata"]
    where = f"ConfigMap {metadata['namespace']}/{metadata['name']}"
    faults = [f"{where}: binaryData is not read; write the policies under data"] if found.get("binaryData") else []
    policies: list[Policy] = []
    for key, text in sorted((found.get("data") or {}).items()):
        documents, problems = read_documents(text.encode(errors="replace"), f"{where} {key}")
        faults += _told(problems)
        for document in documents:
            reading = _reading_within(document, metadata["namespace"])
            policies += reading.policies
            faults += reading.faults
    return Reading(tuple(policies), tuple(faults[:_MOST_FAULTS]))


def _reading_within(document: Document, namespace: str) -> Reading:
    metadata = document.value.get("metadata")
    if not isinstance(metadata, Mapping):
        metadata = {}
    named = metadata.get("namespace", namespace)
    if named != namespace:
        message = f"names the namespace {named!r:.80}: what is said in {namespace} holds in {namespace} alone"
        return Reading((), tuple(_told([document.problem(("metadata", "namespace"), message)])))
    value = {**document.value, "metadata": {**metadata, "namespace": namespace}}
    return _reading(Document(value, document.source, document.lines))


def _reading(document: Document) -> Reading:
    """One resource: none where it is of a kind that no sidecar follows; a fault where it cannot be read."""
    resources = ResourceSet.of([document])
    if resources.errors:
        return Reading((), tuple(_told(resources.errors)))
    kind = document.value.get("kind")
    # An EnvoyFilter that is no limit of ours patches Envoy; none of it is for us.
    if kind not in FOLLOWED or resources.foreign or (kind == "EnvoyFilter" and not resources.local_rate_limits):
        return Reading()
    metadata = document.value["metadata"]
    namespace = metadata.get("namespace", DEFAULT_NAMESPACE)
    value = {
        "apiVersion": document.value["apiVersion"],
        "kind": kind,
        "metadata": _kept(metadata),
        "spec": document.value.get("spec") or {},
    }
    try:
        line = json_line(value)
        fault = _fault_of(line, document)
    except ValueError:
        line, fault = "", f"{document.source}: {document.resource}: has a character or a number that JSON cannot write"
    if fault:
        return Reading((), (fault,))
    return Reading((Policy(namespace, kind, metadata["name"], line, _nodes(value)),))


def _fault_of(line: str, document: Document) -> str:
    """Why a sidecar would not read the line; "" where it does."""
    documents, problems = read_documents(line.encode(), document.source)
    problems += ResourceSet.of(documents).errors
    return _told(problems)[0] if problems else ""


def _kept(metadata: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: metadata[name] for name in ("name", "namespace", "creationTimestamp") if name in metadata}
    annotations = metadata.get("annotations") or {}
    if said := {key: text for key, text in annotations.items() if key.startswith(_ANNOTATIONS)}:
        kept["annotations"] = said
    return kept


def _told(problems: Iterable[Problem]) -> list[str]:
    return [" ".join(str(problem).split())[:_LONGEST_FAULT] for problem in problems][:_MOST_FAULTS]


def json_line(value: Any) -> str:
    """One line of JSON that YAML reads as the same value. Raises ValueError for what neither can write."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text.encode()  # a lone surrogate is no character
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _nodes(value: Any) -> int:
    if isinstance(value, Mapping):
        return 1 + sum(1 + _nodes(item) for item in value.values())
    return 1 + sum(map(_nodes, value)) if isinstance(value, list) else 1


# -- what one namespace says -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """The policies of one namespace, in the order in which they are published."""

    policies: tuple[Policy, ...] = ()

    @property
    def lines(self) -> Iterator[str]:
        """Each as JSON."""
        return (policy.line for policy in self.policies)

    @property
    def names_services(self) -> bool:
        """Whether sidecars have to know which Services they stand behind."""
        return any(policy.kind == "DestinationRule" for policy in self.policies)


def part_of(readings: Iterable[Reading]) -> tuple[Part, tuple[str, ...]]:
    """What the objects of one namespace say together, and what is wrong: then the part is not to be used."""
    faults: list[str] = []
    found: dict[tuple[str, str], Policy] = {}
    for reading in readings:
        faults += reading.faults
        for policy in reading.policies:
            if (policy.kind, policy.name) in found:
                faults.append(f"{policy} is given twice; leave one of them out")
            found[policy.kind, policy.name] = policy
    policies = tuple(sorted(found.values()))
    faults += _too_large(policies)
    return Part(policies), tuple(sorted(faults)[:_MOST_FAULTS])


def _too_large(policies: tuple[Policy, ...]) -> list[str]:
    # Half of what a reader takes: the root namespace's come on top.
    if len(policies) > MAX_POLICIES // 2 or sum(policy.nodes for policy in policies) > MAX_NODES // 2:
        return [f"there are more policies ({len(policies)}) than a sidecar reads"]
    return []


def service_line(namespace: str, name: str, selector: Mapping[str, str], ports: Iterable[Mapping[str, Any]]) -> str:
    """A Service: a DestinationRule names one, and its sidecars have to know that they stand behind it."""
    spec = {"selector": dict(selector), "ports": list(ports)}
    return json_line(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    )


def policies_text(lines: Iterable[str]) -> str:
    """The document."""
    return _HEAD + ",\n".join(lines) + _TAIL


def own_lines(text: str, namespace: str) -> tuple[str, ...] | None:
    """The lines of a published document that may be of `namespace`; None where it is no such document."""
    if not (text.startswith(_HEAD) and text.endswith(_TAIL)):
        return None
    mine = f'"namespace":{json.dumps(namespace)}'
    return tuple(line for line in text.removeprefix(_HEAD).removesuffix(_TAIL).split(",\n") if mine in line)


def recovered_part(lines: Iterable[str], namespace: str) -> Part | None:
    """What was published of `namespace`, for a program that has only just started; None where somebody has changed it
    into something that is none.
    """
    policies: list[Policy] = []
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None
        reading = _reading(Document(value, "what was published", {})) if isinstance(value, dict) else _NOTHING
        if reading.faults:
            return None
        policies += [policy for policy in reading.policies if policy.namespace == namespace]
    part, faults = part_of([Reading(tuple(policies))])
    return None if faults else part


_NOTHING: Final = Reading()
