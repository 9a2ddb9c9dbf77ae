"""Streams that hypothesis makes: noise, and honest streams edited in several places at once, in pieces of any size.

The property is that of test_hostile_wire.py. The examples are the same in each run.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pqtls
from pqtls.framing import HandshakeType
from pqtls.record import ContentType, RecordSealer
from tests.support.hostile import IGNORED, bytewise, demand_alert, flight_of, recording, refused, seal_for
from tests.support.pki import connected
from tests.support.recorded import plain_record, split_records

deterministic = settings(derandomize=True, deadline=None, database=None)
many = settings(deterministic, max_examples=1000)
some = settings(deterministic, max_examples=300)

roles = st.sampled_from(("client", "server"))
by_role = pytest.mark.parametrize("role", ["client", "server"])


def fresh(role: str) -> pqtls.Connection:
    return recording().client() if role == "client" else recording().server()


def honest_stream(role: str) -> bytes:
    """All that the victim `role` receives in a handshake."""
    session = recording()
    return session.server_flight if role == "client" else session.hello + session.client_flight


def outcome(connection: pqtls.Connection, *pieces: bytes) -> tuple[Any, ...]:
    """How a stream ends: the error and its alert, or that the handshake completed."""
    try:
        for piece in pieces:
            connection.receive_data(piece)
        connection.receive_eof()
    except pqtls.PeerError as error:
        if connection.handshake_complete:  # what came before the error was honest
            return ("completed", [type(event) for event in connection.events()])
        return (type(error), error.alert, error.reason)
    raise AssertionError("the end of the stream was no error")


def cut_into(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[start:end] for start, end in itertools.pairwise(places)]


# -- noise -------------------------------------------------------------------------------------------------------------


@many
@given(roles, st.binary(max_size=600))
@example("server", b"")
@example("server", b"GET / HTTP/1.1\r\nHost: reviews\r\n\r\n")
@example("server", b"SSH-2.0-OpenSSH_10.0\r\n")
@example("server", b"\x80\x2e\x01\x00\x02")  # an SSLv2 hello
@example("server", b"\x16")
@example("server", b"\x16\x03")
@example("client", b"220 mail.example ESMTP\r\n")
def test_noise_is_refused_or_waited_for(role: str, noise: bytes) -> None:
    refused(fresh(role), noise)


@many
@given(roles, st.integers(0, 255), st.integers(0, 2**16 - 1), st.binary(max_size=300))
def test_a_record_header_of_any_kind_before_noise_is_refused_or_waited_for(
    role: str, content_type: int, length: int, noise: bytes
) -> None:
    refused(fresh(role), bytes((content_type, 3, 3)) + length.to_bytes(2, "big") + noise)


@many
@given(roles, st.sampled_from([20, 21, 22, 23, 24, 0]), st.lists(st.binary(max_size=40), max_size=6))
def test_well_formed_records_of_noise_are_refused_or_waited_for(
    role: str, content_type: int, contents: list[bytes]
) -> None:
    stream = b"".join(plain_record(content_type, content) for content in contents)
    refused(fresh(role), plain_record(ContentType.HANDSHAKE, b"\x01") + stream)
    refused(fresh(role), stream)


@many
@given(roles, st.sampled_from(list(HandshakeType)), st.binary(max_size=400))
def test_messages_with_a_body_of_noise_are_refused(role: str, kind: HandshakeType, body: bytes) -> None:
    message = bytes((kind,)) + len(body).to_bytes(3, "big") + body
    assert refused(fresh(role), plain_record(ContentType.HANDSHAKE, message)).alert is not None


@many
@given(roles, st.integers(0, 4), st.binary(max_size=400), st.booleans())
def test_protected_messages_with_a_body_of_noise_are_refused(
    role: str, number: int, body: bytes, as_message: bool
) -> None:
    session = recording()
    ready, _, messages = flight_of(role, session)
    number %= len(messages)
    noise = messages[number][:1] + len(body).to_bytes(3, "big") + body if as_message else body
    refused(ready(), seal_for(role, session, *messages[:number], noise))


@some
@given(roles, st.lists(st.tuples(st.sampled_from([20, 21, 22, 23, 0, 99]), st.binary(max_size=60)), max_size=5))
def test_protected_records_of_any_type_are_refused_or_waited_for(role: str, contents: list[tuple[int, bytes]]) -> None:
    session = recording()
    ready, _, _ = flight_of(role, session)
    secrets = session.handshake_secrets
    sealer = RecordSealer(secrets.server if role == "client" else secrets.client)
    stream = b"".join(sealer.seal(kind, content) for kind, content in contents)  # type: ignore[arg-type]
    refused(ready(), stream)


# -- honest streams, edited --------------------------------------------------------------------------------------------

edits = st.tuples(
    st.sampled_from(["flip", "set", "insert", "delete", "double", "truncate"]),
    st.integers(0, 2**15),
    st.integers(1, 255),
    st.integers(1, 400),
)


def edited(stream: bytes, edit: tuple[str, int, int, int]) -> bytes:
    what, place, value, run = edit
    place %= len(stream) or 1
    head, tail = stream[:place], stream[place:]
    match what:
        case "flip":
            return head + bytes((tail[0] ^ value,)) + tail[1:] if tail else head
        case "set":
            return head + bytes((value,)) * min(run, len(tail)) + tail[run:]
        case "insert":
            return head + bytes((value,)) * run + tail
        case "delete":
            return head + tail[run:]
        case "double":
            return head + tail[:run] + tail
        case _:
            return head


def without_ignored_bytes(role: str, stream: bytes) -> bytes:
    """The stream as it must be understood: with the version of the one plaintext record put right."""
    if len(stream) > IGNORED:
        stream = stream[:IGNORED] + b"\x03" + stream[IGNORED + 1 :]
    return stream


@many
@given(roles, st.lists(edits, min_size=1, max_size=4), st.lists(st.integers(0, 2**15), max_size=6))
def test_an_honest_stream_that_was_edited_completes_no_handshake(
    role: str, changes: list[tuple[str, int, int, int]], cuts: list[int]
) -> None:
    honest = honest_stream(role)
    stream = honest
    for change in changes:
        stream = edited(stream, change)
    if without_ignored_bytes(role, stream).startswith(honest):
        return  # what was added stands behind an honest handshake
    refused(fresh(role), *cut_into(stream, cuts))


@some
@given(roles, st.lists(edits, max_size=2), st.lists(st.integers(0, 2**15), min_size=1, max_size=40))
def test_the_outcome_does_not_depend_on_how_the_stream_was_cut(
    role: str, changes: list[tuple[str, int, int, int]], cuts: list[int]
) -> None:
    stream = honest_stream(role)
    for change in changes:
        stream = edited(stream, change)
    assert outcome(fresh(role), *cut_into(stream, cuts)) == outcome(fresh(role), stream)


@settings(deterministic, max_examples=40)
@given(roles, edits)
def test_the_outcome_is_the_same_when_the_stream_comes_byte_by_byte(
    role: str, change: tuple[str, int, int, int]
) -> None:
    stream = edited(honest_stream(role), change)
    assert outcome(fresh(role), *bytewise(stream)) == outcome(fresh(role), stream)


@by_role
def test_what_comes_behind_an_honest_handshake_in_the_same_read_is_judged_by_itself(role: str) -> None:
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(40),
        b"\x17\x03\x03\x00\x20" + bytes(32),
        b"\x16\x03\x03\x00\x01\x01",
    ):
        connection = fresh(role)
        with pytest.raises(pqtls.ProtocolViolation) as violation:
            connection.receive_data(honest_stream(role) + garbage)
        assert [type(event) for event in connection.events()] == [pqtls.HandshakeCompleted]
        demand_alert(connection, violation.value)


@some
@given(roles, st.permutations(range(8)), st.integers(1, 8))
def test_the_records_of_both_sessions_in_any_order_complete_nothing(role: str, order: list[int], count: int) -> None:
    session, other = recording(), recording("another session")
    pool: list[bytes] = []
    for one in (session, other):
        pool += split_records(one.hello) + split_records(one.server_flight) + split_records(one.client_flight)
    stream = b"".join(pool[number % len(pool)] for number in order[:count])
    if stream.startswith(honest_stream(role)):
        return
    refused(fresh(role), stream)


# -- after the handshake -----------------------------------------------------------------------------------------------


@some
@given(roles, st.lists(edits, min_size=1, max_size=3), st.lists(st.integers(0, 2**15), max_size=5), st.booleans())
def test_an_edited_stream_of_data_yields_only_what_was_sent(
    role: str, changes: list[tuple[str, int, int, int]], cuts: list[int], fast: bool
) -> None:
    client, server = connected()
    victim, sender = (client, server) if role == "client" else (server, client)
    text = b"".join(b"%05d" % number for number in range(700))
    for start in range(0, len(text), 500):
        sender.send_data(text[start : start + 500])
    sender.send_close_notify()
    stream = sender.data_to_send()
    for change in changes:
        stream = edited(stream, change)
    got = bytearray()
    try:
        for piece in cut_into(stream, cuts) if not fast else [stream]:
            if fast:
                room = bytearray(len(piece))
                _, produced = victim.open_into(memoryview(piece), memoryview(room))
                got += room[:produced]
            else:
                victim.receive_data(piece)
        victim.receive_eof()
    except pqtls.PeerError as error:
        demand_alert(victim, error)
    else:
        assert bytes(got) in (text, b"")
    if not fast:
        got += b"".join(event.data for event in victim.events() if isinstance(event, pqtls.ApplicationData))
    assert text.startswith(bytes(got))
