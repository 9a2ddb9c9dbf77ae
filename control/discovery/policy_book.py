"""What each namespace says at this moment, and what it said when all of it could last be read.

A policy that is silently absent is worse than one that is late (ADR 19): while anything in a namespace cannot be read,
what was good there last holds, whole. Other namespaces go on.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from control.discovery.policies import Part, Reading, part_of, recovered_part
from kube.objects import Key, Object
from mesh.documents import Document
from mesh.resources import ResourceSet

NOTHING: Final = Part()
_DISABLE: Final = '"DISABLE"'


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of object: what there is of it, and how one is read."""

    name: str
    items: Mapping[Key, Object]
    read: Callable[[Object], Reading]


class PolicyBook:
    """Reads each object once; what has not changed is the very same value afterwards."""

    def __init__(self) -> None:
        self._readings: dict[tuple[str, Key], tuple[Object, Reading]] = {}
        self._parts: dict[str, tuple[Part, tuple[str, ...]]] = {}
        self._good: dict[str, Part] = {}

    async def update(self, sources: Iterable[Source]) -> None:
        """Read what is new. Gives others their turn in between: a document of a megabyte takes half a second."""
        readings: dict[tuple[str, Key], tuple[Object, Reading]] = {}
        for source in sources:
            for key, found in list(source.items.items()):
                known = self._readings.get((source.name, key))
                if known is None or not (known[0] is found or known[0] == found):
                    await asyncio.sleep(0)
                    known = (found, source.read(found))
                readings[source.name, key] = known
        self._readings = readings
        by_namespace: defaultdict[str, list[Reading]] = defaultdict(list)
        for (_, (namespace, _)), (_, reading) in readings.items():
            by_namespace[namespace].append(reading)
        parts: dict[str, tuple[Part, tuple[str, ...]]] = {}
        for namespace, its in by_namespace.items():
            part, faults = part_of(its)
            before = self._parts.get(namespace, (NOTHING, ()))[0]
            parts[namespace] = (before if part == before else part, faults)
        self._parts = parts

    def part(self, namespace: str, published: tuple[str, ...] | None) -> tuple[Part | None, tuple[str, ...]]:
        """What holds in `namespace`, and why it is not what it says now. None: nothing was ever good.

        `published` are its own lines in what was published last, for when that is not known here.
        """
        part, faults = self._parts.get(namespace, (NOTHING, ()))
        if not faults:
            self._good[namespace] = part
            return part, ()
        if namespace not in self._good and published is not None:
            recovered = recovered_part(published, namespace)
            if recovered is not None:
                self._good[namespace] = recovered
        return self._good.get(namespace), faults

    def keep_only(self, namespaces: set[str]) -> None:
        """Forget namespaces that are gone."""
        self._good = {name: part for name, part in self._good.items() if name in namespaces}

    def forget(self) -> None:
        """What was good here is old: somebody else has published since."""
        self._good.clear()


def disabling(own: Part, root: Part, root_namespace: str) -> ResourceSet | None:
    """The PeerAuthentications that hold in a namespace, where one of them sets DISABLE; else None."""
    lines = [policy.line for policy in {*own.policies, *root.policies} if policy.kind == "PeerAuthentication"]
    if not any(_DISABLE in line for line in lines):
        return None
    return ResourceSet.of(
        (Document(json.loads(line), "the cluster", {}) for line in sorted(lines)), root_namespace=root_namespace
    )
