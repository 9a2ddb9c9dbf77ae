"""Who is measured: each contender is two proxies, or none, between the load and the application."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.mesh import envoy, haproxy, nginx
from bench.mesh.certificates import Certificates
from bench.mesh.processes import Pair, free_port, running

# (client's side, server's side, application)
Ports = tuple[int, int, int]
Commands = Callable[[Path, Ports], Sequence[Sequence[str | Path]]]


@dataclass(frozen=True, slots=True)
class Peer:
    """A contender. `full_handshakes`: it never resumes, and is measured by its new connections alone."""

    key: str
    name: str
    version: str = ""
    commands: Commands | None = None
    full_handshakes: bool = False

    @contextlib.contextmanager
    def started(self, folder: Path, application: int) -> Iterator[Pair]:
        """Both its processes run, and an echo has come back."""
        if self.commands is None:
            yield Pair(application, (), 0.0)
            return
        own = folder / self.key
        own.mkdir(exist_ok=True)
        ports = (free_port(), free_port(), application)
        with running(self.commands(own, ports), ports[0], own) as pair:
            yield pair


def no_proxy() -> Peer:
    """The load and the application alone: what the others cannot reach."""
    return Peer("none", "no proxy")


def envoys(binary: Path, version: str, classical: Certificates, post_quantum: Certificates) -> list[Peer]:
    """Envoy in plain TCP, as Istio runs it, with the most that it can do, and with that in tunnels."""
    usual = envoy.Security(classical, "X25519MLKEM768", None)
    most = envoy.Security(post_quantum, "MLKEM1024", "mldsa87")
    full = envoy.Security(post_quantum, "MLKEM1024", "mldsa87", resume=False)

    def make(key: str, name: str, security: envoy.Security | None, *, tunnels: bool = False) -> Peer:
        def commands(folder: Path, ports: Ports) -> Sequence[Sequence[str | Path]]:
            return envoy.commands(binary, folder, ports, security, tunnels=tunnels)

        return Peer(key, name, version, commands, full_handshakes=security is full)

    return [
        make("envoy-plain", "Envoy, plain TCP", None),
        make("envoy-usual", "Envoy, X25519MLKEM768 + ECDSA P-256", usual),
        make("envoy", "Envoy, MLKEM1024 + ML-DSA-87", most),
        make("envoy-tunnels", "Envoy tunnels (HTTP/2 CONNECT), MLKEM1024 + ML-DSA-87", most, tunnels=True),
        make("envoy-full", "Envoy, full handshakes", full),
    ]


_OURS: Final = "X25519MLKEM1024 + ML-DSA-87"
_QBITEL: Final = ("-c", "import sys; from cli.main import main; sys.exit(main())")
_FORGETFUL: Final = ("-m", "bench.mesh.forgetful")


def ours(certificates: Certificates, version: str, *, liboqs: bool) -> list[Peer]:
    """QBITEL mesh with and without tunnels, and with full handshakes by each provider there is."""

    def make(key: str, name: str, *flags: str, program: Sequence[str] = _QBITEL, full: bool = False) -> Peer:
        def commands(_folder: Path, ports: Ports) -> Sequence[Sequence[str | Path]]:
            client, server, application = ports
            sides = (f"--explicit-outbound=127.0.0.1:{client}=127.0.0.1:{server}",
                     f"--explicit-inbound=127.0.0.1:{server}=127.0.0.1:{application}")  # fmt: skip
            common = ["--certs", certificates.folder, "--no-capture", "--log-level", "warning", *flags]
            edge = ["--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0"]
            return [[sys.executable, *program, "proxy", *common, *edge, side] for side in sides]

        return Peer(key, name, version, commands, full_handshakes=full)

    found = [
        make("ours", f"QBITEL mesh, {_OURS}"),
        make("ours-no-tunnels", "QBITEL mesh, --no-tunnels", "--no-tunnels"),
        make("ours-sleeping", "QBITEL mesh, --busy-poll 0", "--busy-poll", "0"),
        make("ours-full", "QBITEL mesh, full handshakes", "--no-tunnels", program=_FORGETFUL, full=True),
    ]
    if liboqs:
        with_it = ("--no-tunnels", "--provider", "liboqs")
        found.append(
            make("ours-full-liboqs", "QBITEL mesh with liboqs, full handshakes", *with_it,
                 program=_FORGETFUL, full=True)
        )  # fmt: skip
    return found


_OPENSSL: Final = "SecP384r1MLKEM1024 + ML-DSA-87"


def haproxies(binary: Path, version: str, certificates: Certificates) -> list[Peer]:
    """HAProxy in plain TCP, with post-quantum TLS, and the same without resumption."""

    def make(key: str, name: str, files: Certificates | None, *, resume: bool = True) -> Peer:
        def commands(folder: Path, ports: Ports) -> Sequence[Sequence[str | Path]]:
            return haproxy.commands(binary, folder, ports, files, resume=resume)

        return Peer(key, name, version, commands, full_handshakes=not resume)

    return [
        make("haproxy-plain", "HAProxy, plain TCP", None),
        make("haproxy", f"HAProxy, {_OPENSSL}", certificates),
        make("haproxy-full", "HAProxy, full handshakes", certificates, resume=False),
    ]


def nginxes(binary: Path, module: Path | None, version: str, certificates: Certificates) -> list[Peer]:
    """nginx's stream module with post-quantum TLS, and the same without resumption."""

    def make(key: str, name: str, *, resume: bool = True) -> Peer:
        def commands(folder: Path, ports: Ports) -> Sequence[Sequence[str | Path]]:
            return nginx.commands(binary, module, folder, ports, certificates, resume=resume)

        return Peer(key, name, version, commands, full_handshakes=not resume)

    return [make("nginx", f"nginx, {_OPENSSL}"), make("nginx-full", "nginx, full handshakes", resume=False)]
