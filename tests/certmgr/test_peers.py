"""The list of peers: what replicas know together, what is forgotten and when, and its document."""

from __future__ import annotations

import datetime
import json
import random
import uuid
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certmgr.peers import (
    MAX_CERTIFICATES,
    MAX_DECODED_SIZE,
    MAX_ENCODED_SIZE,
    MAX_INSTANCES,
    Peer,
    PeerBook,
    check_instance,
)
from certmgr.proofs import Reason, Refused
from mesh.errors import UserError

NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, 123456, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
WEB = "spiffe://cluster.local/ns/shop/sa/web"
DB = "spiffe://cluster.local/ns/shop/sa/db"
OLD, NEW = "aa" * 8, "bb" * 8


def peer(
    serial: int = 1,
    *,
    identity: str = WEB,
    instance: str = "pod-1",
    issued: datetime.datetime = NOON,
    acknowledged: str = "",
) -> Peer:
    return Peer(
        identity=identity,
        instance=instance,
        generation=OLD,
        serial=f"{serial:x}",
        issued_at=issued,
        not_after=issued + 24 * HOUR,
        acknowledged=acknowledged,
        acknowledged_at=issued,
    )


@st.composite
def peers(draw: st.DrawFn) -> Peer:
    """Few values for each field, so that books clash; what a certificate says is fixed by its serial number."""
    serial = draw(st.integers(1, 6 * MAX_CERTIFICATES))
    one = peer(serial, instance=draw(st.sampled_from(["", "a", "b"])), issued=NOON + (serial // 2) * HOUR)
    said = one.issued_at + draw(st.sampled_from([0, 0, 1, 2])) * HOUR
    return replace(one, acknowledged=draw(st.sampled_from(["", OLD, NEW])), acknowledged_at=said)


books = st.lists(peers(), max_size=14).map(PeerBook.of)


@settings(max_examples=250, deadline=None)
@given(books, books, books)
def test_merging_is_commutative_associative_and_idempotent(a: PeerBook, b: PeerBook, c: PeerBook) -> None:
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a
    assert a.merge(b).merge(b) == a.merge(b)


@settings(max_examples=100, deadline=None)
@given(st.lists(peers(), max_size=14))
def test_a_book_is_the_same_however_its_peers_come_and_comes_back_from_its_document(content: list[Peer]) -> None:
    book = PeerBook()
    for one in content:
        book = book.with_peer(one)

    assert book == PeerBook.of(reversed(content))
    assert PeerBook.decode(book.encode()) == book
    assert PeerBook.decode(book.encode()).encode() == book.encode()


def test_a_certificate_whose_arrival_is_not_known_does_not_hide_the_one_before() -> None:
    book = PeerBook.of([peer(1), peer(2, issued=NOON + HOUR)])

    assert [one.serial for one in book.live(NOON + HOUR)] == ["1", "2"]


def test_a_certificate_that_was_shown_takes_the_place_of_those_before_it_but_not_of_those_behind_it() -> None:
    first, second, third = (peer(n, issued=NOON + n * HOUR) for n in (1, 2, 3))

    book = PeerBook.of([first, second, third]).with_peer(second.acknowledging(NEW, NOON + 4 * HOUR))

    assert [one.serial for one in book] == ["2", "3"]


def test_holders_without_a_name_do_not_take_each_others_place() -> None:
    first, second = peer(1, instance=""), peer(2, instance="", issued=NOON + HOUR)

    book = PeerBook.of([first, second.acknowledging(NEW, NOON + 2 * HOUR)])

    assert [one.serial for one in book] == ["1", "2"]


def test_two_certificates_of_one_moment_both_count_so_that_the_one_not_acknowledged_is_seen() -> None:
    book = PeerBook.of([peer(1, acknowledged=NEW)]).merge(PeerBook.of([peer(2)]))

    assert [one.acknowledged for one in book] == [NEW, ""]


def test_of_one_certificate_the_newest_word_counts_and_of_one_moment_the_one_not_acknowledged() -> None:
    silent, said = peer(1), peer(1, acknowledged=NEW)

    assert list(PeerBook.of([said, silent])) == [silent]
    later = silent.acknowledging(NEW, NOON + HOUR)
    assert list(PeerBook.of([later, silent])) == [later]
    assert later.acknowledging(OLD, NOON) == later


def test_a_peer_stops_counting_when_its_certificate_ends_or_is_revoked() -> None:
    book = PeerBook.of([peer(1), peer(2, identity=DB)])
    end = NOON + 24 * HOUR

    assert len(book.live(end)) == 2
    assert book.live(end + datetime.timedelta(microseconds=1)) == ()
    assert len(book.without_ended(end + HOUR)) == 0
    assert list(book.without_revoked(OLD, frozenset({"2"}))) == [peer(1)]
    assert len(book.without_revoked(NEW, frozenset({"2"}))) == 2


def test_a_certificate_is_found_by_its_serial_number_and_the_newest_without() -> None:
    book = PeerBook.of([peer(10), peer(11, issued=NOON + HOUR)])

    assert book.find(WEB, "pod-1", "a") == peer(10)
    assert book.find(WEB, "pod-1") == peer(11, issued=NOON + HOUR)
    assert book.find(WEB, "pod-1", "c") is None
    assert book.find(DB, "pod-1") is None


def test_beyond_the_bound_an_identitys_new_instances_are_refused_and_nobody_else() -> None:
    book = PeerBook.of(peer(n + 1, instance=f"pod-{n}") for n in range(MAX_INSTANCES))

    with pytest.raises(Refused, match="1000 instances") as refused:
        book.check_room(WEB, "one-more", NOON + HOUR)
    assert refused.value.reason is Reason.TOO_MANY
    assert refused.value.retry_after == 23 * 3600
    book.check_room(WEB, "pod-7", NOON)
    book.check_room(DB, "pod-1", NOON)
    book.check_room(WEB, "one-more", NOON + 25 * HOUR)


def test_one_instance_cannot_make_the_book_grow_by_asking_again_and_again() -> None:
    book = PeerBook()
    for n in range(50):
        book = book.with_peer(peer(n + 1, issued=NOON + n * HOUR))

    assert [one.serial for one in book] == [f"{n:x}" for n in range(51 - MAX_CERTIFICATES, 51)]


@pytest.mark.parametrize(
    "change",
    [
        {"serial": ""},
        {"serial": "A"},
        {"serial": "1" * 41},
        {"generation": ""},
        {"acknowledged": "x"},
        {"acknowledged": "a" * 65},
        {"instance": "a\n"},
        {"instance": "a" * 129},
        {"not_after": NOON.replace(tzinfo=None)},
        {"acknowledged_at": NOON - HOUR},
    ],
)
def test_a_field_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace(peer(), **change)  # type: ignore[arg-type]


def test_an_instance_may_have_no_name_or_a_pods() -> None:
    name = str(uuid.UUID(int=7))

    assert check_instance("") == ""
    assert check_instance(name) == name


def many(count: int) -> PeerBook:
    chance = random.Random(4)  # noqa: S311  # the same peers each time
    return PeerBook.of(
        Peer(
            identity=f"spiffe://cluster.local/ns/team-{n % 40}/sa/service-{n % 400}",
            instance=str(uuid.UUID(int=chance.getrandbits(128))),
            generation=OLD,
            serial=f"{chance.getrandbits(159):x}",
            issued_at=NOON + chance.random() * HOUR,
            not_after=NOON.replace(microsecond=0) + 24 * HOUR + chance.randrange(3600) * HOUR / 3600,
            acknowledged=NEW * 4,
            acknowledged_at=NOON + (1 + chance.random()) * HOUR,
        )
        for n in range(count)
    )


def test_ten_thousand_peers_fit_into_two_thirds_of_what_a_store_takes() -> None:
    book = many(10_000)
    document = book.encode()

    assert len(document) < MAX_ENCODED_SIZE * 2 // 3
    assert PeerBook.decode(document) == book


def test_more_peers_than_one_document_holds_are_refused() -> None:
    with pytest.raises(UserError, match="spread them"):
        many(20_000).encode()


def test_a_document_that_would_inflate_beyond_measure_is_refused() -> None:
    bomb = zlib.compress(b" " * (MAX_DECODED_SIZE + 1))

    with pytest.raises(UserError, match="too large"):
        PeerBook.decode(bomb)
    with pytest.raises(UserError, match="more than"):
        PeerBook.decode(bytes(MAX_ENCODED_SIZE + 1))


def test_a_document_with_one_byte_changed_or_cut_is_refused_or_read_but_nothing_else() -> None:
    document = PeerBook.of([peer(1), peer(2, identity=DB)]).encode()

    for place in range(len(document)):
        with pytest.raises(UserError):
            PeerBook.decode(document[:place])
        changed = bytearray(document)
        changed[place] ^= 1 + place % 255
        with pytest.raises(UserError):  # zlib's checksum notices each of them
            PeerBook.decode(bytes(changed))
    with pytest.raises(UserError):
        PeerBook.decode(document + b"\0")


VALUES = st.sampled_from([None, True, 0, -1, 10**30, 1.5, "", "x", [], [1], ["x"], [None], {}, "\ud800"])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_document_whose_content_is_wrong_anywhere_is_refused(data: st.DataObject) -> None:
    content = json.loads(zlib.decompress(PeerBook.of([peer(1, acknowledged=NEW)]).encode()))
    name = data.draw(st.sampled_from(sorted(content)))
    value = data.draw(VALUES)
    if name != "version" and data.draw(st.booleans()):
        value = [value]
    content[name] = value
    try:
        book = PeerBook.decode(zlib.compress(json.dumps(content).encode()))
    except UserError:
        return
    assert len(book) == 1


@pytest.mark.parametrize("plain", [b"", b"[]", b"{}", b"nul", b"[" * 100_000, b"\xff", b'{"version":2}', b"9" * 5_000])
def test_what_is_no_list_of_peers_is_refused(plain: bytes) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        PeerBook.decode(zlib.compress(plain))
