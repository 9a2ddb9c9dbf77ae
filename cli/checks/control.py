"""The control plane after its installation: its programs, their replicas, Services, Leases and versions."""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from cli.checks.facts import ClusterFacts, Object, Objects, moment, name_of
from cli.checks.findings import Check, Finding, Group, Unknown, failure, named, passed, several, warning
from injector import pods
from mesh import names

_WANTED_REPLICAS: Final = 2
# The seed of a container's third crash in a short time is a matter of seconds; a node's reboot gives one.
_MANY_RESTARTS: Final = 3
# A leader renews each two seconds; clocks of a cluster differ by less than this (the check `clock` looks at ours).
_LEASE_SLACK: Final = datetime.timedelta(seconds=60)
_SIDECAR_FLAG: Final = "--image"
_DISCOVERY_FLAG: Final = "--discovery"
INSTALL: Final = "kubectl apply -f deploy/qbitel.yaml"


def check_control_namespace(facts: ClusterFacts) -> Finding:
    """Whether there is an installation."""
    name = facts.control_namespace
    found = next((one for one in facts.namespaces.value if name_of(one) == name), None)
    if found is None:
        return failure(f"there is no namespace {name}", f"install: {INSTALL} (or name another by --control-namespace)")
    if pods.part(found, "metadata").get("deletionTimestamp"):
        return failure(f"the namespace {name} is being deleted", f"wait until it is gone, and install again: {INSTALL}")
    if pods.labels_of(found).get(names.NAMESPACE_LABEL) == "enabled":
        return warning(
            f"the namespace {name} has the injection label, which has no effect there",
            f"kubectl label namespace {name} {names.NAMESPACE_LABEL}-",
        )
    return passed(f"the namespace {name}")


def _ready(facts: ClusterFacts, kind: str, name: str, without: str) -> Finding:
    workload = find_workload(facts, name)
    _require_discovery(facts, name)
    where = f"-n {facts.control_namespace}"
    if workload is None:
        return failure(f"there is no {kind} {name}: {without}", f"install: {INSTALL}")
    wanted = pods.part(workload, "spec").get("replicas", 1)
    status = pods.part(workload, "status")
    ready, updated = _number(status.get("readyReplicas")), _number(status.get("updatedReplicas"))
    told = f"{ready} of {several(_number(wanted), 'replica')} ready"
    reasons = list(_why_not_ready(facts, name))
    if not ready:
        return failure(
            f"{told}: {without}",
            f"kubectl describe {kind.lower()}/{name} {where}; kubectl logs {kind.lower()}/{name} {where}",
            reasons,
        )
    if ready < _number(wanted):
        return warning(told, f"kubectl get pods {where}; it may be starting", reasons)
    if updated < _number(wanted):
        return warning(f"{told}, {updated} of them new", f"kubectl rollout status {kind.lower()}/{name} {where}")
    return passed(told)


def _require_discovery(facts: ClusterFacts, name: str) -> None:
    if name == names.DISCOVERY_SERVICE and find_workload(facts, names.WEBHOOK_NAME) and not has_discovery(facts):
        raise Unknown("the mesh is installed without the discovery program")


def _why_not_ready(facts: ClusterFacts, workload: str) -> Iterator[str]:
    try:
        found = facts.control_pods.value
    except Unknown:
        return
    for pod in found:
        if name_of(pod).startswith(f"{workload}-") and (reason := trouble_of(pod)):
            yield f"{name_of(pod)}: {reason}"


def trouble_of(pod: Object) -> str:
    """What keeps a pod's containers from running, in a word or two; "" where nothing is known to."""
    status = pods.part(pod, "status")
    for field in ("initContainerStatuses", "containerStatuses"):
        for container in pods.listed(status, field):
            waiting = pods.part(container, "state", "waiting")
            if waiting and waiting.get("reason") not in ("PodInitializing", "ContainerCreating"):
                message = str(waiting.get("message") or "")[:160]
                return f"{container.get('name')}: {waiting.get('reason')}{f': {message}' if message else ''}"
    for condition in pods.listed(status, "conditions"):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"not scheduled: {str(condition.get('message') or '')[:160]}"
    return ""


def check_replicas(facts: ClusterFacts) -> Finding:
    """Whether a program can be lost."""
    few = [
        f"{_path(one)}: {_number(replicas)}"
        for one in facts.workloads.value
        if name_of(one) in PROGRAMS
        if _number(replicas := pods.part(one, "spec").get("replicas", 1)) < _WANTED_REPLICAS
    ]
    if few:
        return warning(
            f"{several(len(few), 'program')} with fewer than {_WANTED_REPLICAS} replicas",
            f"kubectl scale --replicas={_WANTED_REPLICAS} -n {facts.control_namespace} …: while the only one is away, "
            "pods of the mesh cannot be created, or certificates not be renewed",
            few,
        )
    return passed(f"at least {_WANTED_REPLICAS} of each program")


def check_spread(facts: ClusterFacts) -> Finding:
    """Whether a node can be lost."""
    nodes: dict[str, list[str]] = {}
    for pod in facts.control_pods.value:
        if program := _program_of(pod):
            nodes.setdefault(program, []).append(str(pods.part(pod, "spec").get("nodeName")))
    together = [
        f"{program}: all on {on[0]}" for program, on in sorted(nodes.items()) if len(on) > 1 and len(set(on)) == 1
    ]
    if together and len(facts.nodes.value) > 1:
        return warning(
            f"{several(len(together), 'program')} with every replica on one node",
            "delete one of the pods, so that it is scheduled anew; see the anti-affinity of the installation",
            together,
        )
    return passed("replicas are on different nodes" if len(facts.nodes.value) > 1 else "there is one node")


def check_budgets(facts: ClusterFacts) -> Finding:
    """Whether a drain of nodes leaves one replica of each program."""
    missing, blocking = [], []
    for workload in facts.workloads.value:
        if name_of(workload) not in PROGRAMS:
            continue
        labels = pods.texts(workload, "spec", "template", "metadata", "labels")
        budgets = [one for one in facts.budgets.value if _selects(one, labels)]
        if not budgets:
            missing.append(_path(workload))
        blocking += [
            f"PodDisruptionBudget {name_of(one)} allows no disruption now"
            for one in budgets
            if pods.part(one, "status").get("disruptionsAllowed") == 0
        ]
    if missing:
        return warning(
            f"{several(len(missing), 'program')} without a PodDisruptionBudget: a drain may end every replica at once",
            f"install it: {INSTALL}",
            missing,
        )
    if blocking:
        return warning(
            "nodes cannot be drained now", "wait for the replicas to be ready, or have more of them", blocking
        )
    return passed("each program has one")


def check_services(facts: ClusterFacts) -> Finding:
    """Whether those who dial the control plane find somebody."""
    present = {name_of(one) for one in facts.services.value}
    ready = {name_of(one) for one in facts.endpoints.value if _addresses(one)}
    wanted = (names.AUTHORITY_SERVICE, names.WEBHOOK_NAME)
    faults = [
        f"Service {name}: {'has no ready endpoint' if name in present else 'is not there'}"
        for name in wanted
        if name not in present or name not in ready
    ]
    if faults:
        return failure(
            f"{several(len(faults), 'Service')} of the control plane without a ready endpoint",
            f"kubectl get endpoints -n {facts.control_namespace}; the selectors must be the pods' labels ({INSTALL})",
            faults,
        )
    return passed(f"{named(wanted)} have ready endpoints")


def check_versions(facts: ClusterFacts) -> Finding:
    """Whether all programs of the control plane are of one version."""
    images = {
        _path(one): str(container.get("image"))
        for one in facts.workloads.value
        if name_of(one) in PROGRAMS
        for container in pods.listed(pods.part(one, "spec", "template", "spec"), "containers")[:1]
    }
    if not images:
        raise Unknown("no program of the control plane is installed")
    tags = {tag_of(image) for image in images.values()}
    sidecar = sidecar_image(facts)
    items = [f"{path}: {image}" for path, image in images.items()]
    if sidecar:
        items.append(f"sidecars: {sidecar}")
        tags.add(tag_of(sidecar))
    if len(tags) > 1:
        return warning(
            "the programs and the sidecars are of different versions",
            f"finish the upgrade: {INSTALL}, then kubectl rollout restart the workloads",
            items,
        )
    return passed(f"all of {named(sorted(tags))}")


def check_restarts(facts: ClusterFacts) -> Finding:
    """Whether programs of the control plane crash."""
    items = [
        f"{name_of(pod)}: {container.get('name')}: restarted {several(_number(container.get('restartCount')), 'time')}"
        f"{_last_end(container)}"
        for pod in facts.control_pods.value
        for container in pods.listed(pods.part(pod, "status"), "containerStatuses")
        if _number(container.get("restartCount")) >= _MANY_RESTARTS
    ]
    if items:
        return warning(
            "programs of the control plane were restarted",
            f"kubectl logs --previous -n {facts.control_namespace} POD says why",
            items,
        )
    return passed("none was restarted more than twice")


def _leads(facts: ClusterFacts, name: str, without: str) -> Finding:
    _require_discovery(facts, name)
    lease = next((one for one in facts.leases.value if name_of(one) == name), None)
    fix = f"kubectl get lease {name} -n {facts.control_namespace} -o yaml; the program's log says what it cannot do"
    if lease is None:
        return failure(f"there is no Lease {name}: {without}", fix)
    spec = pods.part(lease, "spec")
    holder, renewed = str(spec.get("holderIdentity") or ""), moment(spec.get("renewTime"))
    if not holder or renewed is None:
        return failure(f"nobody leads: {without}", fix)
    age = _server_now(facts) - renewed
    if age > datetime.timedelta(seconds=_number(spec.get("leaseDurationSeconds"))) + _LEASE_SLACK:
        return failure(f"{holder} led, and renewed it {age.total_seconds():,.0f} s ago: {without}", fix)
    return passed(f"{holder} leads")


def _server_now(facts: ClusterFacts) -> datetime.datetime:
    """The cluster's time, where it is known: ours may differ, which is another check's."""
    try:
        return facts.clock.value.said
    except Unknown:
        return facts.now


def find_workload(facts: ClusterFacts, name: str) -> Object | None:
    """The Deployment or StatefulSet of the control plane that has this name. Raises Unknown."""
    return next((one for one in facts.workloads.value if name_of(one) == name), None)


def sidecar_image(facts: ClusterFacts) -> str:
    """The image that the webhook gives pods, as its flags say; "" where they say none. Raises Unknown."""
    words = _words_of_webhook(facts)
    for word, following in itertools.pairwise([*words, ""]):
        if word == _SIDECAR_FLAG:
            return following
        if word.startswith(f"{_SIDECAR_FLAG}="):
            return word.partition("=")[2]
    return ""


def has_discovery(facts: ClusterFacts) -> bool:
    """Whether the mesh was installed with the discovery program: pods then wait for what it writes. Raises Unknown."""
    return find_workload(facts, names.DISCOVERY_SERVICE) is not None or _DISCOVERY_FLAG in _words_of_webhook(facts)


def _words_of_webhook(facts: ClusterFacts) -> list[str]:
    workload = find_workload(facts, names.WEBHOOK_NAME) or {}
    return [
        str(word)
        for container in pods.listed(pods.part(workload, "spec", "template", "spec"), "containers")
        for field in ("command", "args")
        for word in container.get(field) or ()
    ]


def tag_of(image: str) -> str:
    """The tag of an image, or its digest; "latest" where it has neither."""
    _, at, digest = image.partition("@")
    if at:
        return digest
    last = image.rpartition("/")[2]
    return last.partition(":")[2] or "latest"


def _program_of(pod: Object) -> str | None:
    return next((name for name in PROGRAMS if re.match(rf"{re.escape(name)}-[a-z0-9-]+\Z", name_of(pod))), None)


def _selects(budget: Object, labels: dict[str, str]) -> bool:
    wanted = pods.texts(budget, "spec", "selector", "matchLabels")
    return bool(wanted) and wanted.items() <= labels.items()


def _addresses(endpoints: Object) -> Objects:
    return [address for subset in pods.listed(endpoints, "subsets") for address in pods.listed(subset, "addresses")]


def _path(workload: Object) -> str:
    return f"{str(workload.get('kind')).lower()}/{name_of(workload)}"


def _last_end(container: Object) -> str:
    last = pods.part(container, "lastState", "terminated")
    return f" (last: {last.get('reason')}, exit code {last.get('exitCode')})" if last else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


_UNSIGNED: Final = "no certificate is issued or renewed"
_UNINJECTED: Final = "no pod of the mesh can be created"
_UNTOLD: Final = "sidecars are not told of changes of policies and Services"
# Name → its kind, and what the mesh goes without while it is away.
PROGRAMS: Final = {
    names.AUTHORITY_SERVICE: ("StatefulSet", _UNSIGNED),
    names.WEBHOOK_NAME: ("Deployment", _UNINJECTED),
    names.DISCOVERY_SERVICE: ("Deployment", _UNTOLD),
}


def _ready_check(name: str) -> Callable[[ClusterFacts], Finding]:
    kind, without = PROGRAMS[name]
    return partial(_ready, kind=kind, name=name, without=without)


CHECKS: Final = (
    Check("control-namespace", Group.CONTROL, "the mesh is installed", check_control_namespace),
    Check("certmgr-ready", Group.CONTROL, "the authority runs", _ready_check(names.AUTHORITY_SERVICE)),
    Check("injector-ready", Group.CONTROL, "the webhook runs", _ready_check(names.WEBHOOK_NAME)),
    Check("discovery-ready", Group.CONTROL, "the discovery program runs", _ready_check(names.DISCOVERY_SERVICE)),
    Check("replicas", Group.CONTROL, "each program has two replicas", check_replicas),
    Check("spread", Group.CONTROL, "the replicas of a program are on different nodes", check_spread),
    Check("disruption-budgets", Group.CONTROL, "a drain of nodes leaves each program a replica", check_budgets),
    Check("services", Group.CONTROL, "the control plane's Services have ready endpoints", check_services),
    Check("versions", Group.CONTROL, "programs and sidecars are of one version", check_versions),
    Check("restarts", Group.CONTROL, "the programs do not crash", check_restarts),
    Check(
        "certmgr-leader",
        Group.CONTROL,
        "one replica of the authority leads",
        partial(_leads, name=names.AUTHORITY_SERVICE, without="no revocation list is renewed, no bundle published"),
    ),
    Check(
        "discovery-leader",
        Group.CONTROL,
        "one replica of the discovery program leads",
        partial(_leads, name=names.DISCOVERY_SERVICE, without=_UNTOLD),
    ),
)
