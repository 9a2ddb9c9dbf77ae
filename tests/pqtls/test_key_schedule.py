"""RFC 8448 section 3, step by step, and what the chain of types promises."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from inspect import signature
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pqtls import key_schedule
from pqtls.key_schedule import EarlySecret, HandshakeSecrets, TrafficSecret, hkdf_expand_label
from pqtls.provider_cryptography import PROVIDER
from pqtls.record import ContentType, RecordOpener, RecordSealer
from pqtls.suites import CIPHER_SUITES, TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, CipherSuite
from pqtls.transcript import Transcript
from pqtls.wire import uint16, vector
from tests.support.rfc8448 import read_section_3

_FILE = Path(__file__).with_name("rfc8448_section3.json")
RFC = {name: bytes.fromhex(value) for name, value in json.loads(_FILE.read_text()).items()}
SUITE = TLS_AES_128_GCM_SHA256
SERVER_FLIGHT = ("encrypted_extensions", "certificate", "certificate_verify", "server_finished")


def _early() -> EarlySecret:
    return EarlySecret.without_psk(SUITE, PROVIDER)


def _handshake() -> HandshakeSecrets:
    return _early().handshake(RFC["shared_secret"], RFC["hello_hash"])


def _secret(value: bytes) -> TrafficSecret:
    return TrafficSecret(SUITE, PROVIDER, value)


def test_the_values_kept_here_are_those_of_the_rfc() -> None:
    corpus = os.environ.get("QBITEL_CORPUS")
    if corpus is None:
        pytest.skip("QBITEL_CORPUS names no folder with the text of RFC 8448")
    text = Path(corpus, "vectors", "rfc8448", "rfc8448.txt").read_text()
    assert {name: value.hex() for name, value in RFC.items()} == read_section_3(text)


def test_the_early_secret_without_psk_is_the_rfcs() -> None:
    stage = _early()._stage
    assert stage.secret == RFC["early_secret"]
    assert stage.next_salt() == RFC["derived_for_handshake"]


def test_the_key_exchange_leads_to_the_rfcs_handshake_secrets() -> None:
    secrets = _handshake()
    assert secrets._stage.secret == RFC["handshake_secret"]
    assert secrets._stage.next_salt() == RFC["derived_for_master"]
    assert secrets.client.secret == RFC["client_handshake_traffic_secret"]
    assert secrets.server.secret == RFC["server_handshake_traffic_secret"]


def test_the_servers_finished_leads_to_the_rfcs_application_secrets() -> None:
    secrets = _handshake().application(RFC["server_finished_hash"])
    assert secrets._stage.secret == RFC["master_secret"]
    assert secrets.client.secret == RFC["client_application_traffic_secret"]
    assert secrets.server.secret == RFC["server_application_traffic_secret"]
    assert secrets.exporter.secret == RFC["exporter_master_secret"]


def test_the_clients_finished_leads_to_the_rfcs_resumption_secret() -> None:
    secrets = _handshake().application(RFC["server_finished_hash"])
    assert secrets.resumption(RFC["client_finished_hash"]).secret == RFC["resumption_master_secret"]


@pytest.mark.parametrize("epoch", ["handshake", "application"])
@pytest.mark.parametrize("side", ["client", "server"])
def test_each_traffic_secret_expands_to_the_rfcs_key_and_iv(side: str, epoch: str) -> None:
    keys = _secret(RFC[f"{side}_{epoch}_traffic_secret"]).keys()
    assert (keys.key, keys.iv) == (RFC[f"{side}_{epoch}_key"], RFC[f"{side}_{epoch}_iv"])


def test_the_transcript_hashes_are_those_of_the_rfcs_messages() -> None:
    transcript = Transcript("sha256", RFC["client_hello"], RFC["server_hello"])
    assert transcript.digest() == RFC["hello_hash"]
    for name in SERVER_FLIGHT:
        transcript += RFC[name]
    assert transcript.digest() == RFC["server_finished_hash"]
    assert (transcript + RFC["client_finished"]).digest() == RFC["client_finished_hash"]


def test_finished_of_both_sides_is_the_rfcs() -> None:
    secrets = _handshake()
    before_server = Transcript("sha256", RFC["client_hello"], RFC["server_hello"])
    for name in SERVER_FLIGHT[:-1]:
        before_server += RFC[name]
    assert secrets.server.finished(before_server.digest()) == RFC["server_verify_data"]
    assert secrets.client.finished(RFC["server_finished_hash"]) == RFC["client_verify_data"]


@pytest.mark.parametrize("side", ["client", "server"])
def test_the_finished_key_is_the_rfcs(side: str) -> None:
    secret = RFC[f"{side}_handshake_traffic_secret"]
    assert hkdf_expand_label(PROVIDER, "sha256", secret, "finished", b"", 32) == RFC[f"{side}_finished_key"]


def test_the_rfcs_handshake_records_are_sealed_to_the_byte() -> None:
    secrets = _handshake()
    assert RecordSealer(secrets.server).seal(ContentType.HANDSHAKE, RFC["server_flight"]) == RFC["server_flight_record"]
    assert (
        RecordSealer(secrets.client).seal(ContentType.HANDSHAKE, RFC["client_finished"])
        == RFC["client_finished_record"]
    )


def test_the_rfcs_application_records_are_sealed_to_the_byte_in_their_order() -> None:
    sealer = RecordSealer(_secret(RFC["client_application_traffic_secret"]))
    plaintext, records = bytearray(RFC["client_data"] + b"\0"), bytearray(72)
    assert sealer.seal_into(memoryview(plaintext), 50, memoryview(records)) == 72
    assert records == RFC["client_data_record"]
    assert sealer.seal(ContentType.ALERT, b"\x01\x00") == RFC["client_alert_record"]


def test_the_rfcs_records_are_opened() -> None:
    opener = RecordOpener(_secret(RFC["server_application_traffic_secret"]))
    wire = memoryview(RFC["new_session_ticket_record"] + RFC["server_data_record"] + RFC["server_alert_record"])
    plaintext = bytearray(len(wire))
    consumed, produced, content_type, size = opener.open_into(wire, memoryview(plaintext))
    assert (content_type, bytes(plaintext[produced : produced + size])) == (
        ContentType.HANDSHAKE,
        RFC["new_session_ticket"],
    )
    taken, produced, content_type, size = opener.open_into(wire[consumed:], memoryview(plaintext))
    assert plaintext[:produced] == RFC["client_data"]  # both sides send the same
    assert (content_type, bytes(plaintext[produced : produced + size])) == (ContentType.ALERT, b"\x01\x00")
    assert consumed + taken == len(wire)


def test_the_next_generation_follows_section_7_2() -> None:
    secret = TrafficSecret(TLS_AES_256_GCM_SHA384, PROVIDER, bytes(48))
    expected = hkdf_expand_label(PROVIDER, "sha384", bytes(48), "traffic upd", b"", 48)
    assert secret.next_generation().secret == expected
    assert secret.next_generation() != secret


def test_derived_salts_use_the_hash_of_nothing() -> None:
    stage = _early()._stage
    assert stage.derive("derived", hashlib.sha256(b"").digest()).secret == stage.next_salt()


def test_no_secret_is_ever_printed() -> None:
    secrets = _handshake().application(RFC["server_finished_hash"])
    shown = repr((_early(), _handshake(), secrets, secrets.client.keys()))
    for name, value in RFC.items():
        if name.endswith(("_secret", "_key", "_iv")):
            assert value.hex() not in shown
            assert repr(value) not in shown


@given(
    st.text("abc xyz", max_size=12),
    st.binary(max_size=48),
    st.integers(1, 255 * 32),
    st.binary(min_size=32, max_size=48),
)
def test_a_prepared_label_is_the_label_made_anew(label: str, context: bytes, length: int, secret: bytes) -> None:
    info = uint16(length) + vector(1, b"tls13 " + label.encode()) + vector(1, context)
    for _ in range(2):  # made, and prepared
        assert hkdf_expand_label(PROVIDER, "sha256", secret, label, context, length) == PROVIDER.hkdf_expand(
            "sha256", secret, info, length
        )


@pytest.mark.parametrize("suite", CIPHER_SUITES.values(), ids=lambda suite: suite.name)
def test_without_a_pre_shared_key_the_schedule_begins_with_the_constant_of_its_hash(suite: CipherSuite) -> None:
    zeros = bytes(suite.hash_length)
    prepared = EarlySecret.without_psk(suite, PROVIDER)
    assert prepared._stage.secret == PROVIDER.hkdf_extract(suite.hash_name, zeros, zeros)
    assert prepared == EarlySecret.with_psk(suite, PROVIDER, zeros)
    assert prepared is EarlySecret.without_psk(suite, PROVIDER)
    assert prepared._stage.suite is suite


def test_what_is_kept_for_later_handshakes_is_bounded_and_holds_no_secret() -> None:
    for number in range(200):
        _secret(RFC["master_secret"]).export(f"label {number}", b"", 32)
    for kept in (key_schedule._info, key_schedule._hash_of_nothing, key_schedule._without_psk):
        limit = kept.cache_parameters()["maxsize"]
        assert limit is not None
        assert kept.cache_info().currsize <= limit <= 64
    # Neither takes a secret, so neither can keep one.
    assert list(signature(key_schedule._info).parameters) == ["label", "length", "context_length"]
    assert list(signature(key_schedule._hash_of_nothing).parameters) == ["hash_name"]
    assert list(signature(key_schedule._without_psk).parameters) == ["suite", "provider"]


@pytest.mark.parametrize("suite", CIPHER_SUITES.values(), ids=lambda suite: suite.name)
def test_finished_is_the_hmac_of_the_transcript_under_the_finished_key(suite: CipherSuite) -> None:
    for number in range(8):
        secret, digest = bytes((number,)) * suite.hash_length, bytes((number + 1,)) * suite.hash_length
        key = hkdf_expand_label(PROVIDER, suite.hash_name, secret, "finished", b"", suite.hash_length)
        assert TrafficSecret(suite, PROVIDER, secret).finished(digest) == hmac.digest(key, digest, suite.hash_name)
