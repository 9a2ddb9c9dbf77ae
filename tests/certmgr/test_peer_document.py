"""The list of peers as a document: small, the same for the same peers, and whatever else comes is refused whole."""

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

from certmgr.ledger import SHARDS
from certmgr.peer_document import MAX_DECODED_SIZE, decode, encode
from certmgr.peers import Peer
from certmgr.store import MAX_DOCUMENT
from mesh.errors import UserError
from tests.certmgr.test_peers import DB, HERE, HOUR, NEW, NOON, OLD, THERE, lists, peer


@settings(max_examples=100, deadline=None)
@given(lists, st.randoms(use_true_random=False))
def test_peers_come_back_from_their_document_which_is_the_same_in_any_order(content, chance):
    content = list({one.key: one for one in content}.values())
    document = encode(content)

    assert sorted(decode(document), key=repr) == sorted(content, key=repr)
    chance.shuffle(content)
    assert encode(content) == document


def test_one_that_has_no_place_in_the_order_comes_back_too():
    old = replace(peer(), origin="", number=0)
    assert decode(encode([old])) == [old]
    assert decode(encode([])) == []


def many(count: int) -> list[Peer]:
    """As a busy replica has them: pods' UIDs, random serial numbers, a few hundred services."""
    chance = random.Random(4)  # noqa: S311  # the same peers each time
    return [
        Peer(
            identity=f"spiffe://cluster.local/ns/team-{n % 40}/sa/service-{n % 400}",
            instance=f"{uuid.UUID(int=chance.getrandbits(128))}/0",
            generation=OLD,
            serial=f"{chance.getrandbits(159):x}",
            issued_at=NOON + chance.random() * HOUR,
            not_after=NOON.replace(microsecond=0) + 24 * HOUR + chance.randrange(3600) * HOUR / 3600,
            acknowledged=3,
            shown=chance.random() < 0.5,
            origin=HERE,
            number=n,
            saw=((THERE, n // 300 * 300),),
        )
        for n in range(count)
    ]


def test_a_shard_of_twenty_thousand_peers_in_a_rotation_is_a_quarter_of_what_a_store_takes():
    content = many(20_000 * 3 // SHARDS)
    document = encode(content)

    assert len(document) < 256 << 10
    assert sorted(decode(document), key=repr) == sorted(content, key=repr)


def test_more_peers_than_one_document_holds_are_refused():
    with pytest.raises(UserError, match="do not fit"):
        encode(many(20_000))


def test_a_document_that_would_inflate_beyond_measure_is_refused():
    with pytest.raises(UserError, match="too large"):
        decode(zlib.compress(b" " * (MAX_DECODED_SIZE + 1)))
    with pytest.raises(UserError, match="more than"):
        decode(bytes(MAX_DOCUMENT + 1))


def test_a_document_with_one_byte_changed_or_cut_is_refused():
    document = encode([peer(1), peer(2, identity=DB)])

    for place in range(len(document)):
        with pytest.raises(UserError):
            decode(document[:place])
        changed = bytearray(document)
        changed[place] ^= 1 + place % 255
        try:
            assert decode(bytes(changed)) == decode(document)  # two bits of zlib's framing say nothing
        except UserError:
            continue
    with pytest.raises(UserError):
        decode(document + b"\0")


OLD_DOCUMENT = {
    "version": 1,
    "identity": [DB, DB],
    "instance": ["pod-1", "pod-1"],
    "generation": [NEW, NEW],
    "serial": ["a", "b"],
    "issued": [1, 2],
    "not_after": [4_000_000_000_000_000, 4_000_000_000_000_000],
    "acknowledged": ["", "ff" * 32],
    "at": [1, 3],
}


def test_a_document_of_the_version_before_is_read_and_what_it_acknowledged_counts_for_no_round():
    one, other = decode(zlib.compress(json.dumps(OLD_DOCUMENT).encode()))

    assert (one.serial, one.shown, other.serial, other.shown) == ("a", False, "b", True)
    assert {each.acknowledged for each in (one, other)} == {0}
    assert other.not_after == datetime.datetime(2096, 10, 2, 7, 6, 40, tzinfo=datetime.UTC)
    assert not other.follows(one)
    assert decode(encode([one, other])) == [one, other]


VALUES = st.sampled_from([None, True, 0, -1, 7, 10**30, 1.5, "", "x", [], [1], ["x"], [None], [[0, 1]], {}, "\ud800"])
NEW_DOCUMENT = json.loads(zlib.decompress(encode([peer(1, saw=[(THERE, 2)])])))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([OLD_DOCUMENT, NEW_DOCUMENT]), st.data())
def test_a_document_whose_content_is_wrong_anywhere_is_refused_or_read_but_nothing_else(document, data):
    content = dict(document)
    name = data.draw(st.sampled_from([*sorted(content), "other"]))
    value = data.draw(VALUES)
    content[name] = [value] * len(content["serial"]) if data.draw(st.booleans()) else value
    if data.draw(st.booleans()):
        del content[data.draw(st.sampled_from(sorted(content)))]
    try:
        read = decode(zlib.compress(json.dumps(content).encode()))
    except UserError as error:
        assert str(error).isprintable()
        return
    assert decode(encode(read)) == read or len({one.key for one in read}) < len(read)


@pytest.mark.parametrize("plain", [b"", b"[]", b"{}", b"nul", b"[" * 100_000, b"\xff", b'{"version":3}', b"9" * 5_000])
def test_what_is_no_list_of_peers_is_refused(plain):
    with pytest.raises(UserError, match="cannot be read"):
        decode(zlib.compress(plain))
