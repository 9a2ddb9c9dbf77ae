"""The framing, byte for byte: what is written here is what any other version must read."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Endpoint
from proxy.tunnels.frames import (
    HEADER,
    HEADER_SIZE,
    LENGTH_MASK,
    MAX_CONTROL,
    FrameType,
    Opening,
    ResetCode,
    TunnelViolation,
    address_frame,
    control_type,
    credit_frame,
    fin_frame,
    frame,
    open_frame,
    opened_frame,
    read_address,
    read_credit,
    read_open,
    read_reset,
    reset_frame,
    word_of,
)

OF_THE_TUNNEL = (FrameType.PING, FrameType.PONG, FrameType.DRAIN, FrameType.ADDRESS)
ID = bytes(range(16))
V4 = Opening(Endpoint("10.1.2.3", 8080), ID)
V6 = Opening(Endpoint("fd00::7", 443), ID)


@pytest.mark.parametrize(
    ("made", "bytes_on_the_wire"),
    [
        (open_frame(1, V4), "00000001 01000017 04 1f90 0a010203 000102030405060708090a0b0c0d0e0f"),
        (
            open_frame(2, V6),
            "00000002 01000023 06 01bb fd000000000000000000000000000007 000102030405060708090a0b0c0d0e0f",
        ),
        (frame(3, FrameType.OPENED), "00000003 02000000"),
        (opened_frame(3), "00000003 02000000"),
        (credit_frame(4, 131072), "00000004 03000004 00020000"),
        (frame(5, FrameType.FIN), "00000005 04000000"),
        (fin_frame(5), "00000005 04000000"),
        (reset_frame(0xFFFFFFFF, ResetCode.DENIED), "ffffffff 05000002 0004"),
        (frame(0, FrameType.PING, b"12345678"), "00000000 06000008 3132333435363738"),
        (frame(0, FrameType.PONG, b"12345678"), "00000000 07000008 3132333435363738"),
        (frame(0, FrameType.DRAIN), "00000000 08000000"),
        (frame(6, FrameType.MOVED), "00000006 09000000"),
        (address_frame(V4.destination), "00000000 0a000007 04 1f90 0a010203"),
        (address_frame(V6.destination), "00000000 0a000013 06 01bb fd000000000000000000000000000007"),
    ],
)
def test_each_frame_is_these_bytes(made, bytes_on_the_wire):
    assert made == bytes.fromhex(bytes_on_the_wire)
    stream, word = HEADER.unpack_from(made)
    assert word & LENGTH_MASK == len(made) - HEADER_SIZE <= MAX_CONTROL
    control_type(stream, word)


@given(
    address=st.ip_addresses(),
    port=st.integers(0, 65535),
    connection_id=st.binary(min_size=16, max_size=16),
    stream=st.integers(1, 2**32 - 1),
)
def test_an_opening_is_read_as_it_was_written(address, port, connection_id, stream):
    opening = Opening(Endpoint(str(address), port), connection_id)
    assert read_open(open_frame(stream, opening)[HEADER_SIZE:]) == opening


def test_a_zone_of_an_address_is_this_machines_own_business():
    opening = read_open(open_frame(1, Opening(Endpoint("fe80::1%eth0", 1), ID))[HEADER_SIZE:])
    assert ipaddress.ip_address(opening.destination.host) == ipaddress.ip_address("fe80::1")


@given(stream=st.integers(0, 2**32 - 1), word=st.integers(0, 2**32 - 1))
def test_any_header_has_a_type_or_is_a_violation(stream, word):
    try:
        found = control_type(stream, word)
    except TunnelViolation:
        return
    assert (stream == 0) == (found in OF_THE_TUNNEL)
    assert word & LENGTH_MASK <= MAX_CONTROL


@pytest.mark.parametrize("frame_type", [code for code in FrameType if code is not FrameType.DATA])
def test_every_other_length_of_a_type_is_a_violation(frame_type):
    stream = 0 if frame_type in OF_THE_TUNNEL else 1
    accepted = []
    for length in range(MAX_CONTROL + 5):
        try:
            control_type(stream, word_of(frame_type, length))
        except TunnelViolation:
            continue
        accepted.append(length)
    expected = {FrameType.OPEN: [23, 35], FrameType.CREDIT: [4], FrameType.RESET: [2], FrameType.ADDRESS: [7, 19]}
    pings = {FrameType.PING: [8], FrameType.PONG: [8]}
    assert accepted == {**expected, **pings}.get(frame_type, [0])


@pytest.mark.parametrize("opening", [V4, V6])
def test_a_family_that_does_not_fit_the_length_is_a_violation(opening):
    payload = bytearray(open_frame(1, opening)[HEADER_SIZE:])
    for family in set(range(256)) - {payload[0]}:
        payload[0] = family
        with pytest.raises(TunnelViolation):
            read_open(bytes(payload))


@given(address=st.ip_addresses(), port=st.integers(0, 65535))
def test_an_address_is_read_as_it_was_written(address, port):
    endpoint = Endpoint(str(address), port)
    assert read_address(address_frame(endpoint)[HEADER_SIZE:]) == endpoint


@pytest.mark.parametrize("endpoint", [V4.destination, V6.destination])
def test_an_address_of_another_family_than_its_length_is_a_violation(endpoint):
    payload = bytearray(address_frame(endpoint)[HEADER_SIZE:])
    for family in set(range(256)) - {payload[0]}:
        payload[0] = family
        with pytest.raises(TunnelViolation):
            read_address(bytes(payload))


def test_reasons_and_credit_are_read_as_written():
    for code in ResetCode:
        assert read_reset(reset_frame(1, code)[HEADER_SIZE:]) is code
    assert read_credit(credit_frame(1, 2**32 - 1)[HEADER_SIZE:]) == 2**32 - 1


def test_a_reason_of_a_later_version_is_an_internal_error_there():
    assert read_reset(b"\xff\xff") is ResetCode.INTERNAL_ERROR
