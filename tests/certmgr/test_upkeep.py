"""What the leader does: a rotation of the root with real certificates, lists and intermediates that are due."""

from __future__ import annotations

import asyncio
import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from certmgr import rotation
from certmgr.founding import make_generation
from certmgr.peers import PeerBook
from certmgr.service import AuthorityService
from certmgr.state import Phase
from certmgr.store import StoreUnavailable
from certmgr.upkeep import Upkeep
from tests.certmgr.authority_rig import Clock, csr, enrol, found, open_service, proven, run


def upkeep_of(service: AuthorityService, **options: Any) -> Upkeep:
    """The leader, for whom nothing is ever under way but what `options` say."""
    return Upkeep(service, service.now, lambda: True, **{"settle": 0.0, **options})


async def start_rotation(service: AuthorityService, clock: Clock) -> None:
    new = make_generation("CN=Next root", clock())
    await service.change(lambda state: rotation.start(state, new, clock()))


def test_a_root_is_replaced_in_steps_each_of_which_waits_for_every_peer_of_every_replica(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        await found(tmp_path, clock)
        one, two = await open_service(tmp_path, clock), await open_service(tmp_path, clock, "two")
        await enrol(one, instance="pod-1")
        await enrol(two, instance="pod-2")
        old = one.bundle()
        await start_rotation(one, clock)
        leader = upkeep_of(one)
        clock.move(minutes=2)
        await leader.round()
        assert one.state.phase is Phase.PUBLISHING
        assert one.bundle().generation == old.generation
        assert one.bundle().anchors != old.anchors
        assert len(x509.load_pem_x509_certificates(one.bundle().files["ca.crt"])) == 2

        await one.acknowledge(str(proven().spiffe_id), "pod-1", one.bundle().anchors)
        await leader.round()
        assert one.state.phase is Phase.PUBLISHING  # pod-2 would break
        clock.move(seconds=1)
        await two.acknowledge(str(proven().spiffe_id), "pod-2", one.bundle().anchors)
        clock.move(seconds=1)
        await leader.round()
        assert one.state.phase is Phase.SIGNING
        assert one.bundle().generation != old.generation

        clock.move(minutes=2)
        await leader.round()
        assert one.state.phase is Phase.SIGNING  # both still use certificates of the old root
        await enrol(one, instance="pod-1")
        renewed = await enrol(two, instance="pod-2")  # which has not heard of the phase yet
        assert renewed.generation == one.bundle().generation
        for service, pod in ((one, "pod-1"), (two, "pod-2")):
            clock.move(seconds=1)
            await service.acknowledge(str(proven().spiffe_id), pod, one.bundle().anchors)
        clock.move(minutes=2)
        await leader.round()
        assert one.state.phase is Phase.STABLE
        assert len(x509.load_pem_x509_certificates(one.bundle().files["ca.crt"])) == 1
        assert one.bundle().generation == renewed.generation

    run(main())


def test_a_step_waits_until_nobody_has_been_in_the_way_for_a_while(tmp_path: Path) -> None:
    """Who trusts the next root since a moment ago may have begun a handshake before that."""
    clock = Clock()
    passed = [1000.0]

    async def main() -> None:
        await found(tmp_path, clock)
        service = await open_service(tmp_path, clock)
        leader = upkeep_of(service, settle=30.0, monotonic=lambda: passed[0])

        async def look_after(seconds: float) -> Phase:
            passed[0] += seconds
            await leader.round()
            return service.state.phase

        await start_rotation(service, clock)
        clock.move(days=1)  # the wall clock does not count
        assert [await look_after(seconds) for seconds in (0, 29)] == [Phase.PUBLISHING] * 2
        await enrol(service, anchors="")  # does not trust it yet: time begins anew
        assert await look_after(31) is Phase.PUBLISHING
        await service.acknowledge(str(proven().spiffe_id), "pod-1", service.bundle().anchors)
        assert [await look_after(seconds) for seconds in (31, 29, 1)] == [
            Phase.PUBLISHING, Phase.PUBLISHING, Phase.SIGNING,
        ]  # fmt: skip
        await service.change(lambda state: rotation.abort(state, clock()))
        assert [await look_after(seconds) for seconds in (40, 29)] == [Phase.ABORTING] * 2
        assert await look_after(1) is Phase.STABLE

    run(main())


def test_time_without_the_lead_does_not_count(tmp_path: Path) -> None:
    clock = Clock()
    leads = iter([True, False, True, True])
    passed = itertools.count(step=20)
    phases: list[Phase] = []

    async def main() -> None:
        await found(tmp_path, clock)
        service = await open_service(tmp_path, clock)
        await start_rotation(service, clock)

        def is_leader() -> bool:
            phases.append(service.state.phase)
            if (lead := next(leads, None)) is None:
                running.cancel()
            return bool(lead)

        leader = Upkeep(service, clock, is_leader, settle=30.0, pause=0.0, monotonic=lambda: float(next(passed)))
        running = asyncio.create_task(leader.run())
        await asyncio.wait([running])

    run(main())
    # Twice the clock is looked at when a time begins, once when it goes on; 20 s are between two looks.
    assert phases == [Phase.PUBLISHING] * 4 + [Phase.SIGNING]


def test_a_step_is_not_taken_in_another_round_than_the_peers_were_read_in(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        await found(tmp_path, clock)
        service = await open_service(tmp_path, clock)
        await start_rotation(service, clock)
        began = service.state.round
        everyone = service.ledger.everyone

        async def meanwhile() -> PeerBook:
            peers = await everyone()
            await service.change(lambda state: rotation.abort(state, clock()))
            await start_rotation(service, clock)
            return peers

        service.ledger.everyone = meanwhile  # type: ignore[method-assign]
        await upkeep_of(service).round()
        assert service.state.phase is Phase.PUBLISHING
        assert service.state.round > began

    run(main())


def test_a_step_that_another_leader_has_taken_meanwhile_is_not_followed_by_the_next_at_once(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        await found(tmp_path, clock)
        service = await open_service(tmp_path, clock)
        await start_rotation(service, clock)
        everyone = service.ledger.everyone

        async def meanwhile() -> PeerBook:
            peers = await everyone()
            await service.change(lambda state: rotation.advance(state, peers, clock()))
            return peers

        service.ledger.everyone = meanwhile  # type: ignore[method-assign]
        await upkeep_of(service).round()
        assert service.state.phase is Phase.SIGNING

    run(main())


def test_a_peer_that_is_gone_for_good_holds_a_rotation_up_until_its_certificate_ends(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        await found(tmp_path, clock)
        service = await open_service(tmp_path, clock)
        await enrol(service, instance="gone")
        await start_rotation(service, clock)
        leader = upkeep_of(service)
        clock.move(hours=23)
        await leader.round()
        assert service.state.phase is Phase.PUBLISHING
        clock.move(hours=2)
        await leader.round()
        assert service.state.phase is Phase.SIGNING

    run(main())


def test_who_waits_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    caplog.set_level(logging.INFO, "qbitel.certmgr")

    async def main() -> None:
        await found(tmp_path, clock)
        service = await open_service(tmp_path, clock)
        await enrol(service, instance="slow-pod")
        await start_rotation(service, clock)
        leader = upkeep_of(service)
        clock.move(minutes=2)
        for _ in range(3):
            await leader.round()

    run(main())
    (line,) = [record.getMessage() for record in caplog.records if "rotation waits" in record.getMessage()]
    assert "slow-pod" in line


def test_revocation_lists_are_renewed_before_they_go_out_of_use(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        await found(tmp_path, clock)
        service = await open_service(tmp_path, clock)
        leader = upkeep_of(service)
        await leader.round()
        first = service.bundle()
        for _ in range(12):
            clock.move(minutes=10)
            await leader.round()
            for one in service.state.crls:
                end = x509.load_pem_x509_crl(one).next_update_utc
                assert end is not None
                assert end > clock()
        assert service.bundle().etag != first.etag
        assert service.bundle().anchors == first.anchors

    run(main())


def test_an_intermediate_is_replaced_before_its_end_and_signs_from_then_on(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        await found(tmp_path, clock)
        service = await open_service(tmp_path, clock)
        first = service.state.current.issuer.certificate
        clock.move(days=200)
        await upkeep_of(service).round()
        assert service.state.current.issuer.certificate == first
        clock.move(days=100)
        await upkeep_of(service).round()
        assert service.state.current.issuer.certificate != first
        issued = await service.issue(proven(), csr(), instance="", anchors="", kem_public_key=None)
        assert issued.certificate.issuer == service.state.current.issuer.certificate.subject
        assert service.state.current.issuer.certificate.subject != first.subject

    run(main())


def test_without_the_lead_nothing_is_done_and_a_store_that_is_away_is_only_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    asked: list[bool] = []

    async def main() -> None:
        await found(tmp_path, clock)
        service = await open_service(tmp_path, clock)

        async def away(_transform: Any) -> bool:
            raise StoreUnavailable("the store is away")

        monkeypatch.setattr(service, "change", away)
        is_leader = iter([False, True, True])

        def lead() -> bool:
            leads = next(is_leader, None)
            if leads is None:
                running.cancel()
                return False
            asked.append(leads)
            return leads

        running = asyncio.create_task(Upkeep(service, clock, lead, pause=0.0).run())
        await asyncio.wait([running])

    run(main())
    assert asked == [False, True, True]
    assert [record.getMessage() for record in caplog.records if "the store is away" in record.getMessage()] == [
        "the authority cannot be kept up, what there is stays in use: the store is away"
    ]
