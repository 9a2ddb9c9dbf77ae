"""A pair of joined tunnels for each test here."""

from __future__ import annotations

import contextlib

import pytest

from tests.proxy.tunnels.rig import Joined


@pytest.fixture
def joined(run, tcp_pair, tls_pair):
    """Run a scenario over two joined tunnels."""

    def go(scenario, **options):
        async def main():
            with contextlib.closing(Joined(tcp_pair, tls_pair(), **options)) as rig:
                return await scenario(rig)

        return run(main(), 60)

    return go
