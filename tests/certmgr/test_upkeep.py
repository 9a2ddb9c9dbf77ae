"""What the leader does: a rotation of the root with real certificates, lists and intermediates that are due."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from certmgr import rotation
from certmgr.founding import make_generation
from certmgr.service import AuthorityService
from certmgr.state import Phase
from certmgr.store import StoreUnavailable
from certmgr.upkeep import Upkeep
from tests.certmgr.authority_rig import Clock, csr, enrol, found, open_service, proven, run


def upkeep_of(service: AuthorityService) -> Upkeep:
    return Upkeep(service, service.now, lambda: True)


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
        import asyncio

        await found(tmp_path, clock)
        service = await open_service(tmp_path, clock)
        monkeypatch.setattr("certmgr.upkeep.PAUSE", 0.001)

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

        running = asyncio.create_task(Upkeep(service, clock, lead).run())
        await asyncio.wait([running])

    run(main())
    assert asked == [False, True, True]
    assert [record.getMessage() for record in caplog.records if "the store is away" in record.getMessage()] == [
        "the authority cannot be kept up, what there is stays in use: the store is away"
    ]
