"""The loop is uvloop, always."""

from __future__ import annotations

import asyncio

import pytest

from proxy import loop


def test_it_runs_on_uvloop_and_returns_the_result():
    async def main():
        return type(asyncio.get_running_loop()).__module__

    assert loop.run(main()).startswith("uvloop")


def test_an_error_reaches_the_caller():
    async def main():
        raise LookupError

    with pytest.raises(LookupError):
        loop.run(main())
