"""Whether a pod gets a sidecar, and by whose word. The order is that of docs/injection.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from injector import pods
from injector.config import InjectorConfig
from injector.refusal import PodRefused
from injector.status import is_injected
from mesh import names

_YES: Final = frozenset({"true", "enabled"})
_NO: Final = frozenset({"false", "disabled"})
# The kubelet's copy of a pod that it runs from a file: whatever is changed in it does not change the pod.
_MIRROR: Final = "kubernetes.io/config.mirror"


@dataclass(frozen=True, slots=True)
class Namespace:
    """What is known of a pod's namespace. `label` is the value of its injection label; None: it has none."""

    name: str
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the pod gets a sidecar, and why, in words for its author.

    `is_choice` is False where somebody may have expected otherwise: the pod cannot have one, whatever was said.
    """

    inject: bool
    reason: str
    is_choice: bool = True


def decide(pod: Mapping[str, Any], namespace: Namespace, config: InjectorConfig) -> Decision:
    """Decide for one pod. Raises PodRefused where its own word cannot be read."""
    if reason := _cannot(pod):
        return Decision(False, reason, is_choice=False)
    if config.is_ignored(namespace.name):
        why = ": this installation excludes it" if namespace.name in config.excluded_namespaces else ""
        return Decision(False, f"pods of the namespace {namespace.name} never get a sidecar{why}", is_choice=False)
    if is_injected(pod):
        return Decision(False, "it has our sidecar already")
    for kind, values in (("label", pods.labels_of(pod)), ("annotation", pods.annotations_of(pod))):
        if names.INJECT_KEY in values:
            text = values[names.INJECT_KEY]
            return Decision(_is_yes(kind, text), f"its {kind} {names.INJECT_KEY} is {text!r}")
    match namespace.label:
        case "enabled":
            return Decision(True, f"its namespace has the label {names.NAMESPACE_LABEL}=enabled")
        case "disabled":
            return Decision(False, f"its namespace has the label {names.NAMESPACE_LABEL}=disabled")
    return Decision(False, f"neither it nor its namespace asks for a sidecar ({names.NAMESPACE_LABEL}=enabled does)")


def _cannot(pod: Mapping[str, Any]) -> str | None:
    spec = pods.part(pod, "spec")
    if spec.get("hostNetwork") is True:
        return "it is in the host's network, where rules for it would be rules for the node"
    if pods.part(spec, "os").get("name") == "windows":
        return "it runs on Windows, which has no iptables"
    if _MIRROR in pods.annotations_of(pod):
        return "it is the copy of a static pod, which the kubelet runs from a file"
    return None


def _is_yes(kind: str, text: str) -> bool:
    word = text.strip().lower()
    if word in _YES or word in _NO:
        return word in _YES
    raise PodRefused(
        f'its {kind} {names.INJECT_KEY} is {text[:40]!r}, which is neither yes nor no; write "true" or "false"'
    )
