"""Values that are checked once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.errors import UserError
from pqtls import PROFILES
from proxy import config
from proxy.config import (
    CredentialFiles,
    Direction,
    Endpoint,
    EnrolmentConfig,
    Limits,
    ListenerConfig,
    ProxyConfig,
    TrustFiles,
)

FILES = CredentialFiles.in_folder(Path("certs"))


def proxy_config(*ports: int, **more) -> ProxyConfig:
    listeners = tuple(ListenerConfig(direction=Direction.INBOUND, bind=Endpoint("127.0.0.1", port)) for port in ports)
    return ProxyConfig(files=FILES, listeners=listeners, profiles=(PROFILES["qbitel"],), **more)


def test_the_files_have_the_names_of_the_mesh():
    assert [path.name for path in (FILES.chain, FILES.key, FILES.trust.roots)] == ["tls.crt", "tls.key", "ca.crt"]


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1"), ("a.b", "a.b:1")])
def test_an_endpoint_is_written_as_users_write_it(host, expected):
    assert str(Endpoint(host, 1)) == expected


def test_the_same_address_twice_is_refused_but_any_free_port_is_not():
    with pytest.raises(UserError, match="is given twice"):
        proxy_config(1, metrics=(Endpoint("127.0.0.1", 1),))
    assert len(proxy_config(0, 0).endpoints()) == 2


def test_nothing_to_listen_on_is_refused():
    with pytest.raises(UserError, match="nothing to listen on"):
        proxy_config()


def test_no_workers_are_refused():
    with pytest.raises(UserError, match="--workers"):
        proxy_config(1, workers=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((f"{name}_timeout", bad) for name in ("handshake", "connect", "idle") for bad in (0, -1, float("inf"))),
        ("max_connections", 0),
        ("drain_seconds", float("nan")),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_with_its_flag(field, value):
    with pytest.raises(UserError, match=f"--{field.replace('_', '-')}"):
        Limits(**{field: value})


def test_an_unknown_profile_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match="there are: qbitel, hybrid-l5"):
        config.profiles_named(["qbitel,rot13"])


def test_profiles_keep_their_order_however_they_are_given():
    for texts in (["hybrid-l5,qbitel"], ["hybrid-l5", "qbitel"]):
        profiles = config.profiles_named(texts)
        assert [profile.name for profile in profiles] == ["hybrid-l5", "qbitel"]
    assert proxy_config(1).profile_names == "qbitel"


def test_a_profile_that_is_named_twice_is_refused():
    with pytest.raises(UserError, match="qbitel is named twice"):
        config.profiles_named(["qbitel", "hybrid-l5,qbitel"])


def test_only_the_revocation_list_of_a_folder_may_be_absent():
    assert FILES.trust.crl_is_optional
    assert [path.name for path in FILES.paths()] == [
        "tls.crt", "tls.key", "ca.crt", "crl.pem", "intermediates.crt", "kem.key"
    ]  # fmt: skip
    assert len(CredentialFiles(Path("c"), Path("k"), TrustFiles(Path("r"))).paths()) == 3


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "mesh", "fd00::1/8"])
def test_what_is_no_network_is_refused(text):
    with pytest.raises(UserError, match="--mesh"):
        config.networks([text])


def test_names_are_checked_and_repetition_does_no_harm():
    assert config.trust_domains(["a.b", "a.b"]) == {"a.b"}
    assert config.identities("--allow", ["spiffe://a/b"]) == {"spiffe://a/b"}
    with pytest.raises(UserError, match="--trust-domain"):
        config.trust_domains(["A"])
    with pytest.raises(UserError, match="--allow"):
        config.identities("--allow", ["http://a/b"])


def enrolment(**more) -> EnrolmentConfig:
    values = {
        "authority": Endpoint("authority.example", 15012),
        "roots": TrustFiles.in_folder(Path("roots")),
        "token": Path("token"),
        "instance": "pod-1",
    }
    return EnrolmentConfig(**(values | more))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"token": None}, "either --token or --bootstrap-token"),
        ({"bootstrap_token": Path("once")}, "either --token or --bootstrap-token"),
        ({"authority": Endpoint("a", 0)}, "has port 0"),
        ({"instance": ""}, "--instance"),
        ({"instance": "a/b"}, "--instance"),
        ({"instance": "x" * 101}, "--instance"),
        ({"instance": "line\nline"}, "--instance"),
    ],
)
def test_an_enrolment_that_cannot_work_names_its_flag(change, said):
    with pytest.raises(UserError, match=said) as refused:
        enrolment(**change)
    assert len(str(refused.value).splitlines()) == 1


def test_a_certificate_comes_from_files_or_from_an_authority_and_not_from_both_or_neither():
    listener = ListenerConfig(direction=Direction.INBOUND, bind=Endpoint("127.0.0.1", 1))
    common = {"listeners": (listener,), "profiles": (PROFILES["qbitel"],), "trust_domains": frozenset({"a.b"})}
    assert ProxyConfig(enrolment=enrolment(), **common).files is None
    for both in ({}, {"files": FILES, "enrolment": enrolment()}):
        with pytest.raises(UserError, match="either --certs or --authority"):
            ProxyConfig(**both, **common)
    with pytest.raises(UserError, match="--trust-domain of the authority"):
        ProxyConfig(enrolment=enrolment(), **(common | {"trust_domains": frozenset()}))
