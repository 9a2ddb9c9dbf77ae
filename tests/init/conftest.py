"""Real network namespaces for the tests of interception: they end with the process that made them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ENDPOINT = str(Path(__file__).with_name("endpoint.py"))
FORKSERVER = str(Path(__file__).with_name("forkserver.py"))
# A killed test run leaves no process behind, and a namespace ends with the last process in it.
WITH_US = ("setpriv", "--pdeathsig", "KILL")
NEEDED = ("iptables-nft", "ip6tables-nft", "ip", "unshare", "nsenter", "setpriv")

POD = {4: "10.77.0.2", 6: "fd77::2"}
PEER = {4: "10.77.0.1", 6: "fd77::1"}


class Namespace:
    """A network namespace, held by a process that dies with this one, however this one ends."""

    def __init__(self) -> None:
        self.holder = subprocess.Popen(
            [*WITH_US, "unshare", "--net", "sleep", "infinity"],
            stdin=subprocess.DEVNULL,
        )
        self.path = f"/proc/{self.holder.pid}/ns/net"
        deadline = time.monotonic() + 10
        while Path(f"/proc/{self.holder.pid}/comm").read_text() != "sleep\n":
            assert self.holder.poll() is None, "unshare failed"
            assert time.monotonic() < deadline, "unshare hangs"
            time.sleep(0.005)
        self.servers: list[subprocess.Popen[str]] = []
        self.qbitel: subprocess.Popen[str] | None = None
        self.run("ip", "link", "set", "lo", "up")

    def run(
        self, *command: str, text: str | None = None, env: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` inside; with `check`, a failure fails the test and shows the command's words."""
        ended = subprocess.run(
            ["nsenter", f"--net={self.path}", *command],
            input=text,
            stdin=None if text is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=REPOSITORY,
            env={**os.environ, **(env or {})},
            check=False,
        )
        assert not check or ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
        return ended

    def qbitel_init(
        self, *arguments: str, env: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `qbitel init` inside."""
        if self.qbitel is None:
            self.qbitel = subprocess.Popen(
                [*WITH_US, "nsenter", f"--net={self.path}", sys.executable, FORKSERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )
        assert self.qbitel.stdin is not None
        assert self.qbitel.stdout is not None
        request = {"arguments": ["init", *arguments], "environment": {**(env or {})}}
        print(json.dumps(request), file=self.qbitel.stdin, flush=True)
        answer = json.loads(self.qbitel.stdout.readline())
        assert not check or answer["code"] == 0, f"{arguments}: {answer['stdout']}{answer['stderr']}"
        return subprocess.CompletedProcess(arguments, answer["code"], answer["stdout"], answer["stderr"])

    def serve(self, *ports: int) -> None:
        """Answer on `ports`, on every address, until the namespace is closed."""
        command = [*WITH_US, "nsenter", f"--net={self.path}", sys.executable, ENDPOINT, "serve", *map(str, ports)]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.servers.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

    def dial(self, host: str, port: int, **options: object) -> dict[str, Any]:
        """Connect once and return what the server said: the port it heard us on, our address, where we meant to go."""
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        answer: dict[str, Any] = json.loads(self.run(sys.executable, ENDPOINT, "dial", host, str(port), *words).stdout)
        return answer

    def rules(self, backend: str = "nft") -> str:
        """Every rule of both families, without counters and the comments that carry the time."""
        saved = "".join(self.run(f"{name}-{backend}-save").stdout for name in ("iptables", "ip6tables"))
        return "\n".join(line for line in saved.splitlines() if not line.startswith("#"))

    def close(self) -> None:
        processes: list[subprocess.Popen[Any]] = [*self.servers, self.holder]
        if self.qbitel:
            processes.append(self.qbitel)
        for process in processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    stream.close()


@dataclass(frozen=True, slots=True)
class Pair:
    """A pod and somebody who talks to it, joined by a veth pair; their addresses by IP version."""

    pod: Namespace
    peer: Namespace
    pod_address: Mapping[int, str]
    peer_address: Mapping[int, str]


def need_root() -> None:
    """Skip with the reason where namespaces and packet filters are out of reach."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux: it makes network namespaces and applies real rules")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """An empty network namespace, lo up."""
    need_root()
    made = Namespace()
    yield made
    made.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A pod with a sidecar's ports and an application's, and a peer with servers; shared by a module's tests."""
    need_root()
    pod, peer = Namespace(), Namespace()
    join(pod, peer)
    # 15001 and 15006 stand for the sidecar, 15090 and 15008 for its own servers, the rest for the application.
    pod.serve(15001, 15006, 15008, 15090, 8080, 8081)
    peer.serve(8080, 8081)
    yield Pair(pod, peer, POD, PEER)
    pod.close()
    peer.close()


@pytest.fixture
def clean_pair(pair: Pair) -> Pair:
    """The pair, with nothing of ours in the pod."""
    pair.pod.qbitel_init("--cleanup")
    return pair


@pytest.fixture(params=["nft", "legacy"])
def backend(request: pytest.FixtureRequest, namespace: Namespace) -> str:
    """Each back end that the kernel has."""
    kind: str = request.param
    for program in ("iptables", "ip6tables"):
        if shutil.which(f"{program}-{kind}") is None:
            pytest.skip(f"{program}-{kind} is not installed")
        probe = namespace.run(f"{program}-{kind}", "-t", "nat", "-S", check=False)
        if probe.returncode != 0:
            pytest.skip(f"the kernel has no {kind} back end: {probe.stderr.strip()}")
    return kind


def join(pod: Namespace, peer: Namespace) -> None:
    """Connect two namespaces by a veth pair with IPv4 and IPv6."""
    # Made inside, moved by the other's process id: nothing ever appears outside, whatever else runs at the same time.
    pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(peer.holder.pid))
    for namespace, own in ((pod, POD), (peer, PEER)):
        namespace.run("ip", "link", "set", "eth0", "up")
        namespace.run("ip", "address", "add", f"{own[4]}/24", "dev", "eth0")
        # Duplicate address detection would make the address unusable for a second.
        namespace.run("ip", "address", "add", f"{own[6]}/64", "dev", "eth0", "nodad")
