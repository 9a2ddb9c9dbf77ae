"""Input that no honest peer sends: each message cut, changed, moved, doubled or left out.

The property, everywhere: the engine ends in a PeerError whose alert is queued, or waits for more and calls the end of
the stream a truncation. It raises nothing else, and completes no handshake whose bytes were changed. Changes
under encryption are made with the session's own keys: they are what a peer with a valid certificate can send.

What is ignored on purpose, and so may change: the second byte of legacy_record_version of a plaintext record (RFC 8446
§5.1 ignores the field "for all purposes"), and the first byte too in a record that is not the first of all. In the
first we demand it, to tell TLS from other things.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

import pqtls
from pqtls.certificates import Purpose
from pqtls.framing import HandshakeType
from pqtls.groups import MLKEM1024, SECP384R1MLKEM1024, X25519MLKEM1024
from pqtls.messages import Certificate, CertificateEntry
from pqtls.profiles import QBITEL
from pqtls.record import HEADER_SIZE, ContentType
from pqtls.transcript import Transcript
from pqtls.verify import sign_transcript
from tests.support.hostile import (
    IGNORED,
    bytewise,
    changed,
    demand_alert,
    flight_of,
    recording,
    refused,
    refused_between,
    seal_for,
)
from tests.support.pki import leaf
from tests.support.recorded import plain_record, record_handshake, split_records, with_body

SINGLE_BITS = tuple(1 << bit for bit in range(8))
# In a long message one place is much like the next: one bit for each, another one from place to place.
MANY_BITS = (*SINGLE_BITS, 0xFF)

# -- hellos ------------------------------------------------------------------------------------------------------------


def share_starts(hello: bytes, size: int) -> int:
    """Where the key share lies in the record of a hello: at its end, as both of ours write it last."""
    return len(hello) - size


def hello_changes(hello: bytes, share_size: int) -> Iterator[tuple[int, int]]:
    start = share_starts(hello, share_size)
    for place in range(len(hello)):
        if place < start:
            yield from ((place, pattern) for pattern in MANY_BITS)
        else:
            yield place, SINGLE_BITS[place % 8]


def test_a_client_hello_with_any_byte_changed_never_leads_to_a_handshake() -> None:
    session = recording()
    share_size = X25519MLKEM1024.client_share_size
    assert session.hello.endswith(session.client_config.provider.generate_share(X25519MLKEM1024.parts[1]).public)
    for place, pattern in hello_changes(session.hello, share_size):
        if place == IGNORED:
            continue
        refused_between(session, changed(session.hello, place, pattern))


def test_a_server_hello_with_any_byte_changed_never_leads_to_a_handshake() -> None:
    session = recording()
    rest = session.server_flight[len(session.server_hello) :]
    for place, pattern in hello_changes(session.server_hello, X25519MLKEM1024.server_share_size):
        if place == IGNORED:
            continue
        refused(session.client(), changed(session.server_hello, place, pattern) + rest)


@pytest.mark.parametrize("pattern", [0x01, 0x02, 0xFC, 0xFF])
def test_the_ignored_byte_of_the_record_version_changes_nothing(pattern: int) -> None:
    session = recording()
    server = session.server()
    server.receive_data(changed(session.hello, IGNORED, pattern))
    assert server.data_to_send() == session.server_flight
    client = session.client()
    client.receive_data(changed(session.server_flight, IGNORED, pattern))
    server.receive_data(client.data_to_send())
    assert client.handshake_complete
    assert server.handshake_complete


@pytest.mark.parametrize("whole", [True, False])
def test_a_stream_that_ends_within_a_hello_is_truncated_at_each_byte(whole: bool) -> None:
    session = recording()
    for make, hello in ((session.server, session.hello), (session.client, session.server_hello)):
        for length in range(0, len(hello), 1 if whole else 13):
            connection = make()
            pieces = (hello[:length],) if whole else bytewise(hello[:length])
            assert isinstance(refused(connection, *pieces), pqtls.TruncatedStream)


def test_hellos_cut_at_each_byte_under_lengths_that_fit_are_refused() -> None:
    session = recording()
    for make, record in ((session.server, session.hello), (session.client, session.server_hello)):
        message = record[HEADER_SIZE:]
        for length in range(len(message) - 4):
            error = refused(make(), plain_record(ContentType.HANDSHAKE, with_body(message, message[4 : 4 + length])))
            assert error.alert in (pqtls.Alert.DECODE_ERROR, pqtls.Alert.PROTOCOL_VERSION), length


def test_a_hello_with_bytes_behind_its_end_is_refused() -> None:
    session = recording()
    for make, record in ((session.server, session.hello), (session.client, session.server_hello)):
        message = record[HEADER_SIZE:]
        inside = with_body(message, message[4:] + b"\0")
        assert refused(make(), plain_record(ContentType.HANDSHAKE, inside)).alert is pqtls.Alert.DECODE_ERROR
        # Bytes behind the message but in its record would straddle a change of keys (RFC 8446 §5.1).
        behind = plain_record(ContentType.HANDSHAKE, message + b"\0")
        assert refused(make(), behind).alert is pqtls.Alert.UNEXPECTED_MESSAGE
        assert refused(make(), record + record).alert is pqtls.Alert.UNEXPECTED_MESSAGE


def test_a_retry_and_the_hello_after_it_with_any_byte_changed_never_lead_to_a_handshake() -> None:
    both = replace(QBITEL, groups=(MLKEM1024, SECP384R1MLKEM1024))
    only = replace(QBITEL, groups=(SECP384R1MLKEM1024,))
    session = record_handshake("retry", {"profiles": (both,)}, {"profiles": (replace(only, groups=(MLKEM1024,)),)})
    server_config = replace(session.server_config, profiles=(only,))

    def play(tamper: Callable[[int, bytes], bytes]) -> tuple[pqtls.Connection, pqtls.Connection, list[bytes]]:
        client, server = session.client(), pqtls.ServerConnection(server_config)
        server.receive_data(session.hello)
        flights = [server.data_to_send()]
        for number, (sender, receiver) in enumerate(((server, client), (client, server), (server, client))):
            flights[number] = tamper(number, flights[number])
            receiver.receive_data(flights[number])
            flights.append(receiver.data_to_send())
            assert sender is not receiver
        return client, server, flights

    client, _, flights = play(lambda _number, flight: flight)
    assert client.handshake_complete
    retry, second, *_ = flights
    assert len(split_records(retry)) == 1
    second_places = itertools.chain(range(HEADER_SIZE + 120), range(HEADER_SIZE + 120, len(second), 7))
    for number, places in ((0, range(len(retry))), (1, second_places)):
        for place in places:
            if place == IGNORED or (place == 1 and number == 1):
                continue  # in a record that is not the first, both bytes of the version are ignored

            def tamper(at: int, flight: bytes, number: int = number, place: int = place) -> bytes:
                return changed(flight, place, SINGLE_BITS[place % 8]) if at == number else flight

            try:
                client, server, _ = play(tamper)
            except pqtls.PeerError as error:
                assert error.alert is not None
                continue
            # Nobody raised: a length grew, and somebody still waits.
            assert not client.handshake_complete, (number, place)
            assert not server.handshake_complete


# -- flights under encryption ------------------------------------------------------------------------------------------


by_role = pytest.mark.parametrize("role", ["client", "server"])


@by_role
def test_the_recorded_flight_completes_the_handshake_however_it_is_sealed(role: str) -> None:
    session = recording()
    ready, stream, messages = flight_of(role, session)
    for play in (stream, seal_for(role, session, *messages), b"".join(bytewise(stream))):
        connection = ready()
        connection.receive_data(play)
        assert connection.handshake_complete
    connection = ready()
    for byte in bytewise(stream):
        assert not connection.handshake_complete
        connection.receive_data(byte)
    assert connection.handshake_complete


@by_role
def test_a_flight_with_any_byte_changed_on_the_way_fails_authentication(role: str) -> None:
    ready, stream, _ = flight_of(role, recording())
    starts = set(itertools.accumulate((len(record) for record in split_records(stream)), initial=0))
    headers = {start + offset for start in starts for offset in range(HEADER_SIZE)}
    for place in (*sorted(place for place in headers if place < len(stream)), *range(0, len(stream), 7)):
        error = refused(ready(), changed(stream, place, SINGLE_BITS[place % 8]))
        if place not in headers:
            assert error.alert is pqtls.Alert.BAD_RECORD_MAC


@by_role
def test_a_stream_that_ends_within_a_flight_is_truncated(role: str) -> None:
    ready, stream, _ = flight_of(role, recording())
    starts = itertools.accumulate((len(record) for record in split_records(stream)), initial=0)
    near_a_start = {start + offset for start in starts for offset in range(-3, 8)}
    for length in sorted({*near_a_start, *range(0, len(stream), 11)} & set(range(len(stream)))):
        assert isinstance(refused(ready(), stream[:length]), pqtls.TruncatedStream)


# The message's place in its flight, and its type.
MESSAGES = [
    ("client", 0, HandshakeType.ENCRYPTED_EXTENSIONS),
    ("client", 1, HandshakeType.CERTIFICATE_REQUEST),
    ("client", 2, HandshakeType.CERTIFICATE),
    ("client", 3, HandshakeType.CERTIFICATE_VERIFY),
    ("client", 4, HandshakeType.FINISHED),
    ("server", 0, HandshakeType.CERTIFICATE),
    ("server", 1, HandshakeType.CERTIFICATE_VERIFY),
    ("server", 2, HandshakeType.FINISHED),
]
by_message = pytest.mark.parametrize(
    ("role", "number", "kind"), MESSAGES, ids=[f"{kind.name.lower()}-to-{role}" for role, _, kind in MESSAGES]
)


def message_changes(message: bytes) -> Iterator[tuple[int, int]]:
    """A short message in each place and many ways; of a long one all but key and signature, and a part of those."""
    short = len(message) < 100
    key_of_certificate, rest_of_certificate = 400, range(2_500, 3_100)  # names before the key, extensions behind it
    for place in range(len(message)):
        if short:
            yield from ((place, pattern) for pattern in MANY_BITS)
        elif place < key_of_certificate or place in rest_of_certificate:
            yield from ((place, pattern) for pattern in (SINGLE_BITS[place % 8], 0xFF))
        elif place % 5 == 0:
            yield place, SINGLE_BITS[place // 5 % 8]


@by_message
def test_a_protected_message_with_any_byte_changed_by_its_sender_is_refused(
    role: str, number: int, kind: HandshakeType
) -> None:
    session = recording()
    ready, _, messages = flight_of(role, session)
    assert messages[number][0] == kind
    for place, pattern in message_changes(messages[number]):
        bad = (*messages[:number], changed(messages[number], place, pattern), *messages[number + 1 :])
        if kind != HandshakeType.FINISHED:
            bad = session.finished_again(bad, by_server=role == "client")
        refused(ready(), seal_for(role, session, *bad))


@by_message
def test_a_protected_message_cut_anywhere_under_lengths_that_fit_is_refused(
    role: str, number: int, kind: HandshakeType
) -> None:
    session = recording()
    ready, _, messages = flight_of(role, session)
    message = messages[number]
    body = message[4:]
    lengths = [*range(min(len(body), 60)), *range(60, len(body), 37), len(body) - 1]
    for length in lengths:
        cut = (*messages[:number], with_body(message, body[:length]), *messages[number + 1 :])
        error = refused(ready(), seal_for(role, session, *cut))
        assert error.alert is pqtls.Alert.DECODE_ERROR, (kind, length)


@by_message
def test_a_protected_message_with_bytes_behind_its_end_is_refused(role: str, number: int, kind: HandshakeType) -> None:
    session = recording()
    ready, _, messages = flight_of(role, session)
    message = messages[number]
    for garbage in (b"\0", b"\xff" * 7, message):
        longer = (*messages[:number], with_body(message, message[4:] + garbage), *messages[number + 1 :])
        assert refused(ready(), seal_for(role, session, *longer)).alert is pqtls.Alert.DECODE_ERROR, kind


@by_role
def test_messages_left_out_doubled_or_in_another_order_never_complete_the_handshake(role: str) -> None:
    session = recording()
    ready, _, messages = flight_of(role, session)
    wrong = set(itertools.permutations(messages)) - {messages}
    for number in range(len(messages)):
        wrong.add(messages[:number] + messages[number + 1 :])
        for place in range(number, len(messages)):
            wrong.add((*messages[: place + 1], messages[number], *messages[place + 1 :]))
    wrong -= {(*messages, message) for message in messages}  # the handshake is over by then: see below
    assert len(wrong) >= 5 + 3 + 3
    for flight in wrong:
        refused(ready(), seal_for(role, session, *flight))
        if flight[-1] == messages[-1]:
            refused(ready(), seal_for(role, session, *session.finished_again(flight, by_server=role == "client")))


@by_role
def test_the_certificate_of_another_without_its_key_is_refused(role: str) -> None:
    session = recording()
    ready, _, messages = flight_of(role, session)
    stolen = Certificate(b"", (CertificateEntry(leaf("somebody else").der, {}),)).encode()
    own_config = session.server_config if role == "client" else session.client_config
    before = (session.hello[HEADER_SIZE:], session.server_hello[HEADER_SIZE:])
    if role == "server":
        before += session.server_messages
    *rest, _, _, _ = messages
    transcript = Transcript(session.handshake_secrets.server.suite.hash_name, *before, *rest, stolen)
    signed = sign_transcript(
        own_config.credential.private_key,
        own_config.credential.signature_scheme,
        Purpose.SERVER if role == "client" else Purpose.CLIENT,
        transcript.digest(),
        own_config.provider,
    )
    # All that an attacker can make is right, and so is the signature, but for the wrong key.
    flight = session.finished_again((*rest, stolen, signed, messages[-1]), by_server=role == "client")
    assert refused(ready(), seal_for(role, session, *flight)).alert is pqtls.Alert.DECRYPT_ERROR


@by_role
def test_a_message_in_the_record_of_finished_behind_it_kills_the_connection(role: str) -> None:
    session = recording()
    ready, _, messages = flight_of(role, session)
    for behind in (messages[-1], messages[0], b"\x18\0\0\x01\0", b"\0"):
        connection = ready()
        with pytest.raises(pqtls.ProtocolViolation) as violation:
            connection.receive_data(seal_for(role, session, *messages, behind))
        assert violation.value.alert is pqtls.Alert.UNEXPECTED_MESSAGE
        assert not connection.handshake_complete
        demand_alert(connection, violation.value)


@by_role
def test_messages_of_each_other_type_are_unexpected_in_each_state(role: str) -> None:
    session = recording()
    ready, _, messages = flight_of(role, session)
    for number, kind in itertools.product(range(len(messages)), range(256)):
        expected = {messages[number][0]}
        if role == "client" and kind == HandshakeType.CERTIFICATE and number == 1:
            continue  # a server need not ask for a certificate; the next message would then fail
        if kind in expected:
            continue
        error = refused(ready(), seal_for(role, session, *messages[:number], bytes((kind, 0, 0, 0))))
        assert error.alert is pqtls.Alert.UNEXPECTED_MESSAGE


@by_role
def test_records_spliced_from_another_session_fail_authentication(role: str) -> None:
    session, other = recording(), recording("another session")
    ready, stream, messages = flight_of(role, session)
    _, foreign_stream, foreign_messages = flight_of(role, other)
    assert refused(ready(), foreign_stream).alert is pqtls.Alert.BAD_RECORD_MAC
    # Messages of another session, sealed for this one: the certificate is as good there as here, its signature is not.
    for number in range(len(messages)):
        if foreign_messages[number] == messages[number]:
            continue
        spliced = (*messages[:number], *foreign_messages[number:])
        assert refused(ready(), seal_for(role, session, *spliced)).alert is pqtls.Alert.DECRYPT_ERROR
    # A record that comes twice, and one where another has its number.
    one_each = [seal_for(role, session, message) for message in messages]  # all with sequence number 0
    assert refused(ready(), one_each[0] + one_each[0]).alert is pqtls.Alert.BAD_RECORD_MAC
    assert refused(ready(), one_each[0] + stream).alert is pqtls.Alert.BAD_RECORD_MAC


def test_a_server_hello_of_another_session_leads_to_keys_that_open_nothing() -> None:
    session, other = recording(), recording("another session")
    rest = session.server_flight[len(session.server_hello) :]
    assert refused(session.client(), other.server_hello + rest).alert is pqtls.Alert.BAD_RECORD_MAC
    assert refused(session.client(), other.server_flight).alert is pqtls.Alert.BAD_RECORD_MAC
    server = session.server()
    server.receive_data(other.hello)
    assert refused(session.client(), server.data_to_send()).alert is pqtls.Alert.BAD_RECORD_MAC


# -- what the peer is told ---------------------------------------------------------------------------------------------


@by_role
def test_an_honest_peer_can_read_the_alert_that_a_changed_flight_causes(role: str) -> None:
    session = recording()
    ready, _, messages = flight_of(role, session)
    for number, message in enumerate(messages):
        victim = ready()
        bad = (*messages[:number], with_body(message, message[4:] + b"\0"))
        with pytest.raises(pqtls.ProtocolViolation):
            victim.receive_data(seal_for(role, session, *bad))
        if role == "client":
            peer: pqtls.Connection = session.server_after_hello()
        else:
            peer = session.client()
            peer.receive_data(session.server_flight)
        with pytest.raises(pqtls.AlertReceived) as refusal:
            peer.receive_data(victim.data_to_send())
        assert refusal.value.alert is pqtls.Alert.DECODE_ERROR
