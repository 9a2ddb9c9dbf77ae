"""The control plane goes, and comes back; the webhook's certificate is replaced."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable

from mesh import names
from tests.cluster import cluster
from tests.cluster.cluster import Object
from tests.cluster.installation import Mesh
from tests.cluster.workloads import HTTP_PORT, KEPT, OK, Load, Workload, caller, failures, flow, nginx, start


def bare_pod(name: str) -> Object:
    """A pod that nobody makes again."""
    template = Workload(name=name, account="default").template()
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]}


def test_without_its_control_plane_traffic_flows_and_no_pod_slips_past(
    mesh: Mesh, namespace: str, outside: str, saw: Callable[[str], None]
) -> None:
    (web,) = start(namespace, Workload(name="web", command=nginx(), port=HTTP_PORT, replicas=2))
    again, kept = start(namespace, caller(web.url), flow(web.url))
    load, steady = Load(again).settled(OK), Load(kept).settled(KEPT)

    try:
        for kind in ("deployment", "statefulset"):
            cluster.kubectl("delete", kind, "--all", "-n", mesh.namespace)
        cluster.until("its pods are gone", lambda: not cluster.listed("pods", mesh.namespace))
        refused = cluster.attempt("create", "-n", namespace, "-f", "-", given=bare_pod("late"))
        made = cluster.attempt("create", "-n", outside, "-f", "-", given=bare_pod("other"))
        load.at_least(len(load.lines()) + 50)
        steady.at_least(len(steady.lines()) + 25)
    finally:
        begun = time.monotonic()
        mesh.apply()

    assert refused.returncode != 0
    assert "failed calling webhook" in refused.stderr
    assert made.returncode == 0, made.stderr
    healed = _until_injected(namespace)
    lines, same = load.lines(), steady.lines()
    assert failures(lines, OK) == []
    assert failures(same, KEPT) == []
    saw(
        f"meanwhile {len(lines)} requests anew and {len(same)} over one connection, none failed; in the labelled "
        f"namespace: {refused.stderr.strip()[:160]}…; elsewhere: {made.stdout.strip()}; back and "
        f"injecting {healed - begun:.0f} s after it was applied again"
    )


def _until_injected(namespace: str) -> float:
    pod = bare_pod("again")
    cluster.until(
        "a pod is taken again",
        lambda: cluster.attempt("create", "-n", namespace, "-f", "-", given=pod).returncode == 0,
        otherwise=lambda: cluster.attempt("create", "-n", namespace, "-f", "-", given=pod).stderr,
    )
    found = cluster.get("pod", "again", namespace)
    assert names.ANNOTATION_PREFIX + "status" in found["metadata"]["annotations"]
    cluster.until("it runs", lambda: cluster.is_ready(cluster.get("pod", "again", namespace)))
    return time.monotonic()


def test_the_webhook_s_certificate_is_replaced_and_no_pod_is_refused_meanwhile(
    mesh: Mesh, namespace: str, saw: Callable[[str], None]
) -> None:
    before = _serving_certificate(mesh)
    refused, tries = [], 0

    cluster.kubectl("delete", "secret", names.WEBHOOK_SECRET, "-n", mesh.namespace)

    def served_anew() -> bool:
        nonlocal tries
        done = cluster.attempt("create", "--dry-run=server", "-n", namespace, "-f", "-", given=bare_pod("one"))
        tries += 1
        refused.extend([done.stderr] if done.returncode else [])
        return _mounted(mesh) == _serving_certificate(mesh) != before

    cluster.until("both injectors read the new certificate", served_anew)
    for _ in range(10):
        served_anew()

    assert refused == []
    bundles = {one["clientConfig"]["caBundle"] for one in _webhooks()}
    saw(
        f"{before[:16]} became {_serving_certificate(mesh)[:16]}; {tries} pods made meanwhile, none refused; "
        f"{len(bundles)} caBundle"
    )


def test_a_ca_bundle_that_was_emptied_heals(mesh: Mesh, namespace: str, saw: Callable[[str], None]) -> None:
    before = [one["clientConfig"]["caBundle"] for one in _webhooks()]
    empty = [{"op": "remove", "path": f"/webhooks/{index}/clientConfig/caBundle"} for index in range(len(before))]
    begun = time.monotonic()
    cluster.kubectl(
        *("patch", "mutatingwebhookconfiguration", names.WEBHOOK_NAME, "--type=json", "-p", json.dumps(empty))
    )
    cluster.until("it is there again", lambda: [one["clientConfig"].get("caBundle") for one in _webhooks()] == before)
    seconds = time.monotonic() - begun
    cluster.until(
        "pods are made",
        lambda: (
            cluster.attempt("create", "--dry-run=server", "-n", namespace, "-f", "-", given=bare_pod("one")).returncode
            == 0
        ),
    )
    saw(f"healed after {seconds:.1f} s")


def _webhooks() -> list[Object]:
    webhooks: list[Object] = cluster.get("mutatingwebhookconfiguration", names.WEBHOOK_NAME)["webhooks"]
    return webhooks


def _serving_certificate(mesh: Mesh) -> str:
    """SHA-256 of the one that the Secret has; empty: there is none."""
    secret = cluster.find("secret", names.WEBHOOK_SECRET, mesh.namespace)
    return "" if secret is None else hashlib.sha256(base64.b64decode(secret["data"]["tls.crt"])).hexdigest()


def _mounted(mesh: Mesh) -> str:
    """SHA-256 of what every injector finds in its file; empty: they differ."""
    selector = f"app.kubernetes.io/name={names.WEBHOOK_NAME}"
    pods = cluster.ready_pods(mesh.namespace, selector, 2)
    file = "/etc/qbitel/webhook/tls.crt"
    script = f"import hashlib; print(hashlib.sha256(open({file!r}, 'rb').read()).hexdigest(), end='')"
    found = {
        cluster.kubectl("exec", "-n", mesh.namespace, pod["metadata"]["name"], "--", "python3", "-c", script)
        for pod in pods
    }
    return found.pop() if len(found) == 1 else ""
