"""What a client shows of itself when a server asks, and when none does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqtls import client_certificate
from pqtls import extensions as ext
from pqtls.client_certificate import NotAsked, ShowCredential, ShowNone, read_request
from pqtls.errors import Alert, DecodeError, NegotiationRefused, PeerError, ProtocolViolation
from pqtls.framing import HandshakeType
from pqtls.messages import Certificate
from pqtls.provider_cryptography import PROVIDER
from pqtls.transcript import Transcript
from tests.support import pki
from tests.support.scripted_peer import certificate_request, refused
from tests.support.toward_client import SERVER, before_finished, before_request, before_server_hello

_CREDENTIAL = pki.credential(pki.leaf("client"))
_RSA_ONLY = certificate_request(extensions={13: b"\x00\x02\x08\x04"})


class _Sent:
    """Effects that remember what was sent."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def send(self, message: bytes) -> None:
        self.messages.append(message)

    def write_with(self, secret: object) -> None:
        raise AssertionError("no keys change here")

    read_with = emit = limit_records = enlarge_records = send_change_cipher_spec = write_with


def test_a_client_shows_the_certificate_that_it_has_and_minds_the_authorities_that_the_server_names() -> None:
    names = (pki.root().certificate.subject.public_bytes(),)
    request = certificate_request(extensions={13: b"\x00\x02\x09\x06", 47: ext.write_authorities(names)})
    answer = read_request(request[4:], pki.client_config(credential=_CREDENTIAL))
    assert answer == ShowCredential(_CREDENTIAL, names, PROVIDER)
    assert answer.authenticates


def test_a_client_without_one_says_so_whatever_signatures_the_server_takes() -> None:
    for request in (certificate_request(), _RSA_ONLY):
        answer = read_request(request[4:], pki.client_config(credential=None))
        assert answer == ShowNone()
        assert not answer.authenticates


def test_a_client_whose_certificate_the_server_cannot_take_does_not_go_on_as_nobody() -> None:
    with pytest.raises(NegotiationRefused, match="does not take client certificates with mldsa87") as caught:
        read_request(_RSA_ONLY[4:], pki.client_config())
    assert caught.value.alert is Alert.HANDSHAKE_FAILURE


@pytest.mark.parametrize(
    ("message", "error", "alert"),
    [
        (certificate_request(context=b"x"), ProtocolViolation, Alert.ILLEGAL_PARAMETER),
        (certificate_request(extensions={}), ProtocolViolation, Alert.MISSING_EXTENSION),
        (certificate_request(extensions={13: b"\x00\x00"}), DecodeError, Alert.DECODE_ERROR),
        (
            certificate_request(extensions={13: b"\x00\x02\x09\x06", 51: b""}),
            ProtocolViolation,
            Alert.ILLEGAL_PARAMETER,
        ),
        (certificate_request(extensions={13: b"\x00\x02\x09\x06", 47: b"\x00"}), DecodeError, Alert.DECODE_ERROR),
    ],
    ids=["context", "no signature_algorithms", "none in it", "forbidden extension", "broken authorities"],
)
def test_a_request_that_is_wrong_is_refused_by_a_client_that_has_nothing_to_show_too(
    message: bytes, error: type[PeerError], alert: Alert
) -> None:
    for credential in (None, _CREDENTIAL):
        server = before_request(credential=credential)
        with refused(server, error, alert):
            server.send(message)


def test_what_is_sent_is_nothing_an_empty_certificate_or_certificate_and_proof_and_all_of_it_counts() -> None:
    before = Transcript("sha384", b"hellos")
    for own, kinds in (
        (NotAsked(), []),
        (ShowNone(), [HandshakeType.CERTIFICATE]),
        (
            ShowCredential(_CREDENTIAL, (), PROVIDER),
            [HandshakeType.CERTIFICATE, HandshakeType.CERTIFICATE_VERIFY],
        ),
    ):
        effects = _Sent()
        after = own.send(before, effects)
        assert after.digest() == (before + b"".join(effects.messages)).digest()
        assert [message[0] for message in effects.messages] == kinds


def test_an_empty_certificate_is_that_of_section_4_4_2() -> None:
    effects = _Sent()
    ShowNone().send(Transcript("sha384"), effects)
    assert effects.messages == [bytes.fromhex("0b 000004 00 000000")]


def test_nothing_is_shown_before_the_server_has_proven_who_it_is() -> None:
    for credential, kinds in ((None, [1, 11, 20]), (_CREDENTIAL, [1, 11, 15, 20])):
        server = before_finished(credential=credential)
        server.receive()
        assert [message.type for message in server.messages] == [HandshakeType.CLIENT_HELLO]
        server = before_server_hello(credential=credential)
        server.finish_handshake(SERVER)
        assert [message.type for message in server.messages] == kinds
        shown = Certificate.parse(server.messages[1].body).entries
        assert [entry.certificate for entry in shown] == ([] if credential is None else [pki.leaf("client").der])


def test_requests_one_after_another_are_each_read_as_what_they_say() -> None:
    config = pki.client_config(credential=_CREDENTIAL)
    names = [(b"0" + bytes((number,)) * 3,) for number in range(20)]
    for wanted in (*names, *names):
        request = certificate_request(extensions={13: b"\x00\x02\x09\x06", 47: ext.write_authorities(wanted)})
        assert read_request(request[4:], config) == ShowCredential(_CREDENTIAL, wanted, PROVIDER)
    assert client_certificate._parse_request.cache_info().currsize <= 8


def test_a_request_that_is_wrong_is_refused_each_time() -> None:
    for _ in range(3):
        with pytest.raises(ProtocolViolation, match="no signature_algorithms"):
            read_request(certificate_request(extensions={})[4:], pki.client_config())


@given(st.integers(0, 2**16), st.integers(0, 7))
def test_a_request_with_any_bit_changed_is_never_taken_for_the_one_that_was_read_before(place: int, bit: int) -> None:
    names = (pki.root().certificate.subject.public_bytes(),)
    body = certificate_request(extensions={13: b"\x00\x02\x09\x06", 47: ext.write_authorities(names)})[4:]
    place %= len(body)
    changed = body[:place] + bytes((body[place] ^ 1 << bit,)) + body[place + 1 :]
    parse = client_certificate._parse_request
    assert parse(body) == parse.__wrapped__(body) == ((0x0906,), names)
    try:
        expected = parse.__wrapped__(changed)
    except PeerError as error:
        with pytest.raises(type(error)) as caught:
            parse(changed)
        assert str(caught.value) == str(error)
    else:
        assert parse(changed) == expected
