"""A model of a whole mesh around the real rotation: no handshake between two live peers ever fails, and it gets done.

What is real: rotation.py, peers.py, the leader's step in upkeep.py, and the names of roots that are acknowledged. What
is modelled: two replicas, each of which knows the state and the other's peers as of some time ago, however long; an
authority's answers, which get lost or come late; sidecars that start, restart, follow, acknowledge, renew and vanish
when they like, all with clocks of their own; and handshakes that take a while, so that what one side began with meets
what the other has by then.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from certmgr import peers as peers_module
from certmgr import rotation, upkeep
from certmgr.founding import make_generation, new_state
from certmgr.peers import CLOCK_SKEW, Key, Peer, PeerBook
from certmgr.rotation import SETTLE
from certmgr.state import AuthorityState, Generation, Phase
from certmgr.upkeep import Upkeep
from mesh.anchors import anchors_of

NOON = datetime.datetime(2030, 5, 17, 12, 0, 0, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
LIFE = datetime.timedelta(hours=24)
WEB = "spiffe://cluster.local/ns/shop/sa/web"
HANDSHAKE = 10.0  # seconds that one may take: what sidecars allow by default
# One replica's clock is fast and the other's slow; a sidecar's is behind as far as an authority tolerates.
REPLICA_SKEW = 60 * SECOND
SIDECAR_SKEW = CLOCK_SKEW - REPLICA_SKEW
SLOTS = ("a", "b", "1", "2")  # the last two do not say their names
# What may happen; what is named twice is twice as likely.
ACTIONS = ("start", "renew", "renew by token", "follow", "say so", "take", "give up", "vanish")
FATES = ("comes", "comes late", "is lost")
SPARED = ("", "", *SLOTS)
PARTS = ("nothing", "follow", "say so", "renew", "renew and say so", "renew and say so")
LED = ("", "a step", "on", "on")
COMMANDS = ("hear", "hear of peers", "lead", "begin", "begin", "begin again", "take back")
WAITS = (1.0, 9.0, 11.0, SETTLE, 40_000.0, 46_000.0)


SEEDS, LIVES = 6, 50


@functools.cache
def generations() -> tuple[Generation, ...]:
    return tuple(make_generation("CN=Model,O=Example", NOON) for _ in range(3))


@functools.cache
def first() -> AuthorityState:
    # Without revocation lists, which cost signatures and say nothing here.
    return dataclasses.replace(
        new_state("CN=Model,O=Example", "cluster.local", NOON), generations=generations()[:1], crls=()
    )


def names_of(roots: tuple[Generation, ...]) -> tuple[str, ...]:
    """Each name is a hash of a certificate, and they are asked for a hundred thousand times."""
    known = {id(one): name for one, name in zip(generations(), names_of_all(), strict=True)}
    return tuple(known[id(one)] for one in roots)


@functools.cache
def names_of_all() -> tuple[str, ...]:
    return tuple(one.name for one in generations())


@functools.cache
def anchors(round_number: int, roots: tuple[str, ...]) -> str:
    return anchors_of(round_number, [root.encode() for root in roots])


@dataclass(frozen=True)
class Trust:
    """What a sidecar was told to trust."""

    round: int
    roots: tuple[str, ...]

    @classmethod
    def of(cls, state: AuthorityState) -> Trust:
        return cls(state.round, names_of(state.generations))

    @property
    def anchors(self) -> str:
        return anchors(self.round, self.roots)


@dataclass(repr=False)
class Replica:
    """One of the authority: what it knows, and what it wrote down. `world` is the store, and time."""

    world: Mesh
    origin: str
    skew: datetime.timedelta
    state: AuthorityState
    book: PeerBook = field(default_factory=PeerBook)
    seen: dict[str, int] = field(default_factory=dict)
    written: dict[Key, Peer] = field(default_factory=dict)

    def now(self) -> datetime.datetime:
        return self.world.now + self.skew

    def refresh(self) -> None:
        """Read what all of them wrote."""
        for other in self.world.replicas:
            for peer in other.written.values():
                self.take_up(peer)
        self.book.forget_ended(self.now() - CLOCK_SKEW)

    def take_up(self, peer: Peer) -> None:
        self.book.add(peer)
        self.seen[peer.origin] = max(peer.number, self.seen.get(peer.origin, 0))

    def write(self, peer: Peer) -> None:
        """Into its document; what its book has forgotten goes from there too."""
        if not peer.origin:
            saw = tuple(sorted(known for known in self.seen.items() if known[0] != self.origin))
            peer = peer.placed(self.origin, self.seen.get(self.origin, 0) + 1, saw)
        self.take_up(peer)
        keys = [*self.written, peer.key]
        self.written = {key: known for key in keys if (known := self.book.get(key)) is not None}
        self.state = self.world.newest

    def round_of(self, said: str) -> int:
        return self.state.round if said == Trust.of(self.state).anchors else 0

    def issue(self, instance: str, said: str, shown: Peer | None) -> tuple[Peer, Trust]:
        """As AuthorityService.issue: signed by what is known, written down, and again if that was out of date."""
        if shown is not None and self.book.get(shown.key) is None:
            self.refresh()
        while True:
            (signer,) = names_of((self.state.signer,))
            self.world.serial += 1
            peer = Peer(
                identity=WEB,
                instance=instance,
                generation=signer,
                serial=f"{self.world.serial:x}",
                issued_at=self.now(),
                not_after=self.now() + LIFE,
                acknowledged=self.round_of(said),
            )
            self.write(peer)
            if names_of((self.state.signer,)) == (signer,):
                return peer, Trust.of(self.state)

    def acknowledge(self, own: Peer, said: str) -> None:
        """As AuthorityService.acknowledge."""
        if self.book.get(own.key) is None:
            self.refresh()
        if said != Trust.of(self.state).anchors:
            self.state = self.world.newest
        if (known := self.book.get(own.key)) is not None:  # else it is refused
            self.write(known.acknowledging(self.round_of(said)))

    # What upkeep.py sees of it.

    @property
    def ledger(self) -> Replica:
        return self

    async def everyone(self) -> PeerBook:
        self.refresh()
        return self.book

    async def change(self, transform: Callable[[AuthorityState], AuthorityState | None]) -> bool:
        """Compare and swap: what is decided upon an old state does not count."""
        if (changed := transform(self.state)) is None or self.state is not self.world.newest:
            self.state = self.world.newest
            changed = transform(self.state)
        if changed is None:
            return False
        self.world.newest = self.state = changed
        return True


@dataclass
class Sidecar:
    """A process: what it trusts, the certificate that it uses, and an answer that is on its way."""

    instance: str
    trust: Trust | None = None
    certificate: Peer | None = None
    coming: tuple[Peer, Trust] | None = None
    # What handshakes were begun with: until when (seconds of real time), trust, certificate.
    before: list[tuple[float, Trust, Peer]] = field(default_factory=list)

    def become(self, seconds: float, trust: Trust, certificate: Peer) -> None:
        if self.trust is not None and self.certificate is not None:
            self.before.append((seconds, self.trust, self.certificate))
        self.trust, self.certificate = trust, certificate

    def views(self, seconds: float) -> list[tuple[Trust, Peer]]:
        """What a handshake may be made with that is under way now."""
        if self.trust is None or self.certificate is None:
            return []
        self.before = [one for one in self.before if one[0] >= seconds - HANDSHAKE]
        return [(self.trust, self.certificate), *((trust, certificate) for _, trust, certificate in self.before)]


def done(work: Coroutine[Any, Any, Any]) -> None:
    """Run what waits for nothing."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


class Mesh(RuleBasedStateMachine):
    """The whole of it. Rules with "everybody" make whole rotations likely; the others make them go wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(upkeep.revocation, "sign_lists", lambda state, _now: state)
        self.patch.setattr(peers_module, "MAX_CERTIFICATES", 3)
        self.seconds, self.serial, self.newest = 0.0, 0, first()
        self.replicas = [
            Replica(self, str(number), skew, first()) for number, skew in ((1, REPLICA_SKEW), (2, -REPLICA_SKEW))
        ]
        self.leaders = [
            Upkeep(replica, replica.now, lambda: True, monotonic=lambda: self.seconds)  # type: ignore[arg-type]
            for replica in self.replicas
        ]
        self.sidecars: dict[str, Sidecar] = {}

    @property
    def now(self) -> datetime.datetime:
        return NOON + self.seconds * SECOND

    # -- sidecars -----------------------------------------------------------------------------------------------

    def ask(self, sidecar: Sidecar, replica: Replica, fate: str, *, by_token: bool = False) -> None:
        said = "" if sidecar.trust is None else sidecar.trust.anchors
        # It asks for one after another: what has not come by now is given up.
        sidecar.coming = replica.issue(sidecar.instance, said, None if by_token else sidecar.certificate)
        if fate == "comes":
            self.take(sidecar)
        elif fate == "is lost":
            sidecar.coming = None

    def take(self, sidecar: Sidecar) -> None:
        (certificate, trust), sidecar.coming = sidecar.coming or (None, None), None  # type: ignore[misc]
        if certificate is not None and (sidecar.trust is None or trust.round >= sidecar.trust.round):
            sidecar.become(self.seconds, trust, certificate)

    def follow(self, sidecar: Sidecar, replica: Replica) -> None:
        trust = Trust.of(replica.state)
        if sidecar.trust is not None and sidecar.certificate is not None and trust.round >= sidecar.trust.round:
            sidecar.become(self.seconds, trust, sidecar.certificate)

    def acknowledge(self, sidecar: Sidecar, replica: Replica) -> None:
        if sidecar.trust is not None and sidecar.certificate is not None:
            replica.acknowledge(sidecar.certificate, sidecar.trust.anchors)

    @initialize(slots=st.sets(st.sampled_from(SLOTS), min_size=2))
    def begin_with(self, slots: set[str]) -> None:
        for slot in sorted(slots):
            self.sidecars[slot] = Sidecar(slot if slot in "ab" else "")
            self.ask(self.sidecars[slot], self.replicas[0], "comes")

    @rule(
        slot=st.sampled_from(SLOTS), what=st.sampled_from(ACTIONS), fate=st.sampled_from(FATES), which=st.integers(0, 1)
    )
    def one_sidecar(self, slot: str, what: str, fate: str, which: int) -> None:
        """Does something on its own, by way of whichever replica it comes to."""
        sidecar, replica = self.sidecars.get(slot), self.replicas[which]
        if what == "start" or sidecar is None:  # or a restart, in which everything is forgotten
            sidecar = self.sidecars[slot] = Sidecar(slot if slot in "ab" else "")
            self.ask(sidecar, replica, fate)
        elif what == "vanish":
            del self.sidecars[slot]
        elif what.startswith("renew"):
            self.ask(sidecar, replica, fate, by_token="token" in what)
        elif what == "give up":
            for _ in range(5):
                self.ask(sidecar, replica, "comes late")
        elif what == "follow":
            self.follow(sidecar, replica)
        elif what == "say so":
            self.acknowledge(sidecar, replica)
        else:
            self.take(sidecar)

    @rule(
        spared=st.sampled_from(SPARED), does=st.sampled_from(PARTS), which=st.integers(0, 1), led=st.sampled_from(LED)
    )
    def everybody_but_one(self, spared: str, does: str, which: int, led: str) -> None:
        """Does its part, and the leader too, for as long as it takes: without this, few runs would get anywhere."""
        replica = self.replicas[which]
        replica.state = self.newest
        for slot in sorted({*self.sidecars} - {spared} if does != "nothing" else ()):
            self.follow(self.sidecars[slot], replica)
            if does.startswith("renew"):
                self.ask(self.sidecars[slot], replica, "comes")
            if does.endswith("say so"):
                self.acknowledge(self.sidecars[slot], replica)
        if led == "on":
            self.lead_on(which)
        elif led:
            done(self.leaders[which].step_rotation())

    # -- the authority ------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), what=st.sampled_from(COMMANDS), root=st.integers(0, 2))
    def one_replica(self, which: int, what: str, root: int) -> None:
        """Or a command of an operator's, who comes to it."""
        replica, new = self.replicas[which], generations()[root]
        if what == "lead":
            done(self.leaders[which].step_rotation())
            return
        replica.state = self.newest
        stable = self.newest.phase is Phase.STABLE
        if what == "hear of peers":
            replica.refresh()
        if what.startswith("begin") and stable and new != self.newest.current:
            done(replica.change(lambda state: rotation.start(state, new, replica.now())))
        if what == "take back" and self.newest.phase in (Phase.PUBLISHING, Phase.SIGNING):
            done(replica.change(lambda state: rotation.abort(state, replica.now())))
        if what == "begin again" and self.newest.phase is Phase.PUBLISHING:
            done(replica.change(lambda state: rotation.abort(state, replica.now())))
            for sidecar in self.sidecars.values() if root else ():
                self.follow(sidecar, replica)
            if new != self.newest.current:
                done(replica.change(lambda state: rotation.start(state, new, replica.now())))

    def lead_on(self, which: int) -> None:
        self.replicas[which].state = self.newest
        done(self.leaders[which].step_rotation())
        self.wait(SETTLE)
        done(self.leaders[which].step_rotation())

    @rule(seconds=st.sampled_from(WAITS))
    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        for name, sidecar in list(self.sidecars.items()):
            if sidecar.coming is not None and self.now > sidecar.coming[0].not_after:
                sidecar.coming = None
            if sidecar.certificate is not None and self.now > sidecar.certificate.not_after + SIDECAR_SKEW:
                del self.sidecars[name]  # it has ended by every clock

    @rule()
    def wait_for_an_end(self) -> None:
        """A moment that is behind a certificate's end by the clocks of the authority, and not by all others."""
        ends = [one.certificate.not_after for one in self.sidecars.values() if one.certificate is not None]
        if ends:
            self.wait(max(0.0, (min(ends) - self.now + 100 * SECOND) / SECOND))

    # -- what must hold -----------------------------------------------------------------------------------------

    @invariant()
    def no_handshake_fails(self) -> None:
        views = [view for sidecar in self.sidecars.values() for view in sidecar.views(self.seconds)]
        shown = {certificate.generation for _, certificate in views}
        for trust, _ in views:
            assert shown <= set(trust.roots)

    @invariant()
    def whatever_is_in_use_is_known_or_another_stands_for_it(self) -> None:
        """Of the same root, for no less time, and with nothing acknowledged that its holder does not trust."""
        book = PeerBook(peer for replica in self.replicas for peer in replica.written.values())
        known = list(book.in_use(self.now - SIDECAR_SKEW))
        for one in self.sidecars.values():
            trusted = 0 if one.trust is None else one.trust.round
            used = [] if one.certificate is None else [(one.certificate, trusted)]
            for certificate, round_number in [*used, *([(one.coming[0], one.coming[1].round)] if one.coming else [])]:
                assert any(
                    certificate.generation == peer.generation
                    and certificate.instance == peer.instance
                    and certificate.not_after <= peer.not_after
                    and peer.acknowledged <= round_number
                    for peer in known
                )

    def teardown(self) -> None:
        try:
            self.it_gets_done()
        finally:
            self.patch.undo()

    def it_gets_done(self) -> None:
        """Once all do their part, who is left in the way is gone, or has no name, and that ends after a day: twice."""
        goal = self.newest.signer if self.newest.phase is not Phase.PUBLISHING else self.newest.generations[1]
        for hours in (0, 0, *(13,) * 6):
            self.wait(hours * 3600.0)
            for replica in self.replicas:
                replica.state = self.newest
                replica.refresh()
            for sidecar in self.sidecars.values():
                self.ask(sidecar, self.replicas[0], "comes")
                self.acknowledge(sidecar, self.replicas[1])
            self.replicas[0].refresh()
            blockers = rotation.plan(self.newest, self.replicas[0].book, self.replicas[0].now()).blockers
            assert not {one.instance for one in blockers} & {one.instance for one in self.sidecars.values()} - {""}
            self.lead_on(0)
            self.no_handshake_fails()
        assert (self.newest.phase, self.newest.signer) == (Phase.STABLE, goal)


TestMesh = Mesh.TestCase
TestMesh.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def stroll(seed: int) -> None:
    """One life of a mesh, in which rotations get on: what hypothesis finds small, this finds likely."""
    chance = random.Random(seed)  # noqa: S311  # which of the things that may happen does
    # Who says no name, and answers that are lost, hold a rotation up: without them more of it is seen.
    slots, fates = chance.choice((SLOTS, SLOTS[:2])), chance.choice((FATES, FATES[:1]))
    mesh = Mesh()
    try:
        mesh.begin_with(set(slots))
        for _ in range(40):
            which = chance.randrange(2)
            match chance.choices(("everybody", "one", "replica", "time"), (5, 5, 4, 1))[0]:
                case "everybody":
                    mesh.everybody_but_one(
                        chance.choice(("", "", *slots)), chance.choice(PARTS), which, chance.choice(LED)
                    )
                case "one":
                    mesh.one_sidecar(chance.choice(slots), chance.choice(ACTIONS), chance.choice(fates), which)
                case "replica":
                    mesh.one_replica(which, chance.choice(COMMANDS), chance.randrange(3))
                case "time" if chance.random() < 0.5:
                    mesh.wait(chance.choice(WAITS))
                case "time":
                    mesh.wait_for_an_end()
            mesh.no_handshake_fails()
            mesh.whatever_is_in_use_is_known_or_another_stands_for_it()
    finally:
        mesh.teardown()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_handshake_fails_in_any_of_many_lives(seed: int) -> None:
    for life in range(LIVES):
        stroll(seed * LIVES + life)
