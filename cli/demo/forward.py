"""Carries connections from listening sockets that it inherits to addresses where it runs: a door into a pod.

A socket stays in the network namespace it was made in, whoever holds it: the demo opens the listeners on the
machine's 127.0.0.1 and this program, started inside a pod, connects there. It passes on bytes and ends, both ways.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from cli.demo.relay import relay


@dataclass(frozen=True, slots=True)
class Door:
    """A listening descriptor and the address that its connections go to."""

    descriptor: int
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Door:
        """From `FD=HOST:PORT`."""
        descriptor, _, target = text.partition("=")
        host, _, port = target.rpartition(":")
        return cls(int(descriptor), host, int(port))

    def __str__(self) -> str:
        return f"{self.descriptor}={self.host}:{self.port}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Forward until stdin ends."""
    parser = argparse.ArgumentParser(prog="forward")
    parser.add_argument("doors", type=Door.parse, nargs="+", metavar="FD=HOST:PORT")
    asyncio.run(_run(parser.parse_args(arguments).doors))
    return 0


async def _run(doors: Sequence[Door]) -> None:
    servers = [
        await asyncio.start_server(
            functools.partial(relay, target=(door.host, door.port)), sock=socket.socket(fileno=door.descriptor)
        )
        for door in doors
    ]
    print(json.dumps({"event": "ready"}), flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)  # nobody writes: readable is its end
    await ended.wait()
    for server in servers:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
