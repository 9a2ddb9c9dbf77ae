"""The pump between bytes, records, handshake states and events; the base of client and server connections."""

from __future__ import annotations

from typing import Final

from pqtls.effects import ConnectionEffects
from pqtls.errors import (
    Alert,
    AlertReceived,
    MisuseError,
    PeerError,
    ProtocolViolation,
    TruncatedStream,
)
from pqtls.events import ApplicationData, Event, PeerClosed
from pqtls.framing import read_plain_record
from pqtls.messages import parse_alert
from pqtls.record import HEADER_SIZE, MAX_FRAGMENT, ContentType, RecordSealer, sealed_size
from pqtls.states import State
from pqtls.traffic import DATA_PER_MESSAGE, MAX_MESSAGES_WITHOUT_DATA, MESSAGES_ANYWAY, Traffic

# Dummy change_cipher_spec records are dropped (RFC 8446 §5); nobody honest sends more than two.
_MAX_CHANGE_CIPHER_SPEC: Final = 8
_FATAL: Final = 2
_WARNING: Final = 1
# Asked of the Enum, it costs more than the comparison, and it is asked for each read of the data path.
_APPLICATION_DATA: Final = int(ContentType.APPLICATION_DATA)


class Connection:
    """One TLS 1.3 connection as a value: bytes in, bytes and events out. Not thread-safe."""

    def __init__(self, *, is_client: bool) -> None:
        self.effects = ConnectionEffects()
        self._is_client = is_client
        self._state: State | None = None
        self._buffer = bytearray()
        self._received_anything = False
        self._change_cipher_specs = 0
        self._messages_without_data = 0
        self._messages = 0  # after the handshake
        self._bytes_opened = 0
        # Why it is dead. The words alone: an exception knows by its traceback who raised it, and what knows each other
        # only the garbage collector frees, which sees nothing of the memory that OpenSSL has for our keys.
        self._failure: str | None = None
        self._close_notify_sent = False
        self.peer_closed = False

    def start(self, state: State) -> None:
        """Set the first state. For client.py and server.py."""
        self.effects.flush()
        self._state = state

    # -- what the owner asks ------------------------------------------------------------------------------------

    @property
    def handshake_complete(self) -> bool:
        """Whether both sides are verified, as far as they demanded it, and application data may flow."""
        return isinstance(self._state, Traffic)

    @property
    def has_data_to_send(self) -> bool:
        """Whether data_to_send() would return anything."""
        return bool(self.effects.output)

    def data_to_send(self) -> bytes:
        """Drain what must be sent to the peer."""
        data = bytes(self.effects.output)
        self.effects.output.clear()
        return data

    def events(self) -> list[Event]:
        """Drain what happened."""
        events = self.effects.events
        self.effects.events = []
        return events

    # -- receiving ----------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the peer.

        Raises PeerError when the peer is at fault or refused us; then data_to_send() holds the alert to send, if there
        is one, and the connection is dead. Data after close_notify is ignored (RFC 8446 §6.1).
        """
        self._check_alive()
        if self.peer_closed:
            return
        self._buffer += data
        try:
            self._process_buffer()
        except PeerError as error:
            self._died_of(error)
            raise

    def receive_eof(self) -> None:
        """The peer's TCP stream ended. Raises TruncatedStream unless close_notify came before."""
        if self.peer_closed or self._failure is not None:
            return
        self._failure = (
            "the connection ended without close_notify"
            if self.handshake_complete
            else "the peer closed the connection during the handshake"
        )
        raise TruncatedStream(self._failure)

    def open_into(self, ciphertext: memoryview, plaintext: memoryview) -> tuple[int, int]:
        """Decrypt all whole records of `ciphertext` into `plaintext`; return (consumed, produced) in bytes.

        The fast path after the handshake: see ARCHITECTURE.md. `plaintext` has room for at least len(ciphertext) bytes.
        Raises PeerError as receive_data does; what was produced before the fault is lost with it.
        """
        self._check_alive()
        if self.peer_closed:
            return len(ciphertext), 0
        if self._buffer:
            raise MisuseError("open_into must not be mixed with receive_data: take_buffered() first")
        try:
            return self._open(ciphertext, plaintext)
        except PeerError as error:
            self._died_of(error)
            raise

    def take_buffered(self) -> bytes:
        """Hand over received bytes that are not yet a whole record, when changing to open_into."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    # -- sending ------------------------------------------------------------------------------------------------

    def send_data(self, data: bytes | bytearray | memoryview) -> None:
        """Protect application data; the records are in data_to_send()."""
        source = memoryview(bytes(data) + b"\0")
        step = self.effects.fragment_size
        for start in range(0, len(data), step):
            piece = bytearray(source[start : start + step + 1])
            length = min(step, len(data) - start)
            records = bytearray(self.sealed_size(length) + len(self.effects.output))
            with memoryview(piece) as plaintext, memoryview(records) as target:
                written = self.seal_into(plaintext, length, target)
            self.effects.output += records[:written]

    def sealed_size(self, length: int) -> int:
        """Room in bytes that seal_into needs for `length` bytes, with the record size that the peer asked for."""
        return sealed_size(length, self.effects.fragment_size)

    def export_keying_material(self, label: str, context: bytes, length: int) -> bytes:
        """The TLS exporter (RFC 8446 §7.5): `length` bytes that both ends, and nobody else, can compute."""
        return self._traffic().exporter.export(label, context, length)

    def seal_into(self, plaintext: memoryview, length: int, records: memoryview) -> int:
        """Protect `plaintext[:length]` straight into `records`; return the bytes written.

        `plaintext` is writable and longer than `length` by at least one byte; `records` has room for
        sealed_size(length) bytes and for what data_to_send() holds, which goes in front. A KeyUpdate that is due,
        because the peer asked for it or because the key is worn, goes in between.
        """
        if self._close_notify_sent:
            raise MisuseError("application data after close_notify")
        sealed = 0
        written = 0
        effects = self.effects
        while sealed < length:
            sealer = self._fresh_sealer()
            output = effects.output
            if output:
                records[written : written + len(output)] = output
                written += len(output)
                output.clear()
            room = sealer.room() * effects.fragment_size
            if length <= room and not written:  # as nearly always
                return sealer.seal_into(plaintext, length, records)
            chunk = min(length - sealed, room)
            written += sealer.seal_into(plaintext[sealed:], chunk, records[written:])
            sealed += chunk
        return written

    def send_close_notify(self) -> None:
        """Close our direction (RFC 8446 §6.1); the peer's stays open. Idempotent."""
        self._check_alive()
        if not self._close_notify_sent:
            self._close_notify_sent = True
            self.effects.put(ContentType.ALERT, bytes((_WARNING, Alert.CLOSE_NOTIFY)))

    def update_keys(self, *, request_peer: bool = False) -> None:
        """Change our sending keys, and ask the peer to change its own where `request_peer` says so."""
        if self._close_notify_sent:
            raise MisuseError("a KeyUpdate after close_notify")
        self._state = self._traffic().update_keys(self.effects, request_peer=request_peer)

    def abort(self, alert: Alert) -> None:
        """End the connection by an alert of our own choice, for example internal_error. Idempotent."""
        if self._failure is None:
            self._failure = f"we ended the connection with {alert.name.lower()}"
            self.effects.put(ContentType.ALERT, bytes((_FATAL, alert)))

    # -- inside: sending ----------------------------------------------------------------------------------------

    def _traffic(self) -> Traffic:
        self._check_alive()
        if not isinstance(self._state, Traffic):
            raise MisuseError("the handshake is not complete")
        return self._state

    def _fresh_sealer(self) -> RecordSealer:
        """The sealer for application data, after a KeyUpdate where one is due."""
        traffic = self._state
        if self._failure is not None or not isinstance(traffic, Traffic):
            traffic = self._traffic()  # which raises
        sealer = self.effects.sealer
        if sealer is None or traffic.owes_key_update or sealer.room() <= 0:
            self.update_keys()
            sealer = self.effects.sealer
        if sealer is None:
            raise MisuseError("there are no sending keys")
        return sealer

    # -- inside: receiving --------------------------------------------------------------------------------------

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise MisuseError(f"the connection is dead: {self._failure}")

    def _died_of(self, error: PeerError) -> None:
        """Remember why the connection died, and queue the alert that says so."""
        self._failure = str(error)
        self.effects.pending.clear()
        if error.alert is not None and not isinstance(error, AlertReceived):
            self.effects.put(ContentType.ALERT, bytes((_FATAL, error.alert)))

    def _process_buffer(self) -> None:
        """Take every whole record that has come."""
        while self._buffer and not self.peer_closed:
            if self.effects.opener is not None:
                self._process_protected()
                return
            record = read_plain_record(self._buffer, first=not self._received_anything)
            if record is None:
                return
            del self._buffer[: record.size]
            self._on_plain_record(record.type, record.content)
            self._received_anything = True

    def _process_protected(self) -> None:
        ciphertext, self._buffer = self._buffer, bytearray()
        plaintext = bytearray(len(ciphertext))
        consumed, produced = self._open(memoryview(ciphertext), memoryview(plaintext))
        if consumed < len(ciphertext):
            self._buffer += ciphertext[consumed:]
        if produced:
            # close_notify is the last thing that comes; data of the same read came before it.
            events = self.effects.events
            events.insert(len(events) - self.peer_closed, ApplicationData(bytes(plaintext[:produced])))

    def _open(self, ciphertext: memoryview, plaintext: memoryview) -> tuple[int, int]:
        """Open all whole records; handle what is not application data on the way."""
        consumed = 0
        produced = 0
        rest, room = ciphertext, plaintext
        while True:
            opener = self.effects.opener
            if opener is None:
                raise MisuseError("there are no receiving keys")
            before = opener.records
            taken, opened, content_type, size = opener.open_into(rest, room)
            consumed += taken
            produced += opened
            # The last record opened was another one where `content_type` says so; all before it were application data.
            controls = content_type != _APPLICATION_DATA and size >= 0
            if opener.records - before > controls:
                self._check_application_data()
            if opened:
                self._messages_without_data = 0
                self._bytes_opened += opened
            if opener.is_worn() and not opener.asked_for_update and self.handshake_complete:
                opener.asked_for_update = True
                if not self._close_notify_sent:
                    self.update_keys(request_peer=True)
            if content_type == _APPLICATION_DATA:
                return consumed, produced
            if size < 0:
                skipped = self._on_unprotected(ciphertext[consumed:])
                if not skipped:
                    return consumed, produced
                consumed += skipped
            else:
                self._on_control(content_type, bytes(plaintext[produced : produced + size]))
                if self.peer_closed or consumed == len(ciphertext):
                    return len(ciphertext), produced
            rest, room = ciphertext[consumed:], plaintext[produced:]

    def _check_application_data(self) -> None:
        """Where a record of application data may stand, be it an empty one (§5.1)."""
        if not self.handshake_complete:
            raise ProtocolViolation("application data before the handshake is complete", Alert.UNEXPECTED_MESSAGE)
        if not self.effects.joiner.is_empty:
            raise ProtocolViolation("application data inside a handshake message", Alert.UNEXPECTED_MESSAGE)

    def _on_plain_record(self, content_type: int, content: bytes) -> None:
        if content_type == ContentType.CHANGE_CIPHER_SPEC:
            self._on_change_cipher_spec(content)
        else:
            self._on_control(content_type, content)

    def _on_unprotected(self, ciphertext: memoryview) -> int:
        """A record without protection where protected ones are due; return its size, or 0 while it is incomplete."""
        if self.handshake_complete:
            raise ProtocolViolation("an unprotected record after the handshake", Alert.UNEXPECTED_MESSAGE)
        record = read_plain_record(bytes(ciphertext[: MAX_FRAGMENT + HEADER_SIZE]), first=False)
        if record is None:
            return 0
        if record.type == ContentType.CHANGE_CIPHER_SPEC:
            self._on_change_cipher_spec(record.content)
            return record.size
        opener = self.effects.opener
        if record.type == ContentType.ALERT and opener is not None and opener.records == 0:
            # A peer that could not make the handshake keys has no other way to tell us why it leaves.
            self._on_alert(record.content)
            return record.size
        raise ProtocolViolation("an unprotected record among protected ones", Alert.UNEXPECTED_MESSAGE)

    def _on_change_cipher_spec(self, content: bytes) -> None:
        """Middlebox compatibility (RFC 8446 §5): the one value that is dropped, and not without end."""
        if not self.effects.joiner.is_empty:
            raise ProtocolViolation("a change_cipher_spec inside a handshake message", Alert.UNEXPECTED_MESSAGE)
        if not self._is_client and not self._received_anything:
            raise ProtocolViolation("a change_cipher_spec before the ClientHello", Alert.UNEXPECTED_MESSAGE)
        self._change_cipher_specs += 1
        if content != b"\x01" or self._change_cipher_specs > _MAX_CHANGE_CIPHER_SPEC:
            raise ProtocolViolation("a change_cipher_spec that TLS 1.3 does not know", Alert.UNEXPECTED_MESSAGE)

    def _on_control(self, content_type: int, content: bytes) -> None:
        if content_type == ContentType.HANDSHAKE:
            self._on_handshake(content)
            return
        if not self.effects.joiner.is_empty:
            raise ProtocolViolation("a record of another type inside a handshake message", Alert.UNEXPECTED_MESSAGE)
        if content_type != ContentType.ALERT:
            raise ProtocolViolation(f"a record of type {content_type}", Alert.UNEXPECTED_MESSAGE)
        self._on_alert(content)

    def _on_handshake(self, content: bytes) -> None:
        effects = self.effects
        joiner = effects.joiner
        joiner.feed(content)
        while (message := joiner.next_message()) is not None:
            state = self._state
            if state is None:
                raise MisuseError("the connection was not started")
            if isinstance(state, Traffic):
                self._count_message_without_data()
            self._state = state.handle(message, effects)
            effects.flush()

    def _on_alert(self, content: bytes) -> None:
        code = parse_alert(content)
        if code == Alert.CLOSE_NOTIFY and self.handshake_complete:
            self.peer_closed = True
            self._buffer.clear()
            self.effects.emit(PeerClosed())
            return
        if code == Alert.USER_CANCELED:
            # §6.1: a close_notify follows it; nothing else is to be done.
            self._count_message_without_data()
            return
        alert = Alert(code) if code in set(Alert) else None
        name = f"alert {code}" if alert is None else alert.name.lower()
        if alert is Alert.CLOSE_NOTIFY:
            raise AlertReceived("the peer closed the connection during the handshake (close_notify)", alert)
        hint = " (the server demands a certificate of its clients)" if alert is Alert.CERTIFICATE_REQUIRED else ""
        raise AlertReceived(f"the peer refused us: {name}{hint}", alert)

    def _count_message_without_data(self) -> None:
        self._messages_without_data += 1
        if self._messages_without_data > MAX_MESSAGES_WITHOUT_DATA:
            raise ProtocolViolation(
                f"more than {MAX_MESSAGES_WITHOUT_DATA} messages without application data",
                Alert.UNEXPECTED_MESSAGE,
            )
        self._messages += 1
        if self._messages > MESSAGES_ANYWAY + self._bytes_opened // DATA_PER_MESSAGE:
            raise ProtocolViolation("too many messages for so little application data", Alert.UNEXPECTED_MESSAGE)
