from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cli.demo.claims import evaluate
from cli.demo.errors import PartFailedError, StoppedError
from cli.demo.report import Printer, as_json
from cli.demo.results import Outcome, Times


def _good() -> Outcome:
    spec = importlib.util.spec_from_file_location("claims_for_report", Path(__file__).with_name("test_claims.py"))
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    good: Outcome = module.GOOD
    return good


GOOD = _good()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO | None = None, environment: dict[str, str] | None = None) -> tuple[Printer, io.StringIO]:
    stream = stream or io.StringIO()
    return Printer(stream, environment or {}), stream


def test_steps_are_numbered() -> None:
    printer, stream = shown()
    printer.step("one")
    printer.detail("more")
    printer.step("two")
    assert stream.getvalue() == " 1  one\n      more\n 2  two\n"


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [(Terminal(), {}, True), (Terminal(), {"NO_COLOR": "1"}, False), (Terminal(), {"TERM": "dumb"}, False),
     (io.StringIO(), {}, False)],
)  # fmt: skip
def test_colours_only_where_they_are_wanted(stream: io.StringIO, environment: dict[str, str], coloured: bool) -> None:
    printer, _ = shown(stream, environment)
    printer.step("one")
    assert ("\x1b[" in stream.getvalue()) is coloured


def test_the_live_line_replaces_itself_on_a_terminal_and_follows_elsewhere() -> None:
    for stream, expected in ((Terminal(), "\r\x1b[K1\r\x1b[K2\nend\n"), (io.StringIO(), "1\n2\nend\n")):
        printer, _ = shown(stream)
        printer.live("1")
        printer.live("2")
        printer.line("end")
        assert stream.getvalue() == expected


def test_the_table_says_what_a_person_wants_to_know() -> None:
    without = dataclasses.replace(GOOD.without, kept=Times(5, 0.5, 1.0), transfer=GOOD.through.transfer)
    through = dataclasses.replace(GOOD.through, kept=Times(5, 0.75, 3.0))
    printer, stream = shown()
    printer.table(dataclasses.replace(GOOD, without=without, through=through), goes_on=True)
    text = stream.getvalue()
    for part in (
        *("X25519MLKEM1024 (0xFEC4, private use)", "mldsa87", "TLS_AES_256_GCM_SHA384", *GOOD.mesh.identities),
        *("p50 1.00 ms, p99 2.00 ms over 10", "p50 +0.25 ms, p99 +2.00 ms (0.50 → 0.75, 1.00 → 3.00)"),
        *("MiB/s with", "110 times without, 0 times with", "http://a", "15090", GOOD.mesh.metrics[0]),
    ):
        assert part in text


def test_full_and_resumed_handshakes_are_told_apart() -> None:
    mesh = dataclasses.replace(GOOD.mesh, full=Times(1, 5.0, 5.0), resumed=Times(101, 1.25, 2.5))
    printer, stream = shown()
    printer.table(dataclasses.replace(GOOD, mesh=mesh), goes_on=False)
    text = stream.getvalue()
    assert "p50 5.00 ms, p99 5.00 ms over 1: full" in text
    assert "p50 1.25 ms, p99 2.50 ms over 101: resumed" in text


def test_a_claim_that_was_not_seen_says_what_was() -> None:
    bad = dataclasses.replace(GOOD, mesh=dataclasses.replace(GOOD.mesh, bypass="not refused: the answer was http"))
    printer, stream = shown()
    printer.claims(evaluate(bad))
    assert stream.getvalue().count("  seen      ") == 9
    assert "NOT SEEN  plaintext that goes around" in stream.getvalue()
    assert "the answer was http" in stream.getvalue()


def test_a_failed_part_shows_its_last_words() -> None:
    printer, stream = shown()
    printer.failure(PartFailedError("the sidecar of pod-a ended", ["last words"]))
    assert stream.getvalue() == "failed: the sidecar of pod-a ended\n      | last words\n"


def test_json_is_one_document_with_everything() -> None:
    document = json.loads(as_json(GOOD, evaluate(GOOD)))
    assert document["ok"] is True
    assert document["mesh"]["outbound"][0]["group"] == "X25519MLKEM1024"
    assert document["through"]["wire"]["hits"] == {"request": 0, "file": 0}
    assert all(claim["seen"] for claim in document["claims"])


def test_a_reader_that_has_gone_ends_the_demo_once() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        printer = Printer(stream, {})
        with pytest.raises(StoppedError):
            printer.line("nobody hears")
        stream.write("what is left in the buffer is no second error")
