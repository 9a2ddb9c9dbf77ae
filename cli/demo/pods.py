"""The stage with real isolation: two network namespaces with interception rules, sidecars without rights. For root."""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from cli.demo.confine import check, libc
from cli.demo.descendants import end_descendants
from cli.demo.errors import CannotIsolateError, PartFailedError
from cli.demo.forward import Door
from cli.demo.identities import Identity
from cli.demo.network import INTERFACE, SUBNET, Namespace, make_namespace, make_pair
from cli.demo.processes import QBITEL, Child, Place, module, own_environment
from cli.demo.sidecar import Sidecar
from cli.demo.stage import POD_NAMES, START_SECONDS, Endpoint, Mesh, Stage, Wire
from mesh.names import HEALTH_PORT, METRICS_PORT, SIDECAR_GID, SIDECAR_UID

# `nobody`: the applications are no root, and not the sidecar, whose traffic is not intercepted.
APPLICATION_USER: Final = (65534, 65534)
MS_NOSUID_NODEV: Final = 2 | 4  # linux/mount.h
# Where the private file system is mounted: a folder that every Linux has and whose content no program misses.
PRIVATE_FOLDERS: Final = (Path("/dev/shm"), Path("/mnt"))  # noqa: S108  # covered by a file system of our own
PRIVATE_SIZE: Final = "256m"  # a limit, not a use: certificates are a few kB
INIT_SECONDS: Final = 30.0


def make_private_folder() -> Path:
    """Mount a memory file system that only this mount namespace sees, and return a folder in it.

    Raises CannotIsolateError where that is refused.
    """
    place = next((folder for folder in PRIVATE_FOLDERS if folder.is_dir()), None)
    if place is None:
        raise CannotIsolateError("there is neither /dev/shm nor /mnt to mount a private folder on")
    data = f"mode=1777,size={PRIVATE_SIZE}".encode()
    try:
        flags = ctypes.c_ulong(MS_NOSUID_NODEV)
        check(libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", flags, data), f"mounting on {place}")
    except OSError as error:
        raise CannotIsolateError(f"a private file system cannot be mounted ({error})") from None
    folder = Path(tempfile.mkdtemp(prefix="qbitel-demo-", dir=place))
    folder.chmod(0o711)  # the sidecars pass through it to folders of their own
    _cover_run(folder)
    return folder


def _cover_run(folder: Path) -> None:
    """Have what is written to /run end up in `folder`: lock files, and the pid file of a user's own daemon.

    A pid file of a process that was PID 7 in the demo would be a trap for whoever reads it later. Where the kernel has
    no overlay file system, /run stays as it is.
    """
    upper, work = folder / "run", folder / "run-work"
    upper.mkdir(mode=0o755)
    work.mkdir(mode=0o700)
    layers = f"lowerdir=/run,upperdir={upper},workdir={work}".encode()
    libc.mount(b"overlay", b"/run", b"overlay", ctypes.c_ulong(MS_NOSUID_NODEV), layers)


class PodStage(Stage):
    """Two namespaces and a virtual cable; the tap is on pod-b's end of it."""

    kind = "namespaces"
    title = "two network namespaces joined by a virtual cable"
    mesh_title = f"in each pod, the interception rules and a sidecar as UID {SIDECAR_UID}, mode STRICT"
    sidecar_user = SIDECAR_UID

    def __init__(self, stack: ExitStack, folder: Path, server_port: int) -> None:
        """Make the pods. Raises CannotIsolateError where this machine cannot have them, before anything runs."""
        super().__init__(stack, folder, server_port)
        stack.callback(end_descendants)
        _check_readable()
        with ExitStack() as trial:
            self._init(make_namespace("", trial), CannotIsolateError)
        self.pods = make_pair(stack)

    def client_place(self) -> Place:
        return Place(network=self.pods[0].path, user=APPLICATION_USER)

    def server_place(self) -> Place:
        return Place(network=self.pods[1].path, user=APPLICATION_USER)

    def own_server_place(self, account: str | None) -> Place:
        return Place(network=self.pods[1].path, account=account)

    def direct(self) -> Endpoint:
        return Endpoint(self.pods[1].address, self.server_port)

    def bypass(self) -> tuple[Place, Endpoint]:
        # What the sidecar's own user sends is not intercepted.
        return Place(network=self.pods[0].path, user=(SIDECAR_UID, SIDECAR_GID)), self.direct()

    def open_wire(self, *, sidecars: bool, pcap: Path | None = None) -> Wire:
        del sidecars  # the wire is the same
        words = [*module("capture"), "--interface", INTERFACE, *(["--pcap", str(pcap)] if pcap else [])]
        tap = self.start(Child("the wire tap", Place(network=self.pods[1].path).wrap(words), ends_with_input=True))
        tap.expect("ready", START_SECONDS)
        return Wire(tap, self.direct())

    def start_mesh(self, wire: Wire, identities: Sequence[Identity]) -> Mesh:
        first, second = (
            Sidecar(
                name,
                identity.folder,
                Place(network=pod.path, user=(SIDECAR_UID, SIDECAR_GID)),
                ["--mesh", SUBNET],
            )
            for name, pod, identity in zip(POD_NAMES, self.pods, identities, strict=True)
        )
        # As in a pod: the init step has ended before the sidecar starts, which is not ready without its rules.
        for pod in self.pods:
            self._init(pod, PartFailedError)
        for sidecar in (first, second):
            self.start(sidecar.child)
        client_ports = self._open_doors(
            self.pods[0], [("127.0.0.1", METRICS_PORT), ("127.0.0.1", HEALTH_PORT), wire.endpoint.pair]
        )
        server_ports = self._open_doors(self.pods[1], [("127.0.0.1", METRICS_PORT), ("127.0.0.1", HEALTH_PORT)])
        first.wait_ready(client_ports[1])
        second.wait_ready(server_ports[1])
        for pod in self.pods:  # it says nothing, or fails
            self._init(pod, PartFailedError, "--check")
        checks = tuple(f"{name}: as planned" for name in POD_NAMES)
        return Mesh((first, second), (client_ports[0], server_ports[0]), client_ports[2], checks)

    def _open_doors(self, pod: Namespace, targets: Sequence[tuple[str, int]]) -> list[int]:
        """Free ports on the machine's 127.0.0.1 that lead to `targets` as seen from inside `pod`."""
        listeners = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in targets]
        doors = [str(Door(listener.fileno(), *target)) for listener, target in zip(listeners, targets, strict=True)]
        place = Place(network=pod.path, user=APPLICATION_USER)
        descriptors = [listener.fileno() for listener in listeners]
        words = place.wrap([*module("forward"), *doors])
        child = self.start(Child("a door into a pod", words, pass_fds=descriptors, ends_with_input=True))
        ports = [listener.getsockname()[1] for listener in listeners]
        for listener in listeners:
            listener.close()
        child.expect("ready", START_SECONDS)
        return ports

    def _init(self, pod: Namespace, failure: type[CannotIsolateError] | type[PartFailedError], *options: str) -> None:
        """Run `qbitel init` inside `pod`, as the init container of a real pod does."""
        command = Place(network=pod.path).wrap([*QBITEL, "init", *options])
        # iptables' lock file belongs into our own folder, not into the machine's /run.
        environment = {**own_environment(), "XTABLES_LOCKFILE": str(self.folder / "xtables.lock")}
        try:
            done = subprocess.run(  # noqa: S603  # our own program
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=INIT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise failure(f"qbitel init did not end within {INIT_SECONDS:g} seconds") from None
        lines = (done.stderr + done.stdout).strip().splitlines() or ["no output"]
        if done.returncode != 0:
            if failure is PartFailedError:
                raise PartFailedError(f"qbitel init {' '.join(options)} failed".replace("  ", " "), lines[-12:])
            raise failure(lines[-1])


def _check_readable() -> None:
    """Sidecars run as another user: closed folders are opened for them, closed files are not."""
    for path in (Path(__file__), Path(os.path.realpath(os.__file__))):
        if not path.stat().st_mode & stat.S_IROTH:
            raise CannotIsolateError(f"{path} cannot be read by the sidecars' user; chmod -R go+rX its folder")
