"""`qbitel ca rotate`: a root is replaced step by step, while everything runs (ADR 12)."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime
import shlex
from collections.abc import Callable, Sequence
from typing import Any, Final

from certmgr import rotation
from certmgr.founding import make_generation
from certmgr.peers import PeerBook
from certmgr.revocation import sign_lists
from certmgr.rotation import Blocker, Plan
from certmgr.service import AuthorityService
from certmgr.state import AuthorityState, Phase
from certmgr.upkeep import unrevoked
from certmgr.wording import rfc3339, shown_time
from cli.ca.answers import Answer, row
from cli.ca.places import Clock, Place, add_place, opened, run
from mesh.errors import UserError

Step = Callable[[AuthorityState], AuthorityState]

# In text; --json has them all.
_MOST_BLOCKERS: Final = 5
_SUBJECT: Final = "CN=QBITEL mesh root,O=QBITEL"
_MEANINGS: Final = {
    Phase.STABLE: "one root is trusted and signs",
    Phase.PUBLISHING: "both roots are published, the present one signs",
    Phase.SIGNING: "both roots are published, the next one signs",
    Phase.ABORTING: "taken back: both roots are published, the present one signs again",
}


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """`rotate DIR --plan | --start | --next | --status | --abort`."""
    parser = commands.add_parser(
        "rotate",
        parents=[common],
        help="replace the root without an outage",
        description="Replace the root without an outage: publish the next one, sign with it when every peer trusts it, "
        "drop the old one when no certificate needs it. A running `qbitel certmgr serve` takes the later steps by "
        "itself. A step that would break a peer is refused, and the peers are named.",
    )
    add_place(parser)
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument(
        "--plan", dest="step", action="store_const", const="plan", help="what would happen, and who waits"
    )
    step.add_argument("--status", dest="step", action="store_const", const="status", help="where the rotation stands")
    step.add_argument(
        "--start", dest="step", action="store_const", const="start", help="make the next root, publish it"
    )
    step.add_argument(
        "--next",
        dest="step",
        action="store_const",
        const="next",
        help=f"take the next step, if for {rotation.SETTLE:g} s it breaks nobody",
    )
    step.add_argument("--abort", dest="step", action="store_const", const="abort", help="go back to the present root")
    parser.add_argument("--subject", default=_SUBJECT, help="with --start: the next root's name")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, clock: Clock) -> int:
    return run(_rotate(options, clock)).tell(options)


async def _rotate(options: argparse.Namespace, clock: Clock) -> Answer:
    async with opened(options) as place:
        service = await place.service(clock)
        peers = unrevoked(service.state, await service.ledger.everyone())
        now = clock()
        if options.step in ("plan", "status"):
            return _told(service.state, peers, now, with_steps=options.step == "plan")
        step = _step(options, peers, now)
        if options.step == "next":
            step(service.state)  # refused at once, or again when everything that was under way is over
            await asyncio.sleep(rotation.SETTLE)
            step = _step(options, unrevoked(service.state, await service.ledger.everyone()), clock())
        await take(place, service, clock, options.step, step)
        place.export(service.state)
        answer = _told(service.state, peers, clock(), with_steps=True)
    return dataclasses.replace(answer, lines=[_DONE[options.step], *answer.lines])


_DONE: Final = {
    "start": "the rotation began",
    "next": "the step was taken",
    "abort": "the rotation is taken back",
}


def _step(
    options: argparse.Namespace, peers: PeerBook, now: datetime.datetime
) -> Callable[[AuthorityState], AuthorityState]:
    match options.step:
        case "start":
            generation = make_generation(options.subject, now)

            def begin(state: AuthorityState) -> AuthorityState:
                if state.phase is Phase.STABLE and state.current.root_key is None:
                    raise UserError(
                        "the root's key is kept off line, and so should the next one's be: make a root there with "
                        "`qbitel ca init --root-only`, then use `qbitel ca request`, `sign` and `import --next`"
                    )
                return rotation.start(state, generation, now)

            return begin
        case "next":
            return lambda state: rotation.advance(state, peers, now)
        case _:
            return lambda state: rotation.abort(state, now)


async def take(
    place: Place,
    service: AuthorityService,
    clock: Clock,
    name: str,
    step: Step,
) -> None:
    """Take a step of a rotation, written into the audit log, with a revocation list of each authority there is."""

    def stepped(state: AuthorityState) -> AuthorityState:
        return sign_lists(step(state), clock())

    after = stepped(service.state)  # refused before it is written down as done
    await place.note(
        clock(), "rotation", step=name, phase=after.phase.value, roots=[one.name for one in after.generations]
    )
    await service.change(stepped)


def _told(state: AuthorityState, peers: PeerBook, now: datetime.datetime, *, with_steps: bool) -> Answer:
    plan = rotation.plan(state, peers, now)
    lines = _table(state)
    if plan.next_phase is None:
        lines.append(row("under way", "nothing: `--start` begins a rotation"))
    else:
        lines.extend(_waiting(plan))
    contested = sorted(peers.contested(now))
    lines.extend(_shared(contested))
    if with_steps:
        steps = plan.steps or _STEPS_OF_A_WHOLE
        lines.extend(row("then" if number else "next step", text) for number, text in enumerate(steps))
    data = _data(state, plan) | {"shared": [{"identity": one, "instance": name} for one, name in contested]}
    return Answer(lines, data)


_STEPS_OF_A_WHOLE: Final[tuple[str, ...]] = (
    "A new root is published beside the present one (--start).",
    "Every peer acknowledges it; then it signs.",
    "Every peer renews its certificate under it; then the old root is dropped.",
)


def _table(state: AuthorityState) -> list[str]:
    """The phase, and the part that each root has in it."""
    lines = [
        f"phase {state.phase.value} since {shown_time(state.phase_since)}: {_MEANINGS[state.phase]}",
    ]
    for number, one in enumerate(state.generations):
        part = "present" if number == 0 else "next"
        signs = ", signs" if one is state.signer else ""
        ending = shown_time(one.root.not_valid_after_utc)
        lines.append(row(f"{part} root", f"{one.name}{signs}, until {ending}"))
    return lines


def _waiting(plan: Plan) -> list[str]:
    lines = []
    count = len(plan.blockers)
    if count:
        lines.append(row("waits for", f"{count} live certificate{'' if count == 1 else 's'}:"))
    else:
        lines.append(row("waits for", "nobody: `--next` takes the step, or a running `qbitel certmgr serve`"))
    lines.extend(row("", blocker) for blocker in plan.blockers[:_MOST_BLOCKERS])
    if count > _MOST_BLOCKERS:
        lines.append(row("", f"… and {count - _MOST_BLOCKERS} more (--json names all)"))
    if count:
        last = max(one.until for one in plan.blockers)
        lines.append(row("until", f"each has done so or has ended, the last one at {shown_time(last)}"))
        lines.append(row("if gone", f"`{_without(plan.blockers[0])}`: it is revoked, and nobody waits for it"))
    return lines


def _without(one: Blocker) -> str:
    """What an operator gives who knows that a blocker's process is gone for good."""
    if not one.instance:
        return f"qbitel ca revoke … --serial {one.serial}"
    return f"qbitel ca revoke … --spiffe {one.identity} --instance {shlex.quote(one.instance)}"


def _shared(contested: Sequence[tuple[str, str]]) -> list[str]:
    """Processes that cannot be told apart by their names, as far as that was seen."""
    lines = [
        row("warning", f"two processes are {identity} ({instance}): give each an instance of its own")
        for identity, instance in contested[:_MOST_BLOCKERS]
    ]
    if len(contested) > _MOST_BLOCKERS:
        lines.append(row("", f"… and {len(contested) - _MOST_BLOCKERS} more (--json names all)"))
    return lines


def _data(state: AuthorityState, plan: Plan) -> dict[str, Any]:
    return {
        "phase": plan.phase.value,
        "phase_since": rfc3339(state.phase_since),
        "next_phase": plan.next_phase.value if plan.next_phase else None,
        "round": state.round,
        "roots": [{"name": one.name, "signs": one is state.signer} for one in state.generations],
        "blockers": [{**dataclasses.asdict(one), "until": rfc3339(one.until)} for one in plan.blockers],
        "steps": list(plan.steps),
    }
