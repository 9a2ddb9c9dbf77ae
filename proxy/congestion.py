"""Congestion control for connections that never leave the machine, where nothing can be congested.

BBR, the default of some hosts, sends by a clock of its own: a timer and a wake-up for every few segments. Over the
loopback that is a quarter of what bulk costs a sidecar, and nobody has anything of it. Reno, which every kernel has and
every process may choose, sends what it is given. Towards other machines the host's own choice stands.
"""

from __future__ import annotations

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

    To be called before it connects or listens: pacing that has begun stays. Raises OSError.
    """
    if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _NAME_SIZE).startswith(paced):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _UNPACED)
