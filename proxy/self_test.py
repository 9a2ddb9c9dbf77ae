"""Proof that interception works, before traffic is welcome: a connection of our own that its rules must bring to us.

What the sidecar's user dials is let out of the pod, except over lo to another address than loopback's usual one: that
comes in by the front door, and so must this (docs/interception.md). Whoever accepts it sees where it was going, answers
with a word, and nothing else in the pod would.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Final

from mesh import names
from proxy.config import Endpoint

# No application listens at this address, and none at this port: nothing but a redirect can answer.
PROBE: Final = Endpoint("127.0.0.2", names.SELF_TEST_PORT)
_WORD: Final = b"qbitel self-test\n"
# It never leaves the kernel. A second is for a machine that is busy with everything else.
_PATIENCE: Final = 5.0
# Rules that are missing may come: the init step of a pod ends before its sidecar starts, others' do not.
_PAUSE: Final = 1.0


def can_be_tried() -> bool:
    """Whether we are the user whose connections the rules know."""
    return os.geteuid() == names.SIDECAR_UID


def answer(accepted: socket.socket) -> None:
    """Say that it has arrived; the caller closes it."""
    with contextlib.suppress(OSError):  # whoever dialled it is gone, and asks again
        accepted.send(_WORD)


async def until_redirected(probe: Endpoint = PROBE) -> None:
    """Return when a connection to `probe` has arrived at one of our listeners. Tries until it is cancelled."""
    loop = asyncio.get_running_loop()
    while not await _arrives(loop, probe):
        await asyncio.sleep(_PAUSE)


async def _arrives(loop: asyncio.AbstractEventLoop, probe: Endpoint) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
                await loop.sock_connect(sock, (probe.host, probe.port))
                said = b""
                while len(said) < len(_WORD) and (piece := await loop.sock_recv(sock, len(_WORD))):
                    said += piece
                return said == _WORD
    except OSError:  # TimeoutError is one
        return False
