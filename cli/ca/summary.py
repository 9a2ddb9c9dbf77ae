"""An authority in a few lines: what `show` says of its folder."""

from __future__ import annotations

import datetime
from typing import Final

from certmgr import peer_document
from certmgr.describe import describe_certificate
from certmgr.peers import PeerBook
from certmgr.state import AuthorityState, Generation
from certmgr.state_document import decode_state
from certmgr.store import AUTHORITY_DOCUMENT, PEERS_PREFIX, Store
from certmgr.upkeep import unrevoked
from certmgr.wording import ends, rfc3339, shown_time, span
from cli.ca.answers import Answer, row
from mesh.errors import UserError, shown

# Lines that a person still reads.
_BARRED_SHOWN: Final = 20


async def summary_of(store: Store, now: datetime.datetime) -> Answer:
    """The authority in `store`, without changing anything. UserError where there is none."""
    stored = await store.load(AUTHORITY_DOCUMENT)
    if stored is None:
        raise UserError("there is no authority; make one with `qbitel ca init`")
    state = decode_state(stored.document)
    book = PeerBook()
    for name in await store.names():
        if name.startswith(PEERS_PREFIX) and (peers := await store.load(name)) is not None:
            for peer in peer_document.decode(peers.document):
                book.add(peer)
    return summary(state, book, now)


def summary(state: AuthorityState, peers: PeerBook, now: datetime.datetime) -> Answer:
    """The same of a state and the peers that are known."""
    live = sum(1 for _ in unrevoked(state, peers).live(now))
    tokens = sum(one.until >= now and not one.key for one in state.tokens)
    lines = [
        f"authority of the trust domain {state.trust_domain}",
        row("phase", f"{state.phase.value} since {shown_time(state.phase_since)}"),
        row("leaves live", span(state.leaf_validity)),
        row("peers", f"{live} live certificate{'' if live == 1 else 's'}"),
        row("revoked", f"{len(state.revoked)} (list number {state.crl_number})"),
        row("tokens", f"{tokens} waiting"),
        *_barred_lines(state),
    ]
    for generation in state.generations:
        lines.extend(_generation_lines(generation, state, now))
    data = {
        "kind": "authority",
        "trust_domain": state.trust_domain,
        "phase": state.phase.value,
        "phase_since": rfc3339(state.phase_since),
        "leaf_seconds": int(state.leaf_validity.total_seconds()),
        "live_certificates": live,
        "revoked": len(state.revoked),
        "list_number": state.crl_number,
        "tokens_waiting": tokens,
        "barred": [
            {"identity": str(one.spiffe_id), "since": rfc3339(one.since), "reason": one.reason.value}
            for one in state.barred
        ],
        "generations": [_generation_data(one, state, now) for one in state.generations],
    }
    return Answer(lines, data)


def _barred_lines(state: AuthorityState) -> list[str]:
    lines = [
        row("barred", f"{one.spiffe_id} since {shown_time(one.since)} ({one.reason.value})")
        for one in state.barred[:_BARRED_SHOWN]
    ]
    if len(state.barred) > _BARRED_SHOWN:
        lines.append(row("barred", f"and {len(state.barred) - _BARRED_SHOWN} more (--json has them all)"))
    return lines


def _generation_lines(generation: Generation, state: AuthorityState, now: datetime.datetime) -> list[str]:
    signs = " (signs)" if generation is state.signer else ""
    key = "" if generation.root_key is not None else ", its key is kept off line"
    root = generation.root
    lines = [
        row("root", f"{generation.name}{signs}: {shown(root.subject.rfc4514_string())}"),
        row("", f"{ends(root.not_valid_after_utc, now)}{key}"),
    ]
    for one in generation.intermediates:
        name, end = one.certificate.subject.rfc4514_string(), one.certificate.not_valid_after_utc
        lines.append(row("intermediate", f"{shown(name)}, {ends(end, now)}"))
    return lines


def _generation_data(generation: Generation, state: AuthorityState, now: datetime.datetime) -> dict[str, object]:
    return {
        "name": generation.name,
        "signs": generation is state.signer,
        "root_key_is_here": generation.root_key is not None,
        "root": describe_certificate(generation.root, now).data,
        "intermediates": [describe_certificate(one.certificate, now).data for one in generation.intermediates],
    }
