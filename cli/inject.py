"""`qbitel inject`: manifests in, the same manifests with sidecars out, or what would happen to them and why."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from cli.arguments import Parser
from cli.injection import add_installation, injector_of
from injector import explain, workloads
from injector.decide import Namespace
from injector.inject import Injector
from injector.manifest import Changed, change_manifest
from injector.refusal import PodRefused
from mesh.documents import Document
from mesh.errors import UserError

EXIT_REFUSED: Final = 1  # --explain: a pod would be refused
STANDARD_INPUT: Final = "-"
# Kubernetes' own, where a manifest names none.
_NAMESPACE: Final = "default"


def main(arguments: Sequence[str]) -> int:
    """Run `qbitel inject` with `arguments`; return its exit code. Raises UserError."""
    options = _parser().parse_args(arguments)
    injector = injector_of(options)
    label = None if options.namespace_label == "none" else options.namespace_label
    command = _Inject(injector, options.namespace, label)
    if options.explain:
        return command.explain(options.file)
    return change_files(options.file, command.change, "qbitel inject")


def _parser() -> Parser:
    parser = Parser(
        prog="qbitel inject",
        description="Put the sidecar into the pods of manifests (YAML or JSON): Pods, Deployments, StatefulSets, "
        "DaemonSets, ReplicaSets, Jobs, CronJobs, Lists of them, several documents in a file. Everything else keeps "
        "its bytes. What labels and annotations of a pod say holds, as with the webhook.",
        epilog="exit codes: 0 done; 1 --explain found a pod that is refused; 2 an error, with one line that says what "
        "to do; nothing is written then",
    )
    add_files(parser)
    parser.add_argument(
        "--explain", action="store_true", help="say what would happen to each pod and why, and write no manifest"
    )
    parser.add_argument("--namespace", metavar="NS", default=_NAMESPACE, help="of what names none itself (%(default)s)")
    parser.add_argument(
        "--namespace-label",
        choices=("enabled", "disabled", "none"),
        default="enabled",
        help="the injection label of the namespaces (%(default)s: pods get a sidecar unless they say no)",
    )
    add_installation(parser)
    return parser


def add_files(parser: Parser) -> None:
    """The flag that inject and uninject share."""
    parser.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        action="append",
        required=True,
        help="a manifest, - for standard input; repeatable",
    )


class _Inject:
    def __init__(self, injector: Injector, namespace: str, label: str | None) -> None:
        self._injector = injector
        self._namespace = namespace
        self._label = label

    def change(self, document: Document) -> Any:
        """The resource with a sidecar in its pods."""
        resource = document.value
        path = workloads.path_of_pod(resource)
        if path is None:
            return resource
        try:
            outcome = self._injector.inject(
                workloads.pod_of(resource, path), self._of(resource), _workload(resource, path)
            )
        except PodRefused as error:
            raise UserError(f"{document.source}:{document.line()}: {workloads.name_of(resource)}: {error}") from None
        for warning in outcome.warnings:
            print(f"qbitel inject: {workloads.name_of(resource)}: {warning}", file=sys.stderr)
        return workloads.with_pod(dict(resource), path, outcome.pod) if outcome.decision.inject else resource

    def explain(self, files: Sequence[str]) -> int:
        """Say it for every pod."""
        refused = False

        def look(document: Document) -> Any:
            nonlocal refused
            resource = document.value
            path = workloads.path_of_pod(resource)
            if path is None:
                return resource
            name, pod = workloads.name_of(resource), workloads.pod_of(resource, path)
            try:
                lines = explain.explain(
                    name, pod, self._injector.inject(pod, self._of(resource), _workload(resource, path))
                )
            except PodRefused as error:
                refused = True
                lines = explain.refused(name, str(error))
            print("\n".join(lines))
            return resource

        for file in files:
            change_manifest(read_file(file), shown_name(file), look)
        return EXIT_REFUSED if refused else 0

    def _of(self, resource: Any) -> Namespace:
        metadata = resource.get("metadata")
        name = metadata.get("namespace") if isinstance(metadata, dict) else None
        return Namespace(name if isinstance(name, str) else self._namespace, self._label)


def _workload(resource: Any, path: tuple[str, ...]) -> str:
    return workloads.name_of(resource).partition("/")[2] if path else ""


def change_files(files: Sequence[str], change: Callable[[Document], Any], command: str) -> int:
    """Write all `files` with their resources changed to standard output, as one text, once all of them are done."""
    texts = []
    for file in files:
        changed: Changed = change_manifest(read_file(file), shown_name(file), change)
        for resource in changed.rewritten:
            print(
                f"{command}: {shown_name(file)}: {resource} is written anew, without its comments: anchors or merge "
                "keys leave no other way",
                file=sys.stderr,
            )
        texts.append(changed.text)
    sys.stdout.flush()
    for index, text in enumerate(texts):
        if index:
            sys.stdout.buffer.write((b"" if texts[index - 1].endswith(b"\n") else b"\n") + b"---\n")
        sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
    return 0


def read_file(name: str) -> bytes:
    """The bytes of a manifest. Raises UserError."""
    if name == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from None


def shown_name(name: str) -> str:
    """What a file is called in messages."""
    return "standard input" if name == STANDARD_INPUT else name
