"""`qbitel bench crypto`: what each primitive and each handshake costs on this machine, with each provider."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cli.arguments import Parser
from cli.handshakes import EnginePair, Identity, make_identity, utc_now
from pqtls import Credential, TrustAnchors
from pqtls.certificates import Purpose, validate_chain
from pqtls.profiles import HYBRID_L5, QBITEL
from pqtls.provider import Agreement, CryptoProvider
from pqtls.provider_cryptography import PROVIDER
from pqtls.signatures import MLDSA87
from pqtls.suites import TLS_AES_256_GCM_SHA384
from proxy.providers import LiboqsAbsent, load_liboqs

# CertificateVerify signs 64 bytes of padding, a context and a digest of 48 bytes (RFC 8446 §4.4.3).
_SIGNED_BYTES: Final = 64 + 34 + 48
_TAG: Final = 16


@dataclass(frozen=True, slots=True)
class Work:
    """One thing to measure; `call` does it once."""

    name: str
    call: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds for one call, and how many were measured."""

    seconds: float
    calls: int


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    options = _parser().parse_args(arguments)
    providers: list[CryptoProvider] = [PROVIDER]
    try:
        providers.append(load_liboqs(os.environ))
    except LiboqsAbsent as reason:
        print(f"liboqs is not measured: {reason}\n")
    identity = make_identity(utc_now())
    print("\n".join(_table(providers, identity, options.seconds)))
    return 0


def _parser() -> Parser:
    parser = Parser(prog="qbitel bench", description="Measure on this machine, on one core.")
    kinds = parser.add_subparsers(dest="kind", metavar="{crypto}", required=True)
    crypto = kinds.add_parser(
        "crypto",
        help="primitives and handshakes, per provider",
        description="What each primitive costs, and how many full and resumed handshakes one core makes per second: "
        "mutual, ML-DSA-87 on both sides, the CPU of both ends together.",
    )
    crypto.add_argument(
        "--seconds", metavar="S", type=_seconds, default=0.5, help="time for each measurement (%(default)g)"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds between 0 and 3600")
    return seconds


def measure(call: Callable[[], object], seconds: float) -> Cost:
    """Call again and again for `seconds` of time; what came first is not counted, it warms up."""
    call()
    calls = 0
    end = time.perf_counter() + seconds
    began = time.process_time()
    while not calls or time.perf_counter() < end:
        call()
        calls += 1
    return Cost((time.process_time() - began) / calls, calls)


def _table(providers: list[CryptoProvider], identity: Identity, seconds: float) -> Iterator[str]:
    yield f"{'CPU time per call':<44}" + "".join(f"{provider.name:>16}" for provider in providers)
    columns = [primitives(provider, identity) for provider in providers]
    for row in zip(*columns, strict=True):
        costs = [measure(work.call, seconds) for work in row]
        yield f"{row[0].name:<44}" + "".join(f"{cost.seconds * 1e6:13.1f} µs" for cost in costs)
    yield ""
    yield f"{'handshakes per second and core, both ends':<44}" + "".join(f"{one.name:>16}" for one in providers)
    for profile in (QBITEL, HYBRID_L5):
        for what, cached, resumed in (
            ("full", 0, False),
            ("full, chain known (cache)", 8, False),
            ("resumed", 0, True),
        ):
            pairs = [
                EnginePair(identity, profile, provider, cached_chains=cached, tickets=resumed) for provider in providers
            ]
            rates = [measure(pair.resumed if resumed else pair.full, seconds) for pair in pairs]
            to_server, to_client = pairs[0].sent
            yield (
                f"{f'{profile.groups[0].name}, {what}':<44}"
                + "".join(f"{1 / rate.seconds:14.0f} /s" for rate in rates)
                + f"   {to_server} B to the server, {to_client} B to the client"
            )


def primitives(provider: CryptoProvider, identity: Identity) -> list[Work]:
    """Each primitive of a handshake and of the data path, as the engine calls it."""
    credential = Credential.from_pem(identity.leaf.certificate_pem, identity.leaf.private_key_pem)
    trust = TrustAnchors.from_pem(identity.root.certificate_pem)
    schemes = QBITEL.signature_schemes
    public_key = validate_chain(credential.chain, trust, Purpose.SERVER, utc_now(), schemes).public_key
    message = bytes(_SIGNED_BYTES)
    signature = provider.sign(credential.private_key, MLDSA87, message)
    return [
        Work("ML-DSA-87 sign", lambda: provider.sign(credential.private_key, MLDSA87, message)),
        Work("ML-DSA-87 verify", lambda: provider.verify(public_key, MLDSA87, signature, message)),
        Work(
            "validate a chain of leaf and root",
            lambda: validate_chain(credential.chain, trust, Purpose.SERVER, utc_now(), schemes),
        ),
        *_agreement(provider, Agreement.ML_KEM_1024, ("key pair", "encapsulate", "key pair and decapsulate")),
        *_agreement(provider, Agreement.X25519, ("key pair", "key pair and agree", "key pair and agree, initiator")),
        *_records(provider, 16384),
        *_records(provider, 64),
    ]


def _agreement(provider: CryptoProvider, algorithm: Agreement, names: tuple[str, str, str]) -> Iterator[Work]:
    """A share is used once, as in the engine, so that what finishes it makes it first."""
    share = provider.generate_share(algorithm)
    public, answer = share.public, provider.answer_share(algorithm, share.public).share

    def initiate() -> bytes:
        mine = provider.generate_share(algorithm)
        # An answer to another key: ML-KEM's implicit rejection (FIPS 203 §6.3) costs the same as success.
        return mine.finish(answer)

    yield Work(f"{algorithm.label} {names[0]}", lambda: provider.generate_share(algorithm))
    yield Work(f"{algorithm.label} {names[1]}", lambda: provider.answer_share(algorithm, public))
    yield Work(f"{algorithm.label} {names[2]}", initiate)


def _records(provider: CryptoProvider, size: int) -> Iterator[Work]:
    aead = provider.aead(TLS_AES_256_GCM_SHA384, bytes(TLS_AES_256_GCM_SHA384.key_length))
    # The same nonce each time: nothing of this is ever sent.
    nonce, header, plaintext, sealed = bytes(12), bytes(5), bytearray(size), bytearray(size + _TAG)
    aead.encrypt_into(nonce, plaintext, header, sealed)
    name = f"{size} B" if size < 1024 else f"{size // 1024} KiB"
    yield Work(f"AES-256-GCM seal {name}", lambda: aead.encrypt_into(nonce, plaintext, header, bytearray(len(sealed))))
    yield Work(f"AES-256-GCM open {name}", lambda: aead.decrypt_into(nonce, sealed, header, plaintext))
