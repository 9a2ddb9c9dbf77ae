"""What deploy/ installs, as objects: the manifests that are checked in, and the chart where Helm is at hand."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
CHART = DEPLOY / "chart"
CURRENT, CLASSIC = "qbitel.yaml", "qbitel-classic.yaml"
_HELM_SECONDS = 120  # rendering takes a fraction of one


def objects_of(text: str) -> list[Any]:
    return [each for each in yaml.safe_load_all(text) if each]


@functools.cache
def manifests(name: str = CURRENT) -> list[Any]:
    """The objects of a file that is checked in; nobody changes them."""
    return objects_of((DEPLOY / name).read_text())


def by_identity(objects: list[Any]) -> dict[tuple[str, str], Any]:
    """By kind and name; each is there once."""
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects)
    return found


def pods(objects: list[Any]) -> Iterator[tuple[str, Any]]:
    """The workloads' names and pod templates."""
    for each in objects:
        if each["kind"] in ("Deployment", "StatefulSet"):
            yield each["metadata"]["name"], each["spec"]["template"]


def containers(objects: list[Any]) -> Iterator[Any]:
    for _, template in pods(objects):
        yield from template["spec"].get("initContainers", ())
        yield from template["spec"]["containers"]


def arguments(objects: list[Any], name: str) -> list[str]:
    """What the container of this name is started with."""
    (found,) = [each for each in containers(objects) if each["name"] == name]
    given: list[str] = found["args"]
    return given


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Helm; the test is skipped where there is none."""
    program = os.environ.get("QBITEL_HELM") or shutil.which("helm")
    if not program:
        pytest.skip("helm is not here, and QBITEL_HELM does not name it")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=_HELM_SECONDS, check=False)


def rendered(*words: str, version: str = "1.33.0", namespace: str = "qbitel-system") -> list[Any]:
    """The chart's objects with these flags of Helm's."""
    outcome = helm("template", "qbitel", str(CHART), "--namespace", namespace, "--kube-version", version, *words)
    assert outcome.returncode == 0, outcome.stderr
    return objects_of(outcome.stdout)


def refused(*words: str) -> str:
    """What Helm says against these flags."""
    outcome = helm("template", "qbitel", str(CHART), "--namespace", "qbitel-system", *words)
    assert outcome.returncode != 0
    return outcome.stderr
