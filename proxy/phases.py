"""The frame that inbound and outbound connections share: accepted, through the phases, ended, recorded once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pqtls import Session
from pqtls.errors import PeerError
from proxy import reasons, self_test, sockets
from proxy.config import Direction, Endpoint, Limits, ListenerConfig
from proxy.credentials import CredentialSource
from proxy.engine import Engine, Scratch, ignore_session
from proxy.handshake import HandshakeFailed, HandshakeResult, HandshakingConnection, connection_id, handshake
from proxy.handshake_queue import HandshakeQueue
from proxy.original_destination import NoOriginalDestination, SelfTestArrived, original_destination
from proxy.policy.gate import Gate
from proxy.reactor import Reactor
from proxy.reasons import Flag, Verdict
from proxy.record import ConnectionRecord, Sinks
from proxy.registry import SWEEP_SECONDS, LiveConnection, Registry
from proxy.relaying import relay
from proxy.sessions import SessionStore
from proxy.tunnels.buffers import TunnelBuffers
from proxy.unfinished import Unfinished
from proxy.waits import Waits

if TYPE_CHECKING:
    from proxy.tunnels.moving import Movable
    from proxy.tunnels.pool import TunnelPool
    from proxy.tunnels.shares import Shares

_log = logging.getLogger("qbitel.proxy")

# How long a refused peer gets to read its alert before its socket is closed for good: a slow round trip or two.
_ALERT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What every connection of a process uses."""

    loop: asyncio.AbstractEventLoop
    reactor: Reactor
    scratch: Scratch
    credentials: CredentialSource
    sessions: SessionStore
    registry: Registry
    sinks: Sinks
    limits: Limits
    profile: str
    own_ports: frozenset[int]
    unfinished: Unfinished
    handshakes: HandshakeQueue
    buffers: TunnelBuffers
    movable: Movable
    shares: Shares
    gate: Gate
    tunnels: TunnelPool | None  # None: each connection has a TLS connection of its own
    waits: Waits = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "waits", Waits(self.loop, self.reactor))

    def has_too_many_strangers(self) -> bool:
        """Whether handshakes wait for their turn, or as many are under way as there may be."""
        return len(self.handshakes) > 0 or self.unfinished.is_full


class TlsConnection(HandshakingConnection, Engine, Protocol):
    """A pqtls connection: handshaking first, the relay's engine afterwards."""


# None: somebody else has taken over the socket, the record and the connection's end.
Phases = Callable[[Services, socket.socket, LiveConnection], Awaitable[Verdict | None]]


def serve(services: Services, accepted: socket.socket, direction: Direction, phases: Phases) -> None:
    """Take over an accepted socket: from here on it has a record, a task and an end."""
    try:
        source = sockets.peer_name(accepted)
    except OSError:  # reset between the kernel's accept and ours: nobody is there
        sockets.close(accepted)
        return
    record = ConnectionRecord(
        services.sinks, direction, source, services.credentials.current.identity, services.profile
    )
    if len(services.registry) >= services.limits.max_connections:
        sockets.reset(accepted)
        record.close(reasons.TOO_MANY)
        return
    # The task needs its entry and the entry its task: it starts with the loop's next turn, when both are there.
    holder: list[LiveConnection] = []
    task = services.loop.create_task(_run(services, accepted, holder, phases))
    live = LiveConnection(record, services.loop.time(), task.cancel)
    holder.append(live)
    services.registry.add(live)


async def _run(services: Services, accepted: socket.socket, holder: list[LiveConnection], phases: Phases) -> None:
    (live,) = holder
    verdict: Verdict | None = reasons.DRAINED
    try:
        verdict = await phases(services, accepted, live)
    except SelfTestArrived:
        self_test.answer(accepted)
        sockets.close(accepted)
        live.record.dismiss()
        verdict = None
    except (
        reasons.Refused, PeerError, HandshakeFailed, sockets.ConnectFailed, NoOriginalDestination, OSError
    ) as error:  # fmt: skip
        verdict = reasons.of_error(error)
    except Exception as error:  # noqa: BLE001  # one connection's bug must not end all the others
        _log.exception("a bug ended one connection; please report it")
        verdict = Verdict(Flag.NONE, "internal_error", f"a bug of the sidecar ended it: {error!r}; please report it")
    finally:
        # A relay has closed both; every other end of the phases means that the one who dialled us is refused.
        if verdict is not None and accepted.fileno() >= 0:
            if verdict is reasons.CLOSED_EARLY:
                sockets.close(accepted)
            else:
                sockets.reset(accepted)
        if verdict is not None:
            live.record.close(verdict)
        services.registry.remove(live)


def destination_of(services: Services, accepted: socket.socket, listener: ListenerConfig) -> Endpoint:
    """Where the connection goes: to the listener's target, or where interception found it going."""
    return listener.target or original_destination(accepted, services.own_ports, transparent=listener.transparent)


async def secure(
    services: Services,
    record: ConnectionRecord,
    sock: socket.socket,
    connection: HandshakingConnection,
    *,
    first: bytes = b"",
    hold_last: bool = False,
) -> HandshakeResult:
    """The handshake phase. A failure is counted, its alert gets time to arrive, and `sock` is closed.

    `hold_last` as in handshake(): for who goes on with carry() at once.
    """
    # Outbound, it is our own application that asks: nobody outside can make there be many, nor make them go.
    strangers = record.direction is Direction.INBOUND
    source = record.source.host if strangers else ""
    try:
        with services.unfinished.place(source) if strangers else contextlib.nullcontext():
            result = await handshake(
                services.waits,
                sock,
                connection,
                timeout=services.limits.handshake_timeout,
                first=first,
                our_turn=lambda: services.handshakes.turn(source),
                hold_last=hold_last,
            )
    except (PeerError, HandshakeFailed) as error:
        record.handshake_failed(error.reason)
        if isinstance(error, PeerError) and error.alert is not None:
            await sockets.close_after_alert(services.waits, sock, _ALERT_SECONDS)
        raise
    record.identified_as(connection_id(connection))
    record.handshake_completed(result)
    return result


async def carry(
    services: Services,
    live: LiveConnection,
    application: socket.socket,
    wire: socket.socket,
    engine: Engine | None,
    *,
    first: bytes = b"",
    on_session: Callable[[Session], None] = ignore_session,
) -> Verdict:
    """The relay phase: returns when both directions have ended. `on_session` gets sessions that come."""
    # Where the other end's machine lives and its program hangs, our own sweep is to say so first.
    for sock in (application, wire):
        sockets.give_up_after(sock, services.limits.stall_timeout + 2 * SWEEP_SECONDS)
    outcome = await relay(
        services.reactor,
        services.scratch,
        application,
        wire,
        engine,
        started=live.relaying,
        first=first,
        on_session=on_session,
    )
    live.record.carried(outcome.from_application, outcome.from_wire)
    return reasons.of_outcome(outcome, services.limits.idle_timeout)


class reset_unless_closed:  # noqa: N801  # read as what it does
    """A block for `with`, behind which `sock` is closed: in order by somebody inside, or else by RST."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __enter__(self) -> socket.socket:
        return self._sock

    def __exit__(self, *_error: object) -> None:
        if self._sock.fileno() >= 0:
            sockets.reset(self._sock)
