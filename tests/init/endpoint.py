"""Both ends of a real connection, run as a program inside a network namespace.

    endpoint.py serve PORT …          accept on every address; tell each caller, as JSON, where it arrived
                                      (udp:PORT: the same for datagrams; lo:PORT: for datagrams to loopback addresses)
    endpoint.py transparent PORT MARK accept what TPROXY brings; dial where it was going, from its client's address with
                                      MARK on the packets, and tell the caller what was said there
    endpoint.py dial HOST PORT [--uid N] [--gid N] [--source HOST] [--source-port N] [--udp 1] [--times N] [--timeout S]
                                      print, one JSON line a connection, what the server said or how dialling failed

`serve` and `transparent` print "ready" when they listen. Where a connection was redirected, the answer has its original
destination.
"""

from __future__ import annotations

import argparse
import encodings.idna  # noqa: F401  # socket loads it late; the user that we become may not read the interpreter's files
import json
import os
import selectors
import socket
import struct
import sys
from collections.abc import Callable, Iterator

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h, and the same number in linux/netfilter_ipv6/ip6_tables.h
DIAL_TIMEOUT = 5.0  # seconds: room for two retransmissions of a SYN, after one and after two more


IPV6_TRANSPARENT = 75  # linux/in6.h; the socket module has only IPv4's, IP_TRANSPARENT, and that not everywhere
IP_TRANSPARENT = 19  # linux/in.h
EVERYWHERE = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104  # its namespace only
# What answers redirected datagrams must answer from the address that they were redirected to.
LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def main() -> None:
    match sys.argv[1:]:
        case ["serve", *ports]:
            serve(ports)
        case ["transparent", port, mark]:
            transparent(int(port), int(mark))
        case [_, *words]:
            dial(words)


def serve(ports: list[str]) -> None:
    selector = selectors.DefaultSelector()
    for port in ports:
        kind, _, number = port.rpartition(":")
        for family, host in LOOPBACK if kind == "lo" else EVERYWHERE:
            made = listener(family, host, int(number), socket.SOCK_DGRAM if kind else socket.SOCK_STREAM)
            selector.register(made, selectors.EVENT_READ, answer_datagram if kind else answer_connection)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            key.data(key.fileobj)


def listener(family: int, host: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    made = socket.socket(family, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((host, port))
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    return made


def answer_connection(listening: socket.socket) -> None:
    connection, peer = listening.accept()
    with connection:
        arrived = connection.getsockname()
        answer = {"port": arrived[1], "peer": peer[0], "original": original_destination(connection)}
        connection.sendall(json.dumps(answer).encode())


def answer_datagram(bound: socket.socket) -> None:
    _, peer = bound.recvfrom(4096)
    bound.sendto(json.dumps({"port": bound.getsockname()[1], "peer": peer[0]}).encode(), peer)


def transparent(port: int, mark: int) -> None:
    selector = selectors.DefaultSelector()
    for family, host in EVERYWHERE:
        made = socket.socket(family)
        level, option = transparency(family)
        made.setsockopt(level, option, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        made.listen(64)
        selector.register(made, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            hand_on(key.fileobj, mark)  # type: ignore[arg-type]


def hand_on(listening: socket.socket, mark: int) -> None:
    connection, peer = listening.accept()
    # For what TPROXY brought it is the socket's own address; for what came in by the front door it is not.
    host, port = kernels_destination(connection) or connection.getsockname()[:2]
    level, option = transparency(listening.family)
    with connection, socket.socket(listening.family) as onward:
        onward.setsockopt(level, option, 1)
        onward.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        onward.settimeout(DIAL_TIMEOUT)
        onward.bind((peer[0], 0))
        onward.connect((host, port))
        said = json.loads(received(onward.recv))
        arrived = connection.getsockname()[:2]
        connection.sendall(json.dumps({"through": [host, port], "arrived": arrived, "said": said}).encode())


def transparency(family: int) -> tuple[int, int]:
    if family == socket.AF_INET:
        return socket.SOL_IP, IP_TRANSPARENT
    return socket.IPPROTO_IPV6, IPV6_TRANSPARENT


def received(receive: Callable[[int], bytes]) -> bytes:
    return b"".join(iter(lambda: receive(4096), b""))


def original_destination(connection: socket.socket) -> tuple[str, int] | None:
    """Where a redirected connection was going; None where it was going here."""
    found = kernels_destination(connection)
    return None if found == connection.getsockname()[:2] else found


def kernels_destination(connection: socket.socket) -> tuple[str, int] | None:
    try:
        if connection.family == socket.AF_INET:
            raw = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
            port, host = struct.unpack("!2xH4s8x", raw)
        else:
            raw = connection.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
            port, host = struct.unpack("!2xH4x16s4x", raw)
    except OSError:
        return None
    return socket.inet_ntop(connection.family, host), port


def dial(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--source", default="")
    parser.add_argument("--source-port", type=int, default=0)
    parser.add_argument("--udp", type=bool, default=False)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=DIAL_TIMEOUT)
    options = parser.parse_args(arguments)
    if options.gid is not None:
        os.setgroups([])
        os.setgid(options.gid)
    if options.uid is not None:
        os.setuid(options.uid)
    for _ in range(options.times):
        try:
            print(asked(options) if options.udp else connected(options), flush=True)
        except OSError as error:
            print(json.dumps({"error": type(error).__name__}), flush=True)
    return 0


def connected(options: argparse.Namespace) -> str:
    source = (options.source, options.source_port) if options.source or options.source_port else None
    with socket.create_connection((options.host, options.port), options.timeout, source) as connection:
        return received(connection.recv).decode()


def asked(options: argparse.Namespace) -> str:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.bind((options.source, options.source_port))
        asking.connect((options.host, options.port))
        # A datagram may be lost: nothing is, between namespaces of one machine, but an address may be new to the other.
        for patience in attempts(options.timeout):
            asking.settimeout(patience)
            asking.send(b"?")
            try:
                return asking.recv(4096).decode()
            except TimeoutError:
                continue
        raise TimeoutError


def attempts(seconds: float) -> Iterator[float]:
    yield from (seconds / 4,) * 4


if __name__ == "__main__":
    main()
