"""Accepts connections from one listening socket, many per wake-up, and survives running out of descriptors."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import select
import socket
from collections.abc import Callable
from typing import Final

from proxy.config import Endpoint
from proxy.reactor import Reactor

# Accepted before the loop gets its turn again; and so many where more of them is what there is too much of: each costs
# half a millisecond before it is refused, and flows that are up wait meanwhile. The rest waits in the kernel's queue.
_PER_TURN: Final = 64
_PER_BUSY_TURN: Final = 2
# accept(2): what the process or the machine has run out of. It may come back; spinning on it would not help.
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# It comes and goes with each connection that ends; one line a minute says it.
_SECONDS_BETWEEN_WARNINGS: Final = 60.0
# accept(2): errors of one connection that died in the queue; the next is not concerned.
_OF_ONE: Final = frozenset(
    {
        errno.ECONNABORTED, errno.EINTR, errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.ENETUNREACH,
        errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ETIMEDOUT,
    }
)  # fmt: skip

_log = logging.getLogger("qbitel.proxy")


class Listener:
    """Owns a listening socket (of sockets.listen). `on_accept` gets each connection, non-blocking and prepared, and who
    dialled it.

    It waits in the reactor beside the connections: what a turn ends and what it begins goes out together then.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        reactor: Reactor,
        sock: socket.socket,
        on_accept: Callable[[socket.socket, Endpoint], None],
        pause: float,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """`pause`: seconds without accepting where the system has run out of something. `is_busy`: whether there is
        more to do for those who have just come than can be done.
        """
        self._loop = loop
        self._reactor = reactor
        self._sock = sock
        self._is_watched = False
        self._more = select.poll()
        self._more.register(sock, select.POLLIN)
        self._on_accept = on_accept
        self._pause = pause
        self._is_busy = is_busy
        self._resume: asyncio.TimerHandle | None = None
        self._quiet_until = -math.inf

    def start(self) -> None:
        """Accept from now on."""
        self._watch()

    def close(self) -> None:
        """Stop; the kernel refuses new connections from here on. What it has queued already is accepted still."""
        if self._sock.fileno() < 0:
            return
        self._accept(_PER_TURN)
        if self._resume is not None:
            self._resume.cancel()
        self._unwatch()
        self._sock.close()

    @property
    def address(self) -> Endpoint:
        """Where it listens in fact: with the port that the kernel chose, where 0 was asked for."""
        host, port = self._sock.getsockname()[:2]
        return Endpoint(host, port)

    def on_ready(self, _fd: int, _mask: int) -> None:
        """The reactor's call."""
        self._accept(_PER_BUSY_TURN if self._is_busy() else _PER_TURN)

    def on_crash(self, error: Exception) -> None:
        """A bug in what one connection began with: the next may do better."""

    def _accept(self, most: int) -> None:
        for number in range(most):
            # The reactor has said that one waits. To find nobody costs an exception, ten times what asking costs.
            if number and not self._more.poll(0):
                return
            try:
                connection, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._rest(error)
                    return
                if error.errno not in _OF_ONE:
                    raise
                continue
            connection.setblocking(False)
            self._on_accept(connection, Endpoint(address[0], address[1]))

    def _rest(self, error: OSError) -> None:
        """Accept nothing for a moment: what is queued stays queued, and living connections may end meanwhile."""
        if self._loop.time() >= self._quiet_until:
            self._quiet_until = self._loop.time() + _SECONDS_BETWEEN_WARNINGS
            _log.error(
                "cannot accept connections: %s; they wait until others end. "
                "Raise the limit of open files (ulimit -n) or lower --max-connections",
                error.strerror,
            )
        self._unwatch()
        self._resume = self._loop.call_later(self._pause, self._try_again)

    def _try_again(self) -> None:
        self._resume = None
        self._watch()

    def _watch(self) -> None:
        self._reactor.register(self._sock.fileno(), select.EPOLLIN, self)
        self._is_watched = True

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._reactor.unregister(self._sock.fileno())
