"""The search for plaintext in what passes on a wire: byte patterns per flow and direction, across any cuts.

Nothing is stored but a window of the last bytes of each flow (a pattern may be cut between two segments), the first
bytes that each client sent (to read its ClientHello), and numbers: 256 MiB are searched in a few MiB of memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from cli.demo.hello import UnreadableError, looks_like_tls, read_hello

# Flows whose state is kept at a time; the oldest goes first. The demo has a handful open at once.
MAX_FLOWS: Final = 4096
# A ClientHello with an ML-KEM-1024 share has about 1.8 KB; 8 KiB holds one with several shares.
HEAD_SIZE: Final = 8192
SAMPLE_SIZE: Final = 64  # bytes of each phase that a person is shown


@dataclass(frozen=True, slots=True)
class WireReport:
    """What was seen since the patterns were set. Bytes are TCP payload, both directions together."""

    frames: int = 0
    bytes: int = 0
    hits: dict[str, int] = field(default_factory=dict)
    flows: int = 0  # connections whose beginning was seen and whose client sent something
    tls_flows: int = 0  # of these, the ones that began with a ClientHello
    alpn: list[str] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    sample: str = ""  # hex of the first bytes that a client sent, or a server where no client sent any
    dropped: int = 0  # frames that the kernel could not hand over
    truncated: int = 0  # frames that were longer than the buffer

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> WireReport:
        return cls(**{name: document[name] for name in cls.__dataclass_fields__})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def total_hits(self) -> int:
        return sum(self.hits.values())

    @property
    def complete(self) -> bool:
        """Whether everything that passed was looked at."""
        return self.dropped == 0 and self.truncated == 0


@dataclass(slots=True)
class _Flow:
    head: bytearray | None  # None where this direction is not a client whose beginning was seen
    tail: bytes = b""


class Search:
    """Counts patterns in flows. A flow is one direction of one connection, under any hashable key."""

    def __init__(self, patterns: Mapping[str, bytes], before: Search | None = None) -> None:
        """`before` looked at the same wire: connections that it saw begin are connections of this search too."""
        if any(not pattern for pattern in patterns.values()):
            raise ValueError("an empty pattern is found everywhere")
        self._patterns = dict(patterns)
        # Markers of one run share a long beginning: most buffers are settled by one search for that.
        self._common = _common_prefix(list(patterns.values()))
        self._hits = dict.fromkeys(patterns, 0)
        self._flows: OrderedDict[Hashable, _Flow] = OrderedDict()
        self._frames = self._bytes = self._client_flows = self._tls_flows = 0
        self._alpn: set[str] = set()
        self._groups: set[int] = set()
        self._sample = self._first = b""
        if before is not None:
            self._flows.update({flow: _Flow(state.head) for flow, state in before._flows.items()})
            self._client_flows, self._tls_flows = before._client_flows, before._tls_flows
            self._alpn, self._groups = set(before._alpn), set(before._groups)
            self._sample = before._sample

    def opened(self, flow: Hashable) -> None:
        """A client has opened a connection: `flow` is its direction."""
        self._remember(flow, _Flow(bytearray()))

    def feed(self, flow: Hashable, buffer: bytearray, start: int, end: int) -> None:
        """Look at `buffer[start:end]`, the next payload of `flow`."""
        self._frames += 1
        if start >= end:
            return
        self._bytes += end - start
        self._first = self._first or bytes(buffer[start : min(end, start + SAMPLE_SIZE)])
        state = self._flows.get(flow) or self._remember(flow, _Flow(None))
        self._count(state, buffer, start, end)
        if state.head is not None and len(state.head) < HEAD_SIZE:
            self._head(state.head, bytes(buffer[start : min(end, start + HEAD_SIZE)]))

    def report(self, dropped: int = 0, truncated: int = 0) -> WireReport:
        """The numbers so far; those of losses come from whoever reads the wire."""
        return WireReport(
            frames=self._frames,
            bytes=self._bytes,
            hits=dict(self._hits),
            flows=self._client_flows,
            tls_flows=self._tls_flows,
            alpn=sorted(self._alpn),
            groups=sorted(self._groups),
            sample=(self._sample or self._first).hex(),
            dropped=dropped,
            truncated=truncated,
        )

    def _remember(self, flow: Hashable, state: _Flow) -> _Flow:
        self._flows[flow] = state
        if len(self._flows) > MAX_FLOWS:
            self._flows.popitem(last=False)
        return state

    def _count(self, state: _Flow, buffer: bytearray, start: int, end: int) -> None:
        whole = not self._common or buffer.find(self._common, start, end) >= 0
        longest = max(map(len, self._patterns.values()), default=1)
        seam = bytes(buffer[start : min(end, start + longest - 1)])
        for name, pattern in self._patterns.items():
            if whole:
                self._hits[name] += buffer.count(pattern, start, end)
            # A match here begins in the earlier payload and ends in this one: neither part can hold it whole.
            reach = len(pattern) - 1
            if reach and state.tail:
                self._hits[name] += (state.tail[-reach:] + seam[:reach]).count(pattern)
        if end - start >= longest - 1:
            state.tail = bytes(buffer[end - longest + 1 : end])
        else:
            state.tail = (state.tail + seam)[-(longest - 1) :]

    def _head(self, head: bytearray, more: bytes) -> None:
        if not head:
            self._client_flows += 1
        before = bool(head) and looks_like_tls(bytes(head[:5]))
        head += more[: HEAD_SIZE - len(head)]
        if not self._sample and len(head) >= 16:
            self._sample = bytes(head[:SAMPLE_SIZE])
        if looks_like_tls(bytes(head[:5])) and not before:
            self._tls_flows += 1
        try:
            hello = read_hello(bytes(head))
        except UnreadableError:
            return
        self._alpn.update(name.decode("ascii", "backslashreplace") for name in hello.alpn)
        self._groups.update(hello.key_share_groups)
        head.extend(bytes(HEAD_SIZE - len(head)))  # read once: the rest of this stream is ciphertext


def _common_prefix(patterns: list[bytes]) -> bytes:
    if not patterns:
        return b""
    low, high = min(patterns), max(patterns)
    for index, byte in enumerate(low):
        if index >= len(high) or high[index] != byte:
            return low[:index]
    return low
