"""The ConfigMap `qbitel-mesh` of one namespace: as it should be, and as the API server has it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from control.discovery.members import Members
from control.discovery.peers_text import published_members
from control.discovery.policies import own_lines
from kube.objects import Object
from mesh.names import ANNOTATION_PREFIX, MESH_CONFIG_MAP, PEERS_KEY, POLICIES_KEY

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
OURS: Final = "qbitel"
# Why the documents are not the newest ones, for whoever looks at the ConfigMap.
PROBLEM_ANNOTATION: Final = f"{ANNOTATION_PREFIX}discovery-problem"
# What the data of a ConfigMap may come to (Kubernetes, "ConfigMaps": 1 MiB), less the names of its keys.
MAX_BYTES: Final = (1 << 20) - 1024
_LONGEST_PROBLEM: Final = 1_000
_KEYS: Final = (PEERS_KEY, POLICIES_KEY)


@dataclass(frozen=True, slots=True)
class Text:
    """A document, and one word for it, found out once."""

    content: str
    digest: str
    size: int  # bytes

    @classmethod
    def of(cls, content: str) -> Text:
        """As it will be written."""
        encoded = content.encode()
        return cls(content, hashlib.sha256(encoded).hexdigest(), len(encoded))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a namespace is to be given. A document that is None stays as it stands; where there is none, there is none.

    A pod that mounts the ConfigMap waits for both keys: it does not start without its policies.
    """

    policies: Text | None
    peers: Text | None
    problem: str = ""

    @property
    def goal(self) -> str:
        """One word for all of it."""
        return "/".join([*(text.digest if text else "" for text in (self.policies, self.peers)), self.problem])

    @property
    def size(self) -> int:
        """In bytes; a ConfigMap holds MAX_BYTES."""
        return sum(text.size for text in (self.policies, self.peers) if text)

    def created(self, namespace: str) -> Object:
        """A new ConfigMap."""
        metadata: dict[str, Any] = {"name": MESH_CONFIG_MAP, "namespace": namespace, "labels": {MANAGED_BY: OURS}}
        if self.problem:
            metadata["annotations"] = {PROBLEM_ANNOTATION: self.problem}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": self._data()}

    def change_of(self, present: Present) -> Object:
        """The merge that makes `present` this: others' labels and annotations are none of ours."""
        strays: dict[str, None] = dict.fromkeys(key for key in present.keys if key not in _KEYS)
        metadata = {"resourceVersion": present.version, "annotations": {PROBLEM_ANNOTATION: self.problem or None}}
        return {"metadata": metadata, "data": {**self._data(), **strays}, "binaryData": None}

    def _data(self) -> dict[str, str]:
        texts = {PEERS_KEY: self.peers, POLICIES_KEY: self.policies}
        return {key: text.content for key, text in texts.items() if text is not None}


@dataclass(frozen=True, slots=True)
class Present:
    """One as it stands, as far as we must know it.

    `peers` and `policies` are digests. `own` are the lines that it has of its own namespace's policies; None: it has no
    document of ours. `members` are what its peers document requires (of the control namespace's ConfigMap alone).
    """

    is_ours: bool
    version: str
    uid: str
    peers: str
    policies: str
    problem: str
    keys: tuple[str, ...]
    is_immutable: bool
    own: tuple[str, ...] | None
    members: Members

    def is_as(self, wanted: Wanted) -> bool:
        """Whether there is nothing to write."""
        return (
            (wanted.peers is None or self.peers == wanted.peers.digest)
            and (wanted.policies is None or self.policies == wanted.policies.digest)
            and self.problem == wanted.problem
            and all(key in _KEYS for key in self.keys)
        )


def present_of(config_map: Object, control_namespace: str) -> Present:
    """Read one."""
    metadata = config_map["metadata"]
    data: Mapping[str, str] = config_map.get("data") or {}
    peers, policies = data.get(PEERS_KEY), data.get(POLICIES_KEY)
    is_ours = (metadata.get("labels") or {}).get(MANAGED_BY) == OURS
    namespace = metadata["namespace"]
    return Present(
        is_ours=is_ours,
        version=metadata["resourceVersion"],
        uid=metadata["uid"],
        peers="" if peers is None else Text.of(peers).digest,
        policies="" if policies is None else Text.of(policies).digest,
        problem=(metadata.get("annotations") or {}).get(PROBLEM_ANNOTATION, ""),
        keys=(*data, *(config_map.get("binaryData") or {})),
        is_immutable=bool(config_map.get("immutable")),
        own=own_lines(policies, namespace) if is_ours and policies is not None else None,
        members=published_members(peers) if is_ours and peers and namespace == control_namespace else {},
    )


def problem_text(faults: tuple[str, ...]) -> str:
    """All that keeps a namespace from its newest documents, in one short text."""
    return " ".join("; ".join(faults).split())[:_LONGEST_PROBLEM]
