"""Other meshes are told by the chains that their own programs make."""

from __future__ import annotations

import pytest

from init.foreign import EVERY_MESH, foreign_meshes
from init.render import plan_text, transaction
from init.rules import Family, empty_plan
from init.state import differences, parse_save

# What istio-iptables leaves in a pod, shortened: chains that lead to one another, and jumps from the built-in ones.
ISTIO = (
    "*nat\n:ISTIO_INBOUND - [0:0]\n:ISTIO_IN_REDIRECT - [0:0]\n:ISTIO_OUTPUT - [0:0]\n:ISTIO_REDIRECT - [0:0]\n"
    "-A PREROUTING -p tcp -j ISTIO_INBOUND\n-A OUTPUT -j ISTIO_OUTPUT\n"
    "-A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN\n-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT\n"
    "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006\n"
    "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN\n-A ISTIO_OUTPUT -j ISTIO_REDIRECT\n"
    "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n"
)


@pytest.mark.parametrize(
    ("text", "meshes"),
    [
        ("", ()),
        (ISTIO, ("Istio",)),
        ("*nat\n:PROXY_INIT_OUTPUT - [0:0]\n-A OUTPUT -j PROXY_INIT_OUTPUT\nCOMMIT\n", ("Linkerd",)),
        ("*nat\n:KUMA_MESH_INBOUND - [0:0]\nCOMMIT\n", ("Kuma",)),
        ("*nat\n-A OUTPUT -j ISTIO_OUTPUT\n:PROXY_INIT_OUTPUT - [0:0]\nCOMMIT\n", ("Istio", "Linkerd")),
        ("*nat\n:QBITEL_INBOUND - [0:0]\n:MY_ISTIO_ - [0:0]\nCOMMIT\n", ()),
        ('*nat\n-A OUTPUT -m comment --comment "no ISTIO_OUTPUT here" -j ACCEPT\nCOMMIT\n', ()),
    ],
)
def test_meshes_are_told_by_their_chains_and_the_rules_that_lead_there(text: str, meshes: tuple[str, ...]) -> None:
    assert foreign_meshes([parse_save(text)]) == meshes


def test_what_another_mesh_left_is_a_difference_that_one_transaction_removes() -> None:
    state, nothing = parse_save(ISTIO), empty_plan(Family.V4)
    assert differences(nothing, state) == {}
    found = differences(nothing, state, EVERY_MESH)
    assert "ipv4 nat ISTIO_OUTPUT: the chain is left over" in found["nat"]
    lines = transaction(nothing, state, found, EVERY_MESH).splitlines()
    assert {"-D PREROUTING -p tcp -j ISTIO_INBOUND", "-D OUTPUT -j ISTIO_OUTPUT"} <= set(lines)
    # Rules that lead from one of these chains to another go when the chains are emptied, before any is deleted.
    assert lines[1:5] == [f":ISTIO_{name} - [0:0]" for name in ("INBOUND", "IN_REDIRECT", "OUTPUT", "REDIRECT")]
    assert not any(line.startswith("-D ISTIO") for line in lines)
    assert plan_text(nothing) == ""
