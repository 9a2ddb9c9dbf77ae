"""What /config_dump shows of a configuration, and what it never shows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from mesh.modes import MTLSMode
from pqtls import PROFILES
from proxy.admin.plain import plain
from proxy.config import CredentialFiles, Direction, Endpoint, ListenerConfig, ProxyConfig, networks


def test_a_configuration_becomes_json_under_the_names_of_its_fields():
    config = ProxyConfig(
        files=CredentialFiles.in_folder(Path("/etc/certs"), open_sealed=lambda *_: b""),
        listeners=(ListenerConfig(direction=Direction.OUTBOUND, bind=Endpoint("::1", 15001)),),
        profiles=(PROFILES["qbitel"],),
        peers=frozenset({"spiffe://b", "spiffe://a"}),
        mode=MTLSMode.PERMISSIVE,
        mesh=networks(["10.0.0.0/8"]),
    )
    shown = json.loads(json.dumps(plain(config)))
    assert shown["files"]["key"] == "/etc/certs/tls.key"
    assert "open_sealed" not in shown["files"]
    (listener,) = shown["listeners"]
    assert (listener["direction"], listener["bind"], listener["target"]) == ("outbound", "[::1]:15001", None)
    assert (shown["profiles"], shown["mode"], shown["mesh"]) == (["qbitel"], "PERMISSIVE", ["10.0.0.0/8"])
    assert shown["peers"] == ["spiffe://a", "spiffe://b"]
    assert shown["limits"]["max_connections"] == 10_000


def test_fields_that_are_shown_to_nobody_are_not_shown_here_either():
    @dataclass
    class Held:
        name: str
        secret: str = field(repr=False)
        nested: dict = field(default_factory=lambda: {1: {"x"}})

    assert plain(Held("a", "hush")) == {"name": "a", "nested": {"1": ["x"]}}


def test_what_is_not_known_is_shown_by_its_type():
    assert plain(object()) == "<object>"
