"""Both ends of a real connection, run as a program inside a network namespace.

    endpoint.py serve PORT …          accept on every address; tell each caller, as JSON, where it arrived
    endpoint.py dial HOST PORT [--uid N] [--gid N] [--source HOST] [--times N] [--timeout S]
                                      print, one JSON line a connection, what the server said or how dialling failed

`serve` prints "ready" when it listens. Where a connection was redirected, the answer has its original destination.
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

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h, and the same number in linux/netfilter_ipv6/ip6_tables.h
DIAL_TIMEOUT = 5.0  # seconds: room for two retransmissions of a SYN, after one and after two more


def main() -> None:
    if sys.argv[1] == "serve":
        serve([int(port) for port in sys.argv[2:]])
    else:
        dial(sys.argv[2:])


def serve(ports: list[int]) -> None:
    selector = selectors.DefaultSelector()
    for port in ports:
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104  # its namespace only
            listener = socket.socket(family)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((host, port))
            listener.listen(64)
            selector.register(listener, selectors.EVENT_READ, listener.accept)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            connection, peer = key.data()
            with connection:
                arrived = connection.getsockname()
                answer = {"port": arrived[1], "peer": peer[0], "original": original_destination(connection)}
                connection.sendall(json.dumps(answer).encode())


def original_destination(connection: socket.socket) -> list[object] | None:
    try:
        if connection.family == socket.AF_INET:
            raw = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
            port, host = struct.unpack("!2xH4s8x", raw)
        else:
            raw = connection.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
            port, host = struct.unpack("!2xH4x16s4x", raw)
    except OSError:
        return None
    found = [socket.inet_ntop(connection.family, host), port]
    return None if found == list(connection.getsockname()[:2]) else found


def dial(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--source")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=DIAL_TIMEOUT)
    options = parser.parse_args(arguments)
    if options.gid is not None:
        os.setgroups([])
        os.setgid(options.gid)
    if options.uid is not None:
        os.setuid(options.uid)
    source = (options.source, 0) if options.source else None
    for _ in range(options.times):
        try:
            with socket.create_connection((options.host, options.port), options.timeout, source) as connection:
                print(b"".join(iter(lambda: connection.recv(4096), b"")).decode(), flush=True)
        except OSError as error:
            print(json.dumps({"error": type(error).__name__}), flush=True)


if __name__ == "__main__":
    main()
