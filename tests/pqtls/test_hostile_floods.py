"""Peers that send without end: the engine stops them early, or keeps nothing of what they send.

Memory is measured from outside, by tracemalloc, so that no buffer is forgotten.
"""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterable, Iterator

import pytest

import pqtls
from pqtls.framing import HandshakeType
from pqtls.messages import encode_key_update
from pqtls.record import MAX_EMPTY_RECORDS, MAX_FRAGMENT, ContentType, RecordSealer
from pqtls.traffic import MAX_MESSAGES_WITHOUT_DATA
from pqtls.wire import vector
from tests.support.hostile import flight_of, recording, refused
from tests.support.pki import connected
from tests.support.recorded import plain_record, state_of

MIB = 2**20
FLOOD = 100 * MIB
# A handshake's largest message (2^16), the record that completes it and their copies; far below what a flood brings.
MEMORY = MIB
CHUNK = 2**16

by_role = pytest.mark.parametrize("role", ["client", "server"])


def fresh(role: str) -> pqtls.Connection:
    return recording().client() if role == "client" else recording().server()


def flooded(
    connection: pqtls.Connection, pieces: Iterable[bytes], limit: int = FLOOD
) -> tuple[pqtls.PeerError | None, int, int]:
    """Play `pieces` until the engine has enough, or `limit` bytes; return its error, what was played, peak memory."""
    played = 0
    error: pqtls.PeerError | None = None
    tracemalloc.start()
    try:
        start, _ = tracemalloc.get_traced_memory()
        for piece in pieces:
            played += len(piece)
            try:
                connection.receive_data(piece)
            except pqtls.PeerError as refusal:
                error = refusal
                break
            connection.events()
            if played >= limit:
                break
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return error, played, peak - start


def stopped(connection: pqtls.Connection, pieces: Iterable[bytes], within: int) -> pqtls.PeerError:
    """Demand that the flood is ended by an error, after at most `within` bytes and in bounded memory."""
    error, played, peak = flooded(connection, pieces, within)
    assert error is not None
    assert played <= within
    assert peak < MEMORY
    assert len(connection.data_to_send()) < 100  # one alert
    return error


def up(role: str) -> tuple[pqtls.Connection, RecordSealer]:
    """A victim after its handshake, and what seals as its peer does."""
    client, server = connected()
    victim = client if role == "client" else server
    return victim, RecordSealer(state_of(victim).reading)


# -- before the handshake is complete ----------------------------------------------------------------------------------


@by_role
@pytest.mark.parametrize("byte", [0x00, 0x16, 0xFF])
def test_a_flood_of_one_byte_is_stopped_at_once(role: str, byte: int) -> None:
    stopped(fresh(role), itertools.repeat(bytes((byte,)) * CHUNK), CHUNK)


@by_role
def test_a_handshake_message_that_claims_sixteen_mebibytes_is_refused_by_its_header(role: str) -> None:
    for kind in HandshakeType:
        endless = itertools.chain(
            (plain_record(ContentType.HANDSHAKE, bytes((kind, 0xFF, 0xFF, 0xFF))),),
            itertools.repeat(plain_record(ContentType.HANDSHAKE, bytes(MAX_FRAGMENT))),
        )
        assert stopped(fresh(role), endless, 9).alert is pqtls.Alert.DECODE_ERROR


@by_role
@pytest.mark.parametrize("fragment", [1, 100, MAX_FRAGMENT])
def test_a_message_as_long_as_is_allowed_is_held_once_and_then_judged(role: str, fragment: int) -> None:
    kind = HandshakeType.SERVER_HELLO if role == "client" else HandshakeType.CLIENT_HELLO
    limit = 2**14 if role == "client" else 2**15
    message = bytes((kind, 0)) + limit.to_bytes(2, "big") + bytes(limit)

    def records() -> Iterator[bytes]:
        while True:
            for start in range(0, len(message), fragment):
                yield plain_record(ContentType.HANDSHAKE, message[start : start + fragment])

    assert stopped(fresh(role), records(), len(message) * 6 + 5).alert is pqtls.Alert.DECODE_ERROR


@by_role
def test_one_byte_more_than_is_allowed_is_refused_by_its_header(role: str) -> None:
    kind = HandshakeType.SERVER_HELLO if role == "client" else HandshakeType.CLIENT_HELLO
    limit = 2**14 if role == "client" else 2**15
    header = bytes((kind,)) + (limit + 1).to_bytes(3, "big")
    assert refused(fresh(role), plain_record(ContentType.HANDSHAKE, header)).alert is pqtls.Alert.DECODE_ERROR


@by_role
def test_empty_handshake_records_are_refused_at_the_first(role: str) -> None:
    first = plain_record(ContentType.HANDSHAKE, b"\x02\0")
    flood = itertools.chain((first,), itertools.repeat(plain_record(ContentType.HANDSHAKE, b"")))
    assert stopped(fresh(role), flood, len(first) + 5).alert is pqtls.Alert.UNEXPECTED_MESSAGE


@by_role
def test_change_cipher_spec_is_dropped_a_few_times_and_then_refused(role: str) -> None:
    record = plain_record(ContentType.CHANGE_CIPHER_SPEC, b"\x01")
    ready, stream, _ = flight_of(role, recording())
    victim = ready()
    victim.receive_data(record * 2)
    victim.receive_data(stream)
    assert victim.handshake_complete
    assert stopped(ready(), itertools.repeat(record), 9 * len(record)).alert is pqtls.Alert.UNEXPECTED_MESSAGE


@by_role
def test_warnings_without_end_are_refused(role: str) -> None:
    hello = plain_record(ContentType.HANDSHAKE, b"\x02" if role == "client" else b"\x01")
    warning = plain_record(ContentType.ALERT, bytes((1, pqtls.Alert.USER_CANCELED)))
    # In front of all else an alert is no TLS, and inside a message it may not stand.
    assert stopped(fresh(role), (hello, warning), 13).alert is pqtls.Alert.UNEXPECTED_MESSAGE
    ready, _, _ = flight_of(role, recording())
    secrets = recording().handshake_secrets
    sealer = RecordSealer(secrets.server if role == "client" else secrets.client)
    protected = (sealer.seal(ContentType.ALERT, bytes((1, pqtls.Alert.USER_CANCELED))) for _ in range(10**6))
    limit = (MAX_MESSAGES_WITHOUT_DATA + 1) * (5 + 2 + 17)
    assert stopped(ready(), protected, limit).alert is pqtls.Alert.UNEXPECTED_MESSAGE


@by_role
def test_plain_warnings_in_front_of_protected_records_are_refused(role: str) -> None:
    ready, _, _ = flight_of(role, recording())
    warning = plain_record(ContentType.ALERT, bytes((1, pqtls.Alert.USER_CANCELED)))
    limit = (MAX_MESSAGES_WITHOUT_DATA + 1) * len(warning)
    assert stopped(ready(), itertools.repeat(warning), limit).alert is pqtls.Alert.UNEXPECTED_MESSAGE


@by_role
def test_a_certificate_message_that_never_ends_is_refused_by_its_header(role: str) -> None:
    session = recording()
    ready, _, messages = flight_of(role, session)
    before = messages[:2] if role == "client" else ()
    secrets = session.handshake_secrets
    sealer = RecordSealer(secrets.server if role == "client" else secrets.client)

    def records(claimed: int) -> Iterator[bytes]:
        for message in before:
            yield sealer.seal(ContentType.HANDSHAKE, message)
        yield sealer.seal(ContentType.HANDSHAKE, b"\x0b" + claimed.to_bytes(3, "big"))
        while True:
            yield sealer.seal(ContentType.HANDSHAKE, bytes(MAX_FRAGMENT))

    assert stopped(ready(), records(2**24 - 1), 200).alert is pqtls.Alert.DECODE_ERROR
    sealer = RecordSealer(secrets.server if role == "client" else secrets.client)
    assert stopped(ready(), records(2**16), 2**16 + 2**15).alert is pqtls.Alert.DECODE_ERROR


@by_role
@pytest.mark.parametrize("size", [1, 2000])
def test_a_chain_of_very_many_certificates_is_refused_before_they_are_looked_at(role: str, size: int) -> None:
    session = recording()
    ready, _, messages = flight_of(role, session)
    entry = vector(3, bytes(size)) + vector(2, b"")
    chain = entry * (60_000 // len(entry))
    body = vector(1, b"") + vector(3, chain)
    message = b"\x0b" + len(body).to_bytes(3, "big") + body
    seal = session.seal_for_client if role == "client" else session.seal_for_server
    stream = seal(*(messages[:2] if role == "client" else ()), message)
    error, _, peak = flooded(ready(), (stream,))
    assert isinstance(error, pqtls.CertificateRefused)
    assert error.reason == "chain_too_long"
    assert peak < 8 * MIB  # ten thousand entries as objects, once


# -- after the handshake -----------------------------------------------------------------------------------------------


def ticket(size: int = 100) -> bytes:
    body = bytes(8) + vector(1, b"\0") + vector(2, bytes(size)) + vector(2, b"")
    return b"\x04" + len(body).to_bytes(3, "big") + body


def sealed_without_end(sealer: RecordSealer, content_type: ContentType, content: bytes) -> Iterator[bytes]:
    while True:
        yield sealer.seal(content_type, content)


def key_updates_without_end(victim: pqtls.Connection, *, request: bool, data: bytes) -> Iterator[bytes]:
    """KeyUpdates as their sender makes them, each followed by `data` under the new keys."""
    secret = state_of(victim).reading
    sealer = RecordSealer(secret)
    while True:
        update = sealer.seal(ContentType.HANDSHAKE, encode_key_update(request))
        secret = secret.next_generation()
        sealer = RecordSealer(secret)
        yield update + (sealer.seal(ContentType.APPLICATION_DATA, data) if data else b"")


@by_role
def test_empty_records_without_end_are_refused(role: str) -> None:
    victim, sealer = up(role)
    flood = sealed_without_end(sealer, ContentType.APPLICATION_DATA, b"")
    error = stopped(victim, flood, (MAX_EMPTY_RECORDS + 1) * 22)
    assert error.alert is pqtls.Alert.UNEXPECTED_MESSAGE


@by_role
def test_a_few_empty_records_between_data_are_no_fault(role: str) -> None:
    victim, sealer = up(role)
    for _ in range(10):
        for _ in range(MAX_EMPTY_RECORDS):
            victim.receive_data(sealer.seal(ContentType.APPLICATION_DATA, b""))
        victim.receive_data(sealer.seal(ContentType.APPLICATION_DATA, b"x"))
    assert victim.events() == [pqtls.ApplicationData(b"x")] * 10


@by_role
@pytest.mark.parametrize("request_ours", [True, False])
def test_key_updates_without_end_are_refused(role: str, request_ours: bool) -> None:
    victim, _ = up(role)
    flood = key_updates_without_end(victim, request=request_ours, data=b"")
    error = stopped(victim, flood, (MAX_MESSAGES_WITHOUT_DATA + 1) * 27)
    assert error.alert is pqtls.Alert.UNEXPECTED_MESSAGE


@by_role
def test_key_updates_with_data_between_them_cost_no_memory_and_cause_one_answer(role: str) -> None:
    victim, _ = up(role)
    flood = itertools.islice(key_updates_without_end(victim, request=True, data=bytes(512)), 5_000)
    error, _, peak = flooded(victim, flood)
    assert error is None
    assert peak < MEMORY
    assert not victim.has_data_to_send
    victim.send_data(b"at last")
    # One KeyUpdate answers them all (RFC 8446 §4.6.3): its record, and that of the data.
    assert len(victim.data_to_send()) == (5 + 5 + 17) + (5 + 7 + 17)


def test_tickets_without_end_are_refused_by_a_client() -> None:
    for size in (1, 60_000):
        victim, sealer = up("client")

        def flood(sealer: RecordSealer = sealer, message: bytes = ticket(size)) -> Iterator[bytes]:
            while True:
                for start in range(0, len(message), MAX_FRAGMENT):
                    yield sealer.seal(ContentType.HANDSHAKE, message[start : start + MAX_FRAGMENT])

        error = stopped(victim, flood(), (MAX_MESSAGES_WITHOUT_DATA + 1) * (size + 200))
        assert error.alert is pqtls.Alert.UNEXPECTED_MESSAGE


def test_tickets_with_data_between_them_cost_no_memory() -> None:
    victim, sealer = up("client")
    pair = (
        sealer.seal(ContentType.HANDSHAKE, ticket()) + sealer.seal(ContentType.APPLICATION_DATA, bytes(512))
        for _ in range(5_000)
    )
    error, _, peak = flooded(victim, pair)
    assert error is None
    assert peak < MEMORY


def test_a_server_takes_no_ticket_at_all() -> None:
    victim, sealer = up("server")
    error = stopped(victim, sealed_without_end(sealer, ContentType.HANDSHAKE, ticket()), 200)
    assert error.alert is pqtls.Alert.UNEXPECTED_MESSAGE


@by_role
def test_protected_warnings_without_end_are_refused(role: str) -> None:
    victim, sealer = up(role)
    flood = sealed_without_end(sealer, ContentType.ALERT, bytes((1, pqtls.Alert.USER_CANCELED)))
    error = stopped(victim, flood, (MAX_MESSAGES_WITHOUT_DATA + 1) * 24)
    assert error.alert is pqtls.Alert.UNEXPECTED_MESSAGE


@by_role
def test_handshake_bytes_without_end_after_the_handshake_are_refused(role: str) -> None:
    for start in (b"\x18\xff\xff\xff", b"\x04\xff\xff\xff", b"\x0b\0\0\0", b"\x01\0\x10\0" + bytes(2**12)):
        victim, sealer = up(role)
        flood = itertools.chain(
            (sealer.seal(ContentType.HANDSHAKE, start),),
            sealed_without_end(sealer, ContentType.HANDSHAKE, bytes(MAX_FRAGMENT)),
        )
        assert stopped(victim, flood, 2**13).alert in (pqtls.Alert.DECODE_ERROR, pqtls.Alert.UNEXPECTED_MESSAGE)


@by_role
def test_records_of_nothing_but_padding_are_refused_at_the_first(role: str) -> None:
    victim, sealer = up(role)
    nothing = sealer.seal(0, bytes(MAX_FRAGMENT))  # type: ignore[arg-type]  # the content type is padding too
    assert stopped(victim, (nothing,), len(nothing)).alert is pqtls.Alert.UNEXPECTED_MESSAGE


@by_role
def test_a_record_that_claims_more_than_is_allowed_is_refused_by_its_header(role: str) -> None:
    victim, _ = up(role)
    endless = itertools.chain((b"\x17\x03\x03\xff\xff",), itertools.repeat(bytes(CHUNK)))
    assert stopped(victim, endless, 5).alert is pqtls.Alert.RECORD_OVERFLOW


@by_role
def test_what_comes_after_close_notify_is_ignored_and_not_kept(role: str) -> None:
    victim, sealer = up(role)
    victim.receive_data(sealer.seal(ContentType.ALERT, bytes((1, pqtls.Alert.CLOSE_NOTIFY))) + bytes(1000))
    assert victim.events() == [pqtls.PeerClosed()]
    error, played, peak = flooded(victim, itertools.repeat(bytes(CHUNK)))
    assert (error, played) == (None, FLOOD)
    assert peak < MEMORY
    assert victim.events() == []
    victim.receive_eof()


@by_role
def test_a_hundred_mebibytes_of_data_leave_nothing_behind_in_the_engine(role: str) -> None:
    victim, sealer = up(role)
    error, played, peak = flooded(victim, sealed_without_end(sealer, ContentType.APPLICATION_DATA, bytes(MAX_FRAGMENT)))
    assert error is None
    assert played >= FLOOD
    assert peak < MEMORY
