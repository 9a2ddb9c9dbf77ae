"""OpenSSL's command line as a judge: the one that QBITEL_OPENSSL names, or the one on PATH, from 3.5 on (ML-DSA)."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

# The first release with ML-DSA and ML-KEM.
_OLDEST: Final = (3, 5)
_SECONDS: Final = 60


def openssl_program() -> str:
    """The program, or skip with the reason. A QBITEL_OPENSSL that is of no use is a failure: somebody meant it."""
    found = _found(os.environ.get("QBITEL_OPENSSL", ""))
    if found[0] is None:
        pytest.skip(found[1])
    return found[0]


@functools.cache
def _found(named: str) -> tuple[str | None, str]:
    program = named or shutil.which("openssl")
    if program is None:
        return None, "there is no openssl on PATH, and QBITEL_OPENSSL names none"
    done = subprocess.run([program, "version"], capture_output=True, text=True, check=True, timeout=_SECONDS)
    said = done.stdout.strip()
    version = re.match(r"OpenSSL (\d+)\.(\d+)", said)
    if version is not None and (int(version[1]), int(version[2])) >= _OLDEST:
        return program, said
    if named:
        raise ValueError(f"QBITEL_OPENSSL={named} is {said}, which does not know ML-DSA")
    return None, f"the openssl on PATH does not know ML-DSA ({said}); QBITEL_OPENSSL may name a newer one"


def openssl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `openssl WORDS`; what it says is for the caller to judge."""
    return subprocess.run(
        [openssl_program(), *map(str, words)], capture_output=True, text=True, check=False, timeout=_SECONDS
    )
