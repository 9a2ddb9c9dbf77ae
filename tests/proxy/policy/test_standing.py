"""What is kept of a connection that was let in."""

from __future__ import annotations

from tests.proxy.policy.conftest import WEB, facts


def test_a_standing_remembers_on_what_grounds_and_gives_its_place_back(rig):
    gate = rig(max_connections_per_peer=1).gate
    grounds = facts(WEB, 8080)
    record = rig().record()
    standing = gate.admit(grounds, record, is_secure=True)
    assert (standing.facts, standing.is_secure, standing.rules) == (grounds, True, None)
    assert (standing.place.source, standing.place.port) == (WEB, 8080)
    standing.leave()
    assert gate.admit(grounds, record, is_secure=True) is not None
