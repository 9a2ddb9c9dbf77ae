"""Who holds a live certificate, by whom it was signed, and which round of the root's rotation was acknowledged with it.

A replica writes a certificate down before it hands it out, and learns only later, if at all, whether it arrived: the
holder may still use the one before. So each certificate is an entry of its own until it ends, and counts as in use
until a later one of the same instance has been shown by its holder. What "later" means no clock decides: each process
of the authority numbers what it issues, and each entry says which numbers of the others its issuer knew.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from certmgr.proofs import Reason, Refused
from mesh.spiffe import SpiffeId

# The asker names its instance, so whoever holds one identity could name millions. A deployment of 1,000 pods under one
# service account is at the edge of what is run; 1,000 entries are some 50 kB. Without a name, each certificate counts.
MAX_INSTANCES: Final = 1_000
# Of one instance. The one in use, the one before, which lives for another half of its life, and a few whose answers
# were lost; beyond that see _bounded.
MAX_CERTIFICATES: Final = 16
# A peer's clock may be so far behind ours (wire.MAX_SKEW), and would still take a certificate that has ended here.
CLOCK_SKEW: Final = datetime.timedelta(minutes=5)
MAX_INSTANCE_NAME: Final = 128  # a pod's UID has 36 characters, a host's name at most 64
MAX_NUMBER: Final = (1 << 53) - 1  # of certificates of one process, and of rounds: what JSON carries (RFC 8259 §6)
MAX_ORIGIN: Final = 16  # hexadecimal digits: 64 random bits, for each start of a replica

_INSTANCE: Final = re.compile(r"[\x21-\x7e]*\Z")
_HEX: Final = re.compile(r"[0-9a-f]*\Z")
_MAX_SERIAL: Final = 40  # RFC 5280 §4.1.2.2: at most 20 octets
_MAX_GENERATION: Final = 64  # SHA-256

# A certificate: its generation and its serial number.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One certificate of one instance of an identity; all times are aware. ValueError where a field is impossible.

    `generation` signed it; `serial` is its number in lower-case hexadecimal digits. `acknowledged` is the round whose
    anchors its holder has said it trusts (0: none), `shown` whether the holder has shown us this certificate, so that
    it has arrived. `origin` and `number` are its place among what one process of the authority issued, `saw` how far
    that process knew others' (by origin); "" stands for a place that is not known. `contested` says that it was shown
    after a later one had been: no process goes back, so that two have this instance's name, and both are counted.
    """

    identity: str
    instance: str
    generation: str
    serial: str
    issued_at: datetime.datetime
    not_after: datetime.datetime
    acknowledged: int = 0
    shown: bool = False
    origin: str = ""
    number: int = 0
    saw: tuple[tuple[str, int], ...] = ()
    contested: bool = False

    def __post_init__(self) -> None:
        check_instance(self.instance)
        _check_hexadecimal("generation", self.generation, _MAX_GENERATION)
        _check_hexadecimal("serial", self.serial, _MAX_SERIAL)
        for origin, number in ((self.origin, self.number), *self.saw):
            if origin:
                _check_hexadecimal("origin", origin, MAX_ORIGIN)
            if not 0 <= number <= MAX_NUMBER:
                raise ValueError("a certificate's number is out of range")
        if not 0 <= self.acknowledged <= MAX_NUMBER:
            raise ValueError("a round is out of range")
        if self.contested and not self.shown:
            raise ValueError("a certificate that was not shown cannot have been shown too late")
        if self.issued_at.tzinfo is None or self.not_after.tzinfo is None:
            raise ValueError("a peer's times must be aware")

    @property
    def key(self) -> Key:
        """What tells this certificate from all others."""
        return self.generation, self.serial

    def follows(self, other: Peer) -> bool:
        """Whether `other` was written down before this one was issued, as far as this one's issuer knew."""
        if not self.origin or not other.origin:
            return False
        if self.origin == other.origin:
            return self.number > other.number
        return any(origin == other.origin and number >= other.number for origin, number in self.saw)

    def placed(self, origin: str, number: int, saw: tuple[tuple[str, int], ...]) -> Peer:
        """This peer as number `number` of what `origin` issued."""
        return replace(self, origin=origin, number=number, saw=saw)

    def acknowledging(self, round_number: int) -> Peer:
        """This peer after its holder has shown this certificate, and trusts the roots of this round (0: not said)."""
        return replace(self, shown=True, acknowledged=max(self.acknowledged, round_number))

    def contesting(self) -> Peer:
        """This peer after its holder has shown this certificate, though a later one had been shown before."""
        return replace(self, shown=True, contested=True)

    def merged(self, other: Peer | None) -> Peer:
        """What two entries of this certificate know together, in whichever order: nobody takes back what was said."""
        if other is None or other == self:
            return self
        # All but what was said is the same in both, unless a document was tampered with: then either, but one for all.
        base = min(self, other, key=lambda one: (one.identity, one.instance, one.origin, one.number, one.saw))
        return replace(
            base,
            shown=self.shown or other.shown,
            contested=self.contested or other.contested,
            acknowledged=max(self.acknowledged, other.acknowledged),
        )


def check_instance(instance: str) -> str:
    """Return `instance`, or raise ValueError unless it is at most MAX_INSTANCE_NAME visible ASCII characters."""
    if len(instance) > MAX_INSTANCE_NAME or not _INSTANCE.match(instance):
        raise ValueError(f"an instance's name is at most {MAX_INSTANCE_NAME} visible ASCII characters")
    return instance


def _check_hexadecimal(name: str, value: str, longest: int) -> None:
    if not 1 <= len(value) <= longest or not _HEX.match(value):
        raise ValueError(f"{name} is not 1 to {longest} lower-case hexadecimal digits")


class PeerBook:
    """Peers by certificate and by instance. It grows by `add`, in whichever order, and shrinks by time.

    Books that were told the same are equal: what is known of a certificate only ever becomes more.
    """

    def __init__(self, peers: Iterable[Peer] = ()) -> None:
        self._peers: dict[Key, Peer] = {}
        self._instances: dict[str, dict[str, list[Key]]] = {}
        self._serials: set[str] = set()
        for peer in peers:
            self.add(peer)

    def __iter__(self) -> Iterator[Peer]:
        """Every certificate, in no particular order."""
        return iter(self._peers.values())

    def __len__(self) -> int:
        return len(self._peers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PeerBook) and self._peers == other._peers

    __hash__ = None  # type: ignore[assignment]  # it changes

    def add(self, peer: Peer) -> None:
        """Take up a certificate, or what is newly said of one. Ask check_room before issuing."""
        known = self._peers.get(peer.key)
        if known is not None:
            self._peers[peer.key] = known.merged(peer)
            return
        self._peers[peer.key] = peer
        self._serials.add(peer.serial)
        keys = self._instances.setdefault(peer.identity, {}).setdefault(peer.instance, [])
        keys.append(peer.key)
        if peer.instance and len(keys) > MAX_CERTIFICATES:
            for key in _bounded([self._peers[one] for one in keys]):
                self._remove(self._peers[key])

    def get(self, key: Key) -> Peer | None:
        """This certificate, where it is known."""
        return self._peers.get(key)

    def knows(self, serial: str) -> bool:
        """Whether a certificate with this serial number is known, whosever it is."""
        return serial in self._serials

    def find(self, identity: str, instance: str, serial: str = "") -> Peer | None:
        """The instance's certificate with `serial`, or the last one where that is empty; None if unknown."""
        found = [one for one in self._of(identity, instance) if serial in ("", one.serial)]
        for one in found:
            if not any(other.follows(one) for other in found):
                return one
        return None

    def live(self, now: datetime.datetime) -> Iterator[Peer]:
        """The certificates that have not ended at `now`: what could still be shown to somebody, by whomever."""
        return (peer for peer in self if peer.not_after >= now)

    def in_use(self, now: datetime.datetime) -> Iterator[Peer]:
        """Those of them that their holders may still use, as far as we know.

        An instance without a name may be several holders: there, none takes another's place.
        """
        for instances in self._instances.values():
            for instance, keys in instances.items():
                peers = [self._peers[key] for key in keys]
                for peer in peers:
                    if peer.not_after >= now and not (instance and _is_superseded(peer, peers)):
                        yield peer

    def is_superseded(self, peer: Peer) -> bool:
        """Whether the instance has shown a later certificate, and has not come back with this one since."""
        return bool(peer.instance) and _is_superseded(peer, self._of(peer.identity, peer.instance))

    def contested(self, now: datetime.datetime) -> set[tuple[str, str]]:
        """Identity and instance of whom two live processes seem to be."""
        return {(peer.identity, peer.instance) for peer in self.live(now) if peer.contested}

    def without(self, keys: frozenset[Key]) -> PeerBook:
        """The book without these certificates; this very one where it has none of them."""
        if not any(key in self._peers for key in keys):
            return self
        return PeerBook(peer for peer in self if peer.key not in keys)

    def forget_ended(self, now: datetime.datetime) -> None:
        """Remove the certificates that have ended at `now`."""
        for peer in [peer for peer in self if peer.not_after < now]:
            self._remove(peer)

    def check_room(self, identity: str, instance: str, now: datetime.datetime) -> None:
        """Raise Refused (TOO_MANY) where `instance` would be one too many of this identity at `now`.

        An instance that is known already is never refused, and neither is another identity.
        """
        instances = self._instances.get(identity, {})
        if instance and instance in instances:
            return
        if len(instances) + len(instances.get("", ())) < MAX_INSTANCES:
            return
        # Only here, at the bound, are they looked at one by one.
        ends = [
            end
            for name, keys in instances.items()
            for end in _ends([self._peers[key] for key in keys], each=not name)
            if end >= now
        ]
        if len(ends) >= MAX_INSTANCES:
            raise Refused(
                Reason.TOO_MANY,
                f"{identity} has {len(ends)} instances with a live certificate, which is as many as one identity may "
                "have; give the workloads identities of their own",
                identity=SpiffeId.parse(identity),
                retry_after=max(1, int((min(ends) - now).total_seconds())),
            )

    def _of(self, identity: str, instance: str) -> list[Peer]:
        return [self._peers[key] for key in self._instances.get(identity, {}).get(instance, ())]

    def _remove(self, peer: Peer) -> None:
        del self._peers[peer.key]
        self._serials.discard(peer.serial)
        instances = self._instances[peer.identity]
        instances[peer.instance].remove(peer.key)
        if not instances[peer.instance]:
            del instances[peer.instance]
        if not instances:
            del self._instances[peer.identity]


def _is_superseded(peer: Peer, of_instance: Sequence[Peer]) -> bool:
    """Whether its holder has shown a certificate that it asked for later: it asks for one after another."""
    return not peer.contested and any(other.shown and other.follows(peer) for other in of_instance)


def _bounded(peers: Sequence[Peer]) -> list[Key]:
    """Which certificates of one instance, that has too many, can be forgotten without misleading a rotation.

    First those that are out of use; then those that never arrived, as far as we know, and that a later one of the same
    process stands for: it is in the way of every step that the earlier one is in the way of, and for no less time.
    """
    spare = len(peers) - MAX_CERTIFICATES
    superseded = sorted((one for one in peers if _is_superseded(one, peers)), key=_age)
    others = [one for one in sorted(peers, key=_age) if one not in superseded]
    stood_for = [
        one
        for place, one in enumerate(others)
        if not one.shown and any(_stands_for(later, one) for later in others[place + 1 :])
    ]
    return [one.key for one in (*superseded, *stood_for)][:spare]


def _stands_for(later: Peer, earlier: Peer) -> bool:
    """Of two of which `later` ends no sooner."""
    return (
        later.generation == earlier.generation
        and later.acknowledged <= earlier.acknowledged
        and later.origin == earlier.origin
        and later.follows(earlier)
    )


def _age(peer: Peer) -> tuple[datetime.datetime, str, int, str]:
    return peer.not_after, peer.origin, peer.number, peer.serial


def _ends(peers: Sequence[Peer], *, each: bool) -> list[datetime.datetime]:
    """When they end: `each` of them, or the last of all."""
    ends = [peer.not_after for peer in peers]
    return ends if each else [max(ends)]
