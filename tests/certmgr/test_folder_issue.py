"""A workload's folder out of a running authority, and what the authority knows of it."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import pytest

from certmgr import rotation
from certmgr.audit import file_journal
from certmgr.authority import WorkloadRequest
from certmgr.bundle import bundle_of
from certmgr.files import read_workload
from certmgr.folder_issue import instance_of, issue_into, lists_until
from certmgr.folder_store import FolderStore
from certmgr.founding import make_generation, new_state
from certmgr.parts import Parts
from certmgr.service import AuthorityService
from certmgr.state_document import encode_state
from certmgr.store import AUTHORITY_DOCUMENT
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

_WEB = WorkloadRequest(spiffe_id=SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/web"))


class Ticking:
    """A clock that goes on with each look."""

    def __init__(self, now: datetime.datetime) -> None:
        self.now = now

    def __call__(self) -> datetime.datetime:
        self.now += datetime.timedelta(microseconds=1)
        return self.now


async def service_in(folder: Path, clock: Ticking) -> AuthorityService:
    store = FolderStore(folder)
    await store.save(AUTHORITY_DOCUMENT, encode_state(new_state("CN=Root", "cluster.local", clock.now)), None)
    parts = Parts(store=store, journal=file_journal(folder / "audit.log"), replica="test")
    return await AuthorityService.open(parts, now=clock)


def test_the_authority_knows_the_holder_and_that_it_has_the_roots(tmp_path: Path, now: datetime.datetime) -> None:
    async def scenario() -> None:
        service = await service_in(tmp_path / "ca", Ticking(now))
        new = make_generation("CN=Next", now)
        await service.change(lambda state: rotation.start(state, new, now))
        written = await issue_into(tmp_path / "web", _WEB, service, "a-host")

        (peer,) = await service.ledger.everyone()
        assert (peer.identity, peer.instance) == (str(_WEB.spiffe_id), "a-host")
        assert written.bundle == service.bundle()
        assert peer.acknowledged == service.state.round > 0
        assert peer.shown
        workload = read_workload(tmp_path / "web")
        assert workload.credential == written.workload
        assert peer.serial == f"{workload.credential.certificate.serial_number:x}"
        assert workload.issuers == (service.state.signer.issuer.certificate,)

    asyncio.run(scenario())


def test_a_folder_that_could_not_be_written_has_acknowledged_nothing(tmp_path: Path, now: datetime.datetime) -> None:
    async def scenario() -> None:
        service = await service_in(tmp_path / "ca", Ticking(now))
        (tmp_path / "web" / "tls.key").mkdir(parents=True)
        with pytest.raises(UserError, match=r"tls\.key is a folder"):
            await issue_into(tmp_path / "web", _WEB, service, "a-host")

        (peer,) = await service.ledger.everyone()
        assert not peer.shown

    asyncio.run(scenario())


def test_a_folder_of_another_identity_costs_no_certificate(
    tmp_path: Path, workload_folder: Path, now: datetime.datetime
) -> None:
    other = WorkloadRequest(spiffe_id=SpiffeId.parse("spiffe://cluster.local/other"))

    async def scenario() -> None:
        service = await service_in(tmp_path / "authority", Ticking(now))
        with pytest.raises(UserError, match="belongs to"):
            await issue_into(workload_folder, other, service, "a-host")
        assert list(await service.ledger.everyone()) == []

    asyncio.run(scenario())


def test_lists_serve_until_a_day_after_the_next_ones_are_due(now: datetime.datetime) -> None:
    lists = bundle_of(new_state("CN=Root", "cluster.local", now)).files["crl.pem"]

    assert lists_until(lists) == now.replace(microsecond=0) + datetime.timedelta(hours=25)
    assert lists_until(b"") is None


def test_a_holder_is_called_by_its_folder_s_path(tmp_path: Path) -> None:
    assert instance_of(tmp_path / "web") == str(tmp_path / "web")
    assert instance_of(tmp_path / "x" / ".." / "web") == str(tmp_path / "web")
    assert instance_of(tmp_path, "host-7") == "host-7"


@pytest.mark.parametrize("name", ["with space", "z\u00f6e", "x" * 200, "a\nb", "\udcff"])
def test_a_path_that_is_no_name_is_hashed_and_a_name_that_is_none_is_refused(name: str) -> None:
    called = instance_of(Path("/") / name)
    assert called.startswith("folder-")
    assert called == instance_of(Path("/") / name) != instance_of(Path("/other") / name)
    with pytest.raises(UserError) as caught:
        instance_of(Path("/"), name)
    assert str(caught.value).isprintable()
