"""A list of peers (certmgr/peers.py) as a document of a store: JSON by columns, compressed by zlib (RFC 1950)."""

from __future__ import annotations

import datetime
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

from certmgr.peers import Peer
from certmgr.store import MAX_DOCUMENT
from mesh.errors import UserError
from mesh.spiffe import InvalidSpiffeId, SpiffeId

# 20,000 peers are some 8 MB of JSON; four times what is ever compressed into one document is a bomb and no list.
MAX_DECODED_SIZE: Final = 32 << 20
# Version 1 had acknowledgements by time, and certificates in no order but that of clocks.
_VERSION: Final = 2
_COMMON: Final = ("identity", "instance", "generation", "serial", "issued", "not_after", "acknowledged")
_COLUMNS: Final = {1: (*_COMMON, "at"), 2: (*_COMMON, "shown", "origin", "number", "saw")}
# Level 1 takes half the time of the default and makes a document that is a tenth larger.
_LEVEL: Final = 1
_MICROSECOND: Final = datetime.timedelta(microseconds=1)
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_BROKEN: Final = "the list of peers cannot be read"


def encode(peers: Iterable[Peer]) -> bytes:
    """Return the document of these peers, the same bytes for the same peers. UserError beyond MAX_DOCUMENT."""
    ordered = sorted(peers, key=lambda one: (one.identity, one.instance, one.key))
    # Few processes and few states of knowledge stand for all peers.
    origins = sorted({one.origin for one in ordered} | {origin for one in ordered for origin, _ in one.saw})
    seen = sorted({one.saw for one in ordered})
    origin_at = {origin: place for place, origin in enumerate(origins)}
    seen_at = {saw: place for place, saw in enumerate(seen)}
    # By columns, because deflate finds what repeats when it stands together.
    document = {
        "version": _VERSION,
        "origins": origins,
        "seen": [[[origin_at[origin], number] for origin, number in saw] for saw in seen],
        "identity": [one.identity for one in ordered],
        "instance": [one.instance for one in ordered],
        "generation": [one.generation for one in ordered],
        "serial": [one.serial for one in ordered],
        "issued": [_microseconds(one.issued_at) for one in ordered],
        "not_after": [_microseconds(one.not_after) for one in ordered],
        "acknowledged": [one.acknowledged for one in ordered],
        "shown": [one.shown + one.contested for one in ordered],  # no, yes, yes and too late
        "origin": [origin_at[one.origin] for one in ordered],
        "number": [one.number for one in ordered],
        "saw": [seen_at[one.saw] for one in ordered],
    }
    encoded = zlib.compress(json.dumps(document, separators=(",", ":")).encode("ascii"), _LEVEL)
    if len(encoded) > MAX_DOCUMENT:
        raise UserError(f"{len(ordered)} peers do not fit into one document of {MAX_DOCUMENT} bytes")
    return encoded


def decode(document: bytes) -> list[Peer]:
    """Return the peers that `encode` wrote. UserError for anything else; never inflates over MAX_DECODED_SIZE."""
    if len(document) > MAX_DOCUMENT:
        raise UserError(f"{_BROKEN}: it has more than {MAX_DOCUMENT} bytes")
    try:
        return _peers(json.loads(_inflate(document)))
    # Numbers without end, hostile nesting and dates out of range are three errors of their own.
    except (ValueError, TypeError, OverflowError, RecursionError, IndexError, zlib.error) as error:
        detail = f" ({error})" if str(error).isprintable() else ""
        raise UserError(f"{_BROKEN}: it is damaged{detail[:120]}; restore it from a backup") from None


def _peers(content: object) -> list[Peer]:
    if not isinstance(content, dict) or (version := content.pop("version", None)) not in (1, 2) or version is True:
        raise ValueError("it is of another version")
    if version == 1:
        return [_old_peer(*row) for row in zip(*_columns(content, 1), strict=True)]
    origins = _list(content.pop("origins", None))
    seen = [_saw(_list(one), origins) for one in _list(content.pop("seen", None))]
    return [_peer(origins, seen, *row) for row in zip(*_columns(content, 2), strict=True)]


def _peer(
    origins: Sequence[Any], seen: Sequence[tuple[tuple[str, int], ...]],
    identity: Any, instance: Any, generation: Any, serial: Any, issued: Any, not_after: Any,
    acknowledged: Any, shown: Any, origin: Any, number: Any, saw: Any,
) -> Peer:  # fmt: skip
    if _number(shown) > 2:  # see encode
        raise ValueError("what is shown or not is neither")
    return Peer(
        identity=_identity(identity),
        instance=_text(instance),
        generation=_text(generation),
        serial=_text(serial),
        issued_at=_moment(issued),
        not_after=_moment(not_after),
        acknowledged=_number(acknowledged),
        shown=bool(shown),
        origin=_text(origins[_number(origin)]),
        number=_number(number),
        saw=seen[_number(saw)],
        contested=shown > 1,
    )


def _old_peer(
    identity: Any, instance: Any, generation: Any, serial: Any, issued: Any, not_after: Any, acknowledged: Any, at: Any
) -> Peer:
    """One of version 1. What it acknowledged was of no round, so it counts for none."""
    _text(acknowledged)
    return Peer(
        identity=_identity(identity),
        instance=_text(instance),
        generation=_text(generation),
        serial=_text(serial),
        issued_at=_moment(issued),
        not_after=_moment(not_after),
        shown=_moment(at) > _moment(issued),
    )


def _saw(pairs: Sequence[Any], origins: Sequence[Any]) -> tuple[tuple[str, int], ...]:
    return tuple((_text(origins[_number(place)]), _number(number)) for place, number in map(_list, pairs))


def _columns(content: dict[str, Any], version: int) -> list[list[Any]]:
    if set(content) != set(_COLUMNS[version]):
        raise ValueError("its columns are not those of a list of peers")
    return [_list(content[name]) for name in _COLUMNS[version]]


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a column is no list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a name is no string")
    return value


def _identity(value: object) -> str:
    try:
        return str(SpiffeId.parse(_text(value)))
    except InvalidSpiffeId:
        raise ValueError("an identity is no SPIFFE ID") from None


def _number(value: object) -> int:
    # A bool is an int to Python, but not to JSON; and a negative index is none.
    if type(value) is not int or value < 0:
        raise TypeError("a number is none")
    return value


def _microseconds(moment: datetime.datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(value: object) -> datetime.datetime:
    return _EPOCH + _number(value) * _MICROSECOND


def _inflate(document: bytes) -> bytes:
    inflater = zlib.decompressobj()
    content = inflater.decompress(document, MAX_DECODED_SIZE)
    if not inflater.eof or inflater.unused_data:
        raise ValueError("it is cut short, too large, or has something behind its end")
    return content
