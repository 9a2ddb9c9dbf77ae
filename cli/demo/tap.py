"""A wire tap for machines without namespaces: a plain TCP relay between the two sidecars that looks at what passes.

Runs as a process of its own, with the commands of cli/demo/witness.py. There is nothing to lose here: what was not
looked at was not passed on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from cli.demo.frames import MAX_SEGMENT, make_frame, pcap_record
from cli.demo.relay import CHUNK, relay
from cli.demo.witness import Witness


class Tap:
    """Shows what passes on connections to one target to the witness."""

    def __init__(self, target: tuple[str, int], witness: Witness) -> None:
        self._target = target
        self._witness = witness
        self._numbers = itertools.count()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        number, client_port = next(self._numbers), writer.get_extra_info("peername")[1]
        ports = {"client": (client_port, self._target[1]), "server": (self._target[1], client_port)}
        sequence = {"client": 1, "server": 1}
        self._witness.search.opened((number, "client"))

        def see(side: str, data: bytes) -> None:
            self._witness.search.feed((number, side), bytearray(data), 0, len(data))
            if self._witness.pcap is not None:
                _keep(self._witness.pcap, ports[side], sequence[side], data)
            sequence[side] += len(data)

        await relay(reader, writer, self._target, see)


def _keep(pcap: BinaryIO, ports: tuple[int, int], sequence: int, data: bytes) -> None:
    for at in range(0, len(data), MAX_SEGMENT):
        frame = make_frame(*ports, sequence + at, data[at : at + MAX_SEGMENT])
        pcap.write(pcap_record(time.time_ns(), frame, len(frame)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Relay until stdin ends."""
    parser = argparse.ArgumentParser(prog="tap")
    parser.add_argument("--listen-host", default="127.0.0.1")
    parser.add_argument("--target-host", default="127.0.0.1")
    parser.add_argument("--target-port", type=int, required=True)
    parser.add_argument("--pcap", type=Path)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        pcap: BinaryIO | None = stack.enter_context(options.pcap.open("wb")) if options.pcap else None
        listener = stack.enter_context(socket.create_server((options.listen_host, 0), backlog=256))
        witness = Witness(lambda: (0, 0), pcap)
        asyncio.run(_run(listener, (options.target_host, options.target_port), witness))
    return 0


async def _run(listener: socket.socket, target: tuple[str, int], witness: Witness) -> None:
    tap = Tap(target, witness)
    server = await asyncio.start_server(tap.serve, sock=listener, limit=CHUNK)
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def commands() -> None:
        if not witness.read_commands(sys.stdin.fileno()) and not ended.done():
            ended.set_result(None)

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), commands)
    witness.say(event="ready", port=listener.getsockname()[1])
    await ended
    server.close()


if __name__ == "__main__":
    sys.exit(main())
