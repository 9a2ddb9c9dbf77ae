"""What inject and the webhook share: an installation's flags, and the rules for interception."""

from __future__ import annotations

import argparse

import pytest

from cli.arguments import Parser
from cli.injection import add_installation, injector_of, rendered
from init.config import InboundMode, InterceptionConfig, parse_ids, parse_interfaces, parse_networks, parse_ports
from init.script import render_script
from injector.config import InjectorConfig
from injector.interception import Interception
from mesh.errors import UserError


def options(*words: str) -> argparse.Namespace:
    parser = Parser()
    add_installation(parser)
    return parser.parse_args(words)


def test_without_flags_an_installation_is_the_default_one() -> None:
    assert injector_of(options()).config == InjectorConfig()


def test_each_wish_becomes_its_rule() -> None:
    wanted = Interception(
        include_inbound_ports="80",
        exclude_inbound_ports="22",
        include_outbound_ports="9000",
        exclude_outbound_ports="25",
        include_outbound_cidrs="10.0.0.0/8",
        exclude_outbound_cidrs="10.9.0.0/16",
        exclude_interfaces="docker0",
        exclude_uids="1000",
        outbound_port=16001,
        tproxy=True,
    )

    assert rendered(wanted) == render_script(
        InterceptionConfig(
            include_inbound_ports=parse_ports("", "80"),
            exclude_inbound_ports=parse_ports("", "22"),
            include_outbound_ports=parse_ports("", "9000"),
            exclude_outbound_ports=parse_ports("", "25"),
            include_outbound_cidrs=parse_networks("", "10.0.0.0/8"),
            exclude_outbound_cidrs=parse_networks("", "10.9.0.0/16"),
            exclude_interfaces=parse_interfaces("", "docker0"),
            exclude_uids=parse_ids("", "1000"),
            outbound_port=16001,
            inbound_mode=InboundMode.TPROXY,
        )
    )


@pytest.mark.parametrize(
    "field",
    [
        *("include_inbound_ports", "exclude_inbound_ports", "include_outbound_ports", "exclude_outbound_ports"),
        *("include_outbound_cidrs", "exclude_outbound_cidrs", "exclude_interfaces", "exclude_uids"),
    ],
)
def test_a_list_that_cannot_be_read_names_its_annotation(field: str) -> None:
    with pytest.raises(UserError, match=rf"\Aqbitel\.io/{field.replace('_', '-')}: "):
        rendered(Interception(**{field: "a b"}))


def test_rules_that_many_pods_share_are_rendered_once() -> None:
    assert rendered(Interception()) is rendered(Interception())
