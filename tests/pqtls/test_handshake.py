"""What client and server do alike."""

from __future__ import annotations

import pytest

from pqtls import handshake
from pqtls.certificates import Purpose
from pqtls.chain_cache import ChainCache
from pqtls.errors import Alert, CertificateRefused, IdentityRefused, ProtocolViolation
from pqtls.framing import HandshakeJoiner
from pqtls.handshake import accept_identity, check_certificate_entries, send_authentication
from pqtls.messages import Certificate, CertificateEntry, CertificateVerify
from pqtls.provider_cryptography import PROVIDER
from pqtls.signatures import MLDSA87
from pqtls.transcript import Transcript
from pqtls.verify import ChainVerified, verify_chain, verify_signature
from tests.support import pki


class _Sent:
    """Effects that remember what was sent."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def send(self, message: bytes) -> None:
        self.messages.append(message)

    def write_with(self, secret: object) -> None:
        raise AssertionError("no keys change here")

    read_with = emit = limit_records = enlarge_records = write_with


def _chain() -> ChainVerified:
    message = Certificate(b"", (CertificateEntry(pki.leaf("client").der, {}),))
    return verify_chain(message, pki.trust(), Purpose.CLIENT, pki.NOW, (MLDSA87,), ChainCache(0))


def test_the_authentication_that_is_sent_holds_at_the_other_end() -> None:
    effects, before = _Sent(), Transcript("sha384", b"hellos")
    credential = pki.credential(pki.leaf("client"))
    after = send_authentication(credential, Purpose.CLIENT, (), before, effects, PROVIDER)
    certificate, verify = effects.messages
    assert after.digest() == (before + certificate + verify).digest()
    joiner = HandshakeJoiner()
    joiner.feed(certificate + verify)
    first, second = joiner.next_message(), joiner.next_message()
    assert first is not None
    assert second is not None
    assert Certificate.parse(first.body).entries == (CertificateEntry(pki.leaf("client").der, {}),)
    digest = (before + certificate).digest()
    message = CertificateVerify.parse(second.body)
    verify_signature(message, _chain(), Purpose.CLIENT, digest, (MLDSA87,), PROVIDER)


def test_the_owner_is_asked_for_the_verified_identity() -> None:
    asked: list[str] = []
    accept_identity(_chain(), asked.append)
    assert asked == [pki.identity("client")]


def test_the_owners_refusal_becomes_its_alert_and_slug() -> None:
    def refuse(_uri: str) -> None:
        raise IdentityRefused("another trust domain", reason="trust_domain", alert=Alert.CERTIFICATE_UNKNOWN)

    with pytest.raises(CertificateRefused, match="another trust domain") as caught:
        accept_identity(_chain(), refuse)
    assert (caught.value.alert, caught.value.reason) == (Alert.CERTIFICATE_UNKNOWN, "trust_domain")


def test_a_context_in_the_handshake_is_an_illegal_parameter() -> None:
    with pytest.raises(ProtocolViolation) as caught:
        check_certificate_entries(Certificate(b"x", ()))
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


@pytest.mark.parametrize(
    ("kind", "alert"),
    [(5, Alert.UNSUPPORTED_EXTENSION), (0xABCD, Alert.UNSUPPORTED_EXTENSION), (51, Alert.ILLEGAL_PARAMETER)],
)
def test_an_extension_of_any_entry_that_we_did_not_ask_for_is_refused(kind: int, alert: Alert) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        check_certificate_entries(Certificate(b"", (CertificateEntry(b"x", {}), CertificateEntry(b"y", {kind: b""}))))
    assert caught.value.alert is alert


def test_a_prepared_certificate_is_the_one_made_anew_and_few_are_kept() -> None:
    chains = [(bytes((number,)) * 40,) for number in range(9)] + [(b"leaf", b"issuer"), ()]
    for chain in (*chains, *chains):
        anew = Certificate(b"", tuple(CertificateEntry(der, {}) for der in chain)).encode()
        assert handshake._certificate_message(chain) == anew
    assert handshake._certificate_message.cache_info().currsize <= 4
