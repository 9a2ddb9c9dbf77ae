"""The cluster by itself: its API server, its clock and its nodes, before and after an installation."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from typing import Final

from cli.checks.facts import ClusterFacts, Object, name_of
from cli.checks.findings import Check, Finding, Group, failure, named, passed, several, skipped, warning
from injector import pods
from injector.config import NATIVE_SINCE

# The oldest that the tests have seen (TokenRequest, projected tokens, admission v1).
_OLDEST: Final = (1, 20)
# The two that images are built for.
_ARCHITECTURES: Final = frozenset({"amd64", "arm64"})
# nf_tables does NAT of IPv4 and IPv6 in one table family since then, and every distribution's iptables works on it.
_KERNEL: Final = (4, 18)
# Certificates are back-dated by five minutes, and requests whose clock differs by more are refused.
_SKEW_FAILURE: Final = datetime.timedelta(minutes=5)
_SKEW_WARNING: Final = datetime.timedelta(seconds=30)

Version = tuple[int, int]


def check_api_reachable(facts: ClusterFacts) -> Finding:
    """Whether there is somebody to ask."""
    if facts.unreachable:
        return failure(
            facts.unreachable,
            "try `kubectl cluster-info` with the same kubeconfig and context; everything else about the cluster is "
            "skipped until it answers",
        )
    return passed(f"the API server answers: {_git_version(facts.version.value)}")


def check_api_version(facts: ClusterFacts) -> Finding:
    """Whether Kubernetes is new enough."""
    said = _git_version(facts.version.value)
    version = version_of(said)
    if version is None:
        return warning(
            f"the API server's version {said!r} is none of Kubernetes' releases",
            f"nothing, if it is {_dotted(_OLDEST)} or newer",
        )
    if version < _OLDEST:
        return failure(f"Kubernetes {said}", f"upgrade to {_dotted(_OLDEST)} or newer")
    return passed(f"Kubernetes {said}")


def check_native_sidecars(facts: ClusterFacts) -> Finding:
    """Whether the cluster starts sidecars before, and ends them after, what they serve."""
    nodes = [_kubelet(node) for node in facts.nodes.value]
    versions = [version_of(_git_version(facts.version.value)), *nodes]
    known = [one for one in versions if one is not None]
    if not known:
        return skipped("neither the API server nor a kubelet says which release it is")
    old = min(known)
    if old >= NATIVE_SINCE:
        return passed(f"native sidecars: everything is {_dotted(NATIVE_SINCE)} or newer")
    if max(known) >= NATIVE_SINCE:
        return failure(
            f"some of the cluster is {_dotted(old)}, where a native sidecar would keep its pod from starting",
            f"upgrade the nodes' kubelets to {_dotted(NATIVE_SINCE)}, or install with kubernetesVersion {_dotted(old)}",
            [name_of(node) for node in facts.nodes.value if (its := _kubelet(node)) and its < NATIVE_SINCE],
        )
    return warning(
        f"Kubernetes {_dotted(old)} has no native sidecars: pods get classic ones, which the application's init "
        "containers cannot use, and which Jobs must end themselves",
        f"nothing has to be done; {_dotted(NATIVE_SINCE)} or newer has neither limit",
    )


def check_clock(facts: ClusterFacts) -> Finding:
    """How far this machine's clock is from the API server's."""
    clock = facts.clock.value
    # Its header says whole seconds, and was written somewhere between our two readings.
    latest = clock.said + datetime.timedelta(seconds=1)
    skew = max(clock.before - latest, clock.said - clock.after, datetime.timedelta())
    if skew < _SKEW_WARNING:
        return passed("this machine's clock and the API server's agree")
    direction = "ahead of" if clock.before > clock.said else "behind"
    detail = f"this machine's clock is {skew.total_seconds():,.0f} s {direction} the API server's"
    fix = "synchronise both (NTP): certificates are back-dated by five minutes, and what differs by more is refused"
    return failure(detail, fix) if skew > _SKEW_FAILURE else warning(detail, fix)


def check_nodes_ready(facts: ClusterFacts) -> Finding:
    """Whether pods can be started at all."""
    nodes = facts.nodes.value
    if not nodes:
        return failure("the cluster has no node", "add one; pods have nowhere to run")
    faults = [f"{name_of(node)}: {fault}" for node in nodes if (fault := _node_fault(node))]
    if len(faults) == len(nodes):
        return failure(f"none of {several(len(nodes), 'node')} is ready", "see `kubectl describe nodes`", faults)
    if faults:
        return warning(f"{len(faults)} of {len(nodes)} nodes are not ready", "see `kubectl describe nodes`", faults)
    return passed(f"{several(len(nodes), 'node')}, ready")


def check_nodes_platform(facts: ClusterFacts) -> Finding:
    """Whether nodes can run the images."""
    platforms = Counter(_platform(node) for node in facts.nodes.value)
    told = ", ".join(f"{count} × {platform}" for platform, count in sorted(platforms.items()))
    fit = {f"linux/{one}" for one in _ARCHITECTURES}
    if not fit & platforms.keys():
        return failure(f"no node can run our images: {told or 'there is none'}", f"add a node of {' or '.join(fit)}")
    others = [f"{name_of(node)}: {_platform(node)}" for node in facts.nodes.value if _platform(node) not in fit]
    if others:
        return warning(
            f"{several(len(others), 'node')} cannot run our images",
            "keep pods of the mesh from them (nodeSelector kubernetes.io/os: linux), or build images for them",
            others,
        )
    return passed(told)


def check_nodes_kernel(facts: ClusterFacts) -> Finding:
    """Whether nodes' kernels can redirect connections, as far as their versions tell."""
    kernels = {name_of(node): _info(node, "kernelVersion") for node in facts.nodes.value if _is_linux(node)}
    old = [
        f"{node}: Linux {kernel}"
        for node, kernel in kernels.items()
        if (version := version_of(kernel)) is not None and version < _KERNEL
    ]
    if old:
        return warning(
            f"{several(len(old), 'node')} with a kernel older than {_dotted(_KERNEL)}",
            "run `qbitel check --local` there: the checks iptables and kernel-modules say what is missing",
            old,
        )
    told = named(sorted(set(kernels.values())))
    return passed(f"Linux {told}; `qbitel check --local` on a node looks closer") if told else skipped("no Linux node")


def version_of(text: str) -> Version | None:
    """Major and minor of "v1.29.3-gke.1" or "5.15.0-91-generic"; None where there are none."""
    found = re.match(r"v?(\d{1,4})\.(\d{1,4})(?!\d)", text, re.ASCII)
    version = (int(found[1]), int(found[2])) if found else None
    return None if version is None or version == (0, 0) else version  # v0.0.0 is a build without a release's name


def _git_version(version: Object) -> str:
    return str(version.get("gitVersion") or "unknown")[:80]


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def _kubelet(node: Object) -> Version | None:
    return version_of(_info(node, "kubeletVersion"))


def _info(node: Object, name: str) -> str:
    return str(pods.part(node, "status", "nodeInfo").get(name) or "unknown")[:80]


def _platform(node: Object) -> str:
    return f"{_info(node, 'operatingSystem')}/{_info(node, 'architecture')}"


def _is_linux(node: Object) -> bool:
    return _info(node, "operatingSystem") == "linux"


def _node_fault(node: Object) -> str:
    for condition in pods.listed(pods.part(node, "status"), "conditions"):
        kind, status = condition.get("type"), condition.get("status")
        if (kind == "Ready" and status != "True") or (kind == "NetworkUnavailable" and status == "True"):
            return f"{kind} is {status}: {str(condition.get('message') or condition.get('reason') or '')[:120]}"
    return ""


CHECKS: Final = (
    Check("api-reachable", Group.CLUSTER, "the API server answers", check_api_reachable),
    Check("api-version", Group.CLUSTER, "Kubernetes is new enough", check_api_version),
    Check("clock", Group.CLUSTER, "this machine's clock and the API server's agree", check_clock),
    Check("nodes-ready", Group.CLUSTER, "nodes are ready, with a network", check_nodes_ready),
    Check(
        "nodes-platform",
        Group.CLUSTER,
        "nodes can run the images (operating system, architecture)",
        check_nodes_platform,
    ),
    Check("nodes-kernel", Group.CLUSTER, "nodes' kernels are new enough for interception", check_nodes_kernel),
    Check(
        "native-sidecars",
        Group.CLUSTER,
        "whether sidecars are native (Kubernetes 1.29) or classic",
        check_native_sidecars,
    ),
)
