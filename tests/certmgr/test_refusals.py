"""Each refusal is counted; the logs get as many as a person can read, and the number of the others."""

from __future__ import annotations

import asyncio
import logging

from aiotls import HandshakeTimeout, PeerFailed
from certmgr.metrics import Metrics
from certmgr.proofs import Method, Reason, Refused
from certmgr.refusals import BURST, Refusals
from certmgr.store import StoreUnavailable
from pqtls import Alert, CertificateRefused, NotTls
from tests.certmgr.api_rig import run


class Journal:
    def __init__(self) -> None:
        self.entries: list[tuple[str, Method | None, str]] = []
        self.fails = False

    async def write(self, refused: Refused, method: Method | None, source: str) -> None:
        if self.fails:
            raise StoreUnavailable("the disk is full")
        self.entries.append((refused.reason.slug, method, source))


def collected(*calls, journal: Journal | None = None, monotonic=lambda: 0.0):
    """The journal and the metrics after `calls` of Refusals."""
    journal = journal or Journal()
    metrics = Metrics()

    async def main():
        refusals = Refusals(metrics, journal.write, monotonic)
        writing = asyncio.create_task(refusals.run())
        await asyncio.sleep(0)
        for call in calls:
            call(refusals)
        refusals.close()
        await writing

    run(main())
    return journal.entries, metrics.registry.get_sample_value


def refuse(reason: Reason, method: Method | None = None):
    return lambda refusals: refusals.of_certificate(Refused(reason, "No."), method, "10.0.0.7")


def test_a_refused_certificate_is_counted_by_reason_and_proof_and_written_down():
    entries, value = collected(refuse(Reason.CSR_KEY, Method.TOKEN), refuse(Reason.NO_PROOF))
    assert entries == [("csr_key", Method.TOKEN, "10.0.0.7"), ("no_proof", None, "10.0.0.7")]
    assert value("qbitel_certmgr_csr_total", {"result": "csr_key", "method": "token"}) == 1
    assert value("qbitel_certmgr_csr_total", {"result": "no_proof", "method": "none"}) == 1


def test_other_requests_have_a_count_of_their_own():
    entries, value = collected(lambda it: it.of_request(Refused(Reason.BAD_REQUEST, "What?"), None, "10.0.0.7"))
    assert entries == [("bad_request", None, "10.0.0.7")]
    assert value("qbitel_certmgr_requests_refused_total", {"reason": "bad_request"}) == 1


def test_a_flood_is_counted_in_full_and_written_down_in_part(caplog):
    count = 10 * BURST
    with caplog.at_level(logging.WARNING):
        entries, value = collected(*[refuse(Reason.NO_PROOF)] * count)
    assert value("qbitel_certmgr_csr_total", {"result": "no_proof", "method": "none"}) == count
    assert len(entries) == BURST
    assert len(caplog.records) == BURST


def test_what_was_held_back_is_said_when_there_is_room(caplog):
    now = 0.0

    def later(_refusals):
        nonlocal now
        now = 3600.0

    calls = [*[refuse(Reason.NO_PROOF)] * (BURST + 5), later, refuse(Reason.NO_PROOF)]
    entries, _ = collected(*calls, monotonic=lambda: now)
    assert [entry for entry in entries if entry[0] != "no_proof"] == [("too_many", None, "-")]
    assert "5 more refusals were not written down one by one" in caplog.text


def test_a_journal_that_cannot_write_is_said_and_ends_nothing(caplog):
    journal = Journal()
    journal.fails = True
    entries, value = collected(refuse(Reason.NO_PROOF), refuse(Reason.NO_PROOF), journal=journal)
    assert entries == []
    assert value("qbitel_certmgr_csr_total", {"result": "no_proof", "method": "none"}) == 2
    assert caplog.text.count("a refusal is not in the audit log: the disk is full") == 2


def test_of_failed_handshakes_those_that_concern_a_certificate_are_written_down(caplog):
    revoked = PeerFailed(CertificateRefused("It is revoked.", Alert.CERTIFICATE_REVOKED, "revoked"))
    unknown = PeerFailed(CertificateRefused("Whose is it?", Alert.UNKNOWN_CA, "unknown_ca"))
    noise = PeerFailed(NotTls("This is no TLS."))
    errors = (revoked, unknown, noise, HandshakeTimeout(10), ConnectionResetError(104, "reset"))
    entries, value = collected(*[lambda it, error=error: it.of_connection(error, "10.0.0.7") for error in errors])
    assert entries == [("revoked", Method.CERTIFICATE, "10.0.0.7"), ("no_proof", Method.CERTIFICATE, "10.0.0.7")]
    for reason in ("revoked", "unknown_ca", "not_tls", "handshake_timeout", "connection"):
        assert value("qbitel_certmgr_tls_failures_total", {"reason": reason}) == 1
    assert len(caplog.records) == len(errors)
    assert "no TLS connection with 10.0.0.7: This is no TLS." in caplog.text
