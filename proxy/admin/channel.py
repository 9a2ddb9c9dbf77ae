"""Messages between a parent and its worker over a socket pair: JSON behind its length, each way, in order.

Both ends are this program. So what comes is not judged, only bounded: a length that cannot be is a bug, and says so.
"""

from __future__ import annotations

import asyncio
import collections
import json
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

_LENGTH: Final = struct.Struct("!I")
# The largest answer is a table of connections: 10,000 of half a kilobyte.
_MAX_MESSAGE: Final = 64 * 1024 * 1024
_READ_SIZE: Final = 256 * 1024
# How long a worker may take for an answer: longer than its loop is ever busy with one thing.
PATIENCE: Final = 5.0

Message = dict[str, Any]


class Channel:
    """One end. `on_message` gets what comes, from the loop, while `run()` runs."""

    def __init__(self, sock: socket.socket, on_message: Callable[[Message], None]) -> None:
        """`sock` is non-blocking, and belongs to the channel from here on."""
        self._sock = sock
        self._on_message = on_message
        self._outgoing: collections.deque[bytes] = collections.deque()
        self._sending: asyncio.Task[None] | None = None

    def send(self, message: Mapping[str, Any]) -> None:
        """Send `message` behind what is on its way. One that the other end cannot get any more is dropped."""
        body = json.dumps(message, separators=(",", ":")).encode()
        self._outgoing.append(_LENGTH.pack(len(body)) + body)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def run(self) -> None:
        """Hand out what comes, until the other end is gone."""
        loop = asyncio.get_running_loop()
        waiting = bytearray()
        while True:
            try:
                data = await loop.sock_recv(self._sock, _READ_SIZE)
            except ConnectionResetError:  # it was killed with something unread
                return
            if not data:
                return
            waiting += data
            while (message := _take(waiting)) is not None:
                self._on_message(message)

    def close(self) -> None:
        """The other end sees the end."""
        if self._sending is not None:
            self._sending.cancel()
        self._sock.close()

    async def _send(self) -> None:
        while self._outgoing:
            try:
                await asyncio.get_running_loop().sock_sendall(self._sock, self._outgoing.popleft())
            except (BrokenPipeError, ConnectionResetError):
                self._outgoing.clear()


def _take(waiting: bytearray) -> Message | None:
    """The first whole message of `waiting`, which loses it; None where there is none."""
    if len(waiting) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(waiting)
    if length > _MAX_MESSAGE:
        raise ValueError(f"a message of {length} bytes between a parent and its worker")
    end = _LENGTH.size + length
    if len(waiting) < end:
        return None
    message: Message = json.loads(bytes(waiting[_LENGTH.size : end]))
    del waiting[:end]
    return message


class WorkerChannel:
    """A parent's end: it asks its worker, and hears of its readiness."""

    def __init__(self, sock: socket.socket, on_obstacle: Callable[[str], None]) -> None:
        self._channel = Channel(sock, self._on_message)
        self._on_obstacle = on_obstacle
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._number = 0

    async def run(self) -> None:
        """Listen until the worker is gone; whoever waits for an answer then gets none."""
        try:
            await self._channel.run()
        finally:
            for future in self._asked.values():
                future.cancel()

    def close(self) -> None:
        """No more is asked."""
        self._channel.close()

    async def ask(self, question: str, parameters: Mapping[str, str]) -> Any:
        """The worker's answer; None where it gives none in time."""
        self._number += 1
        number = self._number
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        self._channel.send({"number": number, "question": question, "parameters": dict(parameters)})
        try:
            done, _ = await asyncio.wait((future,), timeout=PATIENCE)
            return future.result() if done and not future.cancelled() else None
        finally:
            del self._asked[number]

    def _on_message(self, message: Message) -> None:
        if "obstacle" in message:
            self._on_obstacle(message["obstacle"])
        elif (future := self._asked.get(message["number"])) is not None and not future.done():
            future.set_result(message["answer"])


class ParentChannel:
    """A worker's end: it answers, and tells of its readiness."""

    def __init__(self, sock: socket.socket, answer: Callable[[str, Mapping[str, str]], Any]) -> None:
        self._channel = Channel(sock, self._on_message)
        self._answer = answer

    async def run(self) -> None:
        """Answer until the parent is gone."""
        await self._channel.run()

    def tell(self, obstacle: str) -> None:
        """What keeps us from being ready has changed."""
        self._channel.send({"obstacle": obstacle})

    def _on_message(self, message: Message) -> None:
        answer = self._answer(message["question"], message["parameters"])
        self._channel.send({"number": message["number"], "answer": answer})
