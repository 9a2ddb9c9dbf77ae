"""The flags about policy: what they mean, and that each slip is one line that names the flag."""

from __future__ import annotations

import pytest

from cli.arguments import Parser
from cli.proxy_policy import add_policy_options, labels, policy_config
from mesh.errors import UserError
from proxy.policy.config import PolicyConfig


def config(*words: str) -> PolicyConfig:
    parser = Parser(prog="test")
    add_policy_options(parser)
    return policy_config(parser.parse_args(words))


def test_nothing_said_is_no_policy():
    assert config() == PolicyConfig()
    assert not config().is_active


def test_every_flag_is_taken_up(tmp_path):
    found = config(
        "--policy", str(tmp_path), "--workload-labels", "app=web,example.org/tier=front", "--namespace", "shop",
        "--service-account", "web", "--root-namespace", "mesh-root", "--trust-domain-alias", "old.example",
        "--opaque-ports", "9418,6667", "--connection-rate", "2.5", "--connection-burst", "9",
        "--max-connections-per-peer", "70",
    )  # fmt: skip
    assert found == PolicyConfig(
        folder=tmp_path,
        labels={"app": "web", "example.org/tier": "front"},
        namespace="shop",
        service_account="web",
        root_namespace="mesh-root",
        trust_domain_aliases=("old.example",),
        opaque_ports=PolicyConfig().opaque_ports | {9418, 6667},
        connection_rate=2.5,
        connection_burst=9,
        max_connections_per_peer=70,
    )


@pytest.mark.parametrize("text", ["app", "=x", "app=a b", "-a=b", "app=x,app=y", "a=b,", "/a=b", "a=" + 64 * "x"])
def test_what_is_no_label_is_refused(text):
    with pytest.raises(UserError, match="--workload-labels"):
        labels(text)


def test_a_label_may_have_no_value():
    assert labels("app=,v=1") == {"app": "", "v": "1"}


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("--opaque-ports", "25,"), "--opaque-ports"),
        (("--opaque-ports", "smtp"), "--opaque-ports"),
        (("--opaque-ports", "70000"), "--opaque-ports"),
        (("--opaque-ports", "1" * 5000), "--opaque-ports"),
        (("--trust-domain-alias", "NOT/ONE"), "--trust-domain-alias"),
        (("--connection-rate", "0"), "--connection-rate"),
        (("--connection-burst", "5"), "--connection-rate"),
    ],
)
def test_a_slip_names_its_flag(words, flag):
    with pytest.raises(UserError, match=flag):
        config(*words)
