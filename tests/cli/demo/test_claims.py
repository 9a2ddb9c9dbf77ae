from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from cli.demo.claims import NO_RIGHTS, evaluate
from cli.demo.results import MeshFacts, Outcome, Times, Traffic, Transfer
from cli.demo.search import WireReport
from cli.demo.sidecar import Handshake

A, B = "spiffe://cluster.local/ns/demo/sa/pod-a", "spiffe://cluster.local/ns/demo/sa/pod-b"
TIMES = Times(10, 1.0, 2.0)
OUT = Handshake("outbound", 4.0, False, "qbitel", "X25519MLKEM1024", "mldsa87", "TLS_AES_256_GCM_SHA384", A, B)
IN = dataclasses.replace(OUT, direction="inbound", local_identity=B, peer_identity=A)
METRIC = 'qbitel_tls_handshakes_total{result="ok"} 2.0'

GOOD = Outcome(
    stage="namespaces",
    reason="",
    app="",
    without=Traffic(
        wire=WireReport(9, 5000, {"request": 10, "file": 100}, 2, 0),
        sent={"request": 10, "file": 100},
        sent_bytes=4000,
        fresh=TIMES,
    ),
    through=Traffic(
        wire=WireReport(9, 6000, {"request": 0, "file": 0}, 2, 2, ["qbitel-tcp/1"], [0xFEC4]),
        sent={"request": 10, "file": 100},
        sent_bytes=4000,
        fresh=TIMES,
        transfer=Transfer(4000, 4000, 1.0, "ab" * 32, "ab" * 32),
    ),
    mesh=MeshFacts(
        identities=(A, B),
        outbound=(OUT, OUT),
        inbound=(IN, IN),
        full=TIMES,
        resumed=None,
        metrics_urls=("http://a", "http://b"),
        metrics=(METRIC, METRIC),
        door="curl",
        sidecar_rights=(NO_RIGHTS, NO_RIGHTS),
        interception=("ok", "ok"),
        bypass="refused",
    ),
)


def replace(part: str, **changes: Any) -> Outcome:
    """GOOD with something else in one of its parts, `through.wire` for example."""
    first, _, second = part.partition(".")
    inner = getattr(GOOD, first)
    if second:
        changes = {second: dataclasses.replace(getattr(inner, second), **changes)}
    return dataclasses.replace(GOOD, **{first: dataclasses.replace(inner, **changes)})


def not_seen(outcome: Outcome) -> list[str]:
    return [claim.sentence for claim in evaluate(outcome) if not claim.seen]


def test_a_good_run_is_seen_in_every_claim() -> None:
    assert not_seen(GOOD) == []
    assert len(evaluate(GOOD)) == 10


CASES: dict[str, tuple[Callable[[], Outcome], str]] = {
    "another group": (lambda: replace("mesh", outbound=(dataclasses.replace(OUT, group="X25519"),)), "each handshake"),
    "one of many": (lambda: replace("mesh", inbound=(IN, dataclasses.replace(IN, signature="rsa"))), "each handshake"),
    "another suite": (lambda: replace("mesh", inbound=(dataclasses.replace(IN, cipher_suite="x"),)), "each handshake"),
    "a stranger": (lambda: replace("mesh", inbound=(IN, dataclasses.replace(IN, peer_identity=B))), "each sidecar"),
    "swapped": (lambda: replace("mesh", identities=(B, A)), "each sidecar"),
    "one plain flow": (lambda: replace("through.wire", flows=3), "on the wire"),
    "no flow": (lambda: replace("through.wire", flows=0, tls_flows=0), "on the wire"),
    "other protocol": (lambda: replace("through.wire", alpn=["h2"]), "on the wire"),
    "other key share": (lambda: replace("through.wire", groups=[0x001D, 0xFEC4]), "on the wire"),
    "search is blind": (lambda: replace("without.wire", hits={"request": 10, "file": 0}), "without sidecars"),
    "search sees little": (lambda: replace("without.wire", hits={"request": 9, "file": 100}), "without sidecars"),
    "nothing was sent": (lambda: replace("without", sent={}), "without sidecars"),
    "blind baseline": (lambda: replace("without.wire", dropped=1), "without sidecars"),
    "plaintext": (lambda: replace("through.wire", hits={"request": 1, "file": 0}), "with sidecars none"),
    "lost frames": (lambda: replace("through.wire", dropped=1), "with sidecars none"),
    "cut frames": (lambda: replace("through.wire", truncated=1), "with sidecars none"),
    "empty capture": (lambda: replace("through.wire", bytes=0), "with sidecars none"),
    "too small a capture": (lambda: replace("through.wire", bytes=3999), "with sidecars none"),
    "bypass": (lambda: replace("mesh", bypass="not refused: the answer was http"), "plaintext that goes around"),
    "silent metrics": (lambda: replace("mesh", metrics=(METRIC, "")), "the metrics"),
    "zero metrics": (lambda: replace("mesh", metrics=(METRIC, METRIC.replace("2.0", "0.0"))), "the metrics"),
    "short file": (lambda: replace("through.transfer", received=3999), "a file of"),
    "other checksum": (lambda: replace("through.transfer", received_sha256="cd" * 32), "a file of"),
    "no checksum": (lambda: replace("through.transfer", sent_sha256="", received_sha256=""), "a file of"),
    "no rules": (lambda: replace("mesh", interception=()), "the interception rules"),
    "a root sidecar": (lambda: replace("mesh", sidecar_rights=(NO_RIGHTS, "UID 0")), "both sidecars run"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_as_it_should_be_fails_its_claim_and_no_other(case: str) -> None:
    make, sentence = CASES[case]
    failed = not_seen(make())
    assert len(failed) == 1, failed
    assert failed[0].startswith(sentence)


def test_on_loopback_nothing_is_claimed_of_rules_and_users() -> None:
    outcome = dataclasses.replace(replace("mesh", interception=(), sidecar_rights=("", "")), stage="loopback")
    assert not_seen(outcome) == []
    assert len(evaluate(outcome)) == 8


def test_a_server_of_the_users_must_answer_the_same_way() -> None:
    own = dataclasses.replace(GOOD, app="redis-server")
    same = dataclasses.replace(
        own,
        without=dataclasses.replace(own.without, answers="other"),
        through=dataclasses.replace(own.through, answers="other"),
    )
    assert not_seen(same) == []
    other = dataclasses.replace(same, through=dataclasses.replace(same.through, answers="silent"))
    assert not_seen(other) == ["the server answers through the mesh as it does without"]
