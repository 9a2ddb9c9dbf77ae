"""Where `qbitel policy` finds policies: folders, files, standard input, a cluster."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.policy import words
from control.folder import Reading, read_path, read_text
from mesh import names
from mesh.documents import Document, Problem
from mesh.errors import UserError
from mesh.inventory import Inventory
from mesh.resource_changes import governs, identity
from mesh.resources import ResourceSet
from mesh.selectors import ROOT_NAMESPACE

STANDARD_INPUT: Final = "-"
_MOST_INPUT: Final = 16 << 20  # more than read_documents takes; it says so


@dataclass(frozen=True, slots=True)
class Policies:
    """What was found at some places."""

    documents: tuple[Document, ...]
    resources: ResourceSet
    inventory: Inventory
    problems: tuple[Problem, ...]  # all of them: of the texts, and of the resources
    sources: tuple[str, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What keeps a document or a resource out."""
        return tuple(one for one in self.problems if one.severity == "error")

    def complete(self) -> Policies:
        """These policies, or UserError where some could not be read: no answer would be that of a sidecar."""
        if self.errors:
            more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
            raise UserError(f"{self.errors[0]}{more}; a sidecar would not act on this set: see `qbitel policy check`")
        return self


def add_places(parser: argparse.ArgumentParser) -> None:
    """PATH… and what says how they are read."""
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="a folder of .yaml, .yml and .json files, a file, or - for standard input",
    )
    add_reading(parser)


def add_reading(parser: argparse.ArgumentParser) -> None:
    """What says how policies are read."""
    parser.add_argument("-r", "--recursive", action="store_true", help="look into folders within folders")
    parser.add_argument("--cluster", action="store_true", help="what is in force in a cluster")
    parser.add_argument(
        "--kubeconfig",
        metavar="FILE",
        help="that cluster (default: $KUBECONFIG, ~/.kube/config, or the one of this pod)",
    )
    parser.add_argument(
        "--root-namespace",
        type=words.namespace,
        default=ROOT_NAMESPACE,
        metavar="NAMESPACE",
        help="whose policies hold for the whole mesh (%(default)s)",
    )
    parser.add_argument(
        "--trust-domain",
        type=words.trust_domain,
        default=names.DEFAULT_TRUST_DOMAIN,
        metavar="NAME",
        help="of the mesh's identities (%(default)s)",
    )


def found(options: argparse.Namespace) -> Policies:
    """What stands at the places of the command line; UserError where none is given, or one cannot be looked into."""
    if not options.paths and not options.cluster:
        raise UserError("say where the policies are: a folder, a file, - or --cluster")
    reading = Reading()
    for path in options.paths:
        reading += at(path, options)
    if options.cluster:
        reading = applied(cluster(options), reading)
    return policies(reading, options)


def applied(there: Reading, mine: Reading) -> Reading:
    """What would be in force in a cluster if `mine` were applied: nothing is deleted by that."""
    replaced = {identity(document) for document in mine.documents}
    kept = tuple(document for document in there.documents if identity(document) not in replaced)
    return Reading(kept, there.problems, there.sources) + mine


def at(path: str, options: argparse.Namespace) -> Reading:
    """What stands at one place."""
    if path == STANDARD_INPUT:
        return read_text(sys.stdin.buffer.read(_MOST_INPUT), "standard input")
    return read_path(Path(path), recursive=options.recursive)


def cluster(options: argparse.Namespace) -> Reading:
    """What is in force in the cluster that the command line, or the environment, names."""
    try:
        from control.cluster import read_cluster, usual_kubeconfig  # noqa: PLC0415  # an extra brings what it needs
    except ImportError:
        raise UserError("a cluster wants the extra: pip install 'qbitel-mesh[kubernetes]'") from None
    return read_cluster(usual_kubeconfig(options.kubeconfig, os.environ), root_namespace=options.root_namespace)


def policies(reading: Reading, options: argparse.Namespace) -> Policies:
    """What was read, as resources."""
    resources = ResourceSet.of(reading.documents, root_namespace=options.root_namespace)
    return Policies(
        reading.documents,
        resources,
        Inventory.of(resources.foreign),
        (*reading.problems, *_of_ours(resources)),
        reading.sources,
    )


def _of_ours(resources: ResourceSet) -> Iterator[Problem]:
    """The problems of resources but for the notes that something which is no policy is left alone: that is known."""
    others = {(one.source, one.line(), one.resource) for one in resources.foreign if not governs(one)}
    for one in resources.problems:
        if one.severity != "note" or (one.source, one.line, one.resource) not in others:
            yield one
