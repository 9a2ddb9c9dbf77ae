"""The gate: modes, decisions and limits for one connection; what each refusal says, and what is written of it."""

from __future__ import annotations

import json

import pytest

from mesh.modes import MTLSMode
from mesh.selectors import Workload
from pqtls.events import HandshakeCompleted
from proxy.config import Endpoint
from proxy.policy.gate import facts_of, source_of
from proxy.policy.rules import Rules
from proxy.reasons import CLOSED, Flag, Refused
from tests.proxy.policy.conftest import OTHER, WEB, allow, facts, mode_of
from tests.support.policies import document, resources

API = Workload("default", {"app": "api"}, "api")


def rules(*documents: str, default: MTLSMode = MTLSMode.STRICT) -> Rules:
    return Rules.of(resources("---\n".join(documents)), API, default_mode=default, trust_domain="cluster.local")


def refusal(call) -> tuple[Flag, str, str]:
    with pytest.raises(Refused) as caught:
        call()
    verdict = caught.value.verdict
    assert verdict.refused
    return verdict.flag, verdict.reason, verdict.message


def test_without_policies_or_limits_nothing_is_asked_and_nothing_is_kept(rig):
    rig = rig(MTLSMode.PERMISSIVE)
    assert rig.gate.mode(80) is MTLSMode.PERMISSIVE
    assert rig.gate.admit(facts(), rig.record(), is_secure=True) is None


def test_the_policies_mode_goes_before_that_of_the_command_line(rig, tmp_path):
    rig = rig(MTLSMode.STRICT, folder=tmp_path)
    rig.gate.take_up(rules(mode_of("DISABLE", selector={"app": "api"}, ports={80: "PERMISSIVE"})))
    assert (rig.gate.mode(80), rig.gate.mode(81)) == (MTLSMode.PERMISSIVE, MTLSMode.DISABLE)


def test_who_is_denied_hears_the_policy_and_what_to_do_and_all_is_counted(rig, tmp_path):
    rig = rig(folder=tmp_path)
    rig.gate.take_up(rules(allow(WEB), allow(OTHER, action="DENY", name="block")))
    assert rig.gate.admit(facts(WEB), rig.record(), is_secure=True) is not None
    flag, reason, message = refusal(lambda: rig.gate.admit(facts(OTHER), rig.record(), is_secure=True))
    assert (flag, reason) == (Flag.DENY, "denied_by_policy")
    assert "rules[0] of the DENY policy default/block" in message
    assert "qbitel policy explain" in message
    assert rig.value("qbitel_policy_decisions_total", decision="allow", policy="default/allow") == 1
    assert rig.value("qbitel_policy_decisions_total", decision="deny", policy="default/block") == 1


def test_the_log_names_the_policy_that_decided_and_what_others_would_have_done(rig, tmp_path):
    rig = rig(folder=tmp_path)
    dry = allow(WEB, action="DENY", name="dry", annotations={"istio.io/dry-run": "true"})
    rig.gate.take_up(rules(allow(WEB), dry, allow("*", action="AUDIT", name="audit")))
    record = rig.record()
    rig.gate.admit(facts(WEB), record, is_secure=True)
    record.close(CLOSED)
    (line,) = rig.lines
    assert line["policy"] == "default/allow"
    assert line["policy_audited"] == "default/audit"
    assert "default/dry" in line["policy_dry_run"]
    assert rig.value("qbitel_policy_decisions_total", decision="dry_run_deny", policy="default/dry") == 1
    assert rig.value("qbitel_policy_decisions_total", decision="audit", policy="default/audit") == 1


def test_plaintext_is_asked_about_too_and_refused_where_the_mode_became_strict_meanwhile(rig, tmp_path):
    rig = rig(folder=tmp_path)
    rig.gate.take_up(rules(mode_of("PERMISSIVE")))
    standing = rig.gate.admit(facts(None), rig.record(), is_secure=False)
    rig.gate.take_up(rules(mode_of("STRICT")))
    assert refusal(lambda: rig.gate.admit_again(standing, rig.record()))[1] == "plaintext_refused"
    assert refusal(lambda: rig.gate.admit(facts(None), rig.record(), is_secure=False))[1] == "plaintext_refused"


def test_what_was_let_in_is_asked_about_again_only_when_the_rules_are_others(rig, tmp_path):
    rig = rig(folder=tmp_path)
    rig.gate.take_up(rules(allow(WEB)))
    standing = rig.gate.admit(facts(WEB), rig.record(), is_secure=True)
    rig.gate.admit_again(standing, rig.record())
    rig.gate.take_up(rules(allow(WEB)))
    rig.gate.admit_again(standing, rig.record())
    assert rig.value("qbitel_policy_decisions_total", decision="allow", policy="default/allow") == 1  # asked once
    rig.gate.take_up(rules(allow(OTHER)))
    assert refusal(lambda: rig.gate.admit_again(standing, rig.record()))[1] == "denied_by_policy"
    assert rig.value("qbitel_policy_decisions_total", decision="deny", policy="-") == 1


def test_a_place_is_taken_by_identity_and_given_back_at_the_end(rig):
    rig = rig(max_connections_per_peer=1)
    standing = rig.gate.admit(facts(WEB, source="10.0.0.1"), rig.record(), is_secure=True)
    flag, reason, message = refusal(lambda: rig.gate.admit(facts(WEB, source="10.0.0.2"), rig.record(), is_secure=True))
    assert (flag, reason) == (Flag.CIRCUIT_OPEN, "peer_connection_limit")
    assert WEB in message
    standing.leave()
    assert rig.gate.admit(facts(WEB), rig.record(), is_secure=True) is not None


def test_whoever_is_denied_takes_no_place_and_no_token(rig, tmp_path):
    rig = rig(folder=tmp_path, connection_rate=1.0, max_connections_per_peer=1)
    rig.gate.take_up(rules(allow(OTHER)))
    for _ in range(3):
        refusal(lambda: rig.gate.admit(facts(WEB), rig.record(), is_secure=True))
    rig.gate.take_up(rules(allow(WEB)))
    assert rig.gate.admit(facts(WEB), rig.record(), is_secure=True) is not None


def test_the_rate_is_that_of_the_clock_that_the_gate_was_given(rig):
    rig = rig(connection_rate=1.0)
    rig.gate.admit(facts(WEB), rig.record(), is_secure=True)
    assert refusal(lambda: rig.gate.admit(facts(WEB), rig.record(), is_secure=True))[0] is Flag.RATE_LIMITED
    rig.monotonic += 1.0
    rig.gate.admit(facts(WEB), rig.record(), is_secure=True)


def test_ports_of_server_first_protocols_and_those_that_were_named_are_told_apart(rig):
    gate = rig(opaque_ports=frozenset({25, 9418})).gate
    assert (gate.is_server_first(25), gate.is_server_first(9418), gate.is_server_first(80)) == (True, True, False)


def test_an_operator_is_shown_what_holds_and_who_comes_in_plaintext(rig, tmp_path):
    rig = rig(MTLSMode.PERMISSIVE, folder=tmp_path, opaque_ports=frozenset({25}))
    assert rig.gate.describe() == {
        "mode": "PERMISSIVE", "port_modes": {}, "authorization_policies": [], "limits": [], "opaque_ports": [25],
        "plaintext_peers": [],
    }  # fmt: skip
    pool = {"host": "api", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": 1}}}}
    limit = document("DestinationRule", pool, name="api", namespace="default")
    rig.gate.take_up(rules(mode_of("STRICT", selector={"app": "api"}, ports={80: "DISABLE"}), allow(WEB), limit))
    rig.gate.plaintext_peers.passed("10.0.0.7", 80, "bytes")
    shown = rig.gate.describe()
    assert (shown["mode"], shown["port_modes"]) == ("STRICT", {"80": "DISABLE"})
    assert shown["authorization_policies"] == ["AuthorizationPolicy default/allow"]
    assert shown["limits"] == ["DestinationRule default/api"]
    assert [peer["source"] for peer in shown["plaintext_peers"]] == ["10.0.0.7"]
    json.dumps(shown)


def event(identity: str = f"spiffe://{WEB}", server_name: str | None = None) -> HandshakeCompleted:
    return HandshakeCompleted("qbitel", "g", "s", "c", identity, (), None, server_name, False, True)


def test_facts_are_what_the_handshake_proved_and_the_sockets_show():
    found = facts_of(Endpoint("10.0.0.9", 4000), Endpoint("10.0.0.1", 8080), event(server_name="web.shop"))
    assert (found.principal, found.source_ip, found.destination_ip, found.destination_port, found.sni) == (
        WEB, "10.0.0.9", "10.0.0.1", 8080, "web.shop",
    )  # fmt: skip
    assert source_of(found) == WEB


def test_whoever_has_shown_no_identity_is_an_address():
    for shown in (None, event("")):
        found = facts_of(Endpoint("10.0.0.9", 4000), Endpoint("localhost", 80), shown)
        assert found.principal is None
        assert source_of(found) == "10.0.0.9"
