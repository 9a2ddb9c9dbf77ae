"""What must be true of everything that a builder returns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import yaml

from mesh.documents import read_documents, to_yaml
from mesh.resources import ResourceSet
from tests.support.istio_schemas import schema_faults


def is_plain(value: object) -> bool:
    """Whether this is made of JSON's types alone, exactly: YAML's writers refuse even subclasses of them."""
    if type(value) is dict:
        return all(type(key) is str and is_plain(inner) for key, inner in value.items())
    if type(value) is list:
        return all(map(is_plain, value))
    return type(value) in {str, int, float, bool}


def containers(value: object) -> Iterable[object]:
    """Every dict and list within."""
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from containers(inner)


def assert_good(*resources: dict[str, Any]) -> None:
    """They are plain data, written without anchors, and say to our own reader what they say."""
    inner = [id(one) for resource in resources for one in containers(resource)]
    assert len(inner) == len(set(inner)), "a part stands in two places"
    for resource in resources:
        assert is_plain(resource)
        assert json.loads(json.dumps(resource, allow_nan=False)) == resource
        text = yaml.safe_dump(resource)
        assert yaml.safe_load(text) == resource
    text = to_yaml(resources)
    assert list(yaml.safe_load_all(text)) == list(resources)
    assert not re.search(r"[:-] [&*][A-Za-z0-9]+$", text, re.MULTILINE)
    documents, unreadable = read_documents(text.encode(), "built.yaml")
    assert [document.value for document in documents] == list(resources)
    read = ResourceSet.of(documents)
    assert read.foreign == (), "our reader does not know it"
    wrong = [str(problem) for problem in (*unreadable, *read.problems) if problem.severity == "error"]
    assert not wrong, wrong


def assert_valid(*resources: dict[str, Any]) -> None:
    """Istio's schemas take them; skipped where there are none."""
    for resource in resources:
        faults = schema_faults(resource)
        assert not faults, faults
