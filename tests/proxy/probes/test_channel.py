"""Classical TLS in memory, against OpenSSL at the other end."""

from __future__ import annotations

import contextlib
import os
import ssl

import pytest

from proxy.probes.channel import PlainChannel, TlsChannel
from proxy.probes.dialling import dialled

LARGE = bytes(range(256)) * 4096  # one MiB


async def everything(channel) -> bytes:
    received = []
    while data := await channel.receive():
        received.append(data)
    return b"".join(received)


def echo(_, sock):
    """Send back as much as LARGE, with a close_notify where it is TLS."""
    left = len(LARGE)
    while left:
        data = sock.recv(65536)
        sock.sendall(data)
        left -= len(data)
    if isinstance(sock, ssl.SSLSocket):
        with contextlib.suppress(OSError):
            sock.unwrap()


@pytest.mark.parametrize("version", [None, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_large_message_goes_and_comes_back(run, application, classical_tls, version):
    if version is not None:
        classical_tls.minimum_version = classical_tls.maximum_version = version
    server = application(echo, context=classical_tls if version else None)

    async def main():
        async with dialled(server.host, server.port) as sock:
            channel = TlsChannel(sock) if version else PlainChannel(sock)
            received = b""
            for start in range(0, len(LARGE), 65536):
                await channel.send(LARGE[start : start + 65536])
                while len(received) < start + 65536:
                    received += await channel.receive()
            return received, await everything(channel)

    assert run(main()) == (LARGE, b"")


def test_an_end_without_close_notify_is_an_end(run, application, classical_tls):
    def abrupt(_, sock):
        sock.recv(100)
        sock.sendall(b"all there is")
        os.close(sock.detach())

    server = application(abrupt, context=classical_tls)

    async def main():
        async with dialled(server.host, server.port) as sock:
            channel = TlsChannel(sock)
            await channel.send(b"hello")
            return await everything(channel)

    assert run(main()) == b"all there is"


def test_whoever_speaks_no_tls_is_an_error(run, application):
    def plain(_, sock):
        sock.recv(100)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = application(plain)

    async def main():
        async with dialled(server.host, server.port) as sock:
            with pytest.raises(ssl.SSLError):
                await TlsChannel(sock).send(b"hello")

    run(main())
