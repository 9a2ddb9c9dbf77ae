"""Who holds a live certificate, by whom it was signed, and which anchors its holder has acknowledged.

A replica writes a certificate down before it hands it out, and learns only later, if at all, whether it arrived: the
holder may still use the one before. So each certificate is an entry of its own, until a later one of the same instance
has been shown by its holder, or until it ends.
"""

from __future__ import annotations

import datetime
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from certmgr.proofs import Reason, Refused
from mesh.errors import UserError
from mesh.spiffe import InvalidSpiffeId, SpiffeId

# The asker names its instance, so whoever holds one identity could name millions. A deployment of 1,000 pods under one
# service account is at the edge of what is run; 1,000 entries are some 50 kB of a document of 1 MiB.
MAX_INSTANCES: Final = 1_000
# The certificate in use, the one that follows it, and a few whose answers were lost. Beyond that the oldest are
# forgotten: an instance that asks so often harms nobody but itself.
MAX_CERTIFICATES: Final = 8
MAX_INSTANCE_NAME: Final = 128  # a pod's UID has 36 characters, a host's name at most 64
# 1 MiB is what a Secret holds. A book of 10,000 peers is some 3 MB of JSON; ten times that is a bomb and no book.
MAX_ENCODED_SIZE: Final = 1 << 20
MAX_DECODED_SIZE: Final = 32 << 20

_VERSION: Final = 1
_COLUMNS: Final = ("identity", "instance", "generation", "serial", "issued", "not_after", "acknowledged", "at")
_MICROSECOND: Final = datetime.timedelta(microseconds=1)
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_INSTANCE: Final = re.compile(r"[\x21-\x7e]*\Z")
_HEX: Final = re.compile(r"[0-9a-f]*\Z")
_MAX_SERIAL: Final = 40  # RFC 5280 §4.1.2.2: at most 20 octets
_MAX_HASH: Final = 64  # SHA-256
_BROKEN: Final = "the list of peers cannot be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One certificate of one instance of an identity; all times are aware. ValueError where a field is impossible.

    `generation` signed it; `serial` is its number in lower-case hexadecimal digits. `acknowledged` is the hash of the
    anchors that its holder has said it trusts ("" for none yet), said at `acknowledged_at`. That is `issued_at` where
    it was said in the request for the certificate, and later where the holder has shown the certificate with it.
    """

    identity: str
    instance: str
    generation: str
    serial: str
    issued_at: datetime.datetime
    not_after: datetime.datetime
    acknowledged: str
    acknowledged_at: datetime.datetime

    def __post_init__(self) -> None:
        check_instance(self.instance)
        for name, value, longest in (
            ("generation", self.generation, _MAX_HASH),
            ("serial", self.serial, _MAX_SERIAL),
            ("acknowledged", self.acknowledged, _MAX_HASH),
        ):
            if len(value) > longest or not _HEX.match(value) or (not value and name != "acknowledged"):
                raise ValueError(f"{name} is not 1 to {longest} lower-case hexadecimal digits")
        for moment in (self.issued_at, self.not_after, self.acknowledged_at):
            if moment.tzinfo is None:
                raise ValueError("a peer's times must be aware")
        if self.acknowledged_at < self.issued_at:
            raise ValueError("a certificate cannot have been acknowledged before it was issued")

    @property
    def is_confirmed(self) -> bool:
        """Whether its holder has shown it to us: it has arrived, and those before it are out of use."""
        return self.acknowledged_at > self.issued_at

    def acknowledging(self, anchors: str, at: datetime.datetime) -> Peer:
        """This peer after its holder has shown this certificate and said at `at` that it trusts `anchors`.

        A word that is older than what is known changes nothing.
        """
        return _newest_word(self, replace(self, acknowledged=anchors, acknowledged_at=max(at, self.issued_at)))


def check_instance(instance: str) -> str:
    """Return `instance`, or raise ValueError unless it is at most MAX_INSTANCE_NAME visible ASCII characters."""
    if len(instance) > MAX_INSTANCE_NAME or not _INSTANCE.match(instance):
        raise ValueError(f"an instance's name is at most {MAX_INSTANCE_NAME} visible ASCII characters")
    return instance


_Instances = Mapping[tuple[str, str], tuple[Peer, ...]]


@dataclass(frozen=True, slots=True)
class PeerBook:
    """An immutable set of peers. Merging books is commutative, associative and idempotent, whoever wrote which.

    Of one certificate the newest word of its holder counts. A certificate that was shown takes the place of those that
    the same instance was given before; an instance without a name may be several holders, so there it does not.
    """

    _instances: _Instances = field(default_factory=dict)

    @classmethod
    def of(cls, peers: Iterable[Peer]) -> PeerBook:
        """The book of these peers, in any order."""
        gathered: dict[tuple[str, str], list[Peer]] = {}
        for peer in peers:
            gathered.setdefault((peer.identity, peer.instance), []).append(peer)
        return cls({key: _settled(certificates) for key, certificates in gathered.items()})

    def __iter__(self) -> Iterator[Peer]:
        """Every peer, ended ones included, in an order that depends on the content alone."""
        for key in sorted(self._instances):
            yield from self._instances[key]

    def __len__(self) -> int:
        return sum(map(len, self._instances.values()))

    def live(self, now: datetime.datetime) -> tuple[Peer, ...]:
        """The peers whose certificate has not ended at `now`."""
        return tuple(peer for peer in self if peer.not_after >= now)

    def without_ended(self, now: datetime.datetime) -> PeerBook:
        """The book without the certificates that have ended at `now`."""
        return PeerBook.of(self.live(now))

    def without_revoked(self, generation: str, serials: frozenset[str]) -> PeerBook:
        """The book without the certificates of `generation` that have these serials: nobody accepts them any more."""
        return PeerBook.of(peer for peer in self if peer.generation != generation or peer.serial not in serials)

    def find(self, identity: str, instance: str, serial: str = "") -> Peer | None:
        """The certificate with `serial`, or the newest of the instance where that is empty; None if unknown."""
        found = [p for p in self._instances.get((identity, instance), ()) if serial in ("", p.serial)]
        return found[-1] if found else None

    def check_room(self, identity: str, instance: str, now: datetime.datetime) -> None:
        """Raise Refused (TOO_MANY) where `instance` would be one too many of this identity at `now`.

        An instance that is known already is never refused, and neither is another identity.
        """
        if (identity, instance) in self._instances:
            return
        ends = [
            certificates[-1].not_after
            for (other, _), certificates in self._instances.items()
            if other == identity and certificates[-1].not_after >= now
        ]
        if len(ends) >= MAX_INSTANCES:
            raise Refused(
                Reason.TOO_MANY,
                f"{identity} has {len(ends)} instances with a live certificate, which is as many as one identity may "
                "have; give the workloads identities of their own",
                identity=SpiffeId.parse(identity),
                retry_after=max(1, int((min(ends) - now).total_seconds())),
            )

    def with_peer(self, peer: Peer) -> PeerBook:
        """The book with one more peer, or with a newer word of one that it has. Ask check_room before issuing."""
        key = (peer.identity, peer.instance)
        return PeerBook({**self._instances, key: _settled((*self._instances.get(key, ()), peer))})

    def merge(self, other: PeerBook) -> PeerBook:
        """What both books know together."""
        merged = dict(self._instances)
        for key, certificates in other._instances.items():
            merged[key] = _settled((*merged[key], *certificates)) if key in merged else certificates
        return PeerBook(merged)

    def encode(self) -> bytes:
        """The book as compressed JSON, the same bytes for the same peers. UserError beyond MAX_ENCODED_SIZE."""
        # By columns, because deflate finds what repeats when it stands together: 10,000 peers take half a megabyte.
        columns = list(zip(*map(_row, self), strict=True)) or [()] * len(_COLUMNS)
        document = {"version": _VERSION, **dict(zip(_COLUMNS, columns, strict=True))}
        encoded = zlib.compress(json.dumps(document, separators=(",", ":")).encode("ascii"))
        if len(encoded) > MAX_ENCODED_SIZE:
            raise UserError(
                f"{len(self)} peers do not fit into one document of {MAX_ENCODED_SIZE} bytes; spread them over more"
            )
        return encoded

    @classmethod
    def decode(cls, document: bytes) -> PeerBook:
        """Return the book that `encode` wrote. UserError for anything else; never inflates over MAX_DECODED_SIZE."""
        if len(document) > MAX_ENCODED_SIZE:
            raise UserError(f"{_BROKEN}: it has more than {MAX_ENCODED_SIZE} bytes")
        try:
            content = json.loads(_inflate(document))
            return cls.of(map(_peer, *_columns(content)))
        # Numbers without end, hostile nesting and dates out of range are three errors of their own.
        except (ValueError, TypeError, OverflowError, RecursionError, zlib.error) as error:
            detail = f" ({error})" if str(error).isprintable() else ""
            raise UserError(f"{_BROKEN}: it is damaged{detail[:120]}; restore it from a backup") from None


def _settled(certificates: Iterable[Peer]) -> tuple[Peer, ...]:
    """One instance's certificates, oldest first: the newest word on each, without those that were replaced."""
    newest: dict[tuple[str, str], Peer] = {}
    for peer in certificates:
        key = (peer.generation, peer.serial)
        newest[key] = _newest_word(newest[key], peer) if key in newest else peer
    ordered = sorted(newest.values(), key=_age)
    if not ordered[0].instance:
        return tuple(ordered[-MAX_INSTANCES:])
    shown = max((peer.issued_at for peer in ordered if peer.is_confirmed), default=ordered[0].issued_at)
    return tuple(peer for peer in ordered[-MAX_CERTIFICATES:] if peer.issued_at >= shown)


def _age(peer: Peer) -> tuple[datetime.datetime, str, str]:
    return peer.issued_at, peer.generation, peer.serial


def _newest_word(one: Peer, other: Peer) -> Peer:
    """Of two entries for one certificate, the one that was said last; of one moment, the less favourable."""
    return min(one, other, key=lambda peer: (_EPOCH - peer.acknowledged_at, peer.acknowledged, *_row(peer)))


def _row(peer: Peer) -> tuple[str | int, ...]:
    return (
        peer.identity,
        peer.instance,
        peer.generation,
        peer.serial,
        _microseconds(peer.issued_at),
        _microseconds(peer.not_after),
        peer.acknowledged,
        _microseconds(peer.acknowledged_at),
    )


def _peer(
    identity: Any, instance: Any, generation: Any, serial: Any, issued: Any, not_after: Any, acknowledged: Any, at: Any
) -> Peer:
    if not all(isinstance(text, str) for text in (identity, instance, generation, serial, acknowledged)):
        raise TypeError("a name is no string")
    try:
        SpiffeId.parse(identity)
    except InvalidSpiffeId:
        raise ValueError("an identity is no SPIFFE ID") from None
    return Peer(
        identity=identity,
        instance=instance,
        generation=generation,
        serial=serial,
        issued_at=_moment(issued),
        not_after=_moment(not_after),
        acknowledged=acknowledged,
        acknowledged_at=_moment(at),
    )


def _microseconds(moment: datetime.datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(value: object) -> datetime.datetime:
    if type(value) is not int:
        raise TypeError("a time is no whole number")
    return _EPOCH + value * _MICROSECOND


def _columns(content: object) -> list[list[Any]]:
    if not isinstance(content, dict) or type(content.get("version")) is not int or content["version"] != _VERSION:
        raise ValueError("it is of another version")
    columns = [content.get(name) for name in _COLUMNS]
    if len(content) != len(_COLUMNS) + 1 or not all(isinstance(column, list) for column in columns):
        raise ValueError("its columns are not those of a list of peers")
    lists = [column for column in columns if isinstance(column, list)]
    if len(set(map(len, lists))) != 1:
        raise ValueError("its columns differ in length")
    return lists


def _inflate(document: bytes) -> bytes:
    inflater = zlib.decompressobj()
    content = inflater.decompress(document, MAX_DECODED_SIZE)
    if not inflater.eof or inflater.unused_data:
        raise ValueError("it is cut short, too large, or has something behind its end")
    return content
