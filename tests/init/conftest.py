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

from init.rules import Family

REPOSITORY = Path(__file__).resolve().parents[2]
ENDPOINT = str(Path(__file__).with_name("endpoint.py"))
# A killed test run leaves no process behind, and a namespace ends with the last process in it.
WITH_US = ("setpriv", "--pdeathsig", "KILL")
NEEDED = ("iptables-nft", "ip6tables-nft", "ip", "unshare", "nsenter", "setpriv", "dash")

POD = {4: "10.77.0.2", 6: "fd77::2"}
PEER = {4: "10.77.0.1", 6: "fd77::1"}


class Forkserver:
    """The process of forkserver.py, started when it is first asked for something."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.process is None:
            self.process = subprocess.Popen(
                [*WITH_US, sys.executable, str(Path(__file__).with_name("forkserver.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None


FORKSERVER = Forkserver()


def end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()


@pytest.fixture(scope="session", autouse=True)
def forkserver() -> Iterator[None]:
    """Ends the process that `Namespace` forks programs from."""
    yield
    FORKSERVER.close()


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
        assert not check or ended.returncode == 0, f"{str(command)[:200]}: {ended.stdout}{ended.stderr}"
        return ended

    def qbitel_init(
        self, *arguments: str, env: Mapping[str, str] | None = None, uid: int = 0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `qbitel init` inside, as `uid`."""
        answer = self.forked("qbitel", ["init", *arguments], env or {}, uid)
        assert not check or answer["code"] == 0, f"{arguments}: {answer['stdout']}{answer['stderr']}"
        return subprocess.CompletedProcess(arguments, answer["code"], answer["stdout"], answer["stderr"])

    def forked(
        self, program: str, arguments: list[str], environment: Mapping[str, str], uid: int = 0
    ) -> dict[str, Any]:
        """Run a program inside, in a fork of the one process that has its imports."""
        place = {"environment": {**environment}, "uid": uid, "namespace": self.path}
        return FORKSERVER.ask({"program": program, "arguments": arguments, **place})

    def serve(self, *ports: int | str) -> None:
        """Answer on `ports` (see endpoint.py), on every address, until the namespace is closed."""
        self.endpoint("serve", *map(str, ports))

    def endpoint(self, *words: str) -> None:
        """Run endpoint.py until the namespace is closed; return when it listens."""
        command = [*WITH_US, "nsenter", f"--net={self.path}", sys.executable, ENDPOINT, *words]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.servers.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

    def dial(self, host: str, port: int, **options: object) -> dict[str, Any]:
        """Connect once and return what the server said: the port it heard us on, our address, where we meant to go."""
        words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        ended = self.forked("dial", [host, str(port), *words], {})
        assert ended["code"] == 0, ended["stderr"]
        answer: dict[str, Any] = json.loads(ended["stdout"])
        return answer

    def script(
        self, text: str, *, env: Mapping[str, str] | None = None, shell: str = "dash", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run what `qbitel init --script` printed, as an init container does: as an argument of the shell."""
        return self.run(shell, "-c", text, env=env, check=check)

    def rules(self, backend: str = "nft") -> str:
        """Every rule of both families, without counters and the comments that carry the time."""
        return "\n".join(text for text in self.saved(backend).values() if text)

    def saved(self, backend: str) -> dict[Family, str]:
        """The same for each family."""
        saved = {family: self.run(f"{family.program}-{backend}-save").stdout.splitlines() for family in Family}
        return {
            family: "\n".join(line for line in lines if not line.startswith("#")) for family, lines in saved.items()
        }

    def close(self) -> None:
        for process in (*self.servers, self.holder):
            end(process)


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


def need_nft() -> None:
    """Skip where rules that only nft can write cannot be made."""
    need_root()
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")


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
    pod.serve(15001, 15006, 15008, 15090, 8080, 8081, 15053, "lo:15053")
    peer.serve(8080, 8081, 53, "udp:53")
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
