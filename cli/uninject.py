"""`qbitel uninject`: manifests with our sidecar in, the manifests as they were out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cli.arguments import Parser
from cli.inject import add_files, change_files
from injector import workloads
from injector.refusal import PodRefused
from injector.remove import remove
from mesh.documents import Document
from mesh.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Run `qbitel uninject` with `arguments`; return its exit code. Raises UserError."""
    parser = Parser(
        prog="qbitel uninject",
        description="Take the sidecar out of the pods of manifests again: what `qbitel inject` or the webhook added "
        "goes, probes are as they were, everything else keeps its bytes.",
    )
    add_files(parser)
    return change_files(parser.parse_args(arguments).file, _without_sidecar, "qbitel uninject")


def _without_sidecar(document: Document) -> Any:
    resource = document.value
    path = workloads.path_of_pod(resource)
    if path is None:
        return resource
    pod = workloads.pod_of(resource, path)
    try:
        before = remove(pod)
    except PodRefused as error:
        raise UserError(f"{document.source}:{document.line()}: {workloads.name_of(resource)}: {error}") from None
    return resource if before is pod else workloads.with_pod(dict(resource), path, before)
