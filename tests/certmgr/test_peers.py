"""The list of peers: what replicas know together, who is in use, and what is forgotten and when."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certmgr.peers import MAX_CERTIFICATES, MAX_INSTANCES, MAX_NUMBER, Peer, PeerBook, check_instance
from certmgr.proofs import Reason, Refused

NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, 123456, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
WEB = "spiffe://cluster.local/ns/shop/sa/web"
DB = "spiffe://cluster.local/ns/shop/sa/db"
OLD, NEW = "aa" * 8, "bb" * 8
HERE, THERE = "1" * 16, "2" * 16


def peer(
    number: int = 1,
    *,
    identity: str = WEB,
    instance: str = "pod-1",
    origin: str = HERE,
    hours: float = 0,
    saw: Iterable[tuple[str, int]] = (),
    **said: object,
) -> Peer:
    """Number `number` of what one replica issued."""
    return Peer(
        identity=identity,
        instance=instance,
        generation=OLD,
        serial=f"{number:x}{origin[:1]}",
        issued_at=NOON + hours * HOUR,
        not_after=NOON + (24 + hours) * HOUR,
        origin=origin,
        number=number,
        saw=tuple(saw),
        **said,  # type: ignore[arg-type]
    )


def in_use(book: PeerBook, now: datetime.datetime = NOON) -> set[str]:
    return {one.serial for one in book.in_use(now)}


@st.composite
def peers(draw: st.DrawFn) -> Peer:
    """Few values for each field, so that books clash; what a certificate says is fixed by its serial number."""
    number = draw(st.integers(1, 12))
    origin = draw(st.sampled_from([HERE, THERE]))
    other = THERE if origin == HERE else HERE
    saw = [(other, number - 3)] if number > 3 else []
    one = peer(number, instance=["", "a", "b"][number % 3], origin=origin, hours=number, saw=saw)
    shown = draw(st.booleans())
    contested = shown and draw(st.booleans())
    return replace(one, acknowledged=draw(st.integers(0, 2)), shown=shown, contested=contested)


lists = st.lists(peers(), max_size=20)


@settings(max_examples=250, deadline=None)
@given(lists, lists, st.randoms(use_true_random=False))
def test_a_book_is_the_same_in_whichever_order_and_how_often_its_peers_come(one, other, chance):
    shuffled = [*one, *other, *one]
    chance.shuffle(shuffled)

    book = PeerBook([*one, *other])
    assert book == PeerBook(shuffled)
    assert in_use(book) == in_use(PeerBook(shuffled))
    assert len(book) == len(list(book)) == len({each.key for each in (*one, *other)})


@settings(max_examples=250, deadline=None)
@given(lists, peers())
def test_nothing_that_is_learnt_takes_back_what_was_said(content, news):
    before = PeerBook(content)
    said = {each.key: (each.acknowledged, each.shown) for each in before}
    before.add(news)
    for key, (acknowledged, shown) in said.items():
        known = before.get(key)
        assert known is not None
        assert known.acknowledged >= acknowledged
        assert known.shown >= shown


def test_a_certificate_whose_arrival_is_not_known_does_not_hide_the_one_before():
    assert in_use(PeerBook([peer(1, shown=True), peer(2)])) == {"11", "21"}


def test_a_certificate_that_was_shown_takes_the_place_of_those_before_it_but_not_of_those_behind_it():
    book = PeerBook([peer(1, shown=True), peer(2), peer(3)])
    book.add(peer(2).acknowledging(0))

    assert in_use(book) == {"21", "31"}
    assert len(book) == 3  # they could still be shown to somebody, by whoever stole them


def test_a_certificate_that_is_shown_again_after_a_later_one_is_another_processs_and_counts_until_it_ends():
    first, second = peer(1, shown=True), peer(2, shown=True)
    book = PeerBook([first, second])
    assert [book.is_superseded(one) for one in (first, second)] == [True, False]
    assert book.contested(NOON) == set()

    book.add(first.contesting())
    assert in_use(book) == {"11", "21"}
    assert not book.is_superseded(first.contesting())
    assert book.contested(NOON) == {(WEB, "pod-1")}
    book.add(first)  # what another replica knew before
    book.add(peer(3, shown=True))
    assert in_use(book) == {"11", "31"}
    assert book.contested(NOON + 25 * HOUR) == set()


def test_who_has_no_name_contests_nothing():
    first, second = peer(1, instance="", shown=True), peer(2, instance="", shown=True)
    assert not PeerBook([first, second]).is_superseded(first)


def test_one_of_another_replica_is_before_it_only_where_its_issuer_knew_that():
    first, stale, fresh = peer(7), peer(3, origin=THERE), peer(4, origin=THERE, saw=[(HERE, 7)])

    assert in_use(PeerBook([first, stale.acknowledging(0)])) == {"71", "32"}
    assert in_use(PeerBook([first, fresh.acknowledging(0)])) == {"42"}
    assert in_use(PeerBook([peer(8), fresh.acknowledging(0)])) == {"81", "42"}
    # However the clocks of the two go.
    early = replace(fresh.acknowledging(0), issued_at=NOON - HOUR)
    assert in_use(PeerBook([first, early])) == {"42"}


def test_certificates_whose_place_is_not_known_all_count():
    old = replace(peer(1, shown=True), origin="", number=0)

    assert in_use(PeerBook([old, peer(2).acknowledging(0)])) == {"11", "21"}


def test_of_two_that_were_both_shown_at_least_one_counts_whatever_their_issuers_knew():
    one, other = peer(1, saw=[(THERE, 1)], shown=True), peer(1, origin=THERE, shown=True)

    assert in_use(PeerBook([one, other])) == {"11"}


def test_holders_without_a_name_do_not_take_each_others_place():
    assert in_use(PeerBook([peer(1, instance=""), peer(2, instance="").acknowledging(0)])) == {"11", "21"}


def test_a_word_of_an_earlier_round_changes_nothing():
    said = peer(1).acknowledging(5)

    assert (said.acknowledged, said.shown) == (5, True)
    assert said.acknowledging(4) == said.acknowledging(0) == said
    assert said.merged(peer(1)) == peer(1).merged(said) == said


def test_a_peer_stops_counting_when_its_certificate_ends_or_is_revoked():
    book = PeerBook([peer(1), peer(2, identity=DB)])
    end = NOON + 24 * HOUR
    later = end + datetime.timedelta(microseconds=1)

    assert len(list(book.live(end))) == len(in_use(book, end)) == 2
    assert list(book.live(later)) == []
    assert in_use(book, later) == set()
    assert in_use(book.without(frozenset({(OLD, "21"), (NEW, "11")}))) == {"11"}
    assert book.without(frozenset({(NEW, "21")})) is book
    book.forget_ended(end)
    assert len(book) == 2
    book.forget_ended(later)
    assert len(book) == 0
    assert book == PeerBook()
    book.check_room(WEB, "another", NOON)


def test_a_certificate_is_found_by_its_serial_number_and_the_last_one_without():
    first, second = peer(10), peer(11)
    book = PeerBook([second, first])

    assert book.find(WEB, "pod-1", "a1") == first
    assert book.find(WEB, "pod-1") == second
    assert book.find(WEB, "pod-1", "c1") is None
    assert book.find(DB, "pod-1") is None


def test_beyond_the_bound_an_identitys_new_instances_are_refused_and_nobody_else():
    book = PeerBook(peer(n + 1, instance=f"pod-{n}") for n in range(MAX_INSTANCES))

    for instance in ("one-more", ""):
        with pytest.raises(Refused, match="1000 instances") as refused:
            book.check_room(WEB, instance, NOON + HOUR)
        assert refused.value.reason is Reason.TOO_MANY
        assert refused.value.retry_after == 23 * 3600
    book.check_room(WEB, "pod-7", NOON)
    book.check_room(DB, "pod-1", NOON)
    book.check_room(WEB, "one-more", NOON + 25 * HOUR)


def test_without_a_name_each_certificate_is_an_instance():
    book = PeerBook(peer(n + 1, instance="") for n in range(MAX_INSTANCES - 1))

    book.check_room(WEB, "", NOON)
    book.add(peer(MAX_INSTANCES, instance=""))
    for instance in ("", "pod-1"):
        with pytest.raises(Refused, match="1000 instances"):
            book.check_room(WEB, instance, NOON)


def test_one_instance_cannot_make_the_book_grow_by_asking_again_and_again():
    book = PeerBook()
    for n in range(1, 51):
        book.add(peer(n, hours=n))

    assert len(book) == MAX_CERTIFICATES
    assert in_use(book) == {f"{n:x}1" for n in range(51 - MAX_CERTIFICATES, 51)}


def test_what_is_forgotten_beyond_the_bound_was_out_of_use_or_another_stands_for_it():
    """Whatever a rotation asks (who has not acknowledged? who is of the old root? until when?), the answer stays."""
    in_the_way = replace(peer(2), not_after=NOON + 99 * HOUR)  # ends last of all
    other_root = replace(peer(3), generation=NEW)
    lost = [peer(n, hours=n, acknowledged=n % 2) for n in range(4, 40)]
    used = peer(1, shown=True)
    book = PeerBook([used, in_the_way, other_root, *lost])

    assert len(book) == MAX_CERTIFICATES
    assert {used.key, other_root.key, in_the_way.key} <= {one.key for one in book}
    silent = [one.not_after for one in book.in_use(NOON) if not one.acknowledged]
    assert max(silent) == in_the_way.not_after
    # Once a later one is shown, those before it go first.
    book.add(lost[-1].acknowledging(1))
    book.add(peer(41, hours=41))
    assert in_use(book) == {lost[-1].serial, "291"}


@pytest.mark.parametrize(
    ("kept", "others"),
    [
        ({"generation": NEW}, {}),
        ({"not_after": NOON + 99 * HOUR}, {}),
        ({}, {"acknowledged": 1}),
        ({"origin": THERE}, {"saw": ((THERE, 1),)}),
        ({"number": 99}, {}),
    ],
    ids=["another root", "a later end", "nothing acknowledged", "another process", "asked for later"],
)
def test_nobody_stands_for_a_certificate_that_is_in_the_way_for_a_reason_of_its_own(kept, others):
    one = replace(peer(1), **kept)
    book = PeerBook([one, *(replace(peer(n, hours=n), **others) for n in range(2, 40))])

    assert one.key in {each.key for each in book}
    assert len(book) == MAX_CERTIFICATES


def test_certificates_of_other_processes_stand_for_nobody():
    """Which of them is the later one is not known: they may take their places, or not, at different times."""
    here = [peer(n, hours=n) for n in range(1, MAX_CERTIFICATES + 1)]
    there = peer(1, origin=THERE, hours=30)
    book = PeerBook([there, *here])

    assert there.key in {one.key for one in book}
    book = PeerBook(replace(peer(n, hours=n), origin=f"{n:x}") for n in range(1, 40))
    assert len(book) == 39


@pytest.mark.parametrize(
    "change",
    [
        {"serial": ""},
        {"serial": "A"},
        {"serial": "1" * 41},
        {"generation": ""},
        {"acknowledged": -1},
        {"acknowledged": MAX_NUMBER + 1},
        {"number": -1},
        {"number": MAX_NUMBER + 1},
        {"contested": True},
        {"origin": "x"},
        {"origin": "1" * 17},
        {"saw": (("x", 1),)},
        {"saw": (("1", -1),)},
        {"instance": "a\n"},
        {"instance": "a" * 129},
        {"not_after": NOON.replace(tzinfo=None)},
        {"issued_at": NOON.replace(tzinfo=None)},
    ],
)
def test_a_field_that_cannot_be_is_refused(change):
    with pytest.raises(ValueError, match=r"."):
        replace(peer(), **change)


def test_an_instance_may_have_no_name_or_a_pods():
    name = str(uuid.UUID(int=7))

    assert check_instance("") == ""
    assert check_instance(name) == name
