"""The cluster that KUBECONFIG names, by kubectl, which users have; and waiting for what it does in its own time."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias, TypeVar

Object: TypeAlias = dict[str, Any]
Seen = TypeVar("Seen")

# Images are there already, but a loaded machine of two cores starts a pod in tens of seconds.
PATIENCE: Final = 300.0
# One call of kubectl; the API server's own longest answer takes a minute.
CALL_SECONDS: Final = 120.0
# Each look at the cluster is a process of some 100 ms.
_PAUSE: Final = 1.0
# A container that has ended so often will not run the next time either.
_RESTARTS: Final = 3
LABEL: Final = "qbitel-e2e"


class KubectlFailed(AssertionError):
    """kubectl refused; the message has what it said."""


def kubectl(*words: str, given: Any = None, seconds: float = CALL_SECONDS) -> str:
    """What kubectl prints; KubectlFailed where it refuses. `given` goes to its standard input, as JSON."""
    done = attempt(*words, given=given, seconds=seconds)
    if done.returncode:
        raise KubectlFailed(f"kubectl {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def attempt(*words: str, given: Any = None, seconds: float = CALL_SECONDS) -> subprocess.CompletedProcess[str]:
    """The same for what may be refused."""
    return subprocess.run(
        ["kubectl", *words],
        input=None if given is None else json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def get(kind: str, name: str, namespace: str | None = None) -> Object:
    """One object, as JSON has it."""
    found: Object = json.loads(kubectl("get", kind, name, *_in(namespace), "-o", "json"))
    return found


def find(kind: str, name: str, namespace: str | None = None) -> Object | None:
    """One object, or None where there is none."""
    text = kubectl("get", kind, name, *_in(namespace), "-o", "json", "--ignore-not-found")
    return json.loads(text) if text else None


def listed(kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
    """All of a kind in a namespace; None: in all of them, or of a kind that is in none."""
    everywhere = ("--all-namespaces",) if namespace is None else _in(namespace)
    items: list[Object] = json.loads(kubectl("get", kind, *everywhere, "-l", selector, "-o", "json"))["items"]
    return items


def apply(*objects: Object, namespace: str | None = None) -> None:
    """Create or change them."""
    kubectl("apply", *_in(namespace), "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": list(objects)})


def _in(namespace: str | None) -> tuple[str, ...]:
    return () if namespace is None else ("-n", namespace)


def until(
    what: str,
    look: Callable[[], Seen | None],
    seconds: float = PATIENCE,
    otherwise: Callable[[], str] = lambda: "",
) -> Seen:
    """Look again and again until there is something to see; `otherwise` tells more where there never was."""
    end = time.monotonic() + seconds
    while True:
        if seen := look():
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what}\n{otherwise()}")
        time.sleep(_PAUSE)


def is_ready(pod: Object) -> bool:
    """Whether all of its containers say so, and nobody has told it to end."""
    conditions = pod["status"].get("conditions", [])
    return "deletionTimestamp" not in pod["metadata"] and any(
        one["type"] == "Ready" and one["status"] == "True" for one in conditions
    )


def _is_hopeless(pod: Object) -> bool:
    statuses = pod["status"].get("containerStatuses", []) + pod["status"].get("initContainerStatuses", [])
    return any(one["restartCount"] > _RESTARTS for one in statuses)


def ready_pods(namespace: str, selector: str, count: int = 1, seconds: float = PATIENCE) -> list[Object]:
    """The pods of a workload, once that many are ready and no others are left."""

    def look() -> list[Object] | None:
        pods = listed("pods", namespace, selector)
        assert not any(map(_is_hopeless, pods)), diagnosis(namespace)
        return pods if len(pods) == count and all(map(is_ready, pods)) else None

    return until(f"{count} pods of {namespace} with {selector} are ready", look, seconds, lambda: diagnosis(namespace))


def diagnosis(namespace: str) -> str:
    """What an operator would look at: pods, events and the last lines of every container."""
    parts = [
        f"-- pods of {namespace}",
        attempt("get", "pods", "-n", namespace, "-o", "wide").stdout,
        f"-- events of {namespace}",
        attempt("get", "events", "-n", namespace, "--sort-by=.lastTimestamp").stdout[-4000:],
    ]
    for pod in listed("pods", namespace):
        name = pod["metadata"]["name"]
        parts.append(f"-- {namespace}/{name}")
        parts.append(attempt("logs", "-n", namespace, name, "--all-containers", "--prefix", "--tail=25").stdout[-6000:])
    return "\n".join(parts)


@contextlib.contextmanager
def new_namespace(purpose: str, **labels: str) -> Iterator[str]:
    """A namespace of its own ('_' for '-' in the labels' names), which is deleted at the end."""
    name = f"{LABEL}-{purpose}-{uuid.uuid4().hex[:6]}"
    labels = {LABEL: "true", **{label.replace("_", "-"): value for label, value in labels.items()}}
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        # A controller makes it; before, no pod of this namespace is taken.
        until(f"{name} has its account", lambda: find("serviceaccount", "default", name))
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


def version() -> tuple[int, int]:
    """Of the cluster's oldest node: what starts containers decides what may be asked of them."""
    versions = [node["status"]["nodeInfo"]["kubeletVersion"] for node in listed("nodes")]
    # v1.20.2, v1.31.4-eks-0a1b2c3
    return min((int(major), int(minor)) for major, minor, *_ in (one.removeprefix("v").split(".") for one in versions))


def has_version(group: str) -> bool:
    """Whether the cluster serves a version of a group, such as policy/v1."""
    return group in kubectl("api-versions").split()


def has_kind(name: str) -> bool:
    """Whether the cluster knows a kind, by its plural and group."""
    group = name.partition(".")[2]
    return name in kubectl("api-resources", f"--api-group={group}", "-o", "name").split()
