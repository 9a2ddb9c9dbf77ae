"""Kubernetes' own schema as the judge of what we write: the OpenAPI models that kubernetes_asyncio was generated from.

Its version names the release: 36.x is Kubernetes 1.36. Stricter than the API server in one thing that matters here:
a field that the schema does not have is a fault, as it is with `kubectl apply --validate=strict`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kubernetes_asyncio.client import Configuration, models

_SETTINGS: Final = Configuration()
_LIST: Final = re.compile(r"list\[(.*)\]\Z")
_DICT: Final = re.compile(r"dict[(\[]str, (.*)[)\]]\Z")
_PLAIN: Final[dict[str, tuple[type, ...]]] = {
    "str": (str, int, float),  # a quantity may be a number
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "datetime": (str,),
    "object": (object,),
}
_KINDS: Final = {
    ("v1", "Pod"): "V1Pod",
    ("v1", "PodTemplate"): "V1PodTemplate",
    ("v1", "ReplicationController"): "V1ReplicationController",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("apps/v1", "DaemonSet"): "V1DaemonSet",
    ("apps/v1", "ReplicaSet"): "V1ReplicaSet",
    ("apps/v1", "StatefulSet"): "V1StatefulSet",
    ("batch/v1", "Job"): "V1Job",
    ("batch/v1", "CronJob"): "V1CronJob",
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"): "V1MutatingWebhookConfiguration",
    ("v1", "Namespace"): "V1Namespace",
    ("v1", "Service"): "V1Service",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("v1", "ResourceQuota"): "V1ResourceQuota",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
    ("rbac.authorization.k8s.io/v1", "Role"): "V1Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "V1RoleBinding",
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): "V1ClusterRole",
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): "V1ClusterRoleBinding",
}


def is_judged(resource: Mapping[str, Any]) -> bool:
    """Whether `problems_of` knows the kind of `resource`."""
    return (str(resource.get("apiVersion")), str(resource.get("kind"))) in _KINDS


def problems_of(resource: Mapping[str, Any]) -> list[str]:
    """What the schema has against `resource`; nothing where its kind is none that is judged here."""
    model = _KINDS.get((str(resource.get("apiVersion")), str(resource.get("kind"))))
    return [] if model is None else list(_problems(resource, model, ""))


def pod_problems(pod: Mapping[str, Any]) -> list[str]:
    """The same for a pod, or for the template of one."""
    return list(_problems(pod, "V1Pod", ""))


def _problems(value: Any, kind: str, path: str) -> Iterator[str]:
    if value is None:
        return
    if match := _LIST.match(kind):
        if not isinstance(value, list):
            yield f"{path}: no list"
            return
        for index, item in enumerate(value):
            yield from _problems(item, match[1], f"{path}[{index}]")
    elif match := _DICT.match(kind):
        if not isinstance(value, dict):
            yield f"{path}: no map"
            return
        for key, item in value.items():
            yield from _problems(item, match[1], f"{path}.{key}")
    elif kind in _PLAIN:
        if not isinstance(value, _PLAIN[kind]) or (isinstance(value, bool) and kind not in ("bool", "object")):
            yield f"{path}: {value!r} is no {kind}"
    else:
        yield from _problems_of_model(value, getattr(models, kind), path)


def _problems_of_model(value: Any, model: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: no object"
        return
    names = {json_name: name for name, json_name in model.attribute_map.items()}
    for key, item in value.items():
        if key not in names:
            yield f"{path}.{key}: no field of {model.__name__}"
        else:
            yield from _problems(item, model.openapi_types[names[key]], f"{path}.{key}")
    try:
        model(**{names[key]: item for key, item in value.items() if key in names}, local_vars_configuration=_SETTINGS)
    except ValueError as error:  # a field that is required, or a value that is none of an enumeration
        yield f"{path}: {error}"
