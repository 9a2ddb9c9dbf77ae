"""One call over HTTP/2: against bytes that a real gRPC server sent, and against whatever else may come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.probes.grpc_health import HealthCheck
from proxy.probes.outcome import NoAnswer

# What grpcio 1.85.3 (grpcio-health-checking 1.85.1) sent to this client's requests: two SETTINGS (the second one
# acknowledges ours), a WINDOW_UPDATE, a PING, HEADERS, DATA, and HEADERS with the trailers.
BEGINNING = (
    "000018040000000000000400400000000500400000000600004000fe0300000001000004080000000000003f000100000004010000000000"
    "00040800000000000000000a000008060000000000ba957582b30bd84b00004e01040000000188400c636f6e74656e742d74797065106170"
    "706c69636174696f6e2f677270634014677270632d6163636570742d656e636f64696e67176964656e746974792c206465666c6174652c20"
    "677a6970"
)
TRAILERS = "00001e010500000001400b677270632d7374617475730130000c677270632d6d65737361676500"
MESSAGE = "0000070000000000010000000002080{}"


def recorded(status: int) -> bytes:
    return bytes.fromhex(BEGINNING + MESSAGE.format(status) + TRAILERS)


# Of a service that is not known: an empty message, and grpc-status 5 in the trailers.
UNKNOWN_SERVICE = bytes.fromhex(BEGINNING + "0000050000000000010000000000" + TRAILERS.replace("0130", "0135"))
SETTINGS, END = bytes.fromhex("000000040000000000"), bytes.fromhex("000000010500000001")


def check() -> HealthCheck:
    return HealthCheck("10.0.0.7:9000", "shop", 3, "kube-probe/1.31")


def frame(kind: int, payload: bytes, flags: int = 0, stream: int = 1) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def message(content: bytes, compressed: int = 0) -> bytes:
    return frame(0, bytes((compressed,)) + len(content).to_bytes(4) + content)


@pytest.mark.parametrize(
    ("status", "word"), [(0, "UNKNOWN"), (1, "SERVING"), (2, "NOT_SERVING"), (3, "SERVICE_UNKNOWN"), (7, "not known")]
)
def test_a_real_server_s_answer_is_read_however_it_is_cut(status, word):
    for size in (1, 7, 10_000):
        asked = check()
        for at in range(0, len(recorded(status)), size):
            asked.receive(recorded(status)[at : at + size])
        assert asked.is_done
        assert asked.is_serving == (status == 1)
        assert word in asked.word


def test_a_service_that_the_server_does_not_know_is_not_serving():
    asked = check()
    asked.receive(UNKNOWN_SERVICE)
    assert asked.is_done
    assert not asked.is_serving


def test_the_request_is_one_of_grpc():
    sent = check().to_send
    assert sent.startswith(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00"
    )
    for words in (
        b"\x83\x86\x04\x1c/grpc.health.v1.Health/Check\x01\x0d10.0.0.7:9000\x0f\x10\x10application/grpc",
        b"\x0f\x2b\x0fkube-probe/1.31\x00\x02te\x08trailers\x00\x0cgrpc-timeout\x023S",
    ):
        assert words in sent
    assert sent.endswith(frame(0, b"\x00\x00\x00\x00\x06\x0a\x04shop", flags=1))
    assert HealthCheck("a:1", "", 1, "b").to_send.endswith(frame(0, bytes(5), flags=1))


def test_long_names_have_long_lengths():
    sent = HealthCheck("a:1", "s" * 300, 1, "b").to_send
    assert sent.endswith(b"\x0a\xac\x02" + b"s" * 300)
    assert b"\x01\x7f\xad\x01" + b"h" * 300 in HealthCheck("h" * 300, "", 1, "b").to_send  # RFC 7541 §5.1


def test_settings_are_acknowledged_and_pings_answered():
    asked = check()
    asked.to_send = b""
    asked.receive(SETTINGS + frame(6, b"12345678", stream=0) + frame(6, b"87654321", flags=1, stream=0))
    assert asked.to_send == frame(4, b"", flags=1, stream=0) + frame(6, b"12345678", flags=1, stream=0)


def test_what_later_versions_may_send_is_passed_over():
    asked = check()
    for piece in (
        SETTINGS,
        frame(99, b"whatever"),
        frame(0, b"another stream's", stream=3),
        frame(3, bytes(4), stream=3),
        frame(7, (1).to_bytes(4) + bytes(4), stream=0),
        # Padded, in two frames, with a string, a fixed64 and a fixed32 that are not known.
        frame(0, b"\x02" + b"\x00\x00\x00\x00\x15" + b"\x12\x03abc\x19" + bytes(2) + b"\x00\x00", flags=8),
        frame(0, bytes(6) + b"\x1d" + bytes(4) + b"\x08\x01", flags=1),
    ):
        asked.receive(piece)
    assert asked.is_done
    assert asked.is_serving


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak HTTP/2"),
        (b"220 mail.example ESMTP\r\n", "does not speak HTTP/2"),
        (message(b"\x08\x01"), "does not speak HTTP/2"),
        (SETTINGS + (16385).to_bytes(3) + bytes(6), "does not speak HTTP/2"),
        (SETTINGS + frame(3, (8).to_bytes(4)), "reset the call (error 8"),
        (SETTINGS + frame(7, bytes(8), stream=0), "takes no requests now"),
        (SETTINGS + frame(0, b"\x05\x00", flags=8), "does not speak HTTP/2"),
        (SETTINGS + frame(0, b"", flags=8), "does not speak HTTP/2"),
        (SETTINGS + frame(0, bytes(1025)), "no HealthCheckResponse"),
        (SETTINGS + frame(6, bytes(8), flags=1, stream=0) * 100, "no end of its answer"),
        (SETTINGS + END, "error of gRPC"),
        (SETTINGS + frame(0, b"\x00\x00") + END, "no message of gRPC"),
        (SETTINGS + message(b"\x08\x01", compressed=1) + END, "no message of gRPC"),
        (SETTINGS + message(b"\x08\x01") * 2 + END, "no message of gRPC"),
        (SETTINGS + message(b"\x08") + END, "no HealthCheckResponse"),
        (SETTINGS + message(b"\x08" + b"\xff" * 20) + END, "no HealthCheckResponse"),
        (SETTINGS + message(b"\x0b\x01") + END, "no HealthCheckResponse"),
        (SETTINGS + message(b"\x12\x7f") + END, "no HealthCheckResponse"),
    ],
)
def test_what_is_no_answer_is_said(data, expected):
    asked = check()
    with pytest.raises(NoAnswer) as refused:
        asked.receive(data)
        assert asked.is_serving is None  # it raises before anybody compares
    assert expected in str(refused.value)


def judged(data: bytes) -> bool | None:
    """The verdict; None where there is no answer. Anything but NoAnswer is a bug."""
    asked = check()
    try:
        asked.receive(data)
        verdict = asked.is_serving if asked.is_done else None
    except NoAnswer:
        verdict = None
    return verdict


@pytest.mark.parametrize("end", range(len(recorded(2))))
def test_an_answer_that_is_cut_or_has_a_bit_flipped_is_never_taken_for_another_without_its_own_bytes(end):
    assert judged(recorded(1)[:end]) is None
    # NOT_SERVING is one flip away from many numbers, but not from 1.
    for bit in range(8):
        flipped = bytearray(recorded(2))
        flipped[end] ^= 1 << bit
        assert judged(bytes(flipped)) is not True


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda some: SETTINGS + some))
def test_whatever_comes_is_judged_or_refused(data):
    judged(data)


@given(
    st.lists(
        st.builds(
            frame, st.integers(0, 12), st.binary(max_size=40), st.integers(0, 255), st.integers(0, 3)
        ),
        max_size=12,
    )
)  # fmt: skip
def test_whatever_frames_come_are_judged_or_refused(frames):
    judged(SETTINGS + b"".join(frames))
