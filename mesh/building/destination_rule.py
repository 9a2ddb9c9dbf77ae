"""DestinationRule: how sidecars dial a host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.building import checks
from mesh.building.metadata import NETWORKING, PROFILE_ANNOTATION, PROFILES, resource
from mesh.building.traffic_policy import ConnectionPool, LoadBalancer, OutlierDetection, traffic_policy


def destination_rule(
    name: str,
    namespace: str,
    host: str,
    *,
    tls_mode: str | None = None,
    profile: str | None = None,
    connection_pool: ConnectionPool | None = None,
    outlier_detection: OutlierDetection | None = None,
    load_balancer: LoadBalancer | None = None,
    subsets: Mapping[str, Mapping[str, str]] | None = None,
    export_to: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a DestinationRule for `host`: a Service's name, its full name, or one that begins with a wildcard.

    `tls_mode` is ISTIO_MUTUAL or DISABLE; without one the mesh decides by what the server accepts. `profile` is the
    crypto profile in which our sidecars dial the host: an annotation, because Istio has no field for it.
    `connection_pool`, `outlier_detection` and `load_balancer` are the classes of mesh.building.traffic_policy.
    `subsets` maps names to the labels of their pods. `export_to` says to which
    namespaces the rule is visible: their names, "." for its own, or "*" alone.
    """
    spec: dict[str, Any] = {"host": checks.host("host", host)}
    policy = traffic_policy(
        tls_mode=tls_mode,
        connection_pool=connection_pool,
        outlier_detection=outlier_detection,
        load_balancer=load_balancer,
    )
    if policy:
        spec["trafficPolicy"] = policy
    if subsets is not None:
        spec["subsets"] = _subsets("subsets", subsets)
    if export_to is not None:
        spec["exportTo"] = visibility("export_to", export_to, namespace)
    if profile is not None:
        annotations = {**(annotations or {}), PROFILE_ANNOTATION: checks.choice("profile", profile, PROFILES)}
    return resource(NETWORKING, "DestinationRule", name, namespace, spec, labels=labels, annotations=annotations)


def _subsets(argument: str, subsets: object) -> list[dict[str, Any]]:
    if not isinstance(subsets, Mapping) or not subsets:
        raise checks.refused(argument, subsets, "a dict from names to labels, as in {'v1': {'version': 'v1'}}")
    return [
        {
            "name": checks.label_name(argument, name),
            "labels": dict(sorted(checks.label_set(f"{argument}[{name!r}]", labels, fewest=1).items())),
        }
        for name, labels in subsets.items()
    ]


def visibility(argument: str, export_to: object, namespace: str, *, nobody: bool = False) -> list[str]:
    """Check an exportTo: "*" alone, or "." and names of namespaces, each once; with `nobody`, also "~" alone."""
    alone = {"*", "~"} if nobody else {"*"}
    entries = checks.several(argument, export_to, checks.text, fewest=1)
    for index, entry in enumerate(entries):
        if entry in alone and len(entries) > 1:
            raise ValueError(f"{argument}: {entry!r} stands alone, because it says everything about who sees it")
        if entry not in alone and entry != ".":
            checks.label_name(f"{argument}[{index}]", entry)
    if "." in entries and namespace in entries:
        raise ValueError(f"{argument}: '.' and {namespace!r} are the same namespace; give it once")
    return entries
