"""Two network namespaces without a name, joined by a virtual cable: the pods' network.

A namespace without a name lives as long as somebody holds it: here one file descriptor, and the processes started in
it. When they are gone, the kernel takes it away with its interfaces, addresses and rules. Nothing of it is ever seen in
the machine's own network.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cli.demo.confine import CLONE_NEWNET, check, libc
from cli.demo.errors import CannotIsolateError

T = TypeVar("T")

INTERFACE: Final = "eth0"  # what a pod's interface is called in Kubernetes
PREFIX: Final = 24
SUBNET: Final = "10.250.0.0/24"


@dataclass(frozen=True, slots=True)
class Namespace:
    """One pod's network. `path` can be entered as long as the descriptor is open in this process."""

    descriptor: int
    address: str

    @property
    def path(self) -> Path:
        return Path(f"/proc/{os.getpid()}/fd/{self.descriptor}")

    def run(self, work: Callable[[], T]) -> T:
        """Do `work` on a thread of its own that is inside the namespace, and return its result."""

        def enter() -> None:
            check(libc.setns(self.descriptor, CLONE_NEWNET), "setns")

        return _on_a_thread(enter, work)


def make_pair(stack: ExitStack) -> tuple[Namespace, Namespace]:
    """Make pod-a (10.250.0.1) and pod-b (10.250.0.2), joined; `stack` gives them up.

    Raises CannotIsolateError where this machine does not let us.
    """
    try:
        first = make_namespace("10.250.0.1", stack)
        second = make_namespace("10.250.0.2", stack)
        first.run(lambda: _plug_cable(second))
        for pod in (first, second):
            pod.run(lambda pod=pod: _configure(pod))  # type: ignore[misc]  # a default pins the loop's value
    except (NetlinkError, OSError) as error:
        raise CannotIsolateError(f"two network namespaces cannot be joined ({error})") from None
    return first, second


def make_namespace(address: str, stack: ExitStack) -> Namespace:
    """Make one namespace; `address` is only noted. Raises CannotIsolateError where that is refused."""

    def leave() -> None:
        check(libc.unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)")

    def hold() -> int:
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    try:
        descriptor = _on_a_thread(leave, hold)
    except OSError as error:
        raise CannotIsolateError(f"a network namespace cannot be made ({error})") from None
    stack.callback(os.close, descriptor)
    return Namespace(descriptor, address)


def _plug_cable(other: Namespace) -> None:
    """Inside one pod: make the cable, with its far end in the other."""
    with IPRoute() as route:
        peer = {"ifname": INTERFACE, "net_ns_fd": other.descriptor}
        route.link("add", ifname=INTERFACE, kind="veth", peer=peer)


def _configure(pod: Namespace) -> None:
    with IPRoute() as route:
        for name in ("lo", INTERFACE):
            (index,) = route.link_lookup(ifname=name)
            if name == INTERFACE:
                route.addr("add", index=index, address=pod.address, prefixlen=PREFIX)
            route.link("set", index=index, state="up")


def _on_a_thread(first: Callable[[], None], work: Callable[[], T]) -> T:
    """Network namespaces belong to threads: this one is used up by changing its own, and ends."""
    results: list[T] = []
    failures: list[OSError | NetlinkError] = []

    def body() -> None:
        try:
            first()
            results.append(work())
        except (OSError, NetlinkError) as error:
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
