"""The running authority on a real folder: who gets a certificate, what is written down, and what replicas share."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certmgr import peer_document, revocation, rotation
from certmgr.authority import WorkloadRequest, spiffe_id_of
from certmgr.files import read_authority
from certmgr.folder_store import FolderStore
from certmgr.founding import make_generation
from certmgr.proofs import Method, ProvenIdentity, Reason, Refused
from certmgr.requests import CheckedRequest
from certmgr.service import AuthorityService
from certmgr.state_document import decode_state, encode_state
from certmgr.store import AUTHORITY_DOCUMENT, StoreUnavailable
from certmgr.tokens import add_token
from mesh.errors import UserError
from mesh.spiffe import SpiffeId
from pqtls import PROFILES, TrustAnchors
from pqtls.certificates import Purpose, validate_chain
from tests.certmgr.authority_rig import TRUST_DOMAIN, Clock, csr, enrol, found, open_service, proven, run


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "audit.log").read_text().splitlines()]


def accepts(service: AuthorityService, chain_pem: bytes, clock: Clock) -> str:
    """The identity that a peer finds which holds what is published, and nothing else."""
    files = service.bundle().files
    trust = TrustAnchors.from_pem(files["ca.crt"], intermediates=files["intermediates.crt"], crls=files["crl.pem"])
    leaf = x509.load_pem_x509_certificates(chain_pem)[0].public_bytes(Encoding.DER)
    validated = validate_chain((leaf,), trust, Purpose.SERVER, clock(), PROFILES["qbitel"].signature_schemes)
    trust.check_revocation(validated.path_ids, validated.identity, clock())
    return validated.identity


def refusal(work: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        run(work)
    return caught.value


async def opened(folder: Path, clock: Clock, **parts: Any) -> AuthorityService:
    await found(folder, clock)
    return await open_service(folder, clock, **parts)


def test_a_peer_gets_a_certificate_of_its_proof_s_identity_that_every_peer_accepts(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        service = await opened(tmp_path, clock)
        key = MLDSA87PrivateKey.generate()
        issued = await service.issue(
            proven(dns_names=("web.shop.svc",)), csr(key), instance="pod-1", anchors="", kem_public_key=None
        )
        assert issued.certificate.public_key() == key.public_key()
        assert accepts(service, issued.certificate_pem, clock) == f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/web"
        assert issued.generation == service.bundle().generation
        names = issued.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["web.shop.svc"]
        assert len(x509.load_pem_x509_certificates(issued.certificate_pem)) == 2  # the intermediate follows

    run(main())


def test_a_key_for_sealing_is_certified_beside_it(tmp_path: Path) -> None:
    async def main() -> None:
        service = await opened(tmp_path, Clock())
        key = MLKEM1024PrivateKey.generate().public_key()
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        issued = await enrol(service, kem_public_key=pem)
        assert issued.kem_certificate_pem is not None
        kem = x509.load_pem_x509_certificate(issued.kem_certificate_pem)
        assert kem.public_key() == key
        assert spiffe_id_of(kem) == spiffe_id_of(issued.certificate)

    run(main())


@pytest.mark.parametrize("pem", [b"", b"x", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_for_sealing_is_refused(tmp_path: Path, pem: bytes) -> None:
    service = run(opened(tmp_path, Clock()))

    assert refusal(enrol(service, kem_public_key=pem)).reason is Reason.BAD_REQUEST


def test_the_authority_s_own_identity_and_those_of_other_domains_are_given_to_nobody(tmp_path: Path) -> None:
    service = run(opened(tmp_path, Clock()))
    own = proven()
    own = type(own)(spiffe_id=SpiffeId.of_authority(TRUST_DOMAIN), method=Method.TOKEN)

    for who, reason in (
        (own, Reason.RESERVED_IDENTITY),
        (proven(trust_domain="elsewhere.example"), Reason.FOREIGN_TRUST_DOMAIN),
    ):
        refused = refusal(service.issue(who, csr(), instance="", anchors="", kem_public_key=None))
        assert refused.reason is reason
        assert refused.identity == who.spiffe_id
    with pytest.raises(UserError, match="trust domain"):
        key = MLDSA87PrivateKey.generate().public_key()
        request = WorkloadRequest(spiffe_id=SpiffeId.for_service_account("a", "b", "elsewhere.example"))
        run(service.certify(request, key, ""))


def test_a_peer_and_its_certificate_are_written_down_before_it_gets_it(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        service = await opened(tmp_path, clock)
        issued = await enrol(service)
        stored = await FolderStore(tmp_path).load("peers-one")
        assert stored is not None
        (peer,) = peer_document.decode(stored.document)
        serial = f"{issued.certificate.serial_number:x}"
        assert (peer.instance, peer.serial, peer.shown) == ("pod-1", serial, False)
        (entry,) = journal(tmp_path)
        assert (entry["event"], entry["serial"], entry["method"]) == ("issued", serial, "token")

    run(main())


def test_nobody_gets_a_certificate_that_cannot_be_written_into_the_audit_log(tmp_path: Path) -> None:
    class Full:
        async def append(self, _entry: object) -> None:
            raise StoreUnavailable("the disk is full")

    service = run(opened(tmp_path, Clock(), journal=Full()))

    with pytest.raises(StoreUnavailable, match="full"):
        run(enrol(service))


def test_many_at_once_are_all_written_down_with_a_few_writes(tmp_path: Path) -> None:
    async def main() -> None:
        service = await opened(tmp_path, Clock())
        saved = 0
        save = service.parts.store.save

        async def counting(name: str, document: bytes, expected: str | None) -> str:
            nonlocal saved
            saved += 1
            return await save(name, document, expected)

        service.parts.store.save = counting  # type: ignore[method-assign]
        await asyncio.gather(*(enrol(service, instance=f"pod-{number}") for number in range(40)))
        assert len(await service.ledger.everyone()) == 40
        assert saved < 40

    run(main())


def test_a_restart_remembers_who_has_a_certificate(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        service = await opened(tmp_path, clock)
        await enrol(service, instance="pod-1")
        again = await open_service(tmp_path, clock)
        await enrol(again, instance="pod-2")
        assert {peer.instance for peer in await again.ledger.everyone()} == {"pod-1", "pod-2"}

    run(main())


def test_peers_of_all_replicas_are_known_to_each(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        one = await opened(tmp_path, clock)
        two = await open_service(tmp_path, clock, "two")
        await asyncio.gather(*(enrol(service, instance=f"{service.parts.replica}") for service in (one, two)))
        for service in (one, two):
            assert {peer.instance for peer in await service.ledger.everyone()} == {"one", "two"}

    run(main())


def test_what_is_acknowledged_counts_for_the_present_round_at_whichever_replica_it_is_said(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        one = await opened(tmp_path, clock)
        two = await open_service(tmp_path, clock, "two")
        issued = await enrol(one)
        who = (str(proven().spiffe_id), "pod-1")
        serial = f"{issued.certificate.serial_number:x}"

        async def known() -> tuple[int, bool]:
            (peer,) = await one.ledger.everyone()
            return peer.acknowledged, peer.shown

        old = one.bundle().anchors
        new = make_generation("CN=Next", clock())
        await one.change(lambda state: rotation.start(state, new, clock()))
        assert two.bundle().anchors == old  # it has not heard of it
        await one.acknowledge(*who, old, serial)
        assert await known() == (0, True)  # it is another round's
        await two.acknowledge(*who, one.bundle().anchors, serial)
        assert await known() == (one.state.round, True)
        renewed = await one.issue(proven(), csr(), instance="pod-1", anchors=old, kem_public_key=None, shown=serial)
        in_use = {peer.serial: peer.acknowledged for peer in (await two.ledger.everyone()).in_use(clock())}
        assert in_use == {serial: one.state.round, f"{renewed.certificate.serial_number:x}": 0}

    run(main())


def test_a_certificate_takes_the_place_of_the_one_that_it_was_asked_for_with_at_another_replica(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        one = await opened(tmp_path, clock)
        two = await open_service(tmp_path, clock, "two")
        first = await enrol(one)
        second = await enrol(two, shown=f"{first.certificate.serial_number:x}")
        serial = f"{second.certificate.serial_number:x}"
        await one.acknowledge(str(proven().spiffe_id), "pod-1", one.bundle().anchors, serial)
        for service in (one, two):
            assert [peer.serial for peer in (await service.ledger.everyone()).in_use(clock())] == [serial]

    run(main())


@pytest.mark.parametrize("by", ["an acknowledgement", "a renewal"])
def test_two_processes_of_one_name_are_seen_when_the_older_one_comes_back_and_both_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    clock = Clock()

    async def main() -> None:
        service = await opened(tmp_path, clock)
        identity, anchors = str(proven().spiffe_id), service.bundle().anchors
        serials = [f"{(await enrol(service)).certificate.serial_number:x}" for _ in range(2)]
        for serial in serials:
            await service.acknowledge(identity, "pod-1", anchors, serial)
        assert {peer.serial for peer in (await service.ledger.everyone()).in_use(clock())} == {serials[1]}
        assert caplog.records == []

        if by == "a renewal":
            await enrol(service, shown=serials[0])
        else:
            await service.acknowledge(identity, "pod-1", anchors, serials[0])
        peers = await service.ledger.everyone()
        assert {peer.serial for peer in peers.in_use(clock())} >= set(serials)
        assert peers.contested(clock()) == {(identity, "pod-1")}
        assert "two processes have the name 'pod-1'" in caplog.text
        await service.acknowledge(identity, "pod-1", anchors, serials[0])
        assert caplog.text.count("two processes") == 1

    run(main())


def test_what_is_acknowledged_again_is_not_written_again(tmp_path: Path) -> None:
    async def main() -> None:
        service = await opened(tmp_path, Clock())
        await enrol(service)
        store = FolderStore(tmp_path)
        versions = []
        for _ in range(3):
            await service.acknowledge(str(proven().spiffe_id), "pod-1", service.bundle().anchors)
            versions.append((await store.versions())["peers-one"])
        assert len(set(versions)) == 1

    run(main())


def test_an_acknowledgement_of_somebody_unknown_is_refused(tmp_path: Path) -> None:
    service = run(opened(tmp_path, Clock()))

    assert refusal(service.acknowledge("spiffe://cluster.local/ns/a/sa/b", "x", "ab")).reason is Reason.NOT_ENTITLED


def test_a_revocation_by_somebody_else_is_published_at_once_and_excludes_its_peer(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        service = await opened(tmp_path, clock)
        issued, other = await enrol(service), await enrol(service, "other")
        running = asyncio.create_task(service.run())
        before = service.bundle()
        published = asyncio.create_task(service.next_bundle(before.etag))
        store = FolderStore(tmp_path)
        stored = await store.load(AUTHORITY_DOCUMENT)
        assert stored is not None
        revoked = revocation.revoke(decode_state(stored.document), issued.certificate, clock())
        await store.save(AUTHORITY_DOCUMENT, encode_state(revoked), stored.version)
        assert (await published).etag != before.etag
        assert service.is_revoked(issued.certificate)
        assert not service.is_revoked(other.certificate)
        with pytest.raises(Exception, match="revoked"):
            accepts(service, issued.certificate_pem, clock)
        assert accepts(service, other.certificate_pem, clock).endswith("/other")
        running.cancel()
        await asyncio.wait([running])

    run(main())


def test_a_bootstrap_token_is_good_for_one_key_at_all_replicas(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        one = await opened(tmp_path, clock)
        until = clock.time.replace(hour=13)
        await one.change(
            lambda state: add_token(state, "t" * 43, proven("machine").spiffe_id, ("db.example",), until, clock())
        )
        two = await open_service(tmp_path, clock, "two")

        async def redeem(service: AuthorityService, key: MLDSA87PrivateKey) -> ProvenIdentity:
            return await service.redeem("t" * 43, lambda _proven: CheckedRequest(key.public_key()))

        keys = [MLDSA87PrivateKey.generate() for _ in range(4)]
        outcomes = await asyncio.gather(
            *(redeem(service, key) for service, key in zip((one, two, one, two), keys, strict=True)),
            return_exceptions=True,
        )
        ((redeemed, key),) = [
            (each, key) for each, key in zip(outcomes, keys, strict=True) if not isinstance(each, BaseException)
        ]
        assert (redeemed.spiffe_id, redeemed.dns_names) == (proven("machine").spiffe_id, ("db.example",))
        refused = [each for each in outcomes if isinstance(each, Refused)]
        assert [each.reason for each in refused] == [Reason.BOOTSTRAP_REFUSED] * 3
        # Whose answer was lost asks again, wherever it comes to.
        assert await redeem(one, key) == await redeem(two, key) == redeemed
        with pytest.raises(Refused):
            await redeem(two, MLDSA87PrivateKey.generate())

    run(main())


def test_a_refusal_is_written_into_the_audit_log(tmp_path: Path) -> None:
    service = run(opened(tmp_path, Clock()))
    refused = Refused(Reason.CSR_KEY, "an RSA key", identity=proven().spiffe_id)

    run(service.note_refusal(refused, method=Method.TOKEN, source="192.0.2.1:5"))

    (entry,) = journal(tmp_path)
    assert (entry["event"], entry["reason"], entry["source"]) == ("refused", "csr_key", "192.0.2.1:5")
    assert entry["identity"] == str(proven().spiffe_id)


def test_the_api_s_own_certificate_stays_the_same_until_half_of_its_life_is_over(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        service = await opened(tmp_path, clock)
        first = service.own_credential()
        clock.move(hours=11)
        assert service.own_credential() == first
        clock.move(hours=2)
        chain, _ = service.own_credential()
        assert chain != first[0]
        assert spiffe_id_of(x509.load_pem_x509_certificates(chain)[0]) == SpiffeId.of_authority(TRUST_DOMAIN)

    run(main())


def test_a_store_without_an_authority_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="qbitel ca init"):
        run(open_service(tmp_path, Clock()))
    with pytest.raises(UserError):
        read_authority(tmp_path)


def test_a_state_that_has_gone_stops_issuing_until_it_is_back(tmp_path: Path) -> None:
    clock = Clock()

    async def main() -> None:
        service = await opened(tmp_path, clock)
        file = tmp_path / "authority.state"
        file.rename(tmp_path / "aside")
        with pytest.raises(StoreUnavailable, match="restore it"):
            await enrol(service)
        (tmp_path / "aside").rename(file)
        await enrol(service)

    run(main())
