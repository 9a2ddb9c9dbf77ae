"""One pair of files for each behaviour: golden/<behaviour>.in.yaml and what `qbitel inject` makes of it.

A first line `# qbitel inject FLAGS` in the input gives flags. Outputs begin with the warnings, or are the refusal.
QBITEL_UPDATE_GOLDEN=1 writes them anew.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Final

import pytest

from cli import inject as command
from cli.injection import injector_of
from injector.decide import Namespace
from injector.manifest import change_manifest
from injector.refusal import PodRefused
from mesh.documents import Document, read_documents
from tests.injector.rig import VERSION, resource_without, short_script
from tests.support.kubernetes_schema import problems_of

FOLDER: Final = Path(__file__).parent / "golden"
BEHAVIOURS: Final = sorted(path.name.removesuffix(".in.yaml") for path in FOLDER.glob("*.in.yaml"))
FLAGS: Final = "# qbitel inject "


def outcome(text: bytes) -> tuple[str, bytes | None]:
    """What stands in front of the output, and the output; None where the pod is refused."""
    first = text.decode().partition("\n")[0]
    words = first.removeprefix(FLAGS).split() if first.startswith(FLAGS) else []
    options = command._parser().parse_args(["-f", "-", *words])
    injector = dataclasses.replace(injector_of(options), render_script=short_script, version=VERSION)
    label = None if options.namespace_label == "none" else options.namespace_label
    notes: list[str] = []

    def change(document: Document) -> object:
        path = command.workloads.path_of_pod(document.value)
        if path is None:
            return document.value
        given = command.workloads.pod_of(document.value, path)
        injected = injector.inject(given, Namespace(options.namespace, label), command._workload(document.value, path))
        notes.extend(f"# warning: {warning}\n" for warning in injected.warnings)
        if not injected.decision.inject:
            notes.append(f"# no sidecar: {injected.decision.reason}\n")
            return document.value
        return command.workloads.with_pod(dict(document.value), path, injected.pod)

    try:
        changed = change_manifest(text, "in.yaml", change)
    except PodRefused as error:
        return f"# refused: {error}\n", None
    notes += [f"# written anew: {resource}\n" for resource in changed.rewritten]
    return "".join(notes), changed.text


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_manifest_becomes_what_its_golden_file_says(behaviour: str) -> None:
    notes, text = outcome((FOLDER / f"{behaviour}.in.yaml").read_bytes())
    golden = FOLDER / f"{behaviour}.out.yaml"
    if "QBITEL_UPDATE_GOLDEN" in os.environ:
        golden.write_bytes(notes.encode() + (text or b""))

    assert notes.encode() + (text or b"") == golden.read_bytes()


def test_there_is_no_golden_output_without_its_input() -> None:
    assert sorted(path.name.removesuffix(".out.yaml") for path in FOLDER.glob("*.out.yaml")) == BEHAVIOURS


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_taking_the_sidecar_out_again_gives_the_very_bytes(behaviour: str) -> None:
    given = (FOLDER / f"{behaviour}.in.yaml").read_bytes()
    notes, text = outcome(given)
    if text is None:
        pytest.skip("the pod is refused")

    back = change_manifest(text, "out.yaml", resource_without)

    values = [document.value for document in read_documents(back.text, "")[0]]
    if (
        "# written anew" in notes
        or "already" in notes
        or behaviour.startswith(("annotations-that-are-null", "status-"))
    ):
        assert values
    else:
        assert back.text == given


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_injecting_twice_changes_nothing(behaviour: str) -> None:
    given = (FOLDER / f"{behaviour}.in.yaml").read_bytes()
    _, text = outcome(given)
    if text is None:
        pytest.skip("the pod is refused")
    first = given.decode().partition("\n")[0] + "\n"

    _, again = outcome(text if text.startswith(first.encode()) else first.encode() + text)

    assert again is not None
    assert again.removeprefix(first.encode()) == text.removeprefix(first.encode())


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_kubernetes_schema_takes_what_comes_out(behaviour: str) -> None:
    given = (FOLDER / f"{behaviour}.in.yaml").read_bytes()
    _, text = outcome(given)

    before = {problem for document in read_documents(given, "")[0] for problem in problems_of(document.value)}
    after = [problem for document in read_documents(text or b"", "")[0] for problem in problems_of(document.value)]

    assert [problem for problem in after if problem not in before] == []
