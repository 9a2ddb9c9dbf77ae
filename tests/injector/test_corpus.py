"""Pods by strangers: what must hold for every template in the folder that QBITEL_CORPUS names.

With KUBECONFIG and kubectl the API server of that cluster judges them too, without making anything.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from injector import workloads
from injector.config import native_sidecars_in
from injector.manifest import change_manifest
from mesh.documents import Document, read_documents
from mesh.errors import UserError
from tests.injector.rig import CLASSIC, injected_resource, injector, resource_without
from tests.support.kubernetes_schema import problems_of

# Demos of Kubernetes and of Istio, as their projects publish them.
FOLDERS: Final = ("microservices-demo", "istio-samples", "kubernetes-examples")
OURS: Final = ("qbitel", "kubectl.kubernetes.io/default-container", "prometheus.io/")


def files() -> list[Path]:
    corpus = os.environ.get("QBITEL_CORPUS")
    if corpus is None:
        return []
    return sorted(
        path
        for folder in FOLDERS
        for path in Path(corpus, folder).rglob("*")
        if path.suffix in (".yaml", ".yml", ".json")
    )


FILES: Final = files()
pytestmark = pytest.mark.skipif(not FILES, reason="QBITEL_CORPUS names no folder of samples")


@dataclasses.dataclass(frozen=True)
class Sample:
    path: Path
    before: bytes
    after: bytes
    rewritten: tuple[str, ...]


@pytest.fixture(scope="module", params=[{}, CLASSIC], ids=["native", "classic"])
def samples(request: pytest.FixtureRequest) -> tuple[list[Sample], dict[Path, str]]:
    """Every file that holds pods with what became of it, and those that cannot be read with what was said."""
    one, unreadable, found = injector(**request.param), {}, []
    for path in FILES:
        text = path.read_bytes()
        try:
            changed = change_manifest(text, path.name, lambda document: injected_resource(document, one))
        except UserError as error:
            unreadable[path] = str(error)
            continue
        found.append(Sample(path, text, changed.text, changed.rewritten))
    return found, unreadable


def documents(text: bytes) -> tuple[Document, ...]:
    read, problems = read_documents(text, "")
    assert problems == ()
    return read


def pods(text: bytes) -> Iterator[dict[str, Any]]:
    for document in documents(text):
        path = workloads.path_of_pod(document.value)
        if path is not None:
            yield workloads.pod_of(document.value, path)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every scalar with its path, containers and volumes by their names."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            named = isinstance(item, dict) and path[-1:] in (("containers",), ("initContainers",), ("volumes",))
            name = item.get("name") if named else None
            yield from leaves(item, (*path, name if isinstance(name, str) else str(index)))
    else:
        yield path, json.dumps(value)


def test_the_corpus_is_as_large_as_it_was(samples: Any) -> None:
    found, unreadable = samples

    assert sum(len(list(pods(sample.before))) for sample in found) >= 200
    assert sum(sample.before != sample.after for sample in found) >= 150
    assert all(path.name in said and "\n" not in said for path, said in unreadable.items())


def test_no_file_loses_its_comments(samples: Any) -> None:
    assert [str(sample.path) for sample in samples[0] if sample.rewritten] == []


def test_taking_the_sidecar_out_gives_back_every_byte(samples: Any) -> None:
    assert [
        str(sample.path)
        for sample in samples[0]
        if change_manifest(sample.after, "", resource_without).text != sample.before
    ] == []


def test_injecting_twice_is_injecting_once(samples: Any) -> None:
    one = injector()

    for sample in samples[0]:
        again = change_manifest(sample.after, "", lambda document: injected_resource(document, one))
        assert again.text == sample.after, sample.path


def test_every_field_that_is_not_ours_is_unchanged(samples: Any) -> None:
    for sample in samples[0]:
        for before, after in zip(pods(sample.before), pods(sample.after), strict=True):
            there = dict(leaves(after))
            changed = {path: value for path, value in leaves(before) if there.get(path) != value}
            assert [path for path in changed if not is_handler(path)] == [], sample.path
            come = [path for path in there if path not in dict(leaves(before))]
            assert [path for path in come if not (is_handler(path) or is_ours(path))] == [], sample.path


def is_handler(path: tuple[str, ...]) -> bool:
    """Within a probe or a hook over the network."""
    return bool({"livenessProbe", "readinessProbe", "startupProbe", "lifecycle"} & set(path)) and bool(
        {"httpGet", "tcpSocket", "grpc"} & set(path)
    )


def is_ours(path: tuple[str, ...]) -> bool:
    return any(part.startswith(OURS) for part in path)


def test_kubernetes_schema_finds_nothing_that_was_not_there_before(samples: Any) -> None:
    for sample in samples[0]:
        for before, after in zip(documents(sample.before), documents(sample.after), strict=True):
            assert kinds_of(problems_of(after.value)) <= kinds_of(problems_of(before.value)), sample.path


def kinds_of(problems: list[str]) -> set[str]:
    """Problems without the place in a list, which ours move."""
    return {problem.partition(": ")[2] + problem.partition(": ")[0].rpartition(".")[2] for problem in problems}


CREATABLE: Final = (
    "Pod",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "ReplicationController",
    "Job",
    "CronJob",
)


def dry_run(resources: list[dict[str, Any]]) -> dict[str, str]:
    """What the API server says of each, by its name: "" where it takes it."""
    said = {}
    for resource in resources:
        done = subprocess.run(
            # Unknown fields pass: a cluster older than 1.29 does not know native sidecars.
            ["kubectl", "create", "--dry-run=server", "--validate=false", "--namespace=default", "-f", "-"],
            input=json.dumps(resource).encode(),
            capture_output=True,
            check=False,
            timeout=60,
        )
        said[resource["metadata"]["name"]] = "" if done.returncode == 0 else done.stderr.decode()
    return said


def knows_native_sidecars() -> bool:
    done = subprocess.run(["kubectl", "version", "-o", "json"], capture_output=True, check=True, timeout=60)
    version = json.loads(done.stdout)["serverVersion"]
    # Some builds say nothing; managed clusters say "29+".
    major, minor = version["major"], version["minor"].removesuffix("+")
    return major.isdigit() and minor.isdigit() and native_sidecars_in(f"{major}.{minor}")


def renamed(text: bytes, place: int) -> list[dict[str, Any]]:
    """The resources with pods of a file, in the namespace that is always there, under names of their own."""
    found = []
    for index, document in enumerate(documents(text)):
        value = document.value
        if value.get("kind") in CREATABLE and workloads.path_of_pod(value) is not None:
            found.append(
                {**value, "metadata": {**value["metadata"], "name": f"qbitel-{place}-{index}", "namespace": "default"}}
            )
            found[-1]["metadata"].pop("generateName", None)
            found[-1].pop("status", None)
    return found


@pytest.mark.skipif(
    "KUBECONFIG" not in os.environ or shutil.which("kubectl") is None,
    reason="KUBECONFIG names no cluster, or no kubectl",
)
@pytest.mark.skipif(
    "QBITEL_CORPUS_DRY_RUN" not in os.environ, reason="takes minutes: QBITEL_CORPUS_DRY_RUN=1 asks for it"
)
def test_a_real_api_server_takes_every_pod_that_it_took_before(samples: Any, request: pytest.FixtureRequest) -> None:
    if "native" in request.node.callspec.id and not knows_native_sidecars():
        pytest.skip("the cluster is older than 1.29, or does not say; it refuses native sidecars")
    judged = 0
    for place, sample in enumerate(samples[0]):
        if sample.before == sample.after:
            continue
        taken = [name for name, said in dry_run(renamed(sample.before, place)).items() if not said]
        after = dry_run([one for one in renamed(sample.after, place) if one["metadata"]["name"] in taken])
        assert {name: said for name, said in after.items() if said} == {}, sample.path
        judged += len(taken)
    print(f"the API server took {judged} resources, before and after")
    assert judged >= 50
