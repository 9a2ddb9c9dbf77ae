"""Dialling the application from the address that interception lets through."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy.probes import dialling


def test_an_application_sees_the_address_that_the_rules_let_through(run, application):
    server = application(b"")

    async def main():
        async with dialling.dialled(server.host, server.port) as sock:
            return sock.getsockname()[0]

    assert run(main()) == "127.0.0.6"


def test_where_the_pod_has_not_got_that_address_it_is_dialled_all_the_same(run, application, monkeypatch):
    monkeypatch.setattr(dialling.names, "INBOUND_SOURCE_V6", "2001:db8::6")  # of nobody (RFC 3849)
    server = application(b"", family=socket.AF_INET6)

    async def main():
        async with dialling.dialled(server.host, server.port) as sock:
            return sock.getsockname()[0]

    assert run(main()) == "::1"


def test_a_dial_that_fails_or_is_given_up_leaves_no_descriptor(run, monkeypatch):
    made = []
    original = dialling.unconnected

    def watched(family):
        made.append(original(family))
        return made[-1]

    monkeypatch.setattr(dialling, "unconnected", watched)

    async def given_up(address):
        async with dialling.dialled(*address):
            await asyncio.get_running_loop().create_future()

    async def main():
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError):
                await given_up(server.getsockname())
            server.listen()
            dialler = asyncio.ensure_future(given_up(server.getsockname()))
            accepted, _ = await asyncio.to_thread(server.accept)
            accepted.close()
            dialler.cancel()
            await asyncio.wait([dialler])

    run(main())
    assert [sock.fileno() for sock in made] == [-1, -1]
