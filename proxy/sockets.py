"""Raw non-blocking TCP sockets: bound with one clear line per failure, connected within a deadline, reset or closed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import socket
import struct
from typing import Final

from mesh.errors import UserError
from proxy import congestion, transparent
from proxy.config import Endpoint
from proxy.waits import Waits

# As many connections as may wait between two turns of the loop; the kernel cuts it at net.core.somaxconn (4096).
BACKLOG: Final = 1024
# A flow without traffic is probed after five minutes, so that a vanished peer and the state of NATs on the way are
# noticed long before the idle limit: 300 s, then every 30 s, gone after 4 unanswered probes.
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 300), (socket.TCP_KEEPINTVL, 30), (socket.TCP_KEEPCNT, 4))
# linux/in.h: the port is chosen at connect(), where it must differ only per destination. Without it all connections
# from one source address share 28,000 ports. Python 3.11 has no name for it.
_IP_BIND_ADDRESS_NO_PORT: Final = 24
# struct tcp_info (linux/tcp.h): state, ca_state, retransmits, probes, backoff, options, two bytes of flags, and twelve
# numbers of 32 bits before tcpi_last_ack_recv: milliseconds since the other end acknowledged anything.
_TCP_INFO: Final = struct.Struct("8B13I")
# One segment may be lost, with its repetition.
_UNANSWERED: Final = 2
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds (socket(7))
_FIN_ON_CLOSE: Final = struct.pack("ii", 0, 0)
# How much of a refused peer's backlog is read away so that closing does not turn into a reset that outruns the alert.
_LINGER_BYTES: Final = 256 * 1024


class ConnectFailed(Exception):
    """No address of the target could be connected to. `timed_out`: nothing answered; `refused`: a machine is there, and
    said that nothing listens on that port."""

    def __init__(self, message: str, *, timed_out: bool = False, refused: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.refused = refused


def ipv6_available() -> bool:
    """Whether this network namespace has IPv6 at all (its loopback address can be bound)."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def listen(
    endpoint: Endpoint, *, reuse_port: bool = False, proxied: bool = False, foreign: bool = False
) -> socket.socket:
    """Return a TCP socket that listens on `endpoint`, or raise UserError with one line.

    It listens at once, and connections wait in its queue until they are accepted: two sockets that are merely bound may
    share a port without a word (SO_REUSEADDR, socket(7)). What is accepted inherits what prepare() sets,
    and where it is `proxied`, what reset_if_killed() sets.
    `reuse_port` lets several sockets have the port; the caller makes sure that they are all its own. `foreign` takes
    what TPROXY brings, which was dialled at other addresses and ports; transparent.check() says whether we may.
    """
    family, address = _bindable(endpoint)
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise UserError(f"cannot make a socket for {endpoint}: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # Else [::] takes the port of 0.0.0.0 too, and SO_ORIGINAL_DST of IPv4 is asked on an IPv6 socket.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        prepare(sock)
        if proxied:
            reset_if_killed(sock)
        if foreign:
            transparent.allow(sock)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise UserError(_why_not_bound(endpoint, error)) from None
    return sock


def _bindable(endpoint: Endpoint) -> tuple[int, tuple[str, int] | tuple[str, int, int, int]]:
    try:
        found = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"cannot listen on {endpoint}: {endpoint.host!r} is no address of this machine ({error})"
        ) from None
    family, _, _, _, address = found[0]
    return family, address  # type: ignore[return-value]  # AF_INET or AF_INET6 only, whose addresses these are


def _why_not_bound(endpoint: Endpoint, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"port {endpoint.port} on {endpoint.host} is in use; "
                f"end the program that has it (ss -ltnp 'sport = :{endpoint.port}' shows it) or choose another port"
            )
        case errno.EACCES | errno.EPERM:
            return (
                f"no permission to listen on {endpoint}; "
                "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose another port"
            )
        case errno.EADDRNOTAVAIL:
            return f"cannot listen on {endpoint}: {endpoint.host} is no address of this machine (ip address shows them)"
    return f"cannot listen on {endpoint}: {error.strerror}"


def prepare(sock: socket.socket) -> None:
    """Set what every connection has: no delay of small writes, and keep-alive probes."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _keep_alive(sock)


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def reset_if_killed(sock: socket.socket) -> None:
    """Have the kernel close `sock` by RST when this process is killed.

    Applications must see a reset then, as of a cable that is cut, and never the FIN of an answer that is complete.
    close() is for ends that are in order.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def give_up_after(sock: socket.socket, seconds: float) -> None:
    """Have the kernel break the connection when the other end has taken nothing of what was sent for `seconds`.

    TCP_USER_TIMEOUT (RFC 5482): without it, a machine that vanished is noticed after a quarter of an hour.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def ask_for_life(sock: socket.socket, seconds: float) -> None:
    """Have the kernel probe the other end after `seconds` of silence, and from then on three times as often."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, math.ceil(seconds)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, math.ceil(seconds / 3)))


def has_vanished(sock: socket.socket, seconds: float) -> bool:
    """Whether the machine at the other end has acknowledged nothing for `seconds`, though it was asked to.

    Probes of a window that is closed are answered by every machine that lives (RFC 9293 §3.8.6.1): a program that does
    not read is no machine that is gone. Where TCP_USER_TIMEOUT is set the kernel counts no probes, so this does.
    """
    info = _TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    retransmits, probes, milliseconds = info[2], info[3], info[-1]
    return bool(milliseconds >= seconds * 1000 and (probes >= _UNANSWERED or retransmits >= _UNANSWERED))


async def connect(waits: Waits, target: Endpoint, timeout: float, *, source: str | None = None) -> socket.socket:
    """Return a connected socket to `target` within `timeout` seconds, or raise ConnectFailed.

    A name is resolved and its addresses are tried one after the other, each for its share of the time: one that
    swallows packets must not keep us from the next. `source` is the address to come from; a transparent.ClientAddress
    need not be one of this machine.
    """
    family = _family_of(target.host)
    try:
        if family is not None:  # an address, as nearly always: it needs no resolver, and so no thread
            return await _connect_one(waits, family, (target.host, target.port), source, timeout)
        with waits.at_most(timeout):
            return await _connect_by_name(waits, target, source, timeout)
    except TimeoutError:
        raise ConnectFailed(
            f"{target} did not answer within {timeout:g} s; is it up, and does a firewall drop its packets?",
            timed_out=True,
        ) from None
    except OSError as error:
        raise connect_failed(target, error, source) from None


async def address_of(loop: asyncio.AbstractEventLoop, target: Endpoint) -> Endpoint:
    """`target` with its first address in place of its name. Raises ConnectFailed."""
    if _family_of(target.host) is not None:
        return target
    (_, (host, port)), *_ = await _resolve(loop, target)
    return Endpoint(host, port)


def _family_of(host: str) -> socket.AddressFamily | None:
    """The family of an address; None for a name."""
    if ":" in host:
        return socket.AF_INET6
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        return None
    return socket.AF_INET


async def _resolve(loop: asyncio.AbstractEventLoop, target: Endpoint) -> list[tuple[int, tuple[str, int]]]:
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectFailed(f"cannot resolve {target.host!r}: {error}; check the name and the DNS") from None
    return [(family, address[:2]) for family, _, _, _, address in found]  # type: ignore[misc]  # host, port


async def _connect_by_name(waits: Waits, target: Endpoint, source: str | None, timeout: float) -> socket.socket:
    addresses = await _resolve(waits.loop, target)
    last = OSError("it has no address")
    for number, (family, address) in enumerate(addresses, start=1):
        share = timeout / len(addresses) if number < len(addresses) else timeout
        try:
            return await _connect_one(waits, family, address, source, share)
        except OSError as error:  # TimeoutError is one
            last = error
    # Of several, the others may have done something else than refuse.
    raise connect_failed(target, last, source, is_all=len(addresses) == 1)


async def _connect_one(
    waits: Waits, family: int, address: tuple[str, int], source: str | None, timeout: float
) -> socket.socket:
    sock = _unconnected(family, address[0], source)
    try:
        await waits.connect(sock, address, timeout)
    except BaseException:  # a cancelled attempt must not leak its descriptor either
        sock.close()
        raise
    return sock


def start_connecting(target: Endpoint, source: str | None) -> socket.socket:
    """Return a prepared socket that is on its way to `target`, an address; raise OSError where it cannot begin.

    It is writable when it has arrived, and SO_ERROR says what became of it.
    """
    family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
    sock = _unconnected(family, target.host, source)
    error = sock.connect_ex((target.host, target.port))
    if error not in (0, errno.EINPROGRESS):
        sock.close()
        raise OSError(error, os.strerror(error))
    return sock


def connect_failed(target: Endpoint, error: OSError, source: str | None, *, is_all: bool = True) -> ConnectFailed:
    """The failure of a socket on its way to `target`, in words; `is_all`: it has no other addresses."""
    refused = is_all and error.errno == errno.ECONNREFUSED
    return ConnectFailed(f"cannot connect to {target}: {_why_not_connected(error, source)}", refused=refused)


def _unconnected(family: int, host: str, source: str | None) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source is not None or congestion.is_loopback(host):
            congestion.unpace(sock)
        else:
            # A neighbour in the same pod cannot vanish without a word: nothing has to be kept alive there.
            _keep_alive(sock)
        reset_if_killed(sock)
        if isinstance(source, transparent.ClientAddress):
            transparent.bind_as(sock, source)
        elif source is not None:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
    except OSError:
        sock.close()
        raise
    return sock


def _why_not_connected(error: OSError, source: str | None) -> str:
    match error.errno:
        case errno.ECONNREFUSED:
            return "connection refused; is the program there up and listening on this port?"
        case errno.EADDRNOTAVAIL if source is not None:
            return f"the source address {source} is not on this machine; `qbitel init` adds it"
        case errno.EADDRINUSE if source is not None:
            return f"no port is free to dial from {source}; it has too many connections, or too many have just ended"
        case errno.ENETUNREACH | errno.EHOSTUNREACH:
            return "no route to it; check the address and the network"
        case errno.EMFILE | errno.ENFILE:
            return "no file descriptor is left here; raise the limit (ulimit -n) or lower --max-connections"
    return error.strerror or str(error)


def close(sock: socket.socket) -> None:
    """Close `sock` in order: what was sent still arrives, and FIN behind it."""
    try:  # noqa: SIM105  # contextlib.suppress() costs half as much as the system call
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _FIN_ON_CLOSE)
    except OSError:
        pass  # a socket that is dead already has nothing left to send
    sock.close()


def reset(sock: socket.socket) -> None:
    """Close `sock` with RST: the peer learns that what it was told is not all there was."""
    with contextlib.suppress(OSError):  # a socket that is dead already needs no RST
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()


async def close_after_alert(waits: Waits, sock: socket.socket, timeout: float) -> None:
    """Close `sock` so that what was just sent (an alert) arrives.

    close() with unread bytes in the receive buffer sends a RST, which throws away what the peer has not read yet
    (RFC 1122 §4.2.2.13). So we send FIN and read what the peer still sends until its FIN, within bounds.
    """
    try:
        sock.shutdown(socket.SHUT_WR)
        with waits.at_most(timeout):
            for _ in range(_LINGER_BYTES // 16384):
                if not await waits.receive(sock, 16384):
                    break
    except (OSError, TimeoutError):
        pass  # the peer is gone or keeps sending: either way it had its chance to read the alert
    finally:
        close(sock)


def own_name(sock: socket.socket) -> Endpoint:
    """The address of this end of a connected socket."""
    host, port = sock.getsockname()[:2]
    return Endpoint(host, port)


def peer_name(sock: socket.socket) -> Endpoint:
    """The address of the other end of an accepted or connected socket."""
    host, port = sock.getpeername()[:2]
    return Endpoint(host, port)
