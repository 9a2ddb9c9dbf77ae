"""Before anybody is served: ports, certificates, descriptors; all of them, or one line and nothing bound."""

from __future__ import annotations

import resource
import socket

import pytest

from mesh.errors import UserError
from pqtls import PROFILES
from proxy import binding
from proxy.config import CredentialFiles, Direction, Endpoint, ListenerConfig, ProxyConfig


def configuration(files, *ports: int, **more) -> ProxyConfig:
    listeners = tuple(
        ListenerConfig(direction=Direction.OUTBOUND, bind=Endpoint("127.0.0.1", port), target=Endpoint("127.0.0.1", 9))
        for port in ports
    )
    return ProxyConfig(files=files, listeners=listeners, profiles=(PROFILES["qbitel"],), **more)


def test_a_port_in_use_is_one_line_and_leaves_nothing_bound(pki, application):
    taken = application.getsockname()[1]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    with pytest.raises(UserError, match=rf"port {taken} on 127\.0\.0\.1 is in use; [^\n]+$"):
        binding.build(configuration(pki.files("web"), free, taken))
    with socket.socket() as again:
        again.bind(("127.0.0.1", free))


def test_a_port_of_another_qbitel_is_in_use_even_where_workers_share_theirs(pki):
    first = binding.build(configuration(pki.files("web"), 0, workers=2))
    try:
        port = first.listeners[0][0].getsockname()[1]
        assert {group[0].getsockname()[1] for group in first.listeners} == {port}
        with pytest.raises(UserError, match="is in use"):
            binding.build(configuration(pki.files("web"), port, workers=2))
    finally:
        first.close()


def test_missing_certificates_are_one_line_before_anything_is_bound(tmp_path):
    with pytest.raises(UserError, match=r"tls\.crt does not exist"):
        binding.build(configuration(CredentialFiles.in_folder(tmp_path), 0))


def test_the_descriptor_limit_is_raised_as_far_as_it_goes(caplog):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
        binding.raise_descriptor_limit(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 456
        binding.raise_descriptor_limit(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 456
        assert caplog.text == ""
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
