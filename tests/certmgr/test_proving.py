"""Which proof counts, and what is wrong with those that do not."""

from __future__ import annotations

import asyncio
import datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certmgr.limits import Gate
from certmgr.proofs import MAX_TOKEN_SIZE, Method, ProvenIdentity, Reason, Refused
from certmgr.proving import Presented
from tests.certmgr.api_rig import Tokens
from tests.certmgr.stand_in import StandIn, utc_now, workload_id

WEB = str(workload_id("web"))


@pytest.fixture(scope="module")
def service() -> StandIn:
    return StandIn()


def any_request(_proven: ProvenIdentity) -> None:
    """No request is wrong."""


def prove(service: StandIn, presented: Presented, *, tokens: Tokens | None = None, gate: Gate | None = None):
    return asyncio.run(presented.prove(service, tokens or Tokens(), gate or Gate(1, "proofs"), utc_now, any_request))


def refusal(*authorization: str, identity: str = "") -> Refused:
    with pytest.raises(Refused) as refused:
        Presented(list(authorization), identity, b"")
    return refused.value


def shown(service: StandIn, name: str = "web", **request) -> Presented:
    """A certificate shown in a handshake, and nothing else."""
    certificate = service.workload(name, **request).certificate
    identity = str(request.get("spiffe_id", workload_id(name)))
    return Presented([], identity, certificate.public_bytes(Encoding.DER))


@pytest.mark.parametrize("header", ["Bearer web", "bearer web", "BEARER   web"])
def test_a_bearer_token_is_judged_by_the_verifier(service, header):
    proven = prove(service, Presented([header], "", b""))
    assert proven == ProvenIdentity(spiffe_id=workload_id("web"), method=Method.TOKEN, instance="pod-of-web")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", Reason.NO_PROOF),
        ("web", Reason.NO_PROOF),
        ("Basic d2ViOndlYg==", Reason.NO_PROOF),
        ("Bearer", Reason.NO_PROOF),
        ("Bearer ", Reason.NO_PROOF),
        ("Bearer a b", Reason.NO_PROOF),
        ("Bearer caf\u00e9", Reason.NO_PROOF),
        ("Bearer a\x00", Reason.NO_PROOF),
        ("Bearer " + "a" * (MAX_TOKEN_SIZE + 1), Reason.TOKEN_MALFORMED),
    ],
)
def test_a_header_that_is_no_proof_is_refused_and_its_token_not_repeated(header, reason):
    refused = refusal(header)
    assert refused.reason is reason
    assert "aaaa" not in str(refused)


def test_nothing_at_all_is_told_what_would_do():
    refused = refusal()
    assert refused.reason is Reason.NO_PROOF
    for word in ("Bearer", "Bootstrap", "certificate"):
        assert word in str(refused)


def test_two_headers_are_refused_and_none_is_chosen():
    assert refusal("Bearer web", "Bearer web").reason is Reason.BAD_REQUEST


def test_a_token_beside_a_certificate_of_the_same_identity_counts(service):
    assert prove(service, Presented(["Bearer web"], WEB, b"")).method is Method.TOKEN


def test_a_token_beside_a_certificate_of_another_identity_is_refused(service):
    with pytest.raises(Refused, match="show one of them") as refused:
        prove(service, Presented(["Bearer other"], WEB, b""))
    assert refused.value.reason is Reason.NOT_ENTITLED


def test_a_bootstrap_token_works_once(service):
    service.bootstrap["once"] = ProvenIdentity(spiffe_id=workload_id("machine"), method=Method.BOOTSTRAP)
    assert prove(service, Presented(["Bootstrap once"], "", b"")).spiffe_id == workload_id("machine")
    with pytest.raises(Refused) as refused:
        prove(service, Presented(["Bootstrap once"], "", b""))
    assert refused.value.reason is Reason.BOOTSTRAP_REFUSED


def test_a_bootstrap_token_is_not_spent_on_a_request_that_is_wrong(service):
    service.bootstrap["kept"] = ProvenIdentity(spiffe_id=workload_id("machine"), method=Method.BOOTSTRAP)

    def refuse(proven: ProvenIdentity) -> None:
        assert proven.spiffe_id == workload_id("machine")
        raise Refused(Reason.CSR_KEY, "Not this one.")

    with pytest.raises(Refused, match="Not this one"):
        asyncio.run(Presented(["Bootstrap kept"], "", b"").prove(service, Tokens(), Gate(1, "proofs"), utc_now, refuse))
    assert prove(service, Presented(["Bootstrap kept"], "", b"")).spiffe_id == workload_id("machine")


def test_a_bootstrap_token_is_not_spent_beside_a_certificate(service):
    service.bootstrap["kept"] = ProvenIdentity(spiffe_id=workload_id("machine"), method=Method.BOOTSTRAP)
    assert refusal("Bootstrap kept", identity=WEB).reason is Reason.BAD_REQUEST
    assert "kept" in service.bootstrap


def test_a_certificate_brings_its_identity_and_its_dns_names(service):
    proven = prove(service, shown(service, dns_names=("web.shop.svc",)))
    assert proven == ProvenIdentity(
        spiffe_id=workload_id("web"), method=Method.CERTIFICATE, dns_names=("web.shop.svc",)
    )


def test_a_certificate_that_was_revoked_since_its_handshake_is_refused(service):
    certificate = service.workload("stolen").certificate
    presented = Presented([], str(workload_id("stolen")), certificate.public_bytes(Encoding.DER))
    assert prove(service, presented).spiffe_id == workload_id("stolen")
    service.revoke(certificate)
    with pytest.raises(Refused) as refused:
        prove(service, presented)
    assert refused.value.reason is Reason.REVOKED
    assert refused.value.identity == workload_id("stolen")


def test_a_certificate_that_ended_since_its_handshake_is_refused(service):
    ended = shown(service, now=utc_now() - datetime.timedelta(hours=25))
    with pytest.raises(Refused, match="; our clock says") as refused:
        prove(service, ended)
    assert refused.value.reason is Reason.NO_PROOF


def test_an_identity_of_another_trust_domain_is_refused(service):
    with pytest.raises(Refused) as refused:
        prove(service, shown(service, spiffe_id=workload_id("web", "elsewhere.example")))
    assert refused.value.reason is Reason.FOREIGN_TRUST_DOMAIN


def test_a_certificate_without_a_spiffe_id_is_refused(service):
    with pytest.raises(Refused) as refused:
        prove(service, Presented([], "https://example.org/", b""))
    assert refused.value.reason is Reason.NOT_ENTITLED


def test_a_token_does_not_stand_in_for_a_certificate(service):
    with pytest.raises(Refused, match="only a certificate"):
        Presented(["Bearer web"], WEB, b"").prove_certificate(service, utc_now())


def test_a_verifier_that_hangs_is_given_up_and_gives_its_place_back(service, monkeypatch):
    monkeypatch.setattr("certmgr.proving.PROVING_SECONDS", 0.01)
    gate = Gate(1, "proofs")

    async def main():
        tokens = Tokens()
        tokens.hold = asyncio.Event()
        for _ in range(2):
            with pytest.raises(Refused) as refused:
                await Presented(["Bearer web"], "", b"").prove(service, tokens, gate, utc_now, any_request)
            assert refused.value.reason is Reason.VERIFIER_UNAVAILABLE
            assert refused.value.retry_after is not None

    asyncio.run(main())
    assert gate.inside == 0


def test_more_tokens_than_the_verifier_may_have_at_once_are_refused_and_certificates_are_not(service):
    async def main():
        tokens, gate = Tokens(), Gate(1, "proofs")
        tokens.hold = asyncio.Event()
        first = asyncio.create_task(
            Presented(["Bearer web"], "", b"").prove(service, tokens, gate, utc_now, any_request)
        )
        while not tokens.asked:
            await asyncio.sleep(0)
        with pytest.raises(Refused) as refused:
            await Presented(["Bearer other"], "", b"").prove(service, tokens, gate, utc_now, any_request)
        assert refused.value.reason is Reason.TOO_MANY
        assert (await shown(service).prove(service, tokens, gate, utc_now, any_request)).method is Method.CERTIFICATE
        tokens.hold.set()
        assert (await first).spiffe_id == workload_id("web")

    asyncio.run(main())
