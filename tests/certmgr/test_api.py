"""The API over real TLS: what is granted, what each bad request gets, and that nobody else notices."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey

from certmgr import limits
from certmgr.limits import Gate
from certmgr.parts import Bundle
from certmgr.proofs import Method
from tests.certmgr.api_rig import Answer, Rig, make_csr, rig, run, stamp, until
from tests.certmgr.stand_in import workload_id

WEB = str(workload_id("web"))
HEAD = b"POST /v1/certificates HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer web\r\n"


def issued(made: Rig, method: str) -> float:
    return made.count("qbitel_certmgr_csr_total", result="issued", method=method)


def refused(made: Rig, result: str, method: str) -> float:
    return made.count("qbitel_certmgr_csr_total", result=result, method=method)


def leaf(answer: Answer) -> x509.Certificate:
    return x509.load_pem_x509_certificates(answer.json["certificate"].encode())[0]


# What is granted


def test_a_token_is_answered_with_a_certificate_of_its_identity():
    async def main():
        async with rig() as made:
            key = MLDSA87PrivateKey.generate()
            body = {"csr": make_csr(key), "instance": "ignored", "anchors": "ab", "time": stamp()}
            answer = await made.certificate(body, token="web")
            assert answer.status == 201
            assert answer.headers["Content-Type"] == "application/json"
            found = leaf(answer)
            assert found.public_key() == key.public_key()
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.UniformResourceIdentifier) == [WEB]
            said = answer.json
            assert said["identity"] == WEB
            assert said["generation"] == made.service.bundle().generation
            assert said["not_after"] == found.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
            assert said["not_before"] == found.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
            assert said["bundle"]["etag"] == made.service.bundle().etag
            assert said["bundle"]["files"]["ca.crt"].startswith("-----BEGIN CERTIFICATE-----")
            (asked,) = made.service.asked
            assert (asked["instance"], asked["anchors"]) == ("pod-of-web", "ab")
            assert issued(made, "token") == 1
            assert made.count("qbitel_certmgr_issuance_seconds_count") == 1

    run(main())


def test_a_certificate_renews_itself_with_its_dns_names():
    async def main():
        async with rig() as made:
            web = made.service.workload("web", dns_names=("web.shop.svc",))
            answer = await made.certificate({"csr": make_csr(), "instance": "pod-1"}, workload=web)
            assert answer.status == 201
            names = leaf(answer).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.UniformResourceIdentifier) == [WEB]
            assert names.get_values_for_type(x509.DNSName) == ["web.shop.svc"]
            (asked,) = made.service.asked
            assert asked["instance"] == "pod-1"
            assert asked["proven"].method is Method.CERTIFICATE
            assert issued(made, "certificate") == 1

    run(main())


def test_a_bootstrap_token_enrols_once():
    async def main():
        async with rig() as made:
            first, second = [await made.certificate(bootstrap="b" * 40) for _ in range(2)]
            assert first.status == 201
            assert first.json["identity"] == str(workload_id("machine"))
            assert second.error == (401, "bootstrap_refused")
            assert issued(made, "bootstrap") == 1
            assert refused(made, "bootstrap_refused", "bootstrap") == 1

    run(main())


def test_one_connection_carries_any_number_of_requests():
    async def main():
        async with rig() as made:
            client = made.client()
            names = [f"web-{number}" for number in range(20)]
            answers = [await made.certificate(token=name, client=client) for name in names]
            assert [answer.json["identity"] for answer in answers] == [str(workload_id(name)) for name in names]
            assert len(made.anonymous) == 1

    run(main())


def test_an_acknowledgement_needs_a_certificate():
    async def main():
        async with rig() as made:
            web = made.service.workload("web")
            body = {"anchors": "ab", "instance": "pod-1"}
            assert (await made.ask("POST", "/v1/acknowledgements", workload=web, body=body)).status == 204
            assert made.service.acknowledged == [(WEB, "pod-1", "ab")]
            for proof in ({}, {"token": "web"}):
                answer = await made.ask("POST", "/v1/acknowledgements", body=body, **proof)
                assert answer.error == (401, "no_proof")
            assert (await made.ask("POST", "/v1/acknowledgements", workload=web, body={})).error == (400, "bad_request")
            assert len(made.service.acknowledged) == 1
            assert made.count("qbitel_certmgr_requests_refused_total", reason="no_proof") == 2

    run(main())


# What is refused: each with a clear answer and a count, and a healthy request beside it


async def refusal_beside_a_healthy_request(made: Rig, body: object, **proof: object) -> Answer:
    client = made.client()
    healthy = asyncio.create_task(made.certificate(token="healthy"))
    answer = await made.certificate(body, client=client, **proof)
    assert (await healthy).status == 201
    assert set(answer.json) >= {"error", "message", "time"}
    return answer


@pytest.mark.parametrize(
    ("body", "token", "status", "slug"),
    [
        ({"csr": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"}, "web", 400, "csr_malformed"),
        (b"{", "web", 400, "bad_request"),
        (b"x" * 10_000_000, "web", 413, "too_large"),
        (None, "expired", 401, "token_expired"),
        (None, "audience", 401, "token_audience"),
        (None, "", 401, "no_proof"),
    ],
)
def test_a_bad_request_is_refused_counted_and_written_down(body, token, status, slug):
    async def main():
        async with rig() as made:
            answer = await refusal_beside_a_healthy_request(made, body, token=token)
            assert answer.error == (status, slug)
            assert refused(made, slug, "token" if token else "none") == 1
            assert issued(made, "token") == 1
            await until(lambda: bool(made.service.journal))
            assert made.service.journal == [(slug, "token" if token else "none", "127.0.0.1")]
            if status == 401:
                assert answer.headers["WWW-Authenticate"] == "Bearer, Bootstrap"

    run(main())


def test_a_clock_an_hour_off_is_answered_with_both():
    async def main():
        async with rig() as made:
            for seconds in (3600, -3600):
                time = stamp(seconds)
                answer = await refusal_beside_a_healthy_request(made, {"csr": make_csr(), "time": time}, token="web")
                assert answer.error == (400, "clock_skew")
                assert answer.json["your_time"] == time
                assert answer.json["time"] in answer.json["message"]
            assert refused(made, "clock_skew", "token") == 2

    run(main())


def test_a_clock_that_is_wrong_does_not_cost_a_bootstrap_token():
    async def main():
        async with rig() as made:
            wrong = {"csr": make_csr(), "time": stamp(3600)}
            assert (await made.certificate(wrong, bootstrap="b" * 40)).error == (400, "clock_skew")
            assert (await made.certificate(bootstrap="b" * 40)).status == 201

    run(main())


def test_a_body_that_grows_beyond_the_limit_is_refused_while_it_is_read():
    async def main():
        async with rig() as made:

            async def endless():
                for _ in range(10_000):
                    yield b" " * 1024

            answer = await refusal_beside_a_healthy_request(made, endless(), token="web")
            assert answer.error == (413, "too_large")

    run(main())


def test_a_slow_body_is_given_up_and_its_connection_closed():
    async def main():
        async with rig(body_seconds=0.2) as made:
            reader, writer = await made.raw()
            writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
            assert (await made.certificate(token="healthy")).status == 201
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408 ")
            assert b"Connection: close" in head
            assert json.loads(body)["error"] == "too_slow"
            assert "1 bytes came" in json.loads(body)["message"]
            assert refused(made, "too_slow", "token") == 1

    run(main())


def test_a_certificate_that_was_revoked_after_its_handshake_does_not_renew():
    async def main():
        async with rig() as made:
            web = made.service.workload("web")
            client = made.client(web)
            assert (await made.certificate(client=client)).status == 201
            made.service.revoke(web.certificate)
            answer = await made.certificate(client=client)
            assert answer.error == (403, "revoked")
            assert (await made.certificate(token="healthy")).status == 201
            assert refused(made, "revoked", "certificate") == 1

    run(main())


def test_without_the_store_nothing_is_issued_and_the_asker_comes_again(caplog):
    async def main():
        async with rig() as made:
            made.service.unavailable = "/srv/ca/authority.state: the disk is full"
            answer = await made.certificate(token="web")
            assert answer.error == (503, "authority_unavailable")
            assert answer.headers["Retry-After"] == "10"
            assert "/srv/ca" not in answer.json["message"]  # whoever asks learns nothing of what is behind
            await until(lambda: "/srv/ca/authority.state: the disk is full" in caplog.text)
            made.service.unavailable = ""
            assert (await made.certificate(token="web")).status == 201

    run(main())


def test_more_requests_than_the_authority_can_take_are_asked_to_come_again():
    async def main():
        async with rig(issuing=Gate(3, "requests for certificates")) as made:
            made.service.hold = asyncio.Event()
            waiting = [asyncio.create_task(made.certificate(token=f"web-{number}")) for number in range(3)]
            await until(lambda: made.tokens.asked == 3)
            answer = await made.certificate(token="late")
            assert answer.error == (429, "too_many")
            assert answer.headers["Retry-After"] == str(limits.BUSY_RETRY_SECONDS)
            made.service.hold.set()
            assert [(await one).status for one in waiting] == [201] * 3
            assert (await made.certificate(token="late")).status == 201

    run(main())


def test_a_bug_of_ours_is_an_answer_and_a_line_with_a_traceback(caplog):
    async def main():
        async with rig() as made:

            async def broken(*_arguments, **_options):
                raise ZeroDivisionError

            made.service.issue = broken
            answer = await made.certificate(token="web")
            assert answer.error == (500, "internal")
            assert "ZeroDivisionError" not in answer.json["message"]

    run(main())
    assert "a bug of ours failed a request of 127.0.0.1" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/v1/certificates", 405), ("POST", "/v1/bundle", 405)]
)
def test_a_request_that_the_api_does_not_have_is_refused_in_its_form(method, path, status):
    async def main():
        async with rig() as made:
            answer = await made.ask(method, path)
            assert answer.error == (status, "bad_request")
            assert ("Allow" in answer.headers) == (status == 405)

    run(main())


def test_bytes_that_are_no_http_are_a_400_in_our_form_and_no_traceback(caplog):
    garbage = (
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/bundle HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/certificates HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /v1/bundle HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /v1/bundle HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    )

    async def main():
        async with rig() as made:
            for bad in garbage:
                reader, writer = await made.raw()
                writer.write(bad)
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                assert b" 400 " in head.partition(b"\r\n")[0], bad[:80]
                assert json.loads(body)["error"] == "bad_request"
            assert (await made.certificate(token="healthy")).status == 201
            assert made.count("qbitel_certmgr_requests_refused_total", reason="bad_request") == len(garbage)

    with caplog.at_level(logging.DEBUG):
        run(main())
    assert not any(record.exc_info for record in caplog.records)
    assert not any(record.levelno >= logging.ERROR for record in caplog.records)


def test_a_chunked_body_that_is_none_is_refused_without_a_traceback(caplog):
    async def main():
        async with rig() as made:
            reader, writer = await made.raw()
            writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
            assert b" 400 " in (await reader.read()).partition(b"\r\n")[0]

    run(main())
    assert not any(record.exc_info for record in caplog.records)


def test_a_client_that_leaves_in_the_middle_of_a_body_leaves_no_traceback(caplog):
    async def main():
        async with rig() as made:
            _, writer = await made.raw()
            writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
            await until(lambda: len(made.anonymous) == 1)
            writer.transport.abort()
            await until(lambda: len(made.anonymous) == 0)
            assert (await made.certificate(token="healthy")).status == 201

    run(main())
    assert not any(record.exc_info for record in caplog.records)


def test_a_client_that_leaves_while_its_certificate_is_made_leaves_no_traceback(caplog):
    async def main():
        async with rig() as made:
            made.service.hold = asyncio.Event()
            _, writer = await made.raw()
            body = json.dumps({"csr": make_csr()}).encode()
            writer.write(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await until(lambda: made.tokens.asked == 1)
            writer.transport.abort()
            await until(lambda: len(made.anonymous) == 0)
            made.service.hold.set()
            await until(lambda: issued(made, "token") == 1)

    run(main())
    assert not any(record.exc_info for record in caplog.records)


def test_answers_do_not_say_what_they_are_made_with():
    async def main():
        async with rig() as made:
            for path in ("/v1/bundle", "/nowhere"):
                headers = (await made.ask("GET", path)).headers
                assert headers["Server"] == "qbitel"
                assert headers["Cache-Control"] == "no-store"

    run(main())


# What is public


def test_the_bundle_is_for_everybody_and_says_who_signs():
    async def main():
        async with rig() as made:
            answer = await made.ask("GET", "/v1/bundle")
            bundle: Bundle = made.service.bundle()
            assert answer.status == 200
            assert answer.headers["ETag"] == f'"{bundle.etag}"'
            said = answer.json
            assert {name: text.encode() for name, text in said["files"].items()} == dict(bundle.files)
            assert (said["anchors"], said["etag"], said["generation"]) == (
                bundle.anchors,
                bundle.etag,
                bundle.generation,
            )
            assert said["time"].endswith("Z")

    run(main())


def test_a_bundle_that_is_known_is_not_sent_again():
    async def main():
        async with rig() as made:
            etag = made.service.bundle().etag
            for known in (f'"{etag}"', f'W/"{etag}"', f'"other", "{etag}"', "*"):
                answer = await made.ask("GET", "/v1/bundle", headers={"If-None-Match": known})
                assert (answer.status, answer.body) == (304, b"")
            for unknown in ('"other"', etag, ""):
                answer = await made.ask("GET", "/v1/bundle", headers={"If-None-Match": unknown})
                assert answer.status == 200

    run(main())


def poll(made: Rig, wait: object = 60) -> asyncio.Task[Answer]:
    headers = {"If-None-Match": f'"{made.service.bundle().etag}"', "Prefer": f"wait={wait}"}
    return asyncio.create_task(made.ask("GET", "/v1/bundle", headers=headers))


def test_who_waits_for_a_change_gets_it_at_once():
    async def main():
        async with rig() as made:
            waiting = [poll(made) for _ in range(5)]
            await until(lambda: made.api.polls == 5)
            made.service.revoke(made.service.workload("web").certificate)
            answers = await asyncio.gather(*waiting)
            assert {answer.json["etag"] for answer in answers} == {made.service.bundle().etag}
            assert (await made.ask("GET", "/v1/crl")).body == made.service.bundle().files["crl.pem"]
            assert made.api.polls == 0

    run(main())


def test_who_waits_for_a_change_that_does_not_come_is_told_so():
    async def main():
        async with rig() as made:
            assert (await poll(made, wait=1)).status == 304

    run(main())


@pytest.mark.parametrize("preference", ["wait=0", "wait=-1", "wait=x", "wait", "respond-async", "wait=123456", ""])
def test_who_does_not_say_how_long_does_not_wait(preference):
    async def main():
        async with rig() as made:
            headers = {"If-None-Match": f'"{made.service.bundle().etag}"', "Prefer": preference}
            assert (await made.ask("GET", "/v1/bundle", headers=headers)).status == 304

    run(main())


def test_more_who_wait_than_there_is_room_for_come_again_later():
    async def main():
        async with rig(max_polls=2) as made:
            waiting = [poll(made, wait='"60"; x=y, other') for _ in range(2)]
            await until(lambda: made.api.polls == 2)
            answer = await poll(made)
            assert answer.status == 304
            assert answer.headers["Retry-After"] == str(limits.POLL_RETRY_SECONDS)
            made.api.drain()
            assert [(await one).status for one in waiting] == [304, 304]

    run(main())


def test_who_stops_waiting_makes_room():
    async def main():
        async with rig(max_polls=1) as made:
            _, writer = await made.raw()
            etag = made.service.bundle().etag
            writer.write(
                f'GET /v1/bundle HTTP/1.1\r\nHost: a\r\nIf-None-Match: "{etag}"\r\nPrefer: wait=60\r\n\r\n'.encode()
            )
            await until(lambda: made.api.polls == 1)
            writer.transport.abort()
            await until(lambda: made.api.polls == 0)

    run(main())


def test_draining_ends_the_waiting_and_closes_behind_each_answer():
    async def main():
        async with rig() as made:
            waiting = poll(made)
            await until(lambda: made.api.polls == 1)
            made.api.drain()
            assert (await waiting).headers["Connection"] == "close"
            after = await poll(made)
            assert (after.status, after.headers["Connection"]) == (304, "close")

    run(main())
