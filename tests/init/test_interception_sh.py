"""The shell's part of the script: what iptables-save prints is read, not believed. Needs no root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from init.config import InterceptionConfig, IPv6Mode
from init.plan import make_plan
from init.rules import Family
from init.script import render_script

IPV4 = InterceptionConfig(ipv6=IPv6Mode.OFF)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Programs that print the file `saved` and keep what they are to restore; they need no root."""
    folder = tmp_path_factory.mktemp("told")
    (folder / "saved").write_text("")
    _write(folder / "iptables-nft-save", f"cat {folder}/saved")
    _write(folder / "nft", "exit 1")
    _write(folder / "iptables-nft-restore", f"cat >>{folder}/restored")
    return folder


HOSTILE = (
    "*nat\n:QBITEL_$(touch PWNED) - [0:0]\n:QBITEL_`touch PWNED` - [0:0]\n:QBITEL_;touch$IFS''PWNED - [0:0]\n"
    "-A OUTPUT -j QBITEL_$(touch PWNED)\n-A $(touch PWNED) -j QBITEL_INBOUND\n-A QBITEL_x;touch -j ACCEPT\n"
    '-A OUTPUT -m comment --comment "see -j QBITEL_INBOUND" -j ACCEPT\n-A OUTPUT -m comment --comment "-j QBITEL_X"\n'
    "-A INPUT -m comment --comment \"'; touch PWNED; '\" -j QBITEL_OLD\nCOMMIT\n"
)
words = st.sampled_from(["*nat\n", "*", ":QBITEL_X - [0:0]\n", "-A OUTPUT -j QBITEL_X\n", "-A ", "COMMIT\n", "$(", "`"])
pieces = st.lists(words | st.text(alphabet="-A:*QBITEL_INBOUND $`'\"\\;|&<>(){}\n", max_size=12), max_size=12)


@example(HOSTILE)
@example("*nat\n-A OUTPUT -j QBITEL_OLD\n")
@example("*n;touch PWNED\n")
@given(pieces.map("".join))
@settings(max_examples=60, deadline=None)
def test_whatever_iptables_save_prints_is_never_run(told: Path, saved: str) -> None:
    answer = _run_told(told, saved)
    assert answer.returncode in (0, 2), answer.stderr
    assert not (told / "PWNED").exists()
    lines = answer.stderr.splitlines()
    assert all(line.startswith("qbitel-init: ") for line in lines), answer.stderr
    # Nothing is deleted but jumps of ours, which end in one of our chains.
    for line in _restored(told):
        if line.startswith("-D"):
            assert line.split(" ")[-1].startswith("QBITEL_"), line


def test_each_cut_of_a_real_table_is_read_and_mended(told: Path) -> None:
    (nat,) = make_plan(IPV4, Family.V4).tables
    assert _run_told(told, "").returncode == 0
    standing = (
        "\n".join(_restored(told)).replace("-I PREROUTING 1", "-A PREROUTING").replace("-I OUTPUT 1", "-A OUTPUT")
    )
    answer = _run_told(told, standing + "\n")
    assert "nothing changed" in answer.stdout
    for cut in range(0, len(standing), 97):
        flipped = standing[:cut] + chr(ord(standing[cut]) ^ 1) + standing[cut + 1 :]
        for text in (standing[:cut], flipped):
            _run_told(told, text)
            lines = _restored(told)
            # Either nothing of importance differs, or every chain is written anew.
            assert not lines or sum(line.startswith("-A QBITEL_") for line in lines) == sum(
                len(chain.rules) for chain in nat.chains
            )


def _run_told(folder: Path, saved: str) -> subprocess.CompletedProcess[str]:
    dash = shutil.which("dash")
    if dash is None:
        pytest.skip("dash is not installed")
    (folder / "saved").write_text(saved)
    (folder / "restored").write_text("")
    # Legacy and IPv6 are left out: what is told is all there is.
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "QBITEL_IPV6": "off", "QBITEL_BACKEND": "nft"}
    script = render_script(IPV4).replace("look legacy 4 legacy_4\n", "").replace("] && verify\n", "] && :\n")
    script = script.replace('if [ "$reachable$link_local" ]', "if false")
    return subprocess.run(
        [dash, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def _restored(folder: Path) -> list[str]:
    return [line for line in (folder / "restored").read_text().splitlines() if line]


def _write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
