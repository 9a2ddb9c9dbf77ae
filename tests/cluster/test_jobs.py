"""What ends by itself ends with its sidecar, too."""

from __future__ import annotations

from collections.abc import Callable

from tests.cluster import cluster
from tests.cluster.cluster import Object
from tests.cluster.conftest import Shop
from tests.cluster.installation import Mesh
from tests.cluster.workloads import Workload

# Without native sidecars a Job's program says when it is done (docs/injection.md).
_DONE = "; curl --silent --request POST http://127.0.0.1:15000/quitquitquit"


def job(mesh: Mesh, url: str) -> Object:
    """A Job that calls a server of the mesh once."""
    call = (
        f"curl --silent --show-error --fail --max-time 20 --retry 60 --retry-delay 1 --retry-all-errors {url} || exit 1"
    )
    command = ["sh", "-c", call if mesh.native else call + _DONE]
    template = Workload(name="job", account="default", command=command).template()
    template["spec"]["restartPolicy"] = "Never"
    return {"template": template, "backoffLimit": 0}


def completed(namespace: str, name: str) -> Object | None:
    """A Job that has ended well; AssertionError where it has not."""
    for one in cluster.listed("jobs", namespace):
        if one["metadata"]["name"].startswith(name):
            assert not one["status"].get("failed"), cluster.diagnosis(namespace)
            if one["status"].get("succeeded") and not one["status"].get("active"):
                return one
    return None


def test_a_job_finishes(mesh: Mesh, shop: Shop, namespace: str, saw: Callable[[str], None]) -> None:
    metadata = {"name": "once"}
    spec = job(mesh, shop.web.url)

    cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}, namespace=namespace)
    done = cluster.until(
        "the Job is complete",
        lambda: completed(namespace, "once"),
        otherwise=lambda: cluster.diagnosis(namespace),
    )

    (pod,) = cluster.listed("pods", namespace, "job-name=once")
    assert pod["status"]["phase"] == "Succeeded"
    assert "hello from web" in cluster.kubectl("logs", "-n", namespace, pod["metadata"]["name"], "-c", "app")
    saw(f"from {done['status']['startTime']} to {done['status']['completionTime']}, pod {pod['status']['phase']}")


def test_a_cron_job_s_jobs_finish(mesh: Mesh, shop: Shop, namespace: str, saw: Callable[[str], None]) -> None:
    version = "batch/v1" if mesh.version >= (1, 21) else "batch/v1beta1"
    spec = {"schedule": "* * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": job(mesh, shop.web.url)}}

    cluster.apply(
        {"apiVersion": version, "kind": "CronJob", "metadata": {"name": "tick"}, "spec": spec}, namespace=namespace
    )
    done = cluster.until(
        "a Job of the CronJob's is complete",
        lambda: completed(namespace, "tick-"),
        otherwise=lambda: cluster.diagnosis(namespace),
    )

    saw(f"{done['metadata']['name']}: from {done['status']['startTime']} to {done['status']['completionTime']}")
