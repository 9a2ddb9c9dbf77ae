"""DestinationRule: how sidecars dial a host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.building import checks
from mesh.building.client_tls import ClientTls, mesh_tls
from mesh.building.metadata import NETWORKING, PROFILE_ANNOTATION, PROFILES, resource
from mesh.building.parts import part
from mesh.building.traffic_policy import ConnectionPool, LoadBalancer, OutlierDetection, TrafficPolicy


def destination_rule(
    name: str,
    namespace: str,
    host: str,
    *,
    tls_mode: str | None = None,
    tls: ClientTls | None = None,
    profile: str | None = None,
    connection_pool: ConnectionPool | None = None,
    outlier_detection: OutlierDetection | None = None,
    load_balancer: LoadBalancer | None = None,
    ports: Mapping[int, TrafficPolicy] | None = None,
    subsets: Mapping[str, Mapping[str, str]] | None = None,
    subset_policies: Mapping[str, TrafficPolicy] | None = None,
    export_to: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a DestinationRule for `host`: a Service's name, its full name, or one that begins with a wildcard.

    `tls_mode` is ISTIO_MUTUAL or DISABLE; without one the mesh decides by what the server accepts. `tls`, in its place,
    is for a server outside of the mesh. `profile` is the crypto profile in which our sidecars dial the host: an
    annotation, because Istio has no field for it. `connection_pool`, `outlier_detection` and `load_balancer` are the
    classes of mesh.building.traffic_policy. `ports` maps ports of the Service to policies of their own, which take the
    place of everything that is said for the host (a port with a policy that says nothing of TLS has none of the
    host's). `subsets` maps names to the labels of their pods, `subset_policies` some of these names to what holds for
    the subset instead, where it says something. `export_to` says to which namespaces the rule is visible: their names,
    "." for its own, or "*" alone.
    """
    if tls is not None and tls_mode is not None:
        raise ValueError("tls: tls_mode is given too, which is for a host of the mesh; give one")
    if tls_mode is not None:
        mesh_tls("tls_mode", tls_mode)
    if tls is not None and not isinstance(tls, ClientTls):
        raise checks.refused("tls", tls, "a ClientTls")
    spec: dict[str, Any] = {"host": checks.host("host", host)}
    policy = TrafficPolicy(
        tls=tls_mode if tls is None else tls,
        connection_pool=connection_pool,
        outlier_detection=outlier_detection,
        load_balancer=load_balancer,
    ).as_dict()
    if ports is not None:
        policy["portLevelSettings"] = _of_ports(ports)
    if policy:
        spec["trafficPolicy"] = policy
    if subsets is not None:
        spec["subsets"] = _subsets("subsets", subsets)
    if subset_policies is not None:
        _add_policies(spec.get("subsets", []), subset_policies)
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


def _of_ports(ports: object) -> list[dict[str, Any]]:
    if not isinstance(ports, Mapping) or not ports:
        raise checks.refused("ports", ports, "a dict from ports of the Service to TrafficPolicy")
    return [
        {"port": {"number": checks.port("ports", number)}, **_saying(f"ports[{number}]", policy)}
        for number, policy in ports.items()
    ]


def _saying(argument: str, policy: object) -> dict[str, Any]:
    """A policy that says something: Istio refuses others."""
    if not (said := part(argument, policy, TrafficPolicy)):
        raise ValueError(
            f"{argument}: says nothing; give one of tls, connection_pool, outlier_detection, load_balancer"
        )
    return said


def _add_policies(subsets: list[dict[str, Any]], policies: object) -> None:
    if not isinstance(policies, Mapping) or not policies:
        raise checks.refused("subset_policies", policies, "a dict from names of subsets to TrafficPolicy")
    by_name = {subset["name"]: subset for subset in subsets}
    for name, policy in policies.items():
        checks.choice("subset_policies", name, by_name)
        by_name[name]["trafficPolicy"] = _saying(f"subset_policies[{name!r}]", policy)


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
