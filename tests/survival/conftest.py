"""How the sidecar survives: slow tests, which `make survive` runs and nothing else collects.

QBITEL_SURVIVE is the scale: 1 is the whole (half an hour on two cores), 0.05 a look. tests/proxy/test_survival.py runs
the same tests with the smallest numbers that still mean something.
"""

from __future__ import annotations

import pytest

from tests.proxy.conftest import application, dial, pki, qbitel, run
from tests.survival.fixtures import folders, many_descriptors, mesh, needs_root, saw
from tests.survival.mesh import SCALE

__all__ = ["application", "dial", "folders", "many_descriptors", "mesh", "needs_root", "pki", "qbitel", "run", "saw"]

collect_ignore_glob = [] if SCALE else ["test_*.py"]


@pytest.fixture
def amount():
    """How many of something: amount(full, short=…)."""

    def scaled(full: int, *, short: int) -> int:
        return max(short, int(full * float(SCALE or 0)))

    return scaled
