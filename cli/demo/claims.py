"""What the demo claims, and whether it was seen. Pure: the outcome decides, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cli.demo.results import Outcome, Traffic
from mesh.names import ALPN_MOVE, ALPN_STREAM, ALPN_TUNNEL, SIDECAR_UID

GROUP: Final = "X25519MLKEM1024"
GROUP_CODE_POINT: Final = 0xFEC4  # of the private-use range: none is registered
SIGNATURE: Final = "mldsa87"
CIPHER_SUITE: Final = "TLS_AES_256_GCM_SHA384"
# The search that proves that searching works must find (nearly) all that was sent; a retransmission that arrives out
# of order may tear a marker or two apart.
MIN_FOUND: Final = 0.99
NO_RIGHTS: Final = f"UID {SIDECAR_UID}, capabilities 0, no_new_privs 1"
_OURS: Final = {name.decode() for name in (ALPN_TUNNEL, ALPN_MOVE, ALPN_STREAM)}


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence that the demo says of the product; `seen` is whether it was observed, `detail` what was."""

    sentence: str
    seen: bool
    detail: str


def evaluate(outcome: Outcome) -> list[Claim]:
    """Every claim that can be made on this stage, held against what was seen."""
    claims = [
        _negotiated(outcome),
        _identities(outcome),
        _wire_is_tls(outcome),
        _search_works(outcome.without),
        _no_plaintext(outcome.through),
        _bypass(outcome),
        _metrics(outcome),
    ]
    if outcome.through.transfer is not None:
        claims.append(_file(outcome.through))
    if outcome.app:
        claims.append(_same_answers(outcome))
    if outcome.stage == "namespaces":
        claims += [_intercepted(outcome), _without_rights(outcome)]
    return claims


def _negotiated(outcome: Outcome) -> Claim:
    seen = {
        (shake.group, shake.signature, shake.cipher_suite) for shake in (*outcome.mesh.outbound, *outcome.mesh.inbound)
    }
    return Claim(
        f"each handshake used {GROUP}, {SIGNATURE} and {CIPHER_SUITE}, in the words of both sidecars",
        seen == {(GROUP, SIGNATURE, CIPHER_SUITE)} and bool(outcome.mesh.outbound) and bool(outcome.mesh.inbound),
        f"{len(outcome.mesh.outbound)} outbound, {len(outcome.mesh.inbound)} inbound; {_join(map(_join, seen))}",
    )


def _identities(outcome: Outcome) -> Claim:
    first, second = outcome.mesh.identities
    out = {(shake.local_identity, shake.peer_identity) for shake in outcome.mesh.outbound}
    back = {(shake.peer_identity, shake.local_identity) for shake in outcome.mesh.inbound}
    return Claim(
        "each sidecar proved its SPIFFE id, and each saw the other's",
        out == back == {(first, second)},
        f"pod-a's log: {_join(' → '.join(pair) for pair in out)}; pod-b's: {_join(' → '.join(pair) for pair in back)}",
    )


def _wire_is_tls(outcome: Outcome) -> Claim:
    wire = outcome.through.wire
    groups = ", ".join(f"0x{group:04X}" for group in wire.groups)
    return Claim(
        f"on the wire, every connection began with a ClientHello for the mesh and {GROUP}",
        wire.tls_flows == wire.flows > 0 and set(wire.alpn) <= _OURS and wire.groups == [GROUP_CODE_POINT],
        f"{wire.tls_flows} of {wire.flows} connections; protocols {_join(wire.alpn)}; key shares {groups or 'none'}",
    )


def _search_works(without: Traffic) -> Claim:
    missed = [name for name, count in without.sent.items() if without.wire.hits.get(name, 0) < count * MIN_FOUND]
    return Claim(
        "without sidecars the same search finds what was sent",
        not missed and without.wire.complete and bool(without.sent) and without.wire.total_hits > 0,
        "; ".join(f"{name} {without.wire.hits.get(name, 0):,} of {count:,}" for name, count in without.sent.items()),
    )


def _no_plaintext(through: Traffic) -> Claim:
    wire = through.wire
    losses = f"; {wire.dropped} frames lost, {wire.truncated} cut" if not wire.complete else ""
    return Claim(
        "with sidecars none of it is on the wire",
        wire.total_hits == 0 and wire.complete and wire.bytes >= through.sent_bytes > 0,
        f"{wire.total_hits:,} found in {wire.bytes:,} captured bytes; {through.sent_bytes:,} were sent{losses}",
    )


def _bypass(outcome: Outcome) -> Claim:
    return Claim(
        "plaintext that goes around the client's sidecar is refused",
        outcome.mesh.bypass == "refused",
        outcome.mesh.bypass,
    )


def _metrics(outcome: Outcome) -> Claim:
    return Claim(
        "the metrics of both sidecars answer and count handshakes",
        all(_counts(line) for line in outcome.mesh.metrics),
        "; ".join(line or "no line" for line in outcome.mesh.metrics),
    )


def _counts(line: str) -> bool:
    """Whether a line of metrics ends with a number above zero."""
    try:
        return float(line.rpartition(" ")[2]) > 0
    except ValueError:
        return False


def _file(through: Traffic) -> Claim:
    transfer = through.transfer
    if transfer is None:
        return Claim("a large file arrives as it was sent", False, "it was not sent")
    return Claim(
        f"a file of {transfer.asked >> 20} MiB arrives as it was sent",
        transfer.received == transfer.asked
        and transfer.sent_sha256 == transfer.received_sha256
        and bool(transfer.sent_sha256),
        f"SHA-256 {transfer.sent_sha256[:16]}… at the server, {transfer.received_sha256[:16]}… at the client",
    )


def _same_answers(outcome: Outcome) -> Claim:
    return Claim(
        "the server answers through the mesh as it does without",
        outcome.through.answers == outcome.without.answers != "",
        f"{outcome.without.answers} without, {outcome.through.answers} with",
    )


def _intercepted(outcome: Outcome) -> Claim:
    return Claim(
        "the interception rules stand in both pods, and are exactly the planned ones",
        len(outcome.mesh.interception) == 2,
        _join(outcome.mesh.interception),
    )


def _without_rights(outcome: Outcome) -> Claim:
    return Claim(
        f"both sidecars run as UID {SIDECAR_UID} without any capability",
        all(rights == NO_RIGHTS for rights in outcome.mesh.sidecar_rights),
        _join(outcome.mesh.sidecar_rights),
    )


def _join(texts: object) -> str:
    words = list(map(str, texts)) if hasattr(texts, "__iter__") else [str(texts)]
    return ", ".join(dict.fromkeys(words)) or "none"
