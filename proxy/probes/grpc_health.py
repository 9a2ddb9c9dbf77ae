"""One call of grpc.health.v1.Health/Check over HTTP/2 in cleartext: bytes out, bytes in. Pure.

One request on a connection of its own needs little of RFC 9113, and none of its flow control: the request is smaller
than every window that a connection begins with (§6.9.2). The answer's headers are not decoded (RFC 7541), because its
message alone says how the application is: one without the message SERVING is no good answer, whatever its headers say.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from proxy.probes.outcome import NoAnswer

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4
_FRAME: Final = struct.Struct("!HBBBI")  # §4.1: 24 bits of length, type, flags, stream
_SETTING: Final = struct.Struct("!HI")
_ENABLE_PUSH: Final = 0x2  # §6.5.2
_MAX_FRAME: Final = 16384  # the same; we ask for no more
_STREAM: Final = 1  # the first of a client (§5.1.1)
# gRPC over HTTP/2: each message behind whether it is compressed, and its length. We name no compression.
_PREFIX: Final = struct.Struct("!BI")
# A HealthCheckResponse has 2 bytes; what comes after it belongs to a later version.
_MAX_ANSWER: Final = 1024
# Frames until the end of an answer; a server sends some six.
_MAX_FRAMES: Final = 100
_ACK: Final = 0x1
_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_STATUSES: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}  # grpc/health/v1/health.proto
_SERVING: Final = 1


class _Type(IntEnum):
    """Frames that mean something to us (RFC 9113 §6)."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7


class HealthCheck:
    """One check. `to_send` is what is to go out; `status` is known when `is_done`."""

    def __init__(self, authority: str, service: str, timeout: int, user_agent: str) -> None:
        """`authority` is the server's address with its port, `timeout` in seconds."""
        message = service.encode()
        # HealthCheckRequest: field 1, a string; the default is left out.
        body = b"\x0a" + _varint(len(message)) + message if message else b""
        self.to_send = b"".join(
            (
                _PREFACE,
                _frame(_Type.SETTINGS, 0, 0, _SETTING.pack(_ENABLE_PUSH, 0)),
                _frame(_Type.HEADERS, _END_HEADERS, _STREAM, _headers(authority, timeout, user_agent)),
                _frame(_Type.DATA, _END_STREAM, _STREAM, _PREFIX.pack(0, len(body)) + body),
            )
        )
        self._waiting = b""
        self._frames = 0
        self._answer = b""
        self.is_done = False

    def receive(self, data: bytes) -> None:
        """Take what the server has sent. Raises NoAnswer."""
        self._waiting += data
        while not self.is_done and len(self._waiting) >= _FRAME.size:
            high, low, kind, flags, stream = _FRAME.unpack_from(self._waiting)
            length = high << 8 | low
            if length > _MAX_FRAME or (not self._frames and kind != _Type.SETTINGS):
                raise NoAnswer("it does not speak HTTP/2")
            end = _FRAME.size + length
            if len(self._waiting) < end:
                return
            payload, self._waiting = self._waiting[_FRAME.size : end], self._waiting[end:]
            self._frames += 1
            if self._frames > _MAX_FRAMES:
                raise NoAnswer("it sends frames of HTTP/2 and no end of its answer")
            self._handle(kind, flags, stream & 0x7FFFFFFF, payload)

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case _Type.SETTINGS if not flags & _ACK:
                self.to_send += _frame(_Type.SETTINGS, _ACK, 0, b"")
            case _Type.PING if not flags & _ACK:
                self.to_send += _frame(_Type.PING, _ACK, 0, payload)
            case _Type.GOAWAY if int.from_bytes(payload[:4]) & 0x7FFFFFFF < _STREAM:
                raise NoAnswer("it takes no requests now (GOAWAY)")
            case _Type.RST_STREAM if stream == _STREAM:
                raise NoAnswer(f"it reset the call (error {int.from_bytes(payload[:4])} of HTTP/2)")
            case _Type.DATA if stream == _STREAM:
                self._answer += _unpadded(payload) if flags & _PADDED else payload
                if len(self._answer) > _MAX_ANSWER:
                    raise NoAnswer("its answer is no HealthCheckResponse")
        # Whatever else comes, of this version of HTTP/2 or a later one, says nothing about our call (§4.1, §5.5).
        if kind in (_Type.DATA, _Type.HEADERS) and stream == _STREAM and flags & _END_STREAM:
            self.is_done = True

    @property
    def is_serving(self) -> bool:
        """Whether the answer says so. Raises NoAnswer where it says nothing."""
        return self._status() == _SERVING

    @property
    def word(self) -> str:
        """The answer's status by its name. Raises NoAnswer where it has none."""
        return _STATUSES.get(self._status(), "a status that is not known here")

    def _status(self) -> int:
        if not self._answer:
            raise NoAnswer("it answers with an error of gRPC: does it serve grpc.health.v1.Health, and this service?")
        if len(self._answer) < _PREFIX.size:
            raise NoAnswer("its answer is no message of gRPC")
        compressed, length = _PREFIX.unpack_from(self._answer)
        message = self._answer[_PREFIX.size :]
        if compressed or length != len(message):
            raise NoAnswer("its answer is no message of gRPC")
        return _status_of(message)


def _status_of(message: bytes) -> int:
    """Field 1 of a HealthCheckResponse; what is not there is 0, and what is not known is passed over."""
    status, at = 0, 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        match tag & 7:
            case 0:
                value, at = _read_varint(message, at)
                status = value if tag >> 3 == 1 else status
            case 1:
                at += 8
            case 2:
                length, at = _read_varint(message, at)
                at += length
            case 5:
                at += 4
            case _:
                raise NoAnswer("its answer is no HealthCheckResponse")
    if at != len(message):
        raise NoAnswer("its answer is no HealthCheckResponse")
    return status


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise NoAnswer("its answer is no HealthCheckResponse")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):  # RFC 9113 §6.1
        raise NoAnswer("it does not speak HTTP/2")
    return payload[1 : len(payload) - payload[0]]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def _headers(authority: str, timeout: int, user_agent: str) -> bytes:
    """The request's headers: names of the static table (RFC 7541, appendix A), values as they are (§6.2.2)."""
    return b"".join(
        (
            b"\x83\x86",  # :method POST, :scheme http
            _literal(4, "/grpc.health.v1.Health/Check"),  # :path
            _literal(1, authority),
            _literal(31, "application/grpc"),  # content-type
            _literal(58, user_agent),
            _literal(0, "trailers", "te"),
            # Eight digits at most, and a unit; in seconds that is three years.
            _literal(0, f"{min(timeout, 99_999_999)}S", "grpc-timeout"),
        )
    )


def _literal(index: int, value: str, name: str = "") -> bytes:
    """A field without indexing: its name by `index`, or in full where that is 0."""
    parts = [_integer(index, 4)]
    for text in (name, value) if name else (value,):
        encoded = text.encode()
        parts += [_integer(len(encoded), 7), encoded]
    return b"".join(parts)


def _integer(value: int, bits: int) -> bytes:
    """RFC 7541 §5.1, behind zero bits."""
    most = (1 << bits) - 1
    return bytes((value,)) if value < most else bytes((most,)) + _varint(value - most)
