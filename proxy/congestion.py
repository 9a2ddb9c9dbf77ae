"""Congestion control for connections that never leave the machine, where nothing can be congested.

BBR, the default of some hosts, sends by a clock of its own: a timer and a wake-up for every few segments. Over the
loopback that is a quarter of what bulk costs a sidecar, and nobody has anything of it. Reno, which every kernel has and
every process may choose, sends what it is given. Towards other machines the host's own choice stands.
"""

from __future__ import annotations

import functools
import socket
from typing import Final

# linux/tcp.h: TCP_CA_NAME_MAX
_NAME_SIZE: Final = 16
PACED: Final = (b"bbr",)
_UNPACED: Final = b"reno"


def is_loopback(host: str) -> bool:
    """Whether an IP address is one that only this machine can have."""
    return host.startswith("127.") or host == "::1"


def unpace(sock: socket.socket, paced: tuple[bytes, ...] = PACED) -> None:
    """Take `sock`, which connects or listens within this machine, off an algorithm that begins as one of `paced`.

    To be called while it is new, before it connects or listens: pacing that has begun stays. Raises OSError.
    """
    if _begins_with_one_of(paced):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _UNPACED)


@functools.lru_cache(maxsize=4)
def _begins_with_one_of(paced: tuple[bytes, ...]) -> bool:
    """Whether a new socket of this process begins with one of them: asked once, it is the network namespace's."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _NAME_SIZE).startswith(paced)
