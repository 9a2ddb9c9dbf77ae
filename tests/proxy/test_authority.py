"""The client of the API against a real server: what it asks, and what it makes of every kind of answer."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import json

import pytest
from aiohttp import web

from mesh.errors import UserError
from pqtls import PROFILES, ClientConfig, Credential, TrustAnchors
from proxy import authority as under_test
from proxy import authority_connection
from proxy.answers import AuthorityFailed, Failure
from proxy.authority import AuthorityClient
from proxy.config import Endpoint
from proxy.enrolment import make_request
from proxy.identity import IdentityRule
from tests.proxy.little_authority import DOMAIN, Generation, LittleAuthority, refusal, utc_now

AUTHORITY = f"spiffe://{DOMAIN}/ns/qbitel-system/sa/qbitel-certmgr"


@pytest.fixture
def authority():
    with LittleAuthority().running() as running:
        yield running


def client_of(authority: LittleAuthority, *, port: int | None = None, trusted: Generation | None = None):
    generation = trusted or authority.generations[0]
    trust = TrustAnchors.from_pem(generation.root.certificate_pem)

    def config_for(credential: Credential | None) -> ClientConfig:
        return ClientConfig(
            credential=credential,
            trust=trust,
            now=utc_now,
            profiles=(PROFILES["qbitel"],),
            accept_identity=IdentityRule(frozenset({DOMAIN}), frozenset({AUTHORITY})),
        )

    return AuthorityClient(Endpoint("127.0.0.1", port or authority.port), config_for)


async def ask(client: AuthorityClient, request=None, **more):
    request = request or make_request()
    options = {"instance": "pod/0", "anchors": "", "now": utc_now(), "authorization": "Bearer web-token"}
    return await client.request_certificate(request.csr, **{**options, **more})


def failure_of(run, coroutine) -> AuthorityFailed:
    with pytest.raises(AuthorityFailed) as failed:
        run(coroutine)
    assert len(str(failed.value).splitlines()) == 1
    return failed.value


def test_a_token_and_then_the_certificate_that_came_prove_who_we_are(run, authority):
    client = client_of(authority)
    request = make_request()

    async def main():
        issued = await ask(client, request)
        credential = Credential.from_pem(issued.chain, request.private_key)
        again = await ask(client, credential=credential, authorization="", anchors="roots")
        await client.acknowledge("roots", instance="pod/0", credential=credential)
        await client.close()
        return issued, again

    issued, again = run(main())
    assert issued.generation == again.generation == "first"
    assert issued.published.etag == authority.etag
    first, second = authority.asked
    assert first["proof"] == "Bearer web-token"
    assert first["instance"] == "pod/0"
    assert "anchors" not in first
    assert abs(datetime.datetime.fromisoformat(first["time"]) - utc_now()) < datetime.timedelta(minutes=1)
    assert second["proof"] == f"spiffe://{DOMAIN}/ns/default/sa/web"
    assert second["anchors"] == "roots"
    assert authority.acknowledged == [(second["proof"], "pod/0", "roots")]


def test_news_comes_when_there_is_some_over_one_connection(run, authority):
    client = client_of(authority)

    async def main():
        published = (await client.next_bundle("", None)).published
        assert published is not None
        connections = authority.connections
        for _ in range(3):
            waiting = asyncio.create_task(client.next_bundle(published.etag, None))
            polls = authority.polls
            while authority.polls == polls:
                await asyncio.sleep(0.01)
            assert not waiting.done()
            authority.revoked.append(authority.generations[0].root.certificate)
            authority.publish()
            news = await waiting
            assert news.published is not None
            assert news.published.etag != published.etag
            published = news.published
        await client.close()
        return published, authority.connections - connections

    published, connections = run(main())
    assert connections == 0, "each question was a handshake"
    assert published.trust.anchors().intermediates == (authority.generations[0].intermediate.certificate,)


def test_news_and_acknowledgements_share_a_connection_that_shows_the_present_certificate(run, authority):
    """What is acknowledged is acknowledged for the certificate that was shown."""
    client = client_of(authority)

    async def main():
        credentials = []
        for _ in range(2):
            request = make_request()
            credentials.append(Credential.from_pem((await ask(client, request)).chain, request.private_key))
        before, connections = authority.connections, []
        for credential in (*credentials, None):
            for _ in range(2):
                await client.next_bundle("", credential)
                if credential is not None:
                    await client.acknowledge("roots", instance="pod/0", credential=credential)
            connections.append(authority.connections - before)
        await client.close()
        return connections, [credential.chain[0] for credential in credentials]

    connections, leaves = run(main())
    assert connections == [1, 2, 3]
    assert authority.polled_with == [leaf for leaf in (*leaves, b"") for _ in range(2)]


def test_no_news_is_an_answer_and_may_ask_for_a_pause(run, authority):
    client = client_of(authority)
    authority.broken = lambda _path, _answer: web.Response(status=304, headers={"Retry-After": "30"})

    async def main():
        news = await client.next_bundle("known", None)
        await client.close()
        return news

    news = run(main())
    assert (news.published, news.pause) == (None, 30.0)


def test_nobody_there_is_unreachable(run, authority, application):
    port = application.getsockname()[1]
    application.close()
    failed = failure_of(run, ask(client_of(authority, port=port)))
    assert failed.failure is Failure.UNREACHABLE
    assert str(failed) == f"the authority 127.0.0.1:{port} cannot be reached: Connection refused"


def test_a_server_that_says_nothing_is_unreachable(run, authority, application, monkeypatch):
    monkeypatch.setattr(under_test, "_REQUEST_TIMEOUT", 0.3)
    failed = failure_of(run, ask(client_of(authority, port=application.getsockname()[1])))
    assert failed.failure is Failure.UNREACHABLE
    assert "does not answer in time" in str(failed)


def test_a_server_of_another_root_is_not_the_authority(run, authority):
    failed = failure_of(run, ask(client_of(authority, trusted=Generation("other"))))
    assert failed.failure is Failure.INVALID
    assert "is not the one that we know" in str(failed)
    assert authority.asked == [], "it got the token"


def test_a_workload_in_the_authoritys_place_is_not_the_authority(run, authority):
    authority.server_identity = f"spiffe://{DOMAIN}/ns/default/sa/thief"
    failed = failure_of(run, ask(client_of(authority)))
    assert failed.failure is Failure.INVALID
    assert "thief" in str(failed)
    assert authority.asked == [], "it got the token"


def test_a_certificate_that_the_authority_does_not_take_is_told_from_other_refusals(run, authority):
    client, request = client_of(authority), make_request()
    issued = run(ask(client, request))
    credential = Credential.from_pem(issued.chain, request.private_key)
    authority.revoked.append(pki_certificate(issued.chain))
    failed = failure_of(run, ask(client, credential=credential, authorization=""))
    assert (failed.failure, failed.of_certificate) == (Failure.REFUSED, True)
    assert "certificate_revoked" in str(failed)


def pki_certificate(chain: bytes):
    from cryptography import x509

    return x509.load_pem_x509_certificates(chain)[0]


def test_a_refusal_is_one_line_with_its_reason(run, authority):
    failed = failure_of(run, ask(client_of(authority), authorization="Bearer wrong"))
    assert (failed.failure, failed.of_certificate) == (Failure.REFUSED, False)
    assert str(failed).endswith("answers no_proof: prove who you are")


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_asks_to_come_again_is_no_refusal(run, authority, status):
    authority.broken = lambda _path, _answer: refusal(status, "busy", "later\nor never\x1b[2J", **{"Retry-After": "7"})
    failed = failure_of(run, ask(client_of(authority)))
    assert (failed.failure, failed.retry_after) == (Failure.UNREACHABLE, 7.0)
    assert "\x1b" not in str(failed)


def without(member: str):
    def change(_path, answer):
        document = json.loads(answer.body)
        del document[member]
        return web.json_response(document, status=answer.status)

    return change


@pytest.mark.parametrize(
    "broken",
    [
        lambda _path, _answer: web.Response(status=201, body=b"hello"),
        lambda _path, _answer: web.Response(status=201, body=b"[" * 100_000),
        lambda _path, _answer: web.Response(status=201, body=b'"text"'),
        lambda _path, _answer: web.Response(status=201, body=b'{"certificate": "c", "generation": "g", "bundle": "e"}'),
        lambda _path, _answer: web.Response(status=201, body='{"certificate": "ä"}'.encode()),
        lambda _path, _answer: web.Response(
            status=201, body=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}
        ),
        without("certificate"),
        without("generation"),
        without("bundle"),
    ],
)
def test_an_answer_of_another_form_is_of_no_use(run, authority, broken):
    authority.broken = broken
    assert failure_of(run, ask(client_of(authority))).failure is Failure.INVALID


def test_an_answer_without_end_is_given_up(run, authority, monkeypatch):
    monkeypatch.setattr(authority_connection, "MAX_ANSWER", 1 << 20)
    authority.broken = lambda _path, _answer: web.Response(status=201, body=b" " * (5 << 20))
    failed = failure_of(run, ask(client_of(authority)))
    assert failed.failure is Failure.INVALID
    assert "more than 1 MiB" in str(failed)


def test_a_redirection_is_not_followed(run, authority, application):
    elsewhere = f"http://127.0.0.1:{application.getsockname()[1]}/"
    authority.broken = lambda _path, _answer: web.Response(status=307, headers={"Location": elsewhere})
    failed = failure_of(run, ask(client_of(authority)))
    assert failed.failure is Failure.REFUSED
    assert "status 307" in str(failed)


def test_what_is_wrong_on_our_side_is_said(run, authority):
    def nothing_to_trust(_credential):
        raise UserError("ca.crt does not exist")

    failed = failure_of(run, ask(AuthorityClient(Endpoint("127.0.0.1", authority.port), nothing_to_trust)))
    assert "ca.crt does not exist" in str(failed)


def test_neither_key_nor_token_is_in_what_is_shown(authority):
    request = make_request()
    assert "PRIVATE" not in repr(request)


def test_a_connection_that_the_authority_closed_meanwhile_is_made_again_without_a_word(run, authority):
    client = client_of(authority)

    def hang_up(_path, answer):
        answer.force_close()
        return answer

    async def main():
        authority.broken = hang_up
        for _ in range(3):
            assert (await client.next_bundle("", None)).published is not None
        await client.close()

    run(main())
