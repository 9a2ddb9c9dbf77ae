"""A mesh in good order as facts, made of real certificates, real injected pods and the shipped webhook; and spoilt."""

from __future__ import annotations

import base64
import copy
import datetime
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from certmgr.bundle import bundle_of
from certmgr.founding import new_state
from certmgr.webhook_certificate import issue, names_of, pem
from cli.checks.before import REVIEWS_SERVED, TOKENS_SERVED, WEBHOOKS_SERVED, rights_wanted
from cli.checks.facts import (
    Clock,
    ClusterFacts,
    DryRun,
    MeshMap,
    Policy,
    Published,
    Scrape,
    Serving,
    known,
)
from cli.checks.findings import Check, Finding, Status
from injector.decide import Namespace
from injector.webhook_configuration import IstioSidecarInjector
from mesh import names
from tests.injector.rig import injector

NOW = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
FOUNDED = NOW - datetime.timedelta(minutes=10)
SIGNED = NOW - datetime.timedelta(days=1)
HOME = names.CONTROL_NAMESPACE
IMAGE = "qbitel/quantum-sidecar:1"
Judge = Callable[[ClusterFacts], Finding]


def text(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def ago(**span: float) -> datetime.datetime:
    return NOW - datetime.timedelta(**span)


def namespace(name: str, annotations: dict[str, str] | None = None, **labels: str) -> dict[str, Any]:
    """Labels with '__' for '-', '_o_' for '.' and '_s_' for '/'."""
    said = {key.replace("__", "-").replace("_o_", ".").replace("_s_", "/"): value for key, value in labels.items()}
    return {"metadata": {"name": name, "labels": said, "annotations": annotations or {}}}


def node(name: str = "one", **info: str) -> dict[str, Any]:
    of_node = {
        "operatingSystem": "linux",
        "architecture": "amd64",
        "kernelVersion": "6.1.0-18",
        "kubeletVersion": "v1.31.2",
        **info,
    }
    conditions = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": name}, "status": {"nodeInfo": of_node, "conditions": conditions}}


def pod(name: str = "web-1", where: str = "shop", *, injected: bool = True, **spec: Any) -> dict[str, Any]:
    """A pod that runs well, with a sidecar as the injector gives it."""
    metadata = {
        "name": name,
        "namespace": where,
        "labels": {"app": "web"},
        "creationTimestamp": text(ago(hours=2)),
        **spec.pop("metadata", {}),
    }
    made: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"serviceAccountName": "web", "containers": [{"name": "web", "image": "example.org/web:1"}], **spec},
    }
    if injected:
        made = injector(sidecar=_sidecar()).inject(made, Namespace(where, "enabled")).pod
    running = {"ready": True, "restartCount": 0, "state": {"running": {}}}
    statuses = [{"name": "web", **running}]
    inits = []
    if injected:
        inits = [
            {"name": "qbitel-init", "ready": True, "state": {"terminated": {"exitCode": 0}}},
            {"name": "qbitel-proxy", **running},
        ]
    made["status"] = {"phase": "Running", "containerStatuses": statuses, "initContainerStatuses": inits}
    return made


def _sidecar() -> Any:
    from injector.config import SidecarConfig

    return SidecarConfig(image=IMAGE)


def sidecar_status(found: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """`found` with another status of its sidecar."""
    changed = copy.deepcopy(found)
    for one in changed["status"]["initContainerStatuses"]:
        if one["name"] == "qbitel-proxy":
            one.update(fields)
    return changed


def scrape(expiry: float = 40_000.0, **series: float) -> Scrape:
    """What a sidecar says that is well; `series` by the name without its prefix."""
    named = {
        "qbitel_cert_expiry_seconds": expiry,
        "qbitel_cert_last_success_timestamp_seconds": ago(minutes=5).timestamp(),
        "qbitel_authority_reachable": 1.0,
        **{f"qbitel_{name}": value for name, value in series.items()},
    }
    return Scrape({(name, ()): value for name, value in named.items()})


def workload(name: str, kind: str = "Deployment", image: str = "qbitel/control:1", **changes: Any) -> dict[str, Any]:
    args = ["injector", "serve", "--discovery", f"--image={IMAGE}"] if name == names.WEBHOOK_NAME else ["serve"]
    labels = {"app": name}
    return {
        "kind": kind,
        "metadata": {"name": name, "namespace": HOME},
        "spec": {
            "replicas": changes.get("replicas", 2),
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "one", "image": image, "args": args}]},
            },
        },
        "status": {"readyReplicas": changes.get("ready", 2), "updatedReplicas": changes.get("updated", 2)},
    }


def control_pod(name: str, on: str, **container: Any) -> dict[str, Any]:
    status = {"name": "one", "restartCount": 0, "ready": True, **container}
    return {
        "metadata": {"name": name, "namespace": HOME},
        "spec": {"nodeName": on},
        "status": {"containerStatuses": [status]},
    }


def lease(name: str, holder: str = "one", renewed: datetime.datetime | None = None) -> dict[str, Any]:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": text(renewed or ago(seconds=2))}
    return {"metadata": {"name": name, "namespace": HOME}, "spec": spec}


def budget(name: str, allowed: int = 1) -> dict[str, Any]:
    spec = {"selector": {"matchLabels": {"app": name}}}
    return {"metadata": {"name": name, "namespace": HOME}, "spec": spec, "status": {"disruptionsAllowed": allowed}}


def endpoints(name: str, *addresses: str) -> dict[str, Any]:
    subsets = [{"addresses": [{"ip": one} for one in addresses]}] if addresses else []
    return {"metadata": {"name": name, "namespace": HOME}, "subsets": subsets}


PROGRAMS = (names.AUTHORITY_SERVICE, names.WEBHOOK_NAME, names.DISCOVERY_SERVICE)


@functools.cache
def files(made: datetime.datetime = FOUNDED, subject: str = "CN=mesh") -> dict[str, str]:
    """What an authority publishes that was founded then."""
    state = new_state(subject, "cluster.local", made)
    return {name: content.decode() for name, content in bundle_of(state).files.items()}


@functools.cache
def serving(made: datetime.datetime = SIGNED, home: str = HOME) -> Serving:
    """A certificate of the webhook's that was made then, and its authority."""
    certificate = issue(names_of(names.WEBHOOK_NAME, home), made)
    return Serving(pem([certificate.certificate]), pem([certificate.authority]))


def webhook_configuration(authority: bytes | None = None) -> dict[str, Any]:
    made = IstioSidecarInjector().create_webhook_configuration(serving().authority if authority is None else authority)
    return copy.deepcopy(dict(made))


def bundle_text(authority: bytes) -> str:
    return base64.b64encode(authority).decode()


def good(**changes: Any) -> ClusterFacts:
    """A mesh in good order; `changes` are values of facts."""
    facts = ClusterFacts(
        now=NOW,
        version=known({"gitVersion": "v1.31.2"}),
        clock=known(Clock(NOW, NOW, NOW)),
        served=known(frozenset({TOKENS_SERVED, WEBHOOKS_SERVED, REVIEWS_SERVED})),
        nodes=known([node("one"), node("two")]),
        namespaces=known([namespace("default"), namespace(HOME), namespace("shop", qbitel__injection="enabled")]),
        webhooks=known([webhook_configuration()]),
        daemon_sets=known([{"metadata": {"name": "calico-node", "namespace": "kube-system"}}]),
        dns=known([{"metadata": {"name": "kube-dns", "namespace": "kube-system"}}]),
        rights=known(dict.fromkeys(rights_wanted(HOME), True)),
        workloads=known([workload(PROGRAMS[0], "StatefulSet"), workload(PROGRAMS[1]), workload(PROGRAMS[2])]),
        control_pods=known([control_pod(f"{one}-{on}", on) for one in PROGRAMS for on in ("one", "two")]),
        services=known([{"metadata": {"name": one, "namespace": HOME}} for one in PROGRAMS[:2]]),
        endpoints=known([endpoints(one, "10.0.0.1") for one in PROGRAMS[:2]]),
        budgets=known([budget(one) for one in PROGRAMS]),
        leases=known([lease(PROGRAMS[0]), lease(PROGRAMS[2])]),
        cluster_roles=known([]),
        cluster_bindings=known([]),
        roles=known([]),
        bindings=known([]),
        serving=known(serving()),
        inside=known(DryRun("shop", pod())),
        outside=known(DryRun("default", pod(where="default", injected=False))),
        bundles=known({"shop": Published(True, files())}),
        mesh_maps=known({"shop": MeshMap(True, ago(minutes=1), {names.POLICIES_KEY: "", names.PEERS_KEY: ""})}),
        policies=known([Policy("AuthorizationPolicy", "shop", "web", ago(hours=1))]),
        pods=known([pod()]),
        mesh_services=known([]),
        network_policies=known([]),
        scrapes=known({"shop/web-1": scrape()}),
    )
    return replace(facts, **{name: known(value) for name, value in changes.items()})


def found(checks: Sequence[Check[Any]], name: str, facts: Any) -> Finding:
    """What the check of that name finds."""
    (check,) = [one for one in checks if one.name == name]
    return check.run(facts)


def status(checks: Sequence[Check[Any]], name: str, **changes: Any) -> Status:
    """What it comes to in a mesh that is good but for `changes`."""
    return found(checks, name, good(**changes)).status


PASS, WARNING, FAILURE, SKIPPED = Status.PASS, Status.WARNING, Status.FAILURE, Status.SKIPPED
