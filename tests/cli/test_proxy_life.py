"""The flags of `qbitel proxy` about limits, draining, readiness and the admin port."""

from __future__ import annotations

import pytest

from cli import proxy
from mesh import names
from mesh.errors import UserError
from proxy import self_test
from proxy.config import Endpoint, ProxyConfig

EXPLICIT = ("--no-capture", "--explicit-inbound", "127.0.0.1:0=127.0.0.1:9")


def config(*words: str) -> ProxyConfig:
    return proxy._config(proxy._parser().parse_args(words))


def test_every_limit_has_a_flag_and_a_default():
    assert config(*EXPLICIT).limits.drain_quiet == 3
    limits = config(
        *EXPLICIT, "--stall-timeout", "7", "--first-bytes-timeout", "8", "--peek-timeout", "2", "--drain-quiet", "0",
        "--max-handshakes", "9",
    ).limits  # fmt: skip
    assert (limits.stall_timeout, limits.first_bytes_timeout, limits.peek_timeout) == (7, 8, 2)
    assert (limits.drain_quiet, limits.max_handshakes) == (0, 9)


@pytest.mark.parametrize("words", [("--stall-timeout", "0"), ("--drain-quiet", "-1")])
def test_a_limit_that_makes_no_sense_names_its_flag(words):
    with pytest.raises(UserError, match=words[0]):
        config(*EXPLICIT, *words)


def test_the_admin_port_is_there_where_something_is_captured_or_where_it_is_asked_for():
    assert config().admin == (Endpoint("127.0.0.1", names.ADMIN_PORT),)
    assert config("--no-admin").admin == config(*EXPLICIT).admin == ()
    assert config(*EXPLICIT, "--admin", "localhost:0").admin == (Endpoint("127.0.0.1", 0),)


@pytest.mark.parametrize("address", ["0.0.0.0:15000", "10.0.0.1:15000", "pod.example:15000", "[::]:1"])
def test_the_admin_port_is_on_loopback_or_nowhere(address):
    with pytest.raises(UserError, match="give a loopback address"):
        config(*EXPLICIT, "--admin", address)


def test_admin_and_no_admin_contradict_each_other():
    with pytest.raises(UserError, match="contradict"):
        config("--admin", "127.0.0.1:1", "--no-admin")


def test_the_self_test_is_for_those_who_are_captured_and_can_try_it(monkeypatch):
    monkeypatch.setattr(self_test, "can_be_tried", lambda: True)
    assert config().self_test
    assert not config("--no-self-test").self_test
    assert not config(*EXPLICIT).self_test
    monkeypatch.setattr(self_test, "can_be_tried", lambda: False)
    assert not config().self_test


def test_what_we_are_called_comes_of_labels_as_istio_reads_them(monkeypatch):
    workload = config(
        *EXPLICIT, "--workload-name", "web-v1", "--workload-labels", "app=web,version=v1", "--access-log", "text"
    )
    assert workload.access_log == "text"
    named = workload.workload
    assert (named.name, named.app, named.version) == ("web-v1", "web", "v1")
    assert (named.canonical_service, named.canonical_revision) == ("web", "v1")
    monkeypatch.setenv("QBITEL_WORKLOAD_NAME", "from-the-environment")
    other = config(*EXPLICIT, "--workload-labels", "service.istio.io/canonical-name=shop").workload
    assert (other.name, other.canonical_service, other.canonical_revision) == ("from-the-environment", "shop", "latest")
    assert config(*EXPLICIT).workload.canonical_service == "from-the-environment"
