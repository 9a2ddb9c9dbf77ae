"""A level-triggered epoll of our own, which the event loop watches as one file descriptor.

uvloop's transports corrupt memory when connections are half-closed, so that the data path stays off them: established
pairs of raw sockets live here. A turn handles what is ready now, a bounded number of descriptors, and goes back to the
loop, which calls again at once where more is ready: level-triggered, nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Callable
from typing import Final, Protocol

from proxy.busy_polling import BusyPolling

# How many ready descriptors one turn takes before handshakes, accepts and timers of the loop get theirs. At up to 1 MiB
# each, where all of it is bulk, that is some 50 ms of the worst work.
_PER_TURN: Final = 64

# How often it looks before the loop gets its turn: some 30 microseconds where nobody else wants the processor.
_LOOKS: Final = 10

_log = logging.getLogger("qbitel.proxy")


class Handler(Protocol):
    """Something that owns registered descriptors."""

    def on_ready(self, fd: int, mask: int) -> None:
        """`fd` has the epoll events `mask`. Must not block."""

    def on_crash(self, error: Exception) -> None:
        """`on_ready` raised `error`, a bug: end this handler's connections, and nobody else's."""


class EndsTurns(Protocol):
    """Something that collects during a turn what it does at its end."""

    def on_turn_end(self) -> None:
        """Do it. Must not block."""

    def on_crash(self, error: Exception) -> None:
        """`on_turn_end` raised `error`, a bug."""


class Reactor:
    """Owns one epoll instance. Single-threaded, like the loop that it hangs on.

    Without `polling` it sleeps whenever nothing is ready.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, polling: BusyPolling | None = None) -> None:
        self._loop = loop
        self._polling = polling
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._gone: set[int] = set()
        self._in_turn = False
        self._at_end: list[EndsTurns] = []
        self._afterwards: list[Callable[[], None]] = []
        loop.add_reader(self._epoll.fileno(), self._turn)

    def register(self, fd: int, events: int, handler: Handler) -> None:
        """Watch `fd` for `events` (EPOLLERR and EPOLLHUP always come too)."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def modify(self, fd: int, events: int) -> None:
        """Watch `fd`, which is registered, for `events` from now on."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Forget `fd`. Must be called before it is closed; events of it that this turn has fetched are dropped."""
        del self._handlers[fd]
        self._epoll.unregister(fd)
        self._gone.add(fd)

    def forget(self, fd: int) -> None:
        """As unregister, where `fd` is closed next: the kernel takes a closed descriptor out of the epoll by itself."""
        del self._handlers[fd]
        self._gone.add(fd)

    def at_end_of_turn(self, handler: EndsTurns) -> None:
        """Call `handler.on_turn_end` when all that was ready is handled; outside of a turn, in the loop's next."""
        self._see_to_an_end()
        self._at_end.append(handler)

    def after_turn(self, callback: Callable[[], None]) -> None:
        """Call `callback` behind all that `at_end_of_turn` asked for: what nobody waits for is done when everything
        that somebody waits for has been sent. It must not block.
        """
        self._see_to_an_end()
        self._afterwards.append(callback)

    def soon(self, callback: Callable[[], None], handler: Handler) -> None:
        """Call `callback` in the loop's next turn, when others have had theirs; a bug in it is `handler`'s. It must not
        block. Nothing is called after close().
        """
        self._loop.call_soon(self._call, callback, handler)

    def close(self) -> None:
        """Stop watching. Descriptors that are still registered are left to their owners."""
        self._loop.remove_reader(self._epoll.fileno())
        self._polling = None  # the loop may still have a look to call
        self._epoll.close()
        self._handlers.clear()

    def __len__(self) -> int:
        return len(self._handlers)

    def _turn(self) -> None:
        self._handle(self._epoll.poll(0, _PER_TURN))

    def _look_again(self) -> None:
        """A loop that has something to do soon does not sleep: it sees to others, and gets here again."""
        polling = self._polling
        for _ in range(_LOOKS):
            if polling is None or not polling.look_again():
                return
            if ready := self._epoll.poll(0, _PER_TURN):
                self._handle(ready)
                break
        self._loop.call_soon(self._look_again)

    def _handle(self, ready: list[tuple[int, int]]) -> None:
        polling = self._polling
        if polling is not None:
            polling.turn_begins()
        handlers, gone = self._handlers, self._gone
        gone.clear()
        self._in_turn = True
        for fd, mask in ready:
            # A number that was closed in this turn may already belong to a new socket; this event is the old one's.
            if fd in gone:
                continue
            handler = handlers[fd]
            try:
                handler.on_ready(fd, mask)
            except Exception as error:  # noqa: BLE001  # one connection's bug must not end all the others
                _log.exception("a bug in the relay ended one connection; please report it")
                handler.on_crash(error)
        self._in_turn = False
        self._end_turn()
        if polling is not None and polling.turn_ends(len(ready)):
            self._loop.call_soon(self._look_again)

    def _call(self, callback: Callable[[], None], handler: Handler) -> None:
        if self._epoll.closed:
            return
        try:
            callback()
        except Exception as error:  # noqa: BLE001  # see _handle
            _log.exception("a bug in the relay ended one connection; please report it")
            handler.on_crash(error)

    def _see_to_an_end(self) -> None:
        if not (self._in_turn or self._at_end or self._afterwards):
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        while self._at_end or self._afterwards:
            handlers, self._at_end = self._at_end, []
            for handler in handlers:
                try:
                    handler.on_turn_end()
                except Exception as error:  # noqa: BLE001  # see _turn
                    _log.exception("a bug in the relay ended a tunnel; please report it")
                    handler.on_crash(error)
            if self._at_end:
                continue
            callbacks, self._afterwards = self._afterwards, []
            for callback in callbacks:
                try:
                    callback()
                except Exception:  # noqa: BLE001  # see _turn
                    _log.exception("a bug left the end of a connection undone; please report it")
