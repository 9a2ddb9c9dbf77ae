"""The webhook at a fixed rate: how long a pod's creation waits for its sidecar, and what that costs in CPU.

An open loop, as a cluster's API server is one: requests come when they come, and who has to wait is counted from when
it should have been asked. HTTPS on connections that are kept, pods of three sizes, the real process.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.certmgr_load import Taken, cpu_seconds, open_loop, resident
from certmgr.webhook_certificate import issue, names_of
from injector.webhook_configuration import LABELLED_NAMESPACE_PATH
from mesh import names

# The promise of the product: p99 below ten milliseconds for a pod, at 200 a second on one core.
_PROMISE_MS: Final = 10.0
_RATES: Final = (50, 200, 400)
_SECONDS: Final = 10
_PROGRAM: Final = "import sys; from cli.main import main; sys.exit(main())"


def _pod(containers: int, variables: int) -> dict[str, Any]:
    """A pod with probes, ports, resources and an environment, as Deployments have them."""

    def container(number: int) -> dict[str, Any]:
        port = 8000 + number
        probe = {"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 10}
        return {
            "name": f"app-{number}",
            "image": f"registry.example/shop/app-{number}:1.2.3",
            "ports": [{"containerPort": port}],
            "env": [{"name": f"SETTING_{index}", "value": f"value of {index}"} for index in range(variables)],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            "readinessProbe": probe,
            "livenessProbe": probe,
        }

    metadata = {"generateName": "web-5d4f-", "labels": {"app": "web", "version": "v1"}}
    return {"metadata": metadata, "spec": {"containers": [container(number) for number in range(containers)]}}


_PODS: Final = {
    "small: 1 container": _pod(1, 2),
    "usual: 2 containers, 20 variables": _pod(2, 20),
    "large: 8 containers, 100 variables": _pod(8, 100),
}


def _request(pod: dict[str, Any]) -> bytes:
    review = {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE",
            "namespace": "shop",
            "object": pod,
        },
    }
    body = json.dumps(review, separators=(",", ":")).encode()
    head = f"POST {LABELLED_NAMESPACE_PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Connections:
    """Kept connections; a request takes the one that has been free for the shortest, or opens another."""

    def __init__(self, port: int, trust: ssl.SSLContext, server_name: str) -> None:
        self._where = {"host": "127.0.0.1", "port": port, "ssl": trust, "server_hostname": server_name}
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: bytes) -> None:
        """RuntimeError for an answer that brings no sidecar."""
        reader, writer = self._free.pop() if self._free else await self._new()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(found[1]) if found else 0)
        if b'"patchType":"JSONPatch"' not in body:
            raise RuntimeError(f"the webhook answers {head[:20]!r} {body[:200]!r}")
        self._free.append((reader, writer))

    async def close(self) -> None:
        """All of them."""
        for _, writer in self._free:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _new(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(**self._where, limit=1 << 20)


@contextlib.contextmanager
def _webhook(folder: Path) -> Iterator[tuple[int, int]]:
    """The real program on one core; its process and its port."""
    dns_names = names_of(names.WEBHOOK_NAME, names.CONTROL_NAMESPACE)
    made = issue(dns_names, datetime.datetime.now(datetime.UTC))
    for name, content in made.files([made.authority]).items():
        (folder / name).write_bytes(content)
    flags = ["--tls-cert", str(folder / names.CERTIFICATE_FILE), "--tls-key", str(folder / names.PRIVATE_KEY_FILE)]
    ports = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--drain-seconds", "0"]
    command = [sys.executable, "-c", _PROGRAM, "injector", "serve", *flags, *ports]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None  # noqa: S101  # asked for above
            for line in process.stderr:
                if found := re.search(r"the webhook is on port (\d+)", line):
                    break
            else:
                raise RuntimeError("the webhook did not start")
            # Its log is a pipe that somebody has to read.
            drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
            core = max(os.sched_getaffinity(0))
            os.sched_setaffinity(process.pid, {core})
            os.sched_setaffinity(0, os.sched_getaffinity(0) - {core} or {core})
            yield process.pid, int(found[1])
        finally:
            process.terminate()
            process.wait()
            drain.wait()


async def _measure(folder: Path, pid: int, port: int) -> None:
    trust = ssl.create_default_context(cafile=str(folder / names.ROOTS_FILE))
    connections = _Connections(port, trust, names_of(names.WEBHOOK_NAME, names.CONTROL_NAMESPACE)[0])
    print(f"{'pod':<36} {'bytes':>7} {'a second':>8} {'p50 ms':>7} {'p99 ms':>7} {'max ms':>7} {'CPU ms':>7}")
    for what, pod in _PODS.items():
        request = _request(pod)
        await open_loop(lambda _number: connections.ask(request), 100, 100)  # noqa: B023  # awaited within the turn
        for rate in _RATES:
            before = cpu_seconds(pid)
            taken = await open_loop(lambda _number: connections.ask(request), rate * _SECONDS, rate)  # noqa: B023
            _row(what, len(request), rate, taken, cpu_seconds(pid) - before)
    print(f"\nmemory of the process: {resident(pid) / (1 << 20):.0f} MiB")
    await connections.close()


def _row(what: str, size: int, rate: int, taken: Taken, cpu: float) -> None:
    p99 = taken.percentile(99)
    print(
        f"{what:<36} {size:>7} {rate:>8} {taken.percentile(50):>7.2f} {p99:>7.2f} {max(taken.latencies) * 1e3:>7.2f}"
        f" {cpu / len(taken.latencies) * 1e3:>7.2f}" + ("" if p99 < _PROMISE_MS else f"   over {_PROMISE_MS:g}"),
        flush=True,
    )


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as name, _webhook(Path(name)) as (pid, port):
        asyncio.run(_measure(Path(name), pid, port))


if __name__ == "__main__":
    main()
