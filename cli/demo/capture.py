"""A wire tap on a network interface: every frame, both directions, by a packet socket (packet(7)).

Runs as a process of its own inside a pod's network namespace, with the commands of cli/demo/witness.py.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

from cli.demo.frames import MAX_FRAME, parse_segment, pcap_record
from cli.demo.witness import Witness

ETH_P_ALL: Final = 3  # linux/if_ether.h
SOL_PACKET: Final = 263  # linux/socket.h
PACKET_STATISTICS: Final = 6  # linux/if_packet.h
SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h; root may go beyond net.core.rmem_max
# What may wait while this process is not scheduled. The frames are shared with the receiver, not copied; on two
# busy cores a few tens of milliseconds at some GB/s must fit.
RECEIVE_BUFFER: Final = 128 << 20
# Looking must not lose against what is looked at: the tap runs before the programs under test.
NICE: Final = -10
# Frames taken before commands are looked at again.
BATCH: Final = 256


class Tap:
    """The packet socket and its losses."""

    def __init__(self, interface: str) -> None:
        # Protocol 0 receives nothing until bind() has named the interface: no frame of another one slips in.
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        self.socket.setblocking(False)
        self.socket.bind((interface, ETH_P_ALL))
        self.buffer = bytearray(MAX_FRAME)
        self._truncated = 0

    def frames(self, witness: Witness) -> int:
        """Take at most BATCH waiting frames; return how many there were."""
        for count in range(BATCH):
            try:
                length = self.socket.recv_into(self.buffer, 0, socket.MSG_TRUNC)
            except BlockingIOError:
                return count
            self._look(witness, length)
        return BATCH

    def losses(self) -> tuple[int, int]:
        """Frames that the kernel dropped and frames longer than the buffer, since the last call."""
        # struct tpacket_stats: packets, drops; reading resets both.
        _, dropped = struct.unpack("=II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        truncated, self._truncated = self._truncated, 0
        return dropped, truncated

    def _look(self, witness: Witness, length: int) -> None:
        kept = min(length, MAX_FRAME)
        self._truncated += length > MAX_FRAME
        if witness.pcap is not None:
            witness.pcap.write(pcap_record(time.time_ns(), memoryview(self.buffer)[:kept], length))
        segment = parse_segment(self.buffer, kept)
        if segment is None:
            return
        if segment.opens:
            witness.search.opened(segment.flow)
        witness.search.feed(segment.flow, self.buffer, segment.start, segment.end)


def main(arguments: Sequence[str] | None = None) -> int:
    """Tap until stdin ends."""
    parser = argparse.ArgumentParser(prog="capture")
    parser.add_argument("--interface", required=True)
    parser.add_argument("--pcap", type=Path)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        pcap: BinaryIO | None = stack.enter_context(options.pcap.open("wb")) if options.pcap else None
        tap = Tap(options.interface)
        stack.enter_context(tap.socket)
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        witness = Witness(tap.losses, pcap)
        witness.say(event="ready")
        _run(tap, witness)
    return 0


def _run(tap: Tap, witness: Witness) -> None:
    commands = sys.stdin.fileno()
    while True:
        ready, _, _ = select.select([tap.socket, commands], [], [])
        # A command is obeyed when everything that arrived before it has been looked at.
        while tap.frames(witness) == BATCH and commands not in ready:
            ready, _, _ = select.select([commands], [], [], 0)
        if commands in ready:
            while tap.frames(witness):
                pass
            if not witness.read_commands(commands):
                return


if __name__ == "__main__":
    sys.exit(main())
