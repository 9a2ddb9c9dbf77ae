"""Istio's own schemas as judges of what we write: the CustomResourceDefinitions in `$QBITEL_CORPUS/istio-crds.yaml`.

A structural schema of Kubernetes is OpenAPI v3, which is JSON Schema but for `nullable`; the API server also refuses
(under strict validation) or drops fields that it does not name, which JSON Schema lets pass.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml


def schema_faults(resource: Mapping[str, Any]) -> list[str]:
    """What the API server would say of `resource`, its rules in CEL aside; the test is skipped without schemas."""
    validators = _validators(schema_file())
    assert validators, "the file holds no schema"
    key = (resource["apiVersion"], resource["kind"])
    if key not in validators:
        return [f"{key} is served by no CustomResourceDefinition"]
    return [f"{error.json_path}: {error.message}" for error in validators[key].iter_errors(dict(resource))]


def rule_faults(resource: Mapping[str, Any]) -> list[str]:
    """What the API server's rules in CEL (x-kubernetes-validations) say of `resource`; skipped without CEL."""
    cel = pytest.importorskip("cel", reason="common-expression-language comes with the extra evidence (make evidence)")
    schema = _schemas(schema_file())[resource["apiVersion"], resource["kind"]]
    return list(_broken_rules(cel, schema["properties"]["spec"], resource["spec"], "spec"))


def _broken_rules(cel: Any, schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        context = cel.Context()
        context.add_variable("self", value)
        # Of Kubernetes' own library, as far as Istio's rules for what we write use it.
        context.add_function("url", lambda text: text)
        context.add_function("getScheme", lambda text: text.partition(":")[0])
        if not cel.compile(rule["rule"]).execute(context):
            yield f"{path}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        for key, inner in value.items():
            its = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if isinstance(its, dict):
                yield from _broken_rules(cel, its, inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _broken_rules(cel, schema["items"], inner, f"{path}[{index}]")


def needs_schemas() -> None:
    """Skip the test where there are none."""
    schema_file()


def schema_file() -> Path:
    """The file of CustomResourceDefinitions; the test is skipped without it."""
    folder = os.environ.get("QBITEL_CORPUS", "")
    file = Path(folder, "istio-crds.yaml")
    if not folder or not file.is_file():
        pytest.skip("QBITEL_CORPUS names no folder with istio-crds.yaml, Istio's schemas")
    return file


@functools.cache
def _schemas(file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The schemas by apiVersion and kind, as they are."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return {
        (f"{spec['group']}/{version['name']}", spec["names"]["kind"]): version["schema"]["openAPIV3Schema"]
        for spec in (definition["spec"] for definition in yaml.load_all(file.read_bytes(), loader))
        for version in spec["versions"]
        if version["served"]
    }


@functools.cache
def _validators(file: Path) -> dict[tuple[str, str], Any]:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema comes with the extra dev")
    found = {}
    for name, whole in _schemas(file).items():
        schema = _strict(whole)
        # The API server's own, which a CRD's schema need not name.
        schema["properties"] |= {key: {"type": "string"} for key in ("apiVersion", "kind")}
        schema["properties"]["metadata"] = {"type": "object"}
        found[name] = jsonschema.Draft202012Validator(schema)
    return found


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema for JSON Schema, with fields that it does not name refused."""
    strict = dict(schema)
    if schema.get("nullable") and "type" in schema:
        strict["type"] = [schema["type"], "null"]
    if "properties" in schema:
        strict["properties"] = {key: _strict(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            strict["additionalProperties"] = False
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            strict[inner] = _strict(schema[inner])
    return strict
