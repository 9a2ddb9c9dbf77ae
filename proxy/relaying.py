"""A relay as a task waits for it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from pqtls import Session
from proxy.engine import Engine, Scratch, ignore_session
from proxy.reactor import Reactor
from proxy.relay import End, Outcome, Relay


async def relay(
    reactor: Reactor,
    scratch: Scratch,
    application: socket.socket,
    wire: socket.socket,
    engine: Engine | None,
    *,
    started: Callable[[Relay], None],
    first: bytes = b"",
    on_session: Callable[[Session], None] = ignore_session,
) -> Outcome:
    """Run one relay to its end; `first` as in Relay.start. `started` gets it, for a registry that may abort it."""
    done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def on_end(outcome: Outcome) -> None:
        if not done.done():  # a cancelled task waits no more, but its sockets are closed all the same
            done.set_result(outcome)

    running = Relay(reactor, scratch, application, wire, engine, on_end, on_session)
    try:
        started(running)
        running.start(first)
        return await done
    finally:
        running.abort(End.DRAINED)
