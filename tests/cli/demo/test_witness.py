from __future__ import annotations

import io
import json
import os

import pytest

from cli.demo.frames import PCAP_HEADER
from cli.demo.witness import Witness


def command(witness: Witness, *lines: bytes) -> bool:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"".join(lines))
        if not lines:
            os.close(writer)
            return witness.read_commands(reader)
        return witness.read_commands(reader)
    finally:
        os.close(reader)
        if lines:
            os.close(writer)


WATCH = json.dumps({"do": "watch", "patterns": {"request": b"abc".hex()}}).encode() + b"\n"


def test_what_is_watched_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    losses = iter([(5, 5), (1, 2), (1, 0)])
    witness = Witness(lambda: next(losses), None)
    assert command(witness, WATCH)
    witness.search.feed("flow", bytearray(b"xabcx"), 0, 5)
    assert command(witness, b'{"do": "re', b'port"}\n{"do": "report"}\n')
    watching, first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert watching == {"event": "watching"}
    assert first["hits"] == second["hits"] == {"request": 1}
    # Losses from before the patterns were set do not count; later ones add up.
    assert (first["dropped"], first["truncated"]) == (1, 2)
    assert (second["dropped"], second["truncated"]) == (2, 2)


def test_a_command_in_pieces_waits_for_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    witness = Witness(lambda: (0, 0), None)
    assert command(witness, WATCH[:10])
    assert capsys.readouterr().out == ""
    assert command(witness, WATCH[10:])
    assert json.loads(capsys.readouterr().out) == {"event": "watching"}


def test_the_end_of_the_commands_is_told() -> None:
    assert not command(Witness(lambda: (0, 0), None))


def test_a_kept_file_starts_with_its_header() -> None:
    pcap = io.BytesIO()
    Witness(lambda: (0, 0), pcap)
    assert pcap.getvalue() == PCAP_HEADER
