"""The bad input that an authority must bear, sent to the real one over real TLS: each gets a clear answer and a count,
stands in the audit log, and disturbs nobody.
"""

from __future__ import annotations

import asyncio
import datetime
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certmgr import barring, revocation, tokens
from certmgr.state_document import decode_state, encode_state
from cli.ca.command import main as command
from tests.certmgr.api_rig import Answer, Rig, make_csr, rig, run, stamp, until
from tests.certmgr.real_authority import audit_log, running
from tests.certmgr.stand_in import utc_now, workload_id

WEB = str(workload_id("web"))
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def in_front_of_the_real_one(folder: Path, test: Any, **options: Any) -> None:
    """Run `test` with a rig whose authority is real."""

    async def main() -> None:
        async with running(folder) as service, rig(service, **options) as made:
            await test(made)

    run(main())


async def refusal(folder: Path) -> dict[str, Any]:
    """The first refusal in the audit log, once it is there."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [entry for entry in audit_log(folder) if entry["event"] == "refused"]
        return bool(found)

    await until(is_there)
    return found[0]


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
        entry = await refusal(tmp_path)
        assert (entry["reason"], entry["method"], entry["source"]) == (slug, "token", "127.0.0.1")

    in_front_of_the_real_one(tmp_path, test)


@pytest.mark.parametrize(
    ("body", "token", "status", "slug"),
    [
        (lambda: b" " * 10_000_000, "web", 413, "too_large"),
        (lambda: {"csr": make_csr(), "time": stamp(3600)}, "web", 400, "clock_skew"),
        (lambda: {"csr": make_csr(), "time": stamp(-3600)}, "web", 400, "clock_skew"),
        (lambda: None, "expired", 401, "token_expired"),
        (lambda: None, "audience", 401, "token_audience"),
        (lambda: None, "", 401, "no_proof"),
    ],
)
def test_a_body_of_ten_megabytes_a_wrong_clock_and_wrong_tokens(tmp_path, body, token, status, slug):
    async def test(made: Rig) -> None:
        sent = body()
        healthy = asyncio.create_task(made.certificate(token="healthy"))
        answer = await made.certificate(sent, token=token)
        assert answer.error == (status, slug)
        if slug == "clock_skew":
            assert answer.json["your_time"] == sent["time"]
            assert {answer.json["your_time"], answer.json["time"]} <= set(re.findall(TIME, answer.json["message"]))
        assert (await healthy).status == 201
        method = "token" if token else "none"
        assert made.count("qbitel_certmgr_csr_total", result=slug, method=method) == 1
        assert (await refusal(tmp_path))["reason"] == slug

    in_front_of_the_real_one(tmp_path, test)


def test_a_slow_body(tmp_path):
    async def test(made: Rig) -> None:
        reader, writer = await made.raw()
        writer.write(
            b"POST /v1/certificates HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer web\r\nContent-Length: 9\r\n\r\n{"
        )
        assert (await made.certificate(token="healthy")).status == 201
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")  # and the connection's end
        assert made.count("qbitel_certmgr_csr_total", result="too_slow", method="token") == 1
        assert (await refusal(tmp_path))["reason"] == "too_slow"

    in_front_of_the_real_one(tmp_path, test, body_seconds=0.2)


def test_who_is_barred_gets_nothing_by_any_proof_until_that_is_lifted(tmp_path):
    async def test(made: Rig) -> None:
        web, identity = await enrol(made), workload_id("web")
        token, until_then = "t" * 40, utc_now() + datetime.timedelta(hours=1)
        change = made.service.change
        await change(lambda state: tokens.add_token(state, token, identity, (), until_then, utc_now()))
        await change(lambda state: barring.bar(state, identity, utc_now()))
        assert (await made.certificate(token="web")).error == (403, "barred")
        assert (await made.certificate(workload=web)).error == (403, "barred")  # not revoked, and yet
        assert (await made.certificate(bootstrap=token)).error == (401, "bootstrap_refused")
        for method in ("token", "certificate"):
            assert made.count("qbitel_certmgr_csr_total", result="barred", method=method) == 1
        entry = await refusal(tmp_path)
        assert (entry["reason"], entry["identity"]) == ("barred", WEB)
        assert (await made.certificate(token="healthy")).status == 201
        await change(lambda state: barring.lift(state, identity))
        assert (await made.certificate(token="web")).status == 201
        assert (await made.certificate(workload=web)).status == 201

    in_front_of_the_real_one(tmp_path, test)


def test_a_bar_that_another_process_sets_while_a_certificate_is_made_keeps_it_back(tmp_path):
    async def test(made: Rig) -> None:
        store, identity = made.service.parts.store, workload_id("web")
        record = made.service.ledger.record

        async def record_and_be_overtaken(peer: Any) -> None:
            stored = await store.load("authority")
            barred = barring.bar(decode_state(stored.document), identity, utc_now())
            await store.save("authority", encode_state(barred), stored.version)
            await record(peer)

        made.service.ledger.record = record_and_be_overtaken
        assert (await made.certificate(token="web")).error == (403, "barred")

    in_front_of_the_real_one(tmp_path, test)


def test_of_an_identity_that_is_revoked_while_it_asks_all_the_time_nothing_slips_between(tmp_path):
    """The command works on the folder beside the server, as an operator's does."""

    async def test(made: Rig) -> None:
        issued: list[x509.Certificate] = []
        ended = asyncio.Event()

        async def keep_asking() -> None:
            client = made.client()
            while True:
                answer = await made.certificate(client=client, token="web")
                if answer.status != 201:
                    assert answer.error == (403, "barred")
                    return
                issued.append(x509.load_pem_x509_certificates(answer.json["certificate"].encode())[0])
                if len(issued) >= 10:
                    ended.set()

        asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
        await ended.wait()
        assert await asyncio.to_thread(command, ["revoke", str(tmp_path), "--spiffe", WEB]) == 0
        await asyncio.gather(*asking)
        stored = await made.service.parts.store.load("authority")
        state = decode_state(stored.document)
        assert len(issued) >= 10
        assert [one for one in issued if not revocation.is_revoked(state, one)] == []

    in_front_of_the_real_one(tmp_path, test)


def test_an_intermediate_that_is_revoked_while_a_certificate_is_made_has_not_signed_it(tmp_path):
    async def test(made: Rig) -> None:
        store, record, calls = made.service.parts.store, made.service.ledger.record, []

        async def record_and_be_overtaken(peer: Any) -> None:
            if not calls:
                stored = await store.load("authority")
                state = decode_state(stored.document)
                state = revocation.revoke(state, state.signer.issuer.certificate, utc_now())
                await store.save("authority", encode_state(state), stored.version)
            calls.append(peer)
            await record(peer)

        before = made.service.state.signer.issuer.certificate
        made.service.ledger.record = record_and_be_overtaken
        answer = await made.certificate(token="web")
        leaf, issuer = x509.load_pem_x509_certificates(answer.json["certificate"].encode())
        assert len(calls) == 2
        assert issuer == made.service.state.signer.issuer.certificate != before
        leaf.verify_directly_issued_by(issuer)

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
        await store.save("authority", encode_state(state), stored.version)
        answer = await waiting
        assert answer.status == 200
        end = "-----END X509 CRL-----\n"
        lists = [
            x509.load_pem_x509_crl((one + end).encode()) for one in answer.json["files"]["crl.pem"].split(end)[:-1]
        ]
        serial = web.certificate.serial_number
        assert any(one.get_revoked_certificate_by_serial_number(serial) is not None for one in lists)

    in_front_of_the_real_one(tmp_path, test)


def test_of_many_who_come_with_one_bootstrap_token_at_the_same_moment_one_gets_a_certificate(tmp_path):
    async def test(made: Rig) -> None:
        token, until_then = "t" * 40, utc_now() + datetime.timedelta(hours=1)
        await made.service.change(
            lambda state: tokens.add_token(state, token, workload_id("machine"), (), until_then, utc_now())
        )
        bodies = [{"csr": make_csr()} for _ in range(12)]
        answers = await asyncio.gather(*(made.certificate(body, bootstrap=token) for body in bodies))
        assert sorted(answer.status for answer in answers) == [201] + [401] * 11
        assert [entry["event"] for entry in audit_log(tmp_path)].count("issued") == 1

    in_front_of_the_real_one(tmp_path, test)


POST = b"POST /v1/certificates HTTP/1.1\r\nHost: a\r\n"
HIDDEN = b"GET /v1/crl HTTP/1.1\r\nHost: a\r\n\r\n"
# What one reader takes for one request and another for two (RFC 9112 §11.2), and what none should take for any.
ODDITIES = {
    "two ways of saying where the body ends": POST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\n",
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\n",
    "a length beyond all numbers": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "an encoding that nobody knows": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "an encoding twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 0\r\n\r\n",
    "a folded header": POST + b"X: a\r\n b\r\n\r\n",
    "a zero byte": POST + b"X: a\0b\r\n\r\n",
    "lines without CR": b"GET /v1/crl HTTP/1.1\nHost: a\n\n",
    "too many headers": POST + b"".join(b"x%d: y\r\n" % number for number in range(100)) + b"\r\n",
    "a header of a megabyte": POST + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


def test_a_request_that_could_be_read_in_two_ways_is_refused_once_and_ends_its_connection(tmp_path):
    async def test(made: Rig) -> None:
        for oddity, request in ODDITIES.items():
            reader, writer = await made.raw()
            writer.write(request + HIDDEN)
            answer = await reader.read()
            assert answer.count(b"\r\n\r\n") == 1, oddity
            assert b" 400 Bad Request\r\n" in answer, oddity
            assert b'"bad_request"' in answer, oddity
        assert made.count("qbitel_certmgr_requests_refused_total", reason="bad_request") == len(ODDITIES)
        assert (await made.certificate(token="healthy")).status == 201

    in_front_of_the_real_one(tmp_path, test)
