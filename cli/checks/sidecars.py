"""The pods of the mesh: who has a sidecar, which one, and how it does."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from certmgr.wording import span
from cli.checks.certificates import seen
from cli.checks.control import sidecar_image, trouble_of
from cli.checks.facts import ClusterFacts, DryRun, Object, Objects, Scrape, full_name, moment, namespace_of
from cli.checks.findings import Check, Finding, Group, Unknown, failure, passed, several, skipped, warning
from cli.checks.webhook import excluded_namespaces
from injector import pods
from injector.config import InjectorConfig
from injector.decide import Namespace, decide
from injector.refusal import PodRefused
from injector.status import is_injected, read_status
from mesh import names

# A sidecar waits for its certificate, its policies and the proof of its rules: seconds, on a busy node a minute.
_STARTING: Final = datetime.timedelta(minutes=2)
# A certificate lives for a day and is renewed between 40 and 50 % of that; an hour is left when everything has failed.
_LITTLE_LEFT: Final = 3600.0
# The authority's back-dating, and some: a certificate that is younger than a root by less may be of that root.
_BACKDATED: Final = datetime.timedelta(minutes=10)
# One handshake in a hundred may fail by bad luck: a pod that ends, a packet that is lost.
_MANY_FAILURES: Final = 0.01
_FEW_HANDSHAKES: Final = 20
_MANY_RESTARTS: Final = 3
_RESTART: Final = "kubectl rollout restart the workload"
_ENDED: Final = frozenset({"Succeeded", "Failed"})
# What a sidecar says of itself while its rules do not bring it what others dial.
_NOT_REDIRECTED: Final = "interception"


def check_injected(facts: ClusterFacts) -> Finding:
    """Whether every pod that is to have a sidecar has one."""
    config = InjectorConfig(control_namespace=facts.control_namespace, excluded_namespaces=excluded_namespaces(facts))
    lacking, choosing = [], 0
    for pod in _alive(facts):
        if is_injected(pod):
            continue
        try:
            wanted = decide(pod, Namespace(namespace_of(pod), "enabled"), config).inject
        except PodRefused:
            wanted = True
        if wanted:
            lacking.append(full_name(pod))
        else:
            choosing += 1
    if lacking:
        return failure(
            f"{several(len(lacking), 'pod')} in namespaces of the mesh without a sidecar: their traffic is plaintext",
            f'they are older than the label, as a rule: {_RESTART} (or say qbitel.io/inject: "false" on the pod)',
            lacking,
        )
    besides = f"; {choosing} are left out by choice" if choosing else ""
    return passed(f"{several(len(_injected(facts)), 'pod')} with a sidecar{besides}")


def check_ready(facts: ClusterFacts) -> Finding:
    """Whether sidecars are ready."""
    items = []
    for pod in _injected(facts):
        if pods.part(_sidecar_status(pod)).get("ready") or _is_young(pod, facts.now):
            continue
        reason = trouble_of(pod) or _obstacle(facts, pod) or str(pods.part(pod, "status").get("phase"))
        items.append(f"{full_name(pod)}: {reason}")
    if items:
        return failure(
            f"{several(len(items), 'sidecar')} not ready",
            f"kubectl logs POD -c {pods.SIDECAR} says what it waits for; kubectl describe pod POD why it cannot start",
            items,
        )
    return passed(f"{several(len(_injected(facts)), 'sidecar')}, ready or just started")


def check_redirected(facts: ClusterFacts) -> Finding:
    """Whether the rules of interception are in place, where there is a sidecar."""
    items, bare = [], 0
    for pod in _injected(facts):
        status = read_status(pod)
        if status is None or pods.INIT_CONTAINER not in status.init_containers:
            bare += 1
            continue
        if fault := _init_fault(pod) or _not_redirected(facts, pod):
            items.append(f"{full_name(pod)}: {fault}")
    if items:
        return failure(
            f"{several(len(items), 'pod')} with a sidecar that traffic does not come to",
            f"kubectl logs POD -c {pods.INIT_CONTAINER} says which rule the node refused; see the check nodes-kernel",
            items,
        )
    if bare:
        return warning(
            f"{several(bare, 'pod')} with a sidecar and no interception (interception-mode NONE)",
            "nothing, if their applications dial the sidecar themselves",
        )
    return passed(f"the rules are in place in {several(len(_injected(facts)), 'pod')}")


def check_current(facts: ClusterFacts) -> Finding:
    """Whether sidecars are those that the webhook would give today."""
    image, version = _today(facts)
    old = []
    for pod in _injected(facts):
        status, its = read_status(pod), _image(pod)
        if image and its != image and not _names_image(pod):
            old.append(f"{full_name(pod)}: {its}, and it would be {image}")
        elif version and status is not None and status.version != version:
            old.append(f"{full_name(pod)}: injected by {status.version}, and it would be by {version}")
    if old:
        return warning(
            f"{several(len(old), 'pod')} with an older sidecar",
            f"{_RESTART}: sidecars of neighbouring versions work together",
            old,
        )
    return passed(f"all of {image or version}")


def check_restarts(facts: ClusterFacts) -> Finding:
    """Whether sidecars crash or run out of memory."""
    items = []
    for pod in _injected(facts):
        status = _sidecar_status(pod)
        last = pods.part(status, "lastState", "terminated")
        count = status.get("restartCount")
        if isinstance(count, int) and (count >= _MANY_RESTARTS or last.get("reason") == "OOMKilled"):
            items.append(f"{full_name(pod)}: {several(count, 'restart')}, the last: {last.get('reason') or 'unknown'}")
    if items:
        return warning(
            f"{several(len(items), 'sidecar')} restarted again and again",
            f"OOMKilled: raise qbitel.io/proxy-memory-limit; else kubectl logs --previous POD -c {pods.SIDECAR}",
            items,
        )
    return passed("none was restarted often, none ran out of memory")


def check_answering(facts: ClusterFacts) -> Finding:
    """Whether sidecars can be asked for their metrics."""
    scrapes = _scrapes(facts)
    items = [f"{pod}: {one.error}" for pod, one in scrapes.items() if one.error]
    if len(items) == len(scrapes):
        return warning(
            f"none of {several(len(items), 'sidecar')} answers through the API server: their metrics are not known",
            "it needs the right `get pods/proxy`, and NetworkPolicies that let the API server in to port "
            f"{names.METRICS_PORT}",
            items,
        )
    if items:
        return warning(
            f"{len(items)} of {several(len(scrapes), 'sidecar')} do not answer",
            f"kubectl logs POD -c {pods.SIDECAR}; NetworkPolicies must let the API server in to {names.METRICS_PORT}",
            items,
        )
    return passed(f"{several(len(scrapes), 'sidecar')} asked{_of_all(facts)}")


def check_certificates(facts: ClusterFacts) -> Finding:
    """How long sidecars' certificates last."""
    left = {pod: seconds for pod, one in _answers(facts).items() if (seconds := one.total(_EXPIRY)) is not None}
    if not left:
        return skipped("no sidecar says when its certificate ends")
    ended = [f"{pod}: ended {_span(-seconds)} ago" for pod, seconds in left.items() if seconds <= 0]
    soon = [f"{pod}: ends in {_span(seconds)}" for pod, seconds in left.items() if 0 < seconds < _LITTLE_LEFT]
    fix = f"kubectl logs POD -c {pods.SIDECAR} says why the authority does not renew it; see certmgr-ready and services"
    if ended:
        return failure(f"{several(len(ended), 'certificate')} ended: nobody lets those pods in", fix, ended + soon)
    if soon:
        return warning(f"{several(len(soon), 'certificate')} not renewed in time", fix, soon)
    return passed(f"the first ends in {_span(min(left.values()))}{_of_all(facts)}")


def check_roots(facts: ClusterFacts) -> Finding:
    """Whether sidecars' certificates are by a root that the mesh trusts now."""
    roots = [
        one
        for bundle in facts.bundles.value.values()
        if bundle.is_ours
        for one in seen(bundle.files.get(names.ROOTS_FILE, "").encode(), names.ROOTS_FILE, facts.now)
    ]
    got = {
        pod: datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        for pod, one in _answers(facts).items()
        if (seconds := one.total("qbitel_cert_last_success_timestamp_seconds"))
    }
    if not roots or not got:
        return skipped("no sidecar says when it got its certificate, or no namespace has the roots")
    # What was signed before the oldest root that is trusted was made is by another.
    oldest = min(one.begins for one in roots)
    foreign = [f"{pod}: got on {at:%Y-%m-%d %H:%M} UTC" for pod, at in got.items() if at < oldest - _BACKDATED]
    if foreign:
        return failure(
            f"{several(len(foreign), 'certificate')} older than every root that the mesh trusts",
            f"the authority was founded anew: {_RESTART}, whose sidecars get certificates of the new root",
            foreign,
        )
    return passed(f"{several(len(got), 'certificate')}, none older than the roots{_of_all(facts)}")


def check_authority(facts: ClusterFacts) -> Finding:
    """Whether sidecars reach the authority."""
    cut_off = [pod for pod, one in _answers(facts).items() if one.total("qbitel_authority_reachable") == 0]
    if cut_off:
        return warning(
            f"{several(len(cut_off), 'sidecar')} cut off from the authority when they last asked",
            f"their certificates go on until they end; NetworkPolicies must let them out to {names.AUTHORITY_SERVICE}:"
            f"{names.AUTHORITY_PORT} (check egress)",
            cut_off,
        )
    return passed(f"{several(len(_answers(facts)), 'sidecar')} reached it when they last asked")


def check_plaintext(facts: ClusterFacts) -> Finding:
    """Whether pods are dialled, or dial, without TLS of the mesh: what STRICT would refuse."""
    items = [
        f"{pod}: {count:,.0f} connections came in plaintext"
        for pod, one in _answers(facts).items()
        if (count := one.total("qbitel_plaintext_connections_total", direction="inbound"))
    ]
    if items:
        return warning(
            f"{several(len(items), 'pod')} dialled in plaintext",
            "before STRICT, give those who dial a sidecar; the access log names them (security none)",
            items,
        )
    return passed(f"no sidecar let plaintext in{_of_all(facts)}")


def check_handshakes(facts: ClusterFacts) -> Finding:
    """Whether handshakes between sidecars succeed."""
    items = []
    for pod, one in _answers(facts).items():
        results: Counter[str] = Counter()
        for (name, labels), value in one.figures.items():
            if name == "qbitel_tls_handshakes_total":
                results[dict(labels).get("result", "?")] += int(value)
        failed = {result: count for result, count in results.items() if result != "ok" and count}
        bad, every = sum(failed.values()), sum(results.values())
        if every >= _FEW_HANDSHAKES and bad > every * _MANY_FAILURES:
            reasons = ", ".join(f"{count} × {result}" for result, count in Counter(failed).most_common(3))
            items.append(f"{pod}: {bad:,} of {every:,} failed ({reasons})")
    if items:
        return warning(
            f"{several(len(items), 'sidecar')} with handshakes that fail",
            "what each reason means, and what to do, is in docs/operations.md (Reasons)",
            items,
        )
    return passed(f"they succeed{_of_all(facts)}")


_EXPIRY: Final = "qbitel_cert_expiry_seconds"


def alive(found: Objects) -> Objects:
    """The pods that have not ended and are not about to."""
    return [
        pod
        for pod in found
        if pods.part(pod, "status").get("phase") not in _ENDED
        and not pods.part(pod, "metadata").get("deletionTimestamp")
    ]


def _alive(facts: ClusterFacts) -> Objects:
    if not facts.mesh_namespaces:
        raise Unknown(f"no namespace is of the mesh (kubectl label namespace NAME {names.NAMESPACE_LABEL}=enabled)")
    return alive(facts.pods.value)


def _injected(facts: ClusterFacts) -> Objects:
    return [pod for pod in _alive(facts) if is_injected(pod)]


def _scrapes(facts: ClusterFacts) -> dict[str, Scrape]:
    scrapes = dict(facts.scrapes.value)
    if not scrapes:
        raise Unknown("there is no sidecar that runs")
    return scrapes


def _answers(facts: ClusterFacts) -> dict[str, Scrape]:
    answers = {pod: one for pod, one in _scrapes(facts).items() if not one.error}
    if not answers:
        raise Unknown("no sidecar answers (check sidecars-answer)")
    return answers


def _of_all(facts: ClusterFacts) -> str:
    """How many were left out; "" where all were asked."""
    running = sum(1 for pod in _injected(facts) if pods.part(pod, "status").get("phase") == "Running")
    asked = len(facts.scrapes.value)
    return f" ({asked} of {running:,} were asked, see --sample)" if asked < running else ""


def _sidecar_status(pod: Object) -> Object:
    return _container_status(pod, pods.SIDECAR)


def _container_status(pod: Object, name: str) -> Object:
    for field in ("containerStatuses", "initContainerStatuses"):  # a native sidecar is among the latter
        for one in pods.listed(pods.part(pod, "status"), field):
            if one.get("name") == name:
                return one
    return {}


def _is_young(pod: Object, now: datetime.datetime) -> bool:
    started = moment(pods.part(pod, "metadata").get("creationTimestamp"))
    return started is not None and now - started < _STARTING


def _init_fault(pod: Object) -> str:
    present = {str(container.get("name")) for _, container in pods.containers(pod)}
    if pods.INIT_CONTAINER not in present:
        return f"its container {pods.INIT_CONTAINER} is gone"
    state = _container_status(pod, pods.INIT_CONTAINER)
    for field in ("state", "lastState"):
        ended = pods.part(state, field, "terminated")
        if ended and ended.get("exitCode") != 0:
            message = str(ended.get("message") or ended.get("reason") or "")[:160]
            return f"{pods.INIT_CONTAINER} ended with {ended.get('exitCode')}: {message}"
        if ended:
            return ""
    return ""


def _obstacle(facts: ClusterFacts, pod: Object) -> str:
    """What a sidecar itself says that it waits for, where it was asked."""
    try:
        scrape = facts.scrapes.value.get(full_name(pod))
    except Unknown:
        return ""
    return scrape.obstacle if scrape else ""


def _not_redirected(facts: ClusterFacts, pod: Object) -> str:
    obstacle = _obstacle(facts, pod)
    return obstacle if _NOT_REDIRECTED in obstacle else ""


def _today(facts: ClusterFacts) -> tuple[str, str]:
    """Image and version that a pod would get now: by the pod for trial, else by the webhook's flags."""
    trial: DryRun | None = None
    try:
        trial = facts.inside.value
    except Unknown:
        return sidecar_image(facts), ""
    status = read_status(trial.pod) if trial.pod else None
    if trial.pod is None or status is None:
        return sidecar_image(facts), ""
    return _image(trial.pod), status.version


def _image(pod: Object) -> str:
    return next(
        (str(container.get("image")) for _, container in pods.containers(pod) if container.get("name") == pods.SIDECAR),
        "",
    )


def _names_image(pod: Object) -> bool:
    """Whether the pod's author asks for an image of his own."""
    annotations = pods.annotations_of(pod)
    return f"{names.ANNOTATION_PREFIX}proxy-image" in annotations or "sidecar.istio.io/proxyImage" in annotations


def _span(seconds: float) -> str:
    return span(datetime.timedelta(seconds=seconds))


_Judge = Callable[[ClusterFacts], Finding]


def _rows() -> Iterator[tuple[str, str, _Judge]]:
    yield "pods-injected", "every pod that is to have a sidecar has one", check_injected
    yield "sidecars-ready", "sidecars are ready", check_ready
    yield "sidecars-redirected", "traffic comes to the sidecars", check_redirected
    yield "sidecars-current", "sidecars are those that the webhook would give today", check_current
    yield "sidecars-restarts", "sidecars do not crash or run out of memory", check_restarts
    yield "sidecars-answer", "sidecars say their metrics (a sample of them)", check_answering
    yield "sidecars-certificates", "sidecars' certificates last", check_certificates
    yield "sidecars-roots", "sidecars' certificates are by a root that the mesh trusts", check_roots
    yield "sidecars-authority", "sidecars reach the authority", check_authority
    yield "sidecars-plaintext", "nobody dials a sidecar in plaintext", check_plaintext
    yield "sidecars-handshakes", "handshakes between sidecars succeed", check_handshakes


CHECKS: Final = tuple(Check(name, Group.DATA, about, judge) for name, about, judge in _rows())
