"""What the demo prints: steps while they happen, a table, a line that lives, or one JSON document."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from signal import SIGHUP
from typing import Final, TextIO

from cli.demo.claims import GROUP_CODE_POINT, Claim
from cli.demo.errors import PartFailedError, StoppedError
from cli.demo.results import Outcome, Times
from mesh.names import METRICS_PORT

WIDTH: Final = 118
LABEL: Final = 18
GREEN: Final = "32"
RED: Final = "31"
BOLD: Final = "1"


class Printer:
    """Writes to one stream. Colours are used on a terminal only, and never where NO_COLOR is set (no-color.org)."""

    def __init__(self, stream: TextIO, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._stream = stream
        self._terminal = stream.isatty()
        self._colours = self._terminal and not environment.get("NO_COLOR") and environment.get("TERM", "") != "dumb"
        self._steps = 0
        self._live = False

    def line(self, text: str = "") -> None:
        """One line. StoppedError when nobody can read it any more."""
        self._write(("\n" if self._live else "") + text + "\n")
        self._live = False

    def step(self, text: str) -> None:
        """The next numbered step begins."""
        self._steps += 1
        self.line(f"{self._paint(f'{self._steps:>2}', BOLD)}  {text}")

    def detail(self, text: str) -> None:
        """What came out of the step."""
        self.line(f"      {text}")

    def live(self, text: str) -> None:
        """A line that takes the place of the one before on a terminal, and follows it elsewhere."""
        if self._terminal:
            self._write(f"\r\x1b[K{text[: WIDTH + 20]}")
            self._live = True
        else:
            self._write(text + "\n")

    def failure(self, error: PartFailedError) -> None:
        """One sentence, and the last words of the part that failed."""
        self.line(f"{self._paint('failed', RED)}: {error}")
        for text in error.lines:
            self.detail(f"| {text}")

    def claims(self, claims: Sequence[Claim]) -> None:
        """Each claim with what was seen of it."""
        self.line()
        for claim in claims:
            mark = self._paint("seen    ", GREEN) if claim.seen else self._paint("NOT SEEN", RED)
            self.line(f"  {mark}  {claim.sentence}")
            if not claim.seen:
                self.line(f"            {claim.detail}")

    def table(self, outcome: Outcome, *, goes_on: bool) -> None:
        """The numbers of a run; `goes_on` is whether its metrics and doors stay open."""
        self.line()
        for label, text in _rows(outcome, goes_on=goes_on):
            # A line of metrics is shown as it is, for copying.
            body = [text] if text.startswith("qbitel_") else textwrap.wrap(text, WIDTH - LABEL - 2)
            self.line(f"  {self._paint(f'{label:<{LABEL}}', BOLD)}{body[0]}")
            for more in body[1:]:
                self.line(" " * (LABEL + 2) + more)

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # a closed pipe, a terminal that is gone
            # What is still in the buffer must not fail a second time when the interpreter ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            raise StoppedError(SIGHUP) from None


def as_json(outcome: Outcome, claims: Sequence[Claim]) -> str:
    """The whole run as one document. Times are milliseconds, sizes bytes."""
    document = {
        "ok": all(claim.seen for claim in claims),
        "claims": [asdict(claim) for claim in claims],
        **asdict(outcome),
    }
    for log in ("outbound", "inbound"):  # dozens of equal ones; the first says it all
        document["mesh"][log] = document["mesh"][log][:1]
    return json.dumps(document, indent=2)


def _rows(outcome: Outcome, *, goes_on: bool) -> list[tuple[str, str]]:
    mesh, without, through = outcome.mesh, outcome.without, outcome.through
    shake = mesh.outbound[0] if mesh.outbound else None
    rows = [
        ("key exchange", f"{shake.group} (0x{GROUP_CODE_POINT:04X}, private use)" if shake else "none"),
        ("signature", shake.signature if shake else "none"),
        ("cipher suite", shake.cipher_suite if shake else "none"),
        ("pod-a is", mesh.identities[0]),
        ("pod-b is", mesh.identities[1]),
        ("handshake", f"{_counted(mesh.full)}: full, certificates at both ends, as pod-a's sidecar saw it"),
        ("", f"{_counted(mesh.resumed)}: resumed, with a ticket and a fresh key exchange"),
    ]
    if through.kept is not None and without.kept is not None:
        rows.append(("added latency", f"{_added(without.kept, through.kept)}: a small request, kept connection"))
        rows.append(("", f"{_added(without.fresh, through.fresh)}: a small request, new connection"))
    else:
        rows.append(("added latency", f"{_added(without.fresh, through.fresh)}: the first byte, new connection"))
    if through.transfer is not None and without.transfer is not None:
        rows.append(
            (
                "throughput",
                f"{through.transfer.mib_per_second:,.0f} MiB/s with, {without.transfer.mib_per_second:,.0f} MiB/s "
                f"without: one connection, {through.transfer.asked >> 20} MiB, SHA-256 at both ends, wire tapped",
            )
        )
    rows.append(("on the wire", f"without: {_readable(without.wire.sample)}"))
    rows.append(("", f"with: {_hex(through.wire.sample)}"))
    rows.append(
        (
            "plaintext found",
            f"{without.wire.total_hits:,} times without, {through.wire.total_hits:,} times with "
            f"({through.wire.bytes:,} bytes of {through.wire.flows} connections searched)",
        )
    )
    for name, url, line in zip(("pod-a", "pod-b"), mesh.metrics_urls, mesh.metrics, strict=True):
        where = "" if outcome.stage == "loopback" else f"port {METRICS_PORT} of the pod"
        here = url if goes_on else f"answered on {url} until the end"
        rows.append((f"metrics {name}", ", ".join(filter(None, (here, where)))))
        rows.append(("", line))
    if goes_on:
        rows.append(("try it", f"{mesh.door} is a call of pod-a's application to pod-b's"))
    return rows


def _counted(times: Times | None) -> str:
    if times is None:
        return "none"
    return f"p50 {times.p50:.2f} ms, p99 {times.p99:.2f} ms over {times.count}"


def _added(without: Times, through: Times) -> str:
    return (
        f"p50 {through.p50 - without.p50:+.2f} ms, p99 {through.p99 - without.p99:+.2f} ms "
        f"({without.p50:.2f} → {through.p50:.2f}, {without.p99:.2f} → {through.p99:.2f})"
    )


def _readable(sample: str) -> str:
    """Bytes as text, with what is no text escaped."""
    return "".join(
        chr(byte) if 32 <= byte < 127 else {10: "\\n", 13: "\\r"}.get(byte, "·") for byte in bytes.fromhex(sample)
    )


def _hex(sample: str) -> str:
    return bytes.fromhex(sample)[:24].hex(" ") + (" …" if sample else "nothing")
