"""PeerAuthentication."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.building.peer_authentication import mode_name, peer_authentication
from mesh.modes import MTLSMode
from tests.support.built import assert_good


def test_a_namespace_s_mode_has_no_selector() -> None:
    made = peer_authentication("default", "shop", MTLSMode.STRICT)

    assert made == {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": "shop"},
        "spec": {"mtls": {"mode": "STRICT"}},
    }
    assert_good(made)


def test_a_workload_s_mode_may_differ_by_port() -> None:
    made = peer_authentication(
        "web", "shop", "STRICT", selector={"app": "web"}, port_modes={9090: "DISABLE", 8080: MTLSMode.PERMISSIVE}
    )

    assert made["spec"] == {
        "selector": {"matchLabels": {"app": "web"}},
        "mtls": {"mode": "STRICT"},
        "portLevelMtls": {"8080": {"mode": "PERMISSIVE"}, "9090": {"mode": "DISABLE"}},
    }
    assert_good(made)


@pytest.mark.parametrize("mode", [None, "UNSET"])
def test_a_mode_may_be_left_to_the_level_above(mode: str | None) -> None:
    assert peer_authentication("web", "shop", mode)["spec"] == {"mtls": {"mode": "UNSET"}}


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"mode": "strict"}, "mode"),
        ({"mode": "MUTUAL"}, "mode"),
        ({"mode": True}, "mode"),
        ({"selector": {}}, "selector"),
        ({"selector": {"app": "*"}}, r"selector\['app'\]"),
        ({"port_modes": {}}, "port_modes"),
        ({"port_modes": {"8080": "STRICT"}}, "port_modes"),
        ({"port_modes": {0: "STRICT"}}, "port_modes"),
        ({"port_modes": {8080: "strict"}}, r"port_modes\[8080\]"),
        ({"port_modes": [8080]}, "port_modes"),
    ],
)
def test_what_istio_would_refuse_is_refused(wrong: dict[str, Any], argument: str) -> None:
    call: dict[str, Any] = {"name": "web", "namespace": "shop", "mode": "STRICT", "selector": {"app": "web"}}

    with pytest.raises(ValueError, match=rf"^{argument}: "):
        peer_authentication(**call | wrong)


def test_a_port_s_mode_without_a_selector_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^port_modes: .* selector"):
        peer_authentication("default", "shop", "STRICT", port_modes={8080: "DISABLE"})


def test_a_mode_s_name_is_that_of_manifests() -> None:
    assert [mode_name("mode", mode) for mode in MTLSMode] == ["STRICT", "PERMISSIVE", "DISABLE"]
