"""What an operator may say, and what is refused before anything is bound."""

from __future__ import annotations

import pytest

from mesh.errors import UserError
from proxy.policy.config import PolicyConfig
from proxy.policy.server_first import SERVER_FIRST


@pytest.mark.parametrize(
    ("said", "flag"),
    [
        ({"connection_rate": 0.0}, "--connection-rate"),
        ({"connection_rate": float("nan")}, "--connection-rate"),
        ({"connection_rate": float("inf")}, "--connection-rate"),
        ({"connection_rate": -1.0}, "--connection-rate"),
        ({"connection_burst": 3}, "--connection-rate"),
        ({"connection_rate": 1.0, "connection_burst": 0}, "--connection-burst"),
        ({"connection_rate": 1.0, "connection_burst": 2**32}, "--connection-burst"),
        ({"max_connections_per_peer": 0}, "--max-connections-per-peer"),
        ({"opaque_ports": frozenset({0})}, "--opaque-ports"),
        ({"opaque_ports": frozenset({65536})}, "--opaque-ports"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_flag_at_fault(said, flag):
    with pytest.raises(UserError, match=flag):
        PolicyConfig(**said)


def test_nothing_is_asked_where_neither_policies_nor_limits_are_configured(tmp_path):
    assert not PolicyConfig(opaque_ports=frozenset({4})).is_active
    assert PolicyConfig(folder=tmp_path).is_active
    assert PolicyConfig(connection_rate=0.5).is_active
    assert PolicyConfig(max_connections_per_peer=1).is_active


def test_ports_where_servers_speak_first_are_known_without_being_named():
    assert PolicyConfig().opaque_ports == frozenset(SERVER_FIRST)


def test_a_folder_that_is_none_is_a_slip_that_is_told_at_once(tmp_path):
    PolicyConfig(folder=tmp_path).check_folder()
    PolicyConfig().check_folder()
    for wrong in (tmp_path / "nowhere", tmp_path / "file"):
        if wrong.name == "file":
            wrong.write_text("")
        with pytest.raises(UserError, match=wrong.name):
            PolicyConfig(folder=wrong).check_folder()
