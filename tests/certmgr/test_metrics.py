"""The numbers of an authority, under the names that dashboards are written for."""

from __future__ import annotations

import datetime

from prometheus_client import generate_latest

from certmgr.metrics import Figures, Metrics
from certmgr.proofs import Method


def test_certificates_are_counted_by_result_and_proof_and_timed():
    metrics = Metrics()
    metrics.issued(Method.TOKEN, 0.004)
    metrics.csr_refused("csr_key", Method.CERTIFICATE)
    metrics.csr_refused("no_proof", None)
    value = metrics.registry.get_sample_value
    assert value("qbitel_certmgr_csr_total", {"result": "issued", "method": "token"}) == 1
    assert value("qbitel_certmgr_csr_total", {"result": "csr_key", "method": "certificate"}) == 1
    assert value("qbitel_certmgr_csr_total", {"result": "no_proof", "method": "none"}) == 1
    assert value("qbitel_certmgr_issuance_seconds_bucket", {"le": "0.005"}) == 1
    assert value("qbitel_certmgr_issuance_seconds_bucket", {"le": "0.0025"}) == 0


NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)


def figures(phase: str) -> Figures:
    return Figures("ab" * 32, NOW + 2 * HOUR, NOW - HOUR, phase, ("stable", "publishing"), peers=7, revoked=3, barred=2)


def test_what_is_true_now_is_shown():
    metrics = Metrics()
    metrics.show(figures("stable"), NOW - HOUR)
    metrics.show(figures("publishing"), NOW)
    value = metrics.registry.get_sample_value
    assert value("qbitel_certmgr_root_expiry_seconds") == 7200
    assert value("qbitel_certmgr_intermediate_expiry_seconds") == -3600
    assert value("qbitel_certmgr_peers") == 7
    assert value("qbitel_certmgr_revoked") == 3
    assert value("qbitel_certmgr_barred") == 2
    assert value("qbitel_certmgr_rotation_phase", {"phase": "stable"}) == 0
    assert value("qbitel_certmgr_rotation_phase", {"phase": "publishing"}) == 1


def test_what_is_running_and_how_much_memory_it_has_is_shown():
    text = generate_latest(Metrics().registry).decode()
    assert "qbitel_build_info{" in text
    assert "process_resident_memory_bytes" in text
    assert "_created" not in text
