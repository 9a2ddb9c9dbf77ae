"""HTTP/1.1 with a server that says whatever a test wants it to: whole, cut, changed, too much, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aiotls
from mesh.errors import UserError
from pqtls import PROFILES, ClientConfig, TrustAnchors
from proxy.answers import Unusable
from proxy.authority_connection import AuthorityConnection, HttpAnswer, Lost
from proxy.config import Endpoint
from proxy.identity import IdentityRule
from tests.proxy.little_authority import DOMAIN, LittleAuthority, utc_now

AUTHORITY = f"spiffe://{DOMAIN}/ns/qbitel-system/sa/qbitel-certmgr"
ANSWER = b"HTTP/1.1 200 OK\r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nhello"


class Server:
    """Answers each request with the next of `answers`; None: it hangs up instead."""

    def __init__(self) -> None:
        self.answers: list[bytes | None] = []
        self.asked: list[bytes] = []
        self.connections = 0
        self.ends_after_answer = False

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line[16:]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0)
                self.asked.append(head + await reader.readexactly(length))
                answer = self.answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if self.ends_after_answer:
                    break
        writer.close()


@contextlib.asynccontextmanager
async def speaking(server: Server) -> AsyncIterator[AuthorityConnection]:
    identity = LittleAuthority()
    listener = await aiotls.start_server(server, "127.0.0.1", 0, identity._config, on_handshake_failure=lambda *_: None)
    trust = TrustAnchors.from_pem(identity.generations[0].root.certificate_pem)

    def config() -> ClientConfig:
        return ClientConfig(
            credential=None,
            trust=trust,
            now=utc_now,
            profiles=(PROFILES["qbitel"],),
            accept_identity=IdentityRule(frozenset({DOMAIN}), frozenset({AUTHORITY})),
        )

    connection = AuthorityConnection(Endpoint("127.0.0.1", listener.sockets[0].getsockname()[1]), config)
    try:
        yield connection
    finally:
        await connection.aclose()
        listener.close()
        listener.abort_clients()


async def ask(connection: AuthorityConnection, **headers: str) -> HttpAnswer:
    return await connection.exchange("POST", "/v1/certificates", headers, b'{"csr": 1}')


def test_requests_follow_one_another_on_one_connection(run):
    async def main():
        server = Server()
        server.answers = [ANSWER, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"]
        async with speaking(server) as connection:
            assert connection.is_reusable
            first = await ask(connection, Authorization="Bearer x")
            assert connection.is_reusable
            second = await connection.exchange("GET", "/v1/bundle", {}, None)
        return server, first, second

    server, first, second = run(main())
    assert (first, second) == (HttpAnswer(200, 7.0, b"hello"), HttpAnswer(204, None, b""))
    assert server.connections == 1
    assert b"\r\nAuthorization: Bearer x\r\n" in server.asked[0]
    assert server.asked[0].endswith(b'\r\n\r\n{"csr": 1}')
    assert server.asked[1].startswith(b"GET /v1/bundle HTTP/1.1\r\n")


def test_one_that_the_server_ends_is_not_used_again(run):
    async def main():
        server = Server()
        server.answers, server.ends_after_answer = [ANSWER], True
        async with speaking(server) as connection:
            await ask(connection)
            async with asyncio.timeout(30):
                while connection.is_reusable:
                    await asyncio.sleep(0.01)
            assert connection.has_answered
            with pytest.raises((Lost, OSError)):
                await ask(connection)

    run(main())


def test_a_server_that_hangs_up_without_a_word_is_told_from_one_that_breaks_off(run):
    async def main():
        server = Server()
        server.answers, server.ends_after_answer = [None], True
        async with speaking(server) as connection:
            with pytest.raises(Lost):
                await ask(connection)
        server.answers = [ANSWER[:-1]]
        async with speaking(server) as connection:
            with pytest.raises(h11.RemoteProtocolError):
                await ask(connection)
            assert not connection.is_reusable

    run(main())


def test_a_request_that_is_cancelled_leaves_no_answer_behind_for_the_next(run):
    async def main():
        server = Server()
        server.answers = [b""]  # it does not answer
        async with speaking(server) as connection:
            asking = asyncio.ensure_future(ask(connection))
            async with asyncio.timeout(30):
                while not server.asked:
                    await asyncio.sleep(0.01)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert not connection.is_reusable

    run(main())


def test_a_head_without_end_is_given_up(run):
    async def main():
        server = Server()
        server.answers = [b"HTTP/1.1 200 OK\r\nX: " + bytes([120]) * (1 << 20)]
        async with speaking(server) as connection:
            with pytest.raises((h11.RemoteProtocolError, Unusable)):
                await ask(connection)

    run(main())


def test_a_token_that_is_none_is_in_no_message(run):
    async def main():
        async with speaking(Server()) as connection:
            with pytest.raises(UserError) as refused:
                await ask(connection, Authorization="Bearer se\ncret")
        return refused.value

    refused = run(main())
    assert "cret" not in str(refused)
    assert refused.__cause__ is None


def told(run, answer: bytes) -> None:
    """Whatever comes is an answer or one of the errors that are promised."""

    async def main():
        server = Server()
        server.answers, server.ends_after_answer = [answer], True
        async with speaking(server) as connection:
            with contextlib.suppress(Lost, h11.RemoteProtocolError, Unusable, OSError):
                found = await ask(connection)
                assert isinstance(found.content, bytes)

    run(main())


@pytest.mark.parametrize("size", range(0, len(ANSWER), 3))
def test_an_answer_that_is_cut_anywhere_is_none(run, size):
    async def main():
        server = Server()
        server.answers, server.ends_after_answer = [ANSWER[:size]], True
        async with speaking(server) as connection:
            with pytest.raises((Lost, h11.RemoteProtocolError)):
                await ask(connection)

    run(main())


@pytest.mark.parametrize("place", range(0, len(ANSWER), 7))
def test_an_answer_that_is_changed_anywhere_harms_nothing(run, place):
    changed = bytearray(ANSWER)
    changed[place] ^= 0x15
    told(run, bytes(changed))


@settings(max_examples=15)
@given(garbage=st.binary(max_size=200))
def test_garbage_harms_nothing(garbage):
    from proxy import loop

    told(loop.run, garbage)
