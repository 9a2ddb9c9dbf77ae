"""The commands that both kinds of wire tap take on stdin, and their answers on stdout: one JSON document a line.

    {"do": "watch", "patterns": {"request": "<hex>", …}}   forget what was found, look for these → {"event": "watching"}
    {"do": "report"}                                       → {"event": "report", …the numbers of WireReport}

The end of stdin ends the tap.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import BinaryIO, Final

from cli.demo.frames import PCAP_HEADER
from cli.demo.search import Search

MAX_COMMAND: Final = 1 << 16


class Witness:
    """Holds the search that is on, answers the commands, and owns the pcap file where one is kept."""

    def __init__(self, losses: Callable[[], tuple[int, int]], pcap: BinaryIO | None) -> None:
        """`losses` gives how many frames were dropped and how many cut short since it was last asked."""
        self.search = Search({})
        self.pcap = pcap
        self._losses = losses
        self._dropped = self._truncated = 0
        self._pending = b""
        if pcap is not None:
            pcap.write(PCAP_HEADER)

    def read_commands(self, descriptor: int) -> bool:
        """Read what has come on `descriptor` and obey; False at its end."""
        data = os.read(descriptor, MAX_COMMAND)
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        return bool(data)

    def say(self, **event: object) -> None:
        print(json.dumps(event), flush=True)

    def _obey(self, command: dict[str, object]) -> None:
        dropped, truncated = self._losses()
        if command["do"] == "watch":
            patterns = command["patterns"]
            if not isinstance(patterns, dict):
                raise TypeError("patterns is a mapping of names to hexadecimal bytes")
            self.search = Search({name: bytes.fromhex(text) for name, text in patterns.items()}, self.search)
            self._dropped = self._truncated = 0
            self.say(event="watching")
        else:
            self._dropped += dropped
            self._truncated += truncated
            if self.pcap is not None:
                self.pcap.flush()
            self.say(event="report", **self.search.report(self._dropped, self._truncated).to_json())
