"""The state as a document that comes back as it was, or not at all."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import json
import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey

from certmgr.authority import CertificateAndKey
from certmgr.barring import bar
from certmgr.founding import make_generation, new_state
from certmgr.revocation import revoke, sign_lists
from certmgr.state import (
    MAX_BARRED,
    MAX_REVOKED,
    MAX_TOKENS,
    AuthorityState,
    Barred,
    BootstrapToken,
    Phase,
    Revoked,
    short_hash,
)
from certmgr.state_document import decode_state, encode_state
from certmgr.store import MAX_DOCUMENT
from certmgr.tokens import add_token, find_token, spend_token
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
DB = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/db")
WEB = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web")


@pytest.fixture(scope="module")
def fresh() -> AuthorityState:
    return new_state("CN=Example", "cluster.local", NOON)


@pytest.fixture(scope="module")
def full(fresh: AuthorityState) -> AuthorityState:
    """A state that has one of everything."""
    state = dataclasses.replace(
        fresh, generations=(fresh.current, make_generation("CN=Example", NOON)), phase=Phase.SIGNING
    )
    state = add_token(state, "t" * 40, WEB, ["web.shop"], NOON + DAY, NOON)
    state = add_token(state, "u" * 40, WEB, [], NOON + DAY, NOON)
    state = spend_token(state, find_token(state, "u" * 40, NOON), "ab" * 32, NOON)
    state = bar(dataclasses.replace(state, round=3), DB, NOON, reason=x509.ReasonFlags.key_compromise)
    return revoke(state, 12345, NOON, identity=str(WEB), reason=x509.ReasonFlags.key_compromise)


def plain(state: AuthorityState) -> Any:
    return json.loads(zlib.decompress(encode_state(state)))


def packed(document: Any) -> bytes:
    return zlib.compress(json.dumps(document).encode(), 0)  # level 0: nothing here asks how small it is


def test_a_state_comes_back_from_its_document_with_all_keys(full: AuthorityState) -> None:
    back = decode_state(encode_state(full))

    assert back == full
    assert encode_state(back) == encode_state(full)
    for ours, theirs in zip(full.signers, back.signers, strict=True):
        assert ours.private_key.private_bytes_raw() == theirs.private_key.private_bytes_raw()


def test_a_root_key_that_is_kept_off_line_stays_absent(fresh: AuthorityState) -> None:
    generation = dataclasses.replace(fresh.current, root_key=None)
    state = sign_lists(dataclasses.replace(fresh, generations=(generation,)), NOON)

    assert decode_state(encode_state(state)).current.root_key is None
    assert len(state.crls) == 1


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from paths(child, (*path, key))


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(document)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


# Wrong in kind, in range or in form wherever they stand.
ODD = (True, -1, 1 << 70, 1.5, "", "\ud800", "nonsense", [], [[]], {}, {"a": 1})
ALLOWED_EMPTY = {"identity", "tokens", "revoked", "crls", "dns_names", "barred"}


def test_every_value_is_checked(full: AuthorityState) -> None:
    document = plain(full)
    for path in paths(document):
        for odd in ODD:
            name = path[-1] if path else None
            if (
                (odd == "" and name == "key" and path[0] == "tokens")
                or (odd in ("", []) and name in ALLOWED_EMPTY)
                or (odd == "nonsense" and path[-2:-1] == ("dns_names",))
            ):
                continue
            with pytest.raises(UserError):
                decode_state(packed(put(document, path, odd)))


def test_every_field_is_needed_and_no_other_is_taken(full: AuthorityState) -> None:
    document = plain(full)
    for path in paths(document):
        place = document
        for key in path:
            place = place[key]
        if not isinstance(place, dict):
            continue
        with pytest.raises(UserError):
            decode_state(packed(put(document, path, place | {"newer": 1})))
        for key in place:
            less = {name: value for name, value in place.items() if name != key}
            with pytest.raises(UserError):
                decode_state(packed(put(document, path, less)))


def test_a_document_that_is_damaged_anywhere_is_refused_whole(full: AuthorityState) -> None:
    document = encode_state(full)
    chance = random.Random(1)  # noqa: S311  # which bytes: nothing secret
    for at in [*range(64), *chance.sample(range(len(document)), 400), *range(len(document) - 16, len(document))]:
        broken = bytearray(document)
        broken[at] ^= chance.randrange(1, 256)
        # Some bits of zlib's framing say nothing.
        with contextlib.suppress(UserError):
            assert decode_state(bytes(broken)) == full
        with pytest.raises(UserError):
            decode_state(document[:at])
    with pytest.raises(UserError):
        decode_state(document + b"\0")


def test_certificates_and_lists_that_are_damaged_are_refused_or_stay_what_they_say(full: AuthorityState) -> None:
    chance = random.Random(2)  # noqa: S311  # as above
    document = plain(full)
    texts = [
        ("generations", 0, "root"),
        ("generations", 1, "intermediates", 0, "certificate"),
        ("generations", 0, "root_key"),
        ("crls", 0),
    ]
    for path in texts:
        text = document
        for key in path:
            text = text[key]
        body = range(30, len(text) - 30)
        for at in [*body[:200:5], *chance.sample(body, min(40, len(body)))]:
            other = "0" if text[at] != "0" else "1"
            with pytest.raises(UserError) as caught:
                decode_state(packed(put(document, path, text[:at] + other + text[at + 1 :])))
            assert text[40:60] not in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        zlib.compress(b""),
        zlib.compress(b"{}"),
        zlib.compress(b"[" * 100_000),
        zlib.compress(b"\xff\xfe"),
        zlib.compress(b'{"version":' + b"9" * 10_000 + b"}"),
        zlib.compress(b"NaN"),
        zlib.compress(b" " * (64 << 20)),
        b"x" * (MAX_DOCUMENT + 1),
    ],
    ids=range(10),
)
def test_other_bytes_are_no_document(document: bytes) -> None:
    with pytest.raises(UserError, match="restore it from a backup"):
        decode_state(document)


def test_a_newer_version_is_not_read_by_halves(full: AuthorityState) -> None:
    with pytest.raises(UserError, match="a newer one"):
        decode_state(packed(plain(full) | {"version": 3}))
    with pytest.raises(UserError, match="another version"):
        decode_state(packed(plain(full) | {"version": 0}))


def test_a_document_of_the_version_before_is_read(full: AuthorityState) -> None:
    document = plain(full) | {"version": 1}
    del document["round"], document["barred"]
    for token in document["tokens"]:
        del token["key"]

    back = decode_state(packed(document))

    tokens = tuple(dataclasses.replace(one, key="") for one in full.tokens)
    assert back == dataclasses.replace(full, round=0, tokens=tokens, barred=())
    with pytest.raises(UserError):
        decode_state(packed(document | {"round": 1}))


def test_an_identity_that_is_barred_twice_is_refused(full: AuthorityState) -> None:
    document = plain(full)
    with pytest.raises(UserError, match="barred twice"):
        decode_state(packed(document | {"barred": document["barred"] * 2}))


def test_a_list_of_somebody_else_is_refused(full: AuthorityState) -> None:
    stranger = new_state("CN=Stranger", "cluster.local", NOON)
    with pytest.raises(UserError, match="of none of its authorities"):
        decode_state(packed(plain(full) | {"crls": plain(stranger)["crls"]}))


def test_the_largest_state_fits_a_store(fresh: AuthorityState) -> None:
    chance = random.Random(3)  # noqa: S311  # made-up serial numbers
    issuer = short_hash(fresh.current.issuer.certificate)
    revoked = tuple(
        Revoked(
            chance.getrandbits(159) | 1 << 150,
            issuer,
            NOON - datetime.timedelta(seconds=chance.randrange(86400)),
            NOON + datetime.timedelta(seconds=chance.randrange(86400)),
            f"spiffe://cluster.local/ns/team-{chance.randrange(100)}/sa/service-{chance.randrange(1000)}",
            x509.ReasonFlags.key_compromise,
        )
        for _ in range(MAX_REVOKED)
    )
    tokens = tuple(
        BootstrapToken(f"{chance.getrandbits(256):064x}", WEB, (f"machine-{number}.example",), NOON + DAY)
        for number in range(MAX_TOKENS)
    )
    barred = tuple(
        Barred(SpiffeId.parse(f"spiffe://cluster.local/ns/team/sa/n{number}"), NOON, x509.ReasonFlags.key_compromise)
        for number in range(MAX_BARRED)
    )
    full = sign_lists(dataclasses.replace(fresh, revoked=revoked, tokens=tokens, barred=barred), NOON)
    document = encode_state(full)

    assert len(document) < MAX_DOCUMENT
    assert decode_state(document) == full
    names = tuple(f"{chance.getrandbits(240):060x}.example" for _ in range(100))
    with pytest.raises(UserError, match=r"at most \d+ \(8388608\) can be kept"):
        encode_state(dataclasses.replace(full, tokens=(dataclasses.replace(tokens[0], dns_names=names),) * 900))


def test_a_key_that_is_not_the_certificate_s_is_refused(full: AuthorityState) -> None:
    other = CertificateAndKey(full.next.root, full.next.root_key) if full.next and full.next.root_key else None
    assert other is not None
    document = put(plain(full), ("generations", 0, "root_key"), other.private_key_pem.decode())
    with pytest.raises(UserError, match="does not belong"):
        decode_state(packed(document))
    assert isinstance(other.private_key, MLDSA87PrivateKey)
