"""A candidate of the election in a process of its own: prints "<time> leads" or "<time> follows" when that changes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

from kube.client import connect
from kube.election import Election, steady
from tests.kube.rig import utc_now


async def main(kubeconfig: str, namespace: str, name: str) -> None:
    async with connect(kubeconfig) as cluster:
        election = Election(cluster, namespace, "qbitel-test", name, now=utc_now)
        standing = asyncio.create_task(election.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, standing.cancel)
        said = None
        while not standing.done():
            # What a chore does: ask, then act. Asked and printed without a pause in between.
            leads = election.is_leader()
            if leads != said:
                print(steady(), "leads" if leads else "follows", flush=True)
                said = leads
            await asyncio.sleep(0.01)
        with contextlib.suppress(asyncio.CancelledError):
            await standing


asyncio.run(main(*sys.argv[1:]))
