"""What a node sees of traffic between its pods: tcpdump in the node's network, and TLS's hellos in what it wrote."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pqtls.errors import TlsError
from pqtls.extensions import ExtensionType
from pqtls.messages import ClientHello, ServerHello
from pqtls.wire import Reader
from tests.cluster import cluster
from tests.cluster.pcap import End, streams
from tests.cluster.workloads import TOOLS_IMAGE

_FILE: Final = "/tmp/seen.pcap"  # in a container of its own
# KiB. A node that is busy reads late, and what the buffer has no room for is lost.
_BUFFER: Final = ("-B", "32768")
_HANDSHAKE: Final = 22
_CLIENT_HELLO, _SERVER_HELLO = 1, 2


@dataclass(frozen=True)
class Capture:
    """A tcpdump that runs."""

    namespace: str
    pod: str

    def so_far(self) -> bytes:
        """All that it has written."""
        return base64.b64decode(cluster.kubectl("exec", "-n", self.namespace, self.pod, "--", "base64", _FILE))


@contextlib.contextmanager
def capturing(namespace: str, node: str, address: str) -> Iterator[Capture]:
    """Everything that a node sees to and from an address, on every interface, from now on."""
    name = f"tcpdump-{address.replace('.', '-').replace(':', '-')}"
    container = {
        "name": "tcpdump",
        "image": TOOLS_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["tcpdump", "-i", "any", "-U", *_BUFFER, "-w", _FILE, "host", address],
        "securityContext": {"privileged": True, "runAsUser": 0, "runAsGroup": 0},
    }
    spec = {
        "hostNetwork": True,
        "nodeName": node,
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    cluster.apply(pod, namespace=namespace)
    try:
        cluster.until(
            "tcpdump listens",
            lambda: "listening on" in cluster.attempt("logs", "-n", namespace, name).stdout,
            otherwise=lambda: cluster.diagnosis(namespace),
        )
        yield Capture(namespace, name)
    finally:
        cluster.kubectl("delete", "pod", name, "-n", namespace, "--wait=false")


@dataclass(frozen=True)
class Hellos:
    """What both ends of a TLS connection said in the clear."""

    offered_versions: tuple[int, ...]
    offered_groups: tuple[int, ...]
    chosen_version: int | None
    chosen_group: int | None


def hellos(seen: bytes, server: str) -> list[Hellos]:
    """Of each TLS connection to `server` that was seen whole from its beginning."""
    sent = streams(seen)
    found = []
    for (source, destination), data in sent.items():
        if destination.address == server and (body := _hello(data, _CLIENT_HELLO)) is not None:
            found.append(_hellos(ClientHello.parse(body), _hello(_answer(sent, source, destination), _SERVER_HELLO)))
    return found


def _answer(sent: dict[tuple[End, End], bytes], source: End, destination: End) -> bytes:
    return sent.get((destination, source), b"")


def _hellos(offer: ClientHello, answer: bytes | None) -> Hellos:
    extensions = {} if answer is None else ServerHello.parse(answer).extensions
    return Hellos(
        offered_versions=_numbers(offer.extensions[ExtensionType.SUPPORTED_VERSIONS], 1),
        offered_groups=_numbers(offer.extensions[ExtensionType.SUPPORTED_GROUPS], 2),
        chosen_version=_first(extensions.get(ExtensionType.SUPPORTED_VERSIONS)),
        chosen_group=_first(extensions.get(ExtensionType.KEY_SHARE)),
    )


def _numbers(content: bytes, length_size: int) -> tuple[int, ...]:
    rest = content[length_size:]
    return tuple(int.from_bytes(rest[at : at + 2], "big") for at in range(0, len(rest), 2))


def _first(content: bytes | None) -> int | None:
    return None if content is None else int.from_bytes(content[:2], "big")


def _hello(data: bytes, kind: int) -> bytes | None:
    """The body of the first handshake message of a stream, if it is a hello of this kind."""
    message = bytearray()
    reader = Reader(data, "a captured stream")
    try:
        while True:
            content_type, _version, fragment = reader.uint(1), reader.uint(2), reader.vector(2)
            if content_type != _HANDSHAKE:
                return None
            message += fragment
            if len(message) >= 4 and len(message) >= 4 + int.from_bytes(message[1:4], "big"):
                return bytes(message[4 : 4 + int.from_bytes(message[1:4], "big")]) if message[0] == kind else None
    except TlsError:
        return None
