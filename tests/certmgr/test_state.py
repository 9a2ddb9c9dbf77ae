"""The state as a value that cannot be wrong, and as a document that comes back as it was, or not at all."""

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

from certmgr.authority import CertificateAndKey, create_intermediate, create_root
from certmgr.founding import make_generation, new_state
from certmgr.revocation import revoke, sign_lists
from certmgr.state import (
    KEEP_ENDED,
    MAX_INTERMEDIATES,
    MAX_REVOKED,
    MAX_TOKENS,
    AuthorityState,
    BootstrapToken,
    Generation,
    Phase,
    Revoked,
    forget_ended,
    short_hash,
)
from certmgr.store import MAX_DOCUMENT
from certmgr.tokens import add_token
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
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
    return revoke(state, 12345, NOON, identity=str(WEB), reason=x509.ReasonFlags.key_compromise)


def plain(state: AuthorityState) -> Any:
    return json.loads(zlib.decompress(state.encode()))


def packed(document: Any) -> bytes:
    return zlib.compress(json.dumps(document).encode())


def test_a_state_comes_back_from_its_document_with_all_keys(full: AuthorityState) -> None:
    back = AuthorityState.decode(full.encode())

    assert back == full
    assert back.encode() == full.encode()
    for ours, theirs in zip(full.signers, back.signers, strict=True):
        assert ours.private_key.private_bytes_raw() == theirs.private_key.private_bytes_raw()


def test_a_root_key_that_is_kept_off_line_stays_absent(fresh: AuthorityState) -> None:
    generation = dataclasses.replace(fresh.current, root_key=None)
    state = sign_lists(dataclasses.replace(fresh, generations=(generation,)), NOON)

    assert AuthorityState.decode(state.encode()).current.root_key is None
    assert len(state.crls) == 1


def test_who_signs_follows_the_phase(full: AuthorityState) -> None:
    for phase, signer in (
        (Phase.PUBLISHING, full.generations[0]),
        (Phase.SIGNING, full.generations[1]),
        (Phase.ABORTING, full.generations[0]),
    ):
        assert dataclasses.replace(full, phase=phase).signer is signer


def test_a_generation_is_called_by_the_hash_of_its_root(fresh: AuthorityState) -> None:
    assert fresh.current.name == short_hash(fresh.current.root)
    assert len(fresh.current.name) == 16
    assert fresh.next is None


def test_no_repr_shows_a_key_or_the_hash_of_a_token(full: AuthorityState) -> None:
    shown = repr(full) + repr(full.current)

    assert "PrivateKey" not in shown
    assert full.tokens[0].digest not in shown


def test_certificates_that_do_not_belong_together_are_no_generation(fresh: AuthorityState) -> None:
    other = make_generation("CN=Other", NOON)
    current = fresh.current
    with pytest.raises(UserError, match="the intermediate is not signed by the root"):
        dataclasses.replace(current, intermediates=other.intermediates)
    with pytest.raises(UserError, match="does not belong"):
        dataclasses.replace(current, root_key=other.root_key)
    with pytest.raises(UserError, match="the root is not signed by the root"):
        Generation(current.issuer.certificate, None, current.intermediates)
    with pytest.raises(UserError, match="1 to 8 intermediates, not 0"):
        dataclasses.replace(current, intermediates=())
    with pytest.raises(UserError, match="not 9"):
        dataclasses.replace(current, intermediates=current.intermediates * (MAX_INTERMEDIATES + 1))


def test_two_authorities_of_one_name_are_refused(fresh: AuthorityState) -> None:
    with pytest.raises(UserError, match="give the new one a name of its own"):
        dataclasses.replace(fresh, generations=(fresh.current, fresh.current), phase=Phase.PUBLISHING)

    roots = [create_root("CN=Same", NOON) for _ in range(2)]
    generations = tuple(
        Generation(one.certificate, one.private_key, (create_intermediate("CN=Same", one, NOON),)) for one in roots
    )
    with pytest.raises(UserError, match="'CN=Same'"):
        dataclasses.replace(fresh, generations=generations, phase=Phase.PUBLISHING)


@pytest.mark.parametrize(
    "wrong",
    [
        {"trust_domain": "Not One"},
        {"phase": Phase.PUBLISHING},
        {"generations": ()},
        {"leaf_validity": datetime.timedelta(0)},
        {"leaf_validity": datetime.timedelta(days=399)},
    ],
)
def test_a_state_that_cannot_be_is_refused_as_one_line(fresh: AuthorityState, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        dataclasses.replace(fresh, **wrong)
    assert str(caught.value).isprintable()


def test_what_has_ended_is_forgotten_but_revocations_only_a_day_later(fresh: AuthorityState) -> None:
    state = add_token(fresh, "t" * 40, WEB, [], NOON + DAY, NOON)
    entry = Revoked(7, fresh.current.name, NOON, NOON + DAY, "")
    state = dataclasses.replace(state, revoked=(entry,))

    assert forget_ended(state, NOON + DAY) is None
    later = forget_ended(state, NOON + DAY + datetime.timedelta(seconds=1))
    assert later is not None
    assert (later.tokens, later.revoked) == ((), (entry,))
    last = forget_ended(later, NOON + DAY + KEEP_ENDED + datetime.timedelta(seconds=1))
    assert last is not None
    assert last.revoked == ()


# The document


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
ALLOWED_EMPTY = {"identity", "tokens", "revoked", "crls", "dns_names"}


def test_every_value_is_checked(full: AuthorityState) -> None:
    document = plain(full)
    for path in paths(document):
        for odd in ODD:
            name = path[-1] if path else None
            if (odd in ("", []) and name in ALLOWED_EMPTY) or (odd == "nonsense" and path[-2:-1] == ("dns_names",)):
                continue
            with pytest.raises(UserError):
                AuthorityState.decode(packed(put(document, path, odd)))


def test_every_field_is_needed_and_no_other_is_taken(full: AuthorityState) -> None:
    document = plain(full)
    for path in paths(document):
        place = document
        for key in path:
            place = place[key]
        if not isinstance(place, dict):
            continue
        with pytest.raises(UserError):
            AuthorityState.decode(packed(put(document, path, place | {"newer": 1})))
        for key in place:
            less = {name: value for name, value in place.items() if name != key}
            with pytest.raises(UserError):
                AuthorityState.decode(packed(put(document, path, less)))


def test_a_document_that_is_damaged_anywhere_is_refused_whole(full: AuthorityState) -> None:
    document = full.encode()
    chance = random.Random(1)  # noqa: S311  # which bytes: nothing secret
    for at in [*range(64), *chance.sample(range(len(document)), 400), *range(len(document) - 16, len(document))]:
        broken = bytearray(document)
        broken[at] ^= chance.randrange(1, 256)
        # Some bits of zlib's framing say nothing.
        with contextlib.suppress(UserError):
            assert AuthorityState.decode(bytes(broken)) == full
        with pytest.raises(UserError):
            AuthorityState.decode(document[:at])
    with pytest.raises(UserError):
        AuthorityState.decode(document + b"\0")


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
                AuthorityState.decode(packed(put(document, path, text[:at] + other + text[at + 1 :])))
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
        AuthorityState.decode(document)


def test_a_newer_version_is_not_read_by_halves(full: AuthorityState) -> None:
    with pytest.raises(UserError, match="a newer one"):
        AuthorityState.decode(packed(plain(full) | {"version": 2}))


def test_a_list_of_somebody_else_is_refused(full: AuthorityState) -> None:
    stranger = new_state("CN=Stranger", "cluster.local", NOON)
    with pytest.raises(UserError, match="of none of its authorities"):
        AuthorityState.decode(packed(plain(full) | {"crls": plain(stranger)["crls"]}))


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
    full = sign_lists(dataclasses.replace(fresh, revoked=revoked, tokens=tokens), NOON)
    document = full.encode()

    assert len(document) < MAX_DOCUMENT
    assert AuthorityState.decode(document) == full
    with pytest.raises(UserError, match="10000 certificates are revoked already"):
        dataclasses.replace(full, revoked=(*revoked, revoked[0]))
    with pytest.raises(UserError, match="1000 bootstrap tokens are waiting"):
        dataclasses.replace(full, tokens=(*tokens, tokens[0]))
    names = tuple(f"{chance.getrandbits(240):060x}.example" for _ in range(100))
    with pytest.raises(UserError, match=r"at most \d+ \(8388608\) can be kept"):
        dataclasses.replace(full, tokens=(dataclasses.replace(tokens[0], dns_names=names),) * 900).encode()


def test_a_key_that_is_not_the_certificate_s_is_refused(full: AuthorityState) -> None:
    other = CertificateAndKey(full.next.root, full.next.root_key) if full.next and full.next.root_key else None
    assert other is not None
    document = put(plain(full), ("generations", 0, "root_key"), other.private_key_pem.decode())
    with pytest.raises(UserError, match="does not belong"):
        AuthorityState.decode(packed(document))
    assert isinstance(other.private_key, MLDSA87PrivateKey)
