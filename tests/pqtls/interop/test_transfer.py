"""What flows through a connection with OpenSSL after the handshake: bulk data, changes of keys, the end.

pyOpenSSL exposes neither SSL_key_update nor SSL_CTX_set_max_send_fragment. So a KeyUpdate of OpenSSL's is seen only as
its answer to a request of ours, and OpenSSL never requests one of us; it is made to send small records by small writes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

import pqtls
from pqtls.config import LARGE_RECORDS
from pqtls.profiles import HYBRID_L5, Profile
from tests.support.openssl_peer import GROUPS, OpenSslPeer, OpenSslRefused, connected_to_openssl

ROLES = ("client", "server")
PROFILE_NAMES = tuple(GROUPS)
MIB = 2**20
# 100 MB each way, and 4 MiB where the same path was already taken with another group.
BULK = 100
SAMPLE = 4
# 2^17 is eight full records; a block of 2^20 is read in pieces of about this size by a relay too.
PIECE = 2**17

by_role = pytest.mark.parametrize("role", ROLES)
by_profile = pytest.mark.parametrize("profile", PROFILE_NAMES)


class FastPath:
    """Our end after the handshake as the relay drives it: seal_into, open_into, and buffers that are reused."""

    def __init__(self, connection: pqtls.Connection) -> None:
        self.connection = connection
        self._ciphertext = bytearray(connection.take_buffered())
        self._room = bytearray(2 * MIB)
        self._records = bytearray(pqtls.sealed_size(PIECE) + 4096)

    def seal(self, plaintext: bytearray) -> memoryview:
        """Protect all but the last byte of `plaintext`, which is the spare one."""
        with memoryview(plaintext) as view:
            written = self.connection.seal_into(view, len(plaintext) - 1, memoryview(self._records))
        return memoryview(self._records)[:written]

    def open(self, data: bytes) -> memoryview:
        self._ciphertext += data
        with memoryview(self._ciphertext) as view:
            consumed, produced = self.connection.open_into(view, memoryview(self._room))
        del self._ciphertext[:consumed]
        return memoryview(self._room)[:produced]

    @property
    def is_between_records(self) -> bool:
        return not self._ciphertext


def blocks(mebibytes: int, label: bytes) -> list[bytes]:
    """Blocks of one MiB that differ from each other, so that a lost or a swapped one shows in the checksum."""
    body = hashlib.shake_256(label).digest(MIB - 8)
    return [number.to_bytes(8, "big") + body for number in range(mebibytes)]


def send_to_openssl(path: FastPath, theirs: OpenSslPeer, mebibytes: int) -> tuple[bytes, bytes]:
    """Returns the checksums of what was sent and of what came out."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    for block in blocks(mebibytes, b"to OpenSSL"):
        sent.update(block)
        for start in range(0, MIB, PIECE):
            theirs.feed(path.seal(bytearray(block[start : start + PIECE] + b"\0")))
            received.update(theirs.read())
    return sent.digest(), received.digest()


def send_to_us(path: FastPath, theirs: OpenSslPeer, mebibytes: int, cut: int = 65_521) -> tuple[bytes, bytes]:
    """As send_to_openssl, the other way; `cut` is prime, so that reads end anywhere within a record."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    for block in blocks(mebibytes, b"to us"):
        sent.update(block)
        theirs.write(block)
        records = theirs.output()
        for start in range(0, len(records), cut):
            received.update(path.open(records[start : start + cut]))
    assert path.is_between_records
    return sent.digest(), received.digest()


def exchange(ours: pqtls.Connection, theirs: OpenSslPeer, text: bytes) -> None:
    """One message each way through receive_data, KeyUpdates and all."""
    ours.send_data(text)
    theirs.feed(ours.data_to_send())
    assert theirs.read() == text
    theirs.write(text[::-1])
    ours.receive_data(theirs.output())
    got = b"".join(event.data for event in ours.events() if isinstance(event, pqtls.ApplicationData))
    assert got == text[::-1]


@by_role
@by_profile
def test_data_goes_both_ways_unchanged(role: str, profile: str) -> None:
    mebibytes = BULK if profile == "hybrid-l5" else SAMPLE
    ours, theirs = connected_to_openssl(role, profile)
    path = FastPath(ours)
    sent, received = send_to_openssl(path, theirs, mebibytes)
    assert received == sent
    sent, received = send_to_us(path, theirs, mebibytes)
    assert received == sent
    assert ours.events() == []
    assert not ours.has_data_to_send


@by_role
def test_data_goes_both_ways_at_once(role: str) -> None:
    ours, theirs = connected_to_openssl(role)
    path = FastPath(ours)
    for number in range(200):
        text = hashlib.shake_256(b"%d" % number).digest(number * 331 + 1)
        theirs.write(text[::-1])
        sealed = path.seal(bytearray(text + b"\0"))
        assert path.open(theirs.output()) == text[::-1]
        theirs.feed(sealed)
        assert theirs.read() == text


@by_role
def test_openssl_takes_its_small_records_and_ours_in_any_size(role: str) -> None:
    ours, theirs = connected_to_openssl(role)
    sizes = (1, 2, 15, 16, 17, 255, 256, 16_383, 16_384, 16_385, 32_768, 40_000)
    for size in sizes:
        exchange(ours, theirs, bytes(range(256)) * (size // 256) + bytes(range(size % 256)))
    for byte in range(256):
        theirs.write(bytes((byte,)))
    ours.receive_data(theirs.output())
    assert b"".join(event.data for event in ours.events() if isinstance(event, pqtls.ApplicationData)) == bytes(
        range(256)
    )


@by_role
@by_profile
def test_openssl_follows_our_change_of_keys(role: str, profile: str) -> None:
    ours, theirs = connected_to_openssl(role, profile)
    for number in range(5):
        ours.update_keys()
        exchange(ours, theirs, b"generation %d" % number)


@by_role
@by_profile
def test_openssl_changes_its_keys_when_we_ask_and_we_follow(role: str, profile: str) -> None:
    ours, theirs = connected_to_openssl(role, profile)
    for number in range(5):
        ours.update_keys(request_peer=True)
        theirs.feed(ours.data_to_send())
        assert theirs.read() == b""
        theirs.write(b"behind the update %d" % number)
        ours.receive_data(theirs.output())
        assert ours.events() == [pqtls.PeerKeysUpdated(), pqtls.ApplicationData(b"behind the update %d" % number)]
        exchange(ours, theirs, b"both have new keys")


@by_role
def test_a_change_of_keys_in_the_middle_of_the_fast_path_loses_nothing(role: str) -> None:
    ours, theirs = connected_to_openssl(role)
    path = FastPath(ours)
    for number in range(3):
        ours.update_keys(request_peer=True)
        sent, received = send_to_openssl(path, theirs, 1)
        assert received == sent, number
        sent, received = send_to_us(path, theirs, 1)
        assert received == sent, number
    assert ours.events() == [pqtls.PeerKeysUpdated()] * 3


@by_role
def test_worn_keys_are_changed_by_themselves_and_openssl_is_asked_to_change_its_own(role: str) -> None:
    (suite,) = HYBRID_L5.cipher_suites
    profile: Profile = replace(HYBRID_L5, cipher_suites=(replace(suite, records_per_key=20),))
    ours, theirs = connected_to_openssl(role, profile)
    path = FastPath(ours)
    for _ in range(4):
        sent, received = send_to_openssl(path, theirs, 1)
        assert received == sent
        sent, received = send_to_us(path, theirs, 1)
        assert received == sent
    updates = ours.events()
    assert set(updates) == {pqtls.PeerKeysUpdated()}
    # 64 full records and more come to us in each MiB, and OpenSSL answers when it is next given something to read.
    assert len(updates) >= 3


@by_role
def test_after_our_close_notify_openssl_still_sends_and_we_still_read(role: str) -> None:
    ours, theirs = connected_to_openssl(role)
    ours.send_data(b"the last that I say")
    ours.send_close_notify()
    theirs.feed(ours.data_to_send())
    assert theirs.read() == b"the last that I say"
    assert theirs.peer_closed
    assert not ours.peer_closed
    path = FastPath(ours)
    sent, received = send_to_us(path, theirs, 2)
    assert received == sent
    theirs.close()
    path.open(theirs.output())
    assert ours.peer_closed
    ours.receive_eof()
    assert ours.events() == [pqtls.PeerClosed()]


@by_role
def test_after_the_close_notify_of_openssl_we_still_send(role: str) -> None:
    ours, theirs = connected_to_openssl(role)
    theirs.write(b"the last that I say")
    theirs.close()
    ours.receive_data(theirs.output())
    assert ours.events() == [pqtls.ApplicationData(b"the last that I say"), pqtls.PeerClosed()]
    assert ours.peer_closed
    # OpenSSL reads on after its own close_notify, as RFC 8446 section 6.1 has it.
    ours.send_data(b"but I have more")
    theirs.feed(ours.data_to_send())
    assert theirs.read() == b"but I have more"
    ours.send_close_notify()
    theirs.feed(ours.data_to_send())
    assert theirs.read() == b""
    assert theirs.peer_closed


@by_role
def test_a_stream_cut_without_close_notify_is_told_from_one_that_ended(role: str) -> None:
    ours, theirs = connected_to_openssl(role)
    theirs.write(b"the beginning of something longer")
    ours.receive_data(theirs.output()[:-1])
    with pytest.raises(pqtls.TruncatedStream):
        ours.receive_eof()
    assert ours.events() == []


def flipped(records: bytes, position: int) -> bytes:
    damaged = bytearray(records)
    damaged[position] ^= 1
    return bytes(damaged)


# The type, the version, the sequence of the ciphertext, the tag: all of a record's bytes but its length.
@by_role
@pytest.mark.parametrize(
    ("position", "alert"),
    [(0, "unexpected_message"), (1, "bad_record_mac"), (5, "bad_record_mac"), (-1, "bad_record_mac")],
)
def test_a_record_of_openssl_that_was_changed_on_the_way_is_refused_and_openssl_learns_why(
    role: str, position: int, alert: str
) -> None:
    ours, theirs = connected_to_openssl(role)
    theirs.write(b"do pay Alice")
    with pytest.raises(pqtls.ProtocolViolation) as violation:
        ours.receive_data(flipped(theirs.output(), position))
    assert violation.value.alert is pqtls.Alert[alert.upper()]
    theirs.feed(ours.data_to_send())
    with pytest.raises(OpenSslRefused):
        theirs.read()
    assert theirs.alerts_received == [alert]


@by_role
def test_openssl_refuses_a_record_of_ours_that_was_changed_and_we_learn_why(role: str) -> None:
    ours, theirs = connected_to_openssl(role)
    ours.send_data(b"do pay Alice")
    theirs.feed(flipped(ours.data_to_send(), -1))
    with pytest.raises(OpenSslRefused, match="bad record mac"):
        theirs.read()
    with pytest.raises(pqtls.AlertReceived) as refusal:
        ours.receive_data(theirs.output())
    assert refusal.value.alert is pqtls.Alert.BAD_RECORD_MAC
    assert not ours.has_data_to_send


@by_role
def test_openssl_does_not_know_our_large_records_and_sees_none(role: str) -> None:
    ours, theirs = connected_to_openssl(role, large_record_size_limit=LARGE_RECORDS)
    path = FastPath(ours)
    sent, received = send_to_openssl(path, theirs, 1)
    assert received == sent
    sent, received = send_to_us(path, theirs, 1)
    assert received == sent
    ours.update_keys(request_peer=True)
    exchange(ours, theirs, b"and after new keys")
