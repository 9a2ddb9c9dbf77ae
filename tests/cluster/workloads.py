"""Pods of unmodified programs: who runs what, as plain objects of Kubernetes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.cluster import cluster
from tests.cluster.cluster import LABEL, Object

TOOLS_IMAGE: Final = os.environ.get("QBITEL_E2E_TOOLS_IMAGE", "qbitel/e2e-tools:latest")
# The image's own user; no program of a test is root, but tcpdump.
_USER: Final = 10001
HTTP_PORT: Final = 8080

# A web server that says who calls it by which name; everything it writes is below /tmp, as its user may.
_NGINX: Final = """\
worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server {{
    listen {port};
    location / {{ return 200 "{answer} $hostname\\n"; }}
    location /broken {{ return 500; }}
  }}
}}
"""


def nginx(answer: str = "hello from", port: int = HTTP_PORT) -> list[str]:
    """The command of a web server whose answers are `answer` and its pod's name."""
    configuration = _NGINX.format(answer=answer, port=port)
    return [
        "sh",
        "-c",
        'printf %s "$0" >/tmp/nginx.conf && exec nginx -c /tmp/nginx.conf -g "daemon off;"',
        configuration,
    ]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Pods of one program. `account` is the name of their service account, which is made with them."""

    name: str
    command: Sequence[str] = ("sleep", "infinity")
    port: int | None = None
    account: str = ""
    replicas: int = 1
    container: Object | None = None
    pod: Object | None = None
    annotations: Object | None = None

    @property
    def selector(self) -> str:
        return f"app={self.name}"

    def template(self) -> Object:
        """The pods' template."""
        container: Object = {
            "name": "app",
            "image": TOOLS_IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "command": list(self.command),
            "securityContext": {"runAsUser": _USER, "runAsGroup": _USER, "runAsNonRoot": True},
            **({"ports": [{"containerPort": self.port}]} if self.port else {}),
            **(self.container or {}),
        }
        spec: Object = {
            "serviceAccountName": self.account or self.name,
            # Nothing here has to say goodbye for half a minute, unless its test says so.
            "terminationGracePeriodSeconds": 10,
            "containers": [container],
            **(self.pod or {}),
        }
        metadata: Object = {"labels": {"app": self.name}, "annotations": self.annotations or {}}
        return {"metadata": metadata, "spec": spec}

    def objects(self) -> list[Object]:
        """Everything that it needs."""
        metadata = {"name": self.name}
        selector = {"app": self.name}
        objects: list[Object] = [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": self.account or self.name}},
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": metadata,
                "spec": {
                    "replicas": self.replicas,
                    "selector": {"matchLabels": selector},
                    "template": self.template(),
                },
            },
        ]
        if self.port:
            ports = [{"name": "tcp", "port": self.port, "targetPort": self.port}]
            spec = {"selector": selector, "ports": ports}
            objects.append({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        return objects


@dataclass(frozen=True)
class Running:
    """A workload in a cluster."""

    workload: Workload
    namespace: str

    def pods(self, seconds: float = cluster.PATIENCE) -> list[Object]:
        """Its pods, all of them ready."""
        return cluster.ready_pods(self.namespace, self.workload.selector, self.workload.replicas, seconds)

    @property
    def pod(self) -> str:
        """The name of its first pod."""
        name: str = self.pods()[0]["metadata"]["name"]
        return name

    @property
    def pod_address(self) -> str:
        """The address of its first pod."""
        address: str = self.pods()[0]["status"]["podIP"]
        return address

    @property
    def address(self) -> str:
        """Its Service's address: not its name, because not every cluster of tests has DNS."""
        address: str = cluster.get("service", self.workload.name, self.namespace)["spec"]["clusterIP"]
        return address

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.workload.port}/"

    def run(self, *words: str, seconds: float = cluster.CALL_SECONDS) -> str:
        """What a program in its first pod prints; it must end well."""
        flags = ("exec", "-n", self.namespace, self.pod, "-c", "app", "--")
        return cluster.kubectl(*flags, *words, seconds=seconds)

    def try_to(self, *words: str, seconds: float = cluster.CALL_SECONDS) -> tuple[int, str]:
        """A program's exit code and all that it said."""
        done = cluster.attempt("exec", "-n", self.namespace, self.pod, "-c", "app", "--", *words, seconds=seconds)
        return done.returncode, done.stdout + done.stderr

    def touch(self) -> None:
        """Have the kubelet look at its pods now, and at what the mesh wants them to know."""
        for pod in cluster.listed("pods", self.namespace, self.workload.selector):
            touched = f"{LABEL}/touched={time.monotonic()}"
            cluster.kubectl("annotate", "pod", pod["metadata"]["name"], "-n", self.namespace, touched, "--overwrite")

    def access_log(self) -> list[Object]:
        """What its sidecars have written of connections."""
        lines = [
            line
            for pod in cluster.listed("pods", self.namespace, self.workload.selector)
            for line in cluster.kubectl(
                "logs", "-n", self.namespace, pod["metadata"]["name"], "-c", "qbitel-proxy"
            ).splitlines()
        ]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def metrics(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric with these labels in its first pod's sidecar."""
        return summed(self.exposition(), name, labels)

    def exposition(self) -> str:
        """All of these metrics, in Prometheus' text."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}:15090/proxy/metrics"
        return cluster.kubectl("get", "--raw", path)


def meet(caller: Running, url: str) -> float:
    """Wait until a caller's sidecar knows a Service that is new, and return how many seconds that took.

    The kubelet brings what the mesh knows to running pods within its sync period; touching a pod makes it look now.
    """
    begun = time.monotonic()
    answered(caller, *curl("--fail", url))
    return time.monotonic() - begun


def answered(caller: Running, *words: str) -> str:
    """What a program prints, once it ends well: its pod's sidecar knows the server, and the server is up."""

    def attempt() -> str | None:
        code, said = caller.try_to(*words)
        if code == 0:
            return said
        caller.touch()
        return None

    return cluster.until(
        f"{words[0]} is answered",
        attempt,
        otherwise=lambda: f"{caller.try_to(*words)}\n{cluster.diagnosis(caller.namespace)}",
    )


def summed(exposition: str, name: str, labels: dict[str, Any]) -> float:
    """The sum of a metric's samples that have these labels, in Prometheus' text."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    total = 0.0
    for line in exposition.splitlines():
        if line.startswith((f"{name}{{", f"{name} ")) and all(one in line for one in wanted):
            total += float(line.rsplit(" ", 1)[1])
    return total


def start(namespace: str, *workloads: Workload) -> list[Running]:
    """Bring them up; all are ready."""
    cluster.apply(*(one for workload in workloads for one in workload.objects()), namespace=namespace)
    running = [Running(workload, namespace) for workload in workloads]
    for one in running:
        one.pods()
    return running


def curl(*words: str) -> tuple[str, ...]:
    """The words of a curl that says what went wrong and never waits for long."""
    return ("curl", "--silent", "--show-error", "--max-time", "20", *words)


# What a request that went well writes: of somebody who connects each time, and of somebody who does not.
OK: Final = "ok"
KEPT: Final = "200 0"
# Each line is one request over a connection of its own, as a shell and an unmodified curl make it.
_CALLS: Final = """\
while :; do
  said=$(curl --silent --show-error --max-time 15 --output /dev/null --write-out '%{http_code}' "$0" 2>&1)
  if [ "$said" = 200 ]; then echo ok; else echo "failed: $said"; fi
  sleep 0.1
done
"""
# One connection for all requests, five a second; curl says of each how many connections it had to make.
_FLOW: Final = (
    "stdbuf --output=L curl --silent --show-error --rate 5/s --output /dev/null "
    "--write-out '%{http_code} %{num_connects}\\n' "
    '"$0?[1-100000]"'
)


def caller(url: str, name: str = "caller") -> Workload:
    """Somebody who calls again and again, each time anew."""
    return Workload(name=name, command=["sh", "-c", _CALLS, url])


def flow(url: str, name: str = "flow") -> Workload:
    """Somebody who keeps one connection."""
    return Workload(name=name, command=["sh", "-c", _FLOW, url])


@dataclass(frozen=True)
class Load:
    """What somebody of these two has seen since `skipped` lines."""

    running: Running
    skipped: int = 0

    def lines(self) -> list[str]:
        """One for each request."""
        text = cluster.kubectl("logs", "-n", self.running.namespace, self.running.pod, "-c", "app")
        return text.splitlines()[self.skipped :]

    def settled(self, good: str) -> Load:
        """The same without what came before a request went well: what calls first makes the first connection."""

        def look() -> Load | None:
            lines = self.lines()
            if lines and lines[-1] == good:
                return Load(self.running, self.skipped + len(lines))
            self.running.touch()
            return None

        return cluster.until(
            f"the requests of {self.running.workload.name} go well",
            look,
            otherwise=lambda: cluster.diagnosis(self.running.namespace),
        )

    def at_least(self, count: int) -> list[str]:
        """Its lines, once there are that many."""
        return cluster.until(
            f"{self.running.workload.name} has made {count} requests",
            lambda: lines if len(lines := self.lines()) >= count else None,
            otherwise=lambda: cluster.diagnosis(self.running.namespace),
        )


def failures(lines: Sequence[str], *good: str) -> list[str]:
    """Those that are none of the good ones."""
    return [line for line in lines if line not in good]
