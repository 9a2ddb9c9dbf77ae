"""The bad input that an authority must bear, sent to the real one over real TLS: each gets a clear answer and a count,
stands in the audit log, and disturbs nobody.
"""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certmgr import revocation, tokens
from tests.certmgr.api_rig import Answer, Rig, make_csr, rig, run, stamp, until
from tests.certmgr.real_authority import audit_log, running
from tests.certmgr.stand_in import utc_now, workload_id

WEB = str(workload_id("web"))


def in_front_of_the_real_one(folder: Path, test: Any) -> None:
    """Run `test` with a rig whose authority is real."""

    async def main() -> None:
        async with running(folder) as service, rig(service) as made:
            await test(made)

    run(main())


def credential(key: MLDSA87PrivateKey, answer: Answer) -> Any:
    """The workload that an answer makes of its key: what Rig.config() takes."""
    chain = answer.json["certificate"].encode()
    return SimpleNamespace(
        certificate=x509.load_pem_x509_certificates(chain)[0],
        certificate_pem=chain,
        private_key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


async def enrol(made: Rig, name: str = "web") -> Any:
    """A workload with a certificate of the authority's."""
    key = MLDSA87PrivateKey.generate()
    answer = await made.certificate({"csr": make_csr(key), "instance": "pod-1"}, token=name)
    assert answer.status == 201, answer.body
    return credential(key, answer)


def rsa_csr() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def csr_of_another_key() -> str:
    """A CSR whose signature is another request's."""
    first, second = (x509.load_pem_x509_csr(make_csr().encode()) for _ in range(2))
    der = first.public_bytes(Encoding.DER).replace(first.signature, second.signature)
    return x509.load_der_x509_csr(der).public_bytes(Encoding.PEM).decode()


def csr_of_another_identity() -> str:
    return make_csr(None, x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(workload_id("admin")))]))


@pytest.mark.parametrize(
    ("csr", "slug", "status"),
    [
        (lambda: "no PEM at all", "csr_malformed", 400),
        (lambda: make_csr()[:-200], "csr_malformed", 400),
        (csr_of_another_key, "csr_signature", 400),
        (rsa_csr, "csr_key", 400),
        (csr_of_another_identity, "not_entitled", 403),
    ],
)
def test_a_csr_that_is_wrong(tmp_path, csr, slug, status):
    async def test(made: Rig) -> None:
        wrong = csr()
        healthy = asyncio.create_task(made.certificate(token="healthy"))
        assert (await made.certificate({"csr": wrong}, token="web")).error == (status, slug)
        assert (await healthy).status == 201
        assert made.count("qbitel_certmgr_csr_total", result=slug, method="token") == 1
        await until(lambda: any(entry["event"] == "refused" for entry in audit_log(tmp_path)))
        (entry,) = (entry for entry in audit_log(tmp_path) if entry["event"] == "refused")
        assert (entry["reason"], entry["method"], entry["source"]) == (slug, "token", "127.0.0.1")

    in_front_of_the_real_one(tmp_path, test)


def test_a_body_of_ten_megabytes_a_wrong_clock_and_wrong_tokens(tmp_path):
    async def test(made: Rig) -> None:
        refused = [
            await made.certificate(b" " * 10_000_000, token="web"),
            await made.certificate({"csr": make_csr(), "time": stamp(3600)}, token="web"),
            await made.certificate(token="expired"),
            await made.certificate(token="audience"),
            await made.certificate(),
        ]
        assert [answer.error for answer in refused] == [
            (413, "too_large"), (400, "clock_skew"), (401, "token_expired"), (401, "token_audience"), (401, "no_proof"),
        ]  # fmt: skip
        assert (await made.certificate(token="healthy")).status == 201

    in_front_of_the_real_one(tmp_path, test)


def test_a_revoked_certificate_renews_neither_on_an_open_connection_nor_on_a_new_one(tmp_path):
    async def test(made: Rig) -> None:
        web = await enrol(made)
        client = made.client(web)
        assert (await made.certificate(client=client)).status == 201
        await made.service.change(lambda state: revocation.revoke(state, web.certificate, utc_now()))
        assert (await made.certificate(client=client)).error == (403, "revoked")
        assert made.count("qbitel_certmgr_csr_total", result="revoked", method="certificate") == 1
        with pytest.raises(Exception, match=r".*"):  # the kind depends on when the alert comes: while or before asking
            await made.certificate(workload=web)
        await until(lambda: made.count("qbitel_certmgr_tls_failures_total", reason="revoked") == 1)
        assert (await made.certificate(token="healthy")).status == 201

    in_front_of_the_real_one(tmp_path, test)


def test_what_is_asked_with_each_proof_is_granted_and_written_down(tmp_path):
    async def test(made: Rig) -> None:
        web = await enrol(made)
        renewed = await made.certificate({"csr": make_csr(), "instance": "pod-1"}, workload=web)
        assert renewed.json["identity"] == WEB
        anchors = renewed.json["bundle"]["anchors"]
        body = {"anchors": anchors, "instance": "pod-of-web"}
        assert (await made.ask("POST", "/v1/acknowledgements", workload=web, body=body)).status == 204
        token, until_then = "t" * 40, utc_now() + datetime.timedelta(hours=1)
        await made.service.change(
            lambda state: tokens.add_token(state, token, workload_id("machine"), (), until_then, utc_now())
        )
        assert (await made.certificate(bootstrap=token)).json["identity"] == str(workload_id("machine"))
        assert (await made.certificate(bootstrap=token)).error == (401, "bootstrap_refused")
        issued = [(entry["identity"], entry["method"]) for entry in audit_log(tmp_path) if entry["event"] == "issued"]
        assert issued == [(WEB, "token"), (WEB, "certificate"), (str(workload_id("machine")), "bootstrap")]

    in_front_of_the_real_one(tmp_path, test)


def test_a_bootstrap_token_outlives_a_csr_that_is_wrong(tmp_path):
    async def test(made: Rig) -> None:
        token, until_then = "t" * 40, utc_now() + datetime.timedelta(hours=1)
        await made.service.change(
            lambda state: tokens.add_token(state, token, workload_id("machine"), (), until_then, utc_now())
        )
        for wrong in ("no PEM at all", rsa_csr(), csr_of_another_identity()):
            answer = await made.certificate({"csr": wrong}, bootstrap=token)
            assert answer.status in (400, 403)
        assert (await made.certificate(bootstrap=token)).status == 201

    in_front_of_the_real_one(tmp_path, test)


def test_the_authority_s_own_identity_is_nobody_s(tmp_path):
    async def test(made: Rig) -> None:
        chain, key = made.service.own_credential()
        own = SimpleNamespace(certificate_pem=chain, private_key_pem=key)
        assert (await made.certificate(workload=own)).error == (403, "reserved_identity")

    in_front_of_the_real_one(tmp_path, test)


def test_who_waits_hears_of_a_change_that_another_process_made(tmp_path):
    async def test(made: Rig) -> None:
        web = await enrol(made)
        headers = {"If-None-Match": f'"{made.service.bundle().etag}"', "Prefer": "wait=60"}
        waiting = asyncio.create_task(made.ask("GET", "/v1/bundle", headers=headers))
        await until(lambda: made.api.polls == 1)
        store = made.service.parts.store
        stored = await store.load("authority")
        state = revocation.revoke(made.service.state, web.certificate, utc_now())
        await store.save("authority", state.encode(), stored.version)
        answer = await waiting
        assert answer.status == 200
        end = "-----END X509 CRL-----\n"
        lists = [
            x509.load_pem_x509_crl((one + end).encode()) for one in answer.json["files"]["crl.pem"].split(end)[:-1]
        ]
        serial = web.certificate.serial_number
        assert any(one.get_revoked_certificate_by_serial_number(serial) is not None for one in lists)

    in_front_of_the_real_one(tmp_path, test)
