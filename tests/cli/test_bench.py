"""`qbitel bench crypto`: that it measures what it says."""

from __future__ import annotations

import os

import pytest

from cli import bench
from cli.handshakes import make_identity, utc_now
from cli.main import main
from pqtls.provider_cryptography import PROVIDER
from proxy.providers import LiboqsAbsent, load_liboqs


def test_each_primitive_and_each_handshake_has_its_line(capsys):
    assert main(["bench", "crypto", "--seconds", "0.01"]) == 0
    output = capsys.readouterr().out
    for name in (
        "ML-DSA-87 sign", "ML-DSA-87 verify", "ML-KEM-1024 key pair", "ML-KEM-1024 encapsulate", "X25519 key pair",
        "AES-256-GCM seal 16 KiB", "AES-256-GCM open 64 B", "X25519MLKEM1024, full", "X25519MLKEM1024, resumed",
        "SecP384r1MLKEM1024, full, chain known (cache)",
    ):  # fmt: skip
        (line,) = [line for line in output.splitlines() if line.startswith(f"{name}  ")]
        assert any(character.isdigit() for character in line.removeprefix(name))


def test_liboqs_has_a_column_of_its_own_or_one_line_that_says_why_not(capsys):
    try:
        load_liboqs(os.environ)
    except LiboqsAbsent:
        expected = "liboqs is not measured: "
    else:
        expected = "cryptography          liboqs"
    assert main(["bench", "crypto", "--seconds", "0.01"]) == 0
    assert expected in capsys.readouterr().out


def test_every_primitive_works_as_often_as_it_is_called():
    works = bench.primitives(PROVIDER, make_identity(utc_now()))
    for work in works:
        assert bench.measure(work.call, 0.001).calls >= 1
    assert len({work.name for work in works}) == len(works) == 13


def test_a_measurement_counts_only_whole_calls_and_leaves_the_first_out():
    calls: list[int] = []
    cost = bench.measure(lambda: calls.append(1), 0.01)
    assert cost.calls == len(calls) - 1
    assert 0 < cost.seconds < 0.01


@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon", "4000"])
def test_a_time_that_makes_no_sense_is_one_line(capsys, text):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "crypto", f"--seconds={text}"])
    assert stop.value.code == 2
    assert "is not a number of seconds" in capsys.readouterr().err


def test_without_a_kind_it_says_which_there_are(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench"])
    assert stop.value.code == 2
    assert "{crypto}" in capsys.readouterr().err
