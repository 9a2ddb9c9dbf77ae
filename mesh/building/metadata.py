"""What every resource begins with: kind, name, namespace, labels and annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mesh import names
from mesh.building import checks

SECURITY: Final = "security.istio.io/v1"
NETWORKING: Final = "networking.istio.io/v1"
# EnvoyFilter has no later version.
NETWORKING_ALPHA: Final = "networking.istio.io/v1alpha3"

# Of our own domain, which Istio's analysis leaves alone: IST0108 is about annotations of istio.io.
PROFILE_ANNOTATION: Final = f"{names.ANNOTATION_PREFIX}profile"
# Which crypto profile a sidecar speaks. The room `pqtls` defines them; the two libraries know nothing of each other.
PROFILES: Final = ("qbitel", "hybrid-l5", "cnsa2", "compat")


def resource(
    api_version: str,
    kind: str,
    name: object,
    namespace: object,
    spec: dict[str, Any],
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the resource. `name` is an RFC 1123 subdomain and `namespace` a label; ValueError names what is not."""
    metadata: dict[str, Any] = {
        "name": checks.object_name("name", name),
        "namespace": checks.label_name("namespace", namespace),
    }
    if labels:
        metadata["labels"] = dict(sorted(checks.label_set("labels", labels).items()))
    if annotations:
        metadata["annotations"] = dict(sorted(checks.annotation_set("annotations", annotations).items()))
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def match_labels(argument: str, selector: object) -> dict[str, dict[str, str]]:
    """A selector by labels; an empty one is refused, because Istio takes it for every workload of the namespace."""
    return {"matchLabels": dict(sorted(checks.label_set(argument, selector, fewest=1).items()))}
