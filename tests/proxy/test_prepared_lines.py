"""Prepared lines: byte for byte what the access log writes by itself."""

from __future__ import annotations

import datetime
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqtls.events import HandshakeCompleted
from proxy.access_log import AccessLog
from proxy.config import Direction, Endpoint
from proxy.handshake import HandshakeResult
from proxy.metrics import Metrics
from proxy.prepared_lines import OF_CONNECTION, OF_HANDSHAKE, OF_STREAM, PreparedLines
from proxy.reasons import CLOSED, Flag, Verdict
from proxy.record import ConnectionRecord, Sinks

NOW = datetime.datetime(2026, 11, 25, 12, 0, 0, 7000, tzinfo=datetime.UTC)
PEER = "spiffe://cluster.local/ns/default/sa/api"


class Log:
    """Stands where the AccessLog does, and counts what it had to make itself."""

    def __init__(self) -> None:
        self.read, self._write = os.pipe()
        self._log = AccessLog(self._write, lambda: pytest.fail("dropped"))
        self.made = 0

    def write(self, fields) -> None:
        self.made += 1
        self._log.write(fields)

    def write_line(self, line) -> None:
        self._log.write_line(line)

    def line(self) -> bytes:
        return os.read(self.read, 1 << 16)

    def close(self) -> None:
        os.close(self.read)
        os.close(self._write)


@pytest.fixture
def log():
    made = Log()
    yield made
    made.close()


def fields_of(own, **others):
    return dict(zip(OF_STREAM, own, strict=True)) | others


def own_of(source="10.0.0.1:5", sent=1):
    return ("2026-11-25T12:00:00.000+00:00", source, "ab" * 16, 1.5, sent, 2)


def test_the_second_of_a_kind_is_not_made_from_nothing(log):
    prepared = PreparedLines(log)
    for sent in (1, 2**40):
        own = own_of(sent=sent)
        prepared.write(OF_STREAM, "kind", own, lambda own=own: fields_of(own, direction="inbound", reason="100%"))
        assert json.loads(log.line()) == fields_of(own, direction="inbound", reason="100%")
    assert log.made == 0


def test_kinds_are_kept_apart(log):
    prepared = PreparedLines(log)
    for kind in ("a", "b", "a", "b"):
        prepared.write(OF_STREAM, kind, own_of(), lambda kind=kind: fields_of(own_of(), direction=kind))
        assert json.loads(log.line())["direction"] == kind


def test_more_kinds_than_are_kept_are_learned_anew(log):
    prepared = PreparedLines(log)
    for number in (*range(300), 0):
        prepared.write(OF_STREAM, number, own_of(), lambda number=number: fields_of(own_of(), policy=str(number)))
        assert json.loads(log.line())["policy"] == str(number)


values = st.none() | st.booleans() | st.integers() | st.text(max_size=60) | st.just("x" * 5000) | st.just("%s%d%")


@given(
    source=st.text(max_size=100) | st.from_regex(r"[0-9a-f:.\[\]]{1,60}", fullmatch=True),
    duration=st.floats(min_value=0, allow_infinity=False, allow_nan=False),
    sent=st.integers(min_value=0),
    others=st.dictionaries(st.text(max_size=20).filter(lambda name: name not in OF_STREAM), values, max_size=5),
)
def test_whatever_the_fields_are_the_bytes_are_those_of_the_access_log(source, duration, sent, others):
    """Sources from outside may be anything: what is not plain takes the long way."""
    fields = fields_of(("now", source, "id", duration, sent, 2), **others)
    plain, log = Log(), Log()
    try:
        plain.write(fields)
        PreparedLines(log).write(OF_STREAM, "kind", ("now", source, "id", duration, sent, 2), lambda: fields)
        assert log.line() == plain.line()
    finally:
        plain.close()
        log.close()


def completed(signature="mldsa87") -> HandshakeCompleted:
    return HandshakeCompleted(
        profile="qbitel",
        group="X25519MLKEM1024",
        signature_scheme=signature,
        cipher_suite="TLS_AES_256_GCM_SHA384",
        peer_identity=PEER,
        peer_chain=(b"der",),
        alpn=None,
        server_name=None,
        resumed=True,
        client_authenticated=True,
    )


def written(log, prepared, *, event, notes=None, policy=None) -> dict:
    sinks = Sinks(Metrics(), log, lambda: NOW, lambda: 5.0, prepared=prepared)
    record = ConnectionRecord(sinks, Direction.OUTBOUND, Endpoint("fd00::1", 5), PEER, "qbitel")
    record.going_to(Endpoint("10.0.0.2", 80))
    record.secured(event)
    record.identified_as(b"0123456789abcdef")
    if policy:
        record.decided(policy, notes)
    elif notes:
        record.noted(notes)
    record.relaying()
    record.carried(3, 4)
    record.close(CLOSED)
    return json.loads(log.line())


def test_a_streams_line_is_the_same_with_and_without_preparation(log):
    prepared, events = PreparedLines(log), (completed(), completed("ecdsa_secp256r1_sha256"))
    for event in (*events, *events):
        for notes in (None, {"peer": "orders"}, {"peer": 'a "quoted" one'}):
            for policy in (None, "shop/web"):
                assert written(log, prepared, event=event, notes=notes, policy=policy) == written(
                    log, None, event=event, notes=notes, policy=policy
                )


def whole_life(log, prepared, *, event, seconds, verdict=CLOSED, source="10.0.0.1") -> list[bytes]:
    sinks = Sinks(Metrics(), log, lambda: NOW, lambda: 5.0, prepared=prepared)
    record = ConnectionRecord(sinks, Direction.INBOUND, Endpoint(source, 5), PEER, "qbitel")
    record.going_to(Endpoint("10.0.0.2", 80))
    record.identified_as(b"0123456789abcdef")
    record.handshake_completed(HandshakeResult(event, seconds, b""))
    record.relaying()
    record.carried(int(seconds * 1e6), 4)
    record.close(verdict)
    return log.line().splitlines()


def test_the_lines_of_a_connection_with_a_handshake_of_its_own_are_the_same_with_and_without_preparation(log):
    prepared, events = PreparedLines(log), (completed(), completed("ecdsa_secp256r1_sha256"))
    for seconds in (0.0041239, 0.0, 12.5, 0.0000004):
        for event in (*events, *events):
            lines = whole_life(log, prepared, event=event, seconds=seconds)
            assert lines == whole_life(log, None, event=event, seconds=seconds)
            assert [json.loads(line)["event"] for line in lines] == ["handshake", "connection"]
    log.made = 0
    whole_life(log, prepared, event=completed(), seconds=0.003)
    assert log.made == 0


def test_what_ends_otherwise_than_well_is_made_from_nothing(log):
    prepared = PreparedLines(log)
    reset = Verdict(Flag.NONE, "reset_by_peer", "it is gone")
    lines = whole_life(log, prepared, event=completed(), seconds=0.004, verdict=reset)
    assert json.loads(lines[1])["message"] == "it is gone"
    assert log.made == 1


def test_the_names_of_each_kind_of_line_are_in_the_order_of_the_line(log):
    handshake, connection = (json.loads(line) for line in whole_life(log, None, event=completed(), seconds=1.0))
    assert [name for name in handshake if name in OF_HANDSHAKE] == list(OF_HANDSHAKE)
    assert [name for name in connection if name in OF_CONNECTION] == list(OF_CONNECTION)
    assert [name for name in connection if name in OF_STREAM] == list(OF_STREAM)
