"""What the sample server and client send: markers that a tap would recognise, and a large file that is on no disk."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

BLOCK_SIZE: Final = 1 << 20
# One marker line at least every 2 KiB: a TCP segment that carries a few KiB of the file holds a whole one.
LINE_SIZE: Final = 2048
MAX_FILE_SIZE: Final = 1 << 34


@dataclass(frozen=True, slots=True)
class Markers:
    """The plaintext that is looked for. All three start with `token`, which is new for each run."""

    token: str

    @property
    def request(self) -> bytes:
        return f"{self.token}-request".encode()

    @property
    def response(self) -> bytes:
        return f"{self.token}-response".encode()

    @property
    def file(self) -> bytes:
        return f"{self.token}-file".encode()

    def patterns(self) -> dict[str, bytes]:
        """The names and bytes that a search is given."""
        return {"request": self.request, "response": self.response, "file": self.file}


def file_blocks(markers: Markers, size: int) -> Iterator[memoryview]:
    """Yield the file of `size` bytes in blocks of at most 1 MiB; the same token and size give the same bytes.

    A yielded block is valid until the next one is asked for: one buffer serves them all. Each block's first line
    carries its number, so that a block that is lost, doubled or out of place changes the checksum.
    """
    block = bytearray(random.Random(markers.token).randbytes(BLOCK_SIZE))  # noqa: S311  # filler, no secret
    line = b"\n" + markers.file + b"\n"
    for start in range(0, BLOCK_SIZE, LINE_SIZE):
        block[start : start + len(line)] = line
    view = memoryview(block)
    for index, offset in enumerate(range(0, size, BLOCK_SIZE)):
        number = b"block %016d\n" % index
        block[len(line) : len(line) + len(number)] = number
        yield view[: min(BLOCK_SIZE, size - offset)]


def lines_in_file(size: int) -> int:
    """How many marker lines stand whole in a file of `size` bytes, give or take the last."""
    return size // LINE_SIZE
