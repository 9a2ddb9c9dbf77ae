"""Whether traffic is welcome, over all workers, and what is said of it: where we listen, who we are, what lacks."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Final

from proxy.life import Stop

if TYPE_CHECKING:
    from proxy.binding import Bound

STARTING: Final = "starting"
DRAINING: Final = "draining"

_log = logging.getLogger("qbitel.proxy")


class Readiness:
    """Each worker's obstacle ("" where it has none), and the words for all of them."""

    def __init__(self, bound: Bound) -> None:
        """To be made while the sockets of `bound` are ours to ask."""
        self._bound = bound
        self._lines = _addresses(bound)
        self._obstacles = [STARTING] * bound.config.workers
        self._said: str | None = None

    def announce(self) -> None:
        """Say where we listen: whoever dials from now on waits at worst."""
        for line in self._lines:
            _log.info("%s", line)
        if self._bound.config.enrolment is not None:
            _log.info("asking for the first certificate: nothing is let in or out before it is there")

    def changed(self, worker: int, obstacle: str) -> None:
        """What keeps `worker` from being ready has changed; "" for nothing."""
        self._obstacles[worker] = obstacle
        missing = next(filter(None, self._obstacles), "")
        if missing in (self._said, STARTING, DRAINING):
            return
        # At the start something is always missing still.
        level = logging.INFO if self._said is None else logging.WARNING
        self._said = missing
        if missing:
            _log.log(level, "not ready: %s", missing)
        else:
            _log.info("%s", _who_we_are(self._bound))

    def obstacle(self, stop: Stop) -> str:
        """Why traffic is not welcome now; "" where it is."""
        if stop.draining.is_set():
            return DRAINING
        return next(filter(None, self._obstacles), "")


def _addresses(bound: Bound) -> list[str]:
    lines = []
    for sock, listener in zip(bound.listeners[0], bound.config.listeners, strict=True):
        target = f"to {listener.target}" if listener.target else "to where interception found it going"
        if listener.by_stream:
            target = "to where each stream of a tunnel says"
        lines.append(f"{listener.direction.value} on {name_of(sock)} {target}")
    for what, group in (("metrics", bound.metrics), ("health", bound.health), ("admin", bound.admin)):
        lines += [f"{what} on {name_of(sock)}" for sock in group]
    return lines


def _who_we_are(bound: Bound) -> str:
    config = bound.config
    if config.enrolment is None:
        who = bound.credentials.current.identity
    elif config.workers == 1:
        who = f"{bound.credentials.current.identity}, enrolled with {config.enrolment.authority}"
    else:  # each worker knows, and has said so
        who = f"enrolled with {config.enrolment.authority}"
    workers = f", {config.workers} workers" if config.workers > 1 else ""
    return f"ready: we are {who}, profile {config.profile_names}, {config.mode.value}{workers}"


def name_of(sock: socket.socket) -> str:
    """Where `sock` listens, as in a URL."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
