"""Clients of an authority's API: a process of them, with keys and CSRs that were made before the clock runs.

A client is a plain HTTP/1.1 exchange over aiotls, so that little of what is measured is its own.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import aiotls
from pqtls import PROFILES, ChainCache, ClientConfig, Credential, TrustAnchors

_HOST: Final = "127.0.0.1"


@dataclass(frozen=True)
class Target:
    """Where the API is, and the root that it is known by."""

    port: int
    roots: bytes

    def config(self, credential: Credential | None = None) -> ClientConfig:
        """For connections that show `credential`, or nothing. The authority's chain is verified once."""
        return ClientConfig(
            credential=credential,
            trust=TrustAnchors.from_pem(self.roots),
            now=lambda: datetime.datetime.now(datetime.UTC),
            profiles=(PROFILES["qbitel"],),
            chain_cache=ChainCache(8),
        )


class KeyAndBody:
    """A private key, and the body of the request for its certificate."""

    def __init__(self) -> None:
        self.key = MLDSA87PrivateKey.generate()
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(self.key, None)
        self.body = json.dumps({"csr": csr.public_bytes(Encoding.PEM).decode()}).encode()

    def request(self, token: str = "") -> bytes:
        """The bytes of POST /v1/certificates."""
        proof = f"Authorization: Bearer {token}\r\n" if token else ""
        head = f"POST /v1/certificates HTTP/1.1\r\nHost: a\r\n{proof}Content-Length: {len(self.body)}\r\n\r\n"
        return head.encode() + self.body

    def credential(self, answer: bytes) -> Credential:
        """What the answer makes of the key."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Credential.from_pem(json.loads(answer)["certificate"].encode(), key)


class Connection:
    """One connection, for one request or for many."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, config: ClientConfig) -> Connection:
        """Connect and shake hands."""
        return cls(*await aiotls.open_connection(_HOST, port, config, limit=1 << 20))

    async def ask(self, request: bytes) -> bytes:
        """Return the body of a 201; come again when the authority says so. RuntimeError for any other answer."""
        while True:
            self._writer.write(request)
            head = await self._reader.readuntil(b"\r\n\r\n")
            body = await self._reader.readexactly(_number(head, b"content-length"))
            if head.startswith(b"HTTP/1.1 201"):
                return body
            if not head.startswith(b"HTTP/1.1 429"):
                raise RuntimeError(f"the authority answers {head[:20]!r} {body[:200]!r}")
            await asyncio.sleep(_number(head, b"retry-after"))

    async def close(self) -> None:
        """Close in order, and see it through."""
        self._writer.close()
        await self._writer.wait_closed()


def _number(head: bytes, name: bytes) -> int:
    """The value of a header."""
    return int(head.lower().partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0])


@dataclass(frozen=True)
class Taken:
    """How long requests took, in seconds, and all of them together."""

    latencies: list[float]
    elapsed: float

    @property
    def rate(self) -> float:
        """A second."""
        return len(self.latencies) / self.elapsed

    def percentile(self, percent: int) -> float:
        """In milliseconds."""
        return statistics.quantiles(self.latencies, n=100)[percent - 1] * 1e3


# Makes the request of this number, from connecting (where it connects) to the certificate.
Ask = Callable[[int], Awaitable[object]]


async def closed_loop(ask: Ask, count: int, concurrency: int) -> Taken:
    """As fast as it goes: each of `concurrency` clients asks again as soon as it has its answer."""
    numbers = iter(range(count))
    latencies: list[float] = []

    async def client() -> None:
        for number in numbers:
            began = time.perf_counter()
            await ask(number)
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    return Taken(latencies, time.perf_counter() - began)


async def open_loop(ask: Ask, count: int, rate: float) -> Taken:
    """`rate` a second, whatever the answers: who has to wait is counted from when it should have been asked."""
    latencies: list[float] = []
    began = time.perf_counter()

    async def client(number: int) -> None:
        due = began + number / rate
        await asyncio.sleep(due - time.perf_counter())
        await ask(number)
        latencies.append(time.perf_counter() - due)

    await asyncio.gather(*(client(number) for number in range(count)))
    return Taken(latencies, time.perf_counter() - began)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, in user mode and in the kernel's (proc_pid_stat(5), fields 14 and 15)."""
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  # a file of the kernel's
        fields = file.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Bytes of memory that a process has (proc_pid_statm(5), field 2)."""
    with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123  # a file of the kernel's
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
