"""QuantumCertificateManager: what it makes, when it says that it is due, and what it refuses."""

from __future__ import annotations

import base64
import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey

from certmgr.authority import CertificateAndKey
from certmgr.manager import CertificateData, QuantumCertificateManager
from certmgr.sealing import open_sealed
from mesh.spiffe import SpiffeId


class Clock:
    def __init__(self, moment: datetime.datetime) -> None:
        self.moment = moment

    def __call__(self) -> datetime.datetime:
        return self.moment


@pytest.fixture
def clock(now: datetime.datetime) -> Clock:
    return Clock(now.replace(microsecond=0))


@pytest.fixture
def manager(clock: Clock) -> QuantumCertificateManager:
    return QuantumCertificateManager(now=clock)


@pytest.fixture
def authority(manager: QuantumCertificateManager) -> CertificateData:
    return manager.generate_root_ca("CN=Root,O=Example")


@pytest.fixture
def issued(manager: QuantumCertificateManager, authority: CertificateData) -> CertificateData:
    return manager.generate_service_certificate("web", "shop", authority, authority["private_key_pem"])


def test_a_service_certificate_names_the_service_account_and_the_service(issued: CertificateData) -> None:
    certificate = x509.load_pem_x509_certificate(issued["certificate_pem"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://cluster.local/ns/shop/sa/web"]
    assert names.get_values_for_type(x509.DNSName) == [
        "web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"
    ]  # fmt: skip


def test_both_certificates_are_signed_by_the_root(authority: CertificateData, issued: CertificateData) -> None:
    root = x509.load_pem_x509_certificate(authority["certificate_pem"].encode())
    for key in ("certificate_pem", "kem_certificate_pem"):
        x509.load_pem_x509_certificate(issued[key].encode()).verify_directly_issued_by(root)


def test_rotation_is_due_at_the_second_of_the_threshold_and_not_before(
    manager: QuantumCertificateManager, issued: CertificateData, clock: Clock
) -> None:
    due = clock.moment + datetime.timedelta(days=60)

    clock.moment = due - datetime.timedelta(microseconds=1)
    assert manager.check_rotation_needed(issued) is False
    clock.moment = due
    assert manager.check_rotation_needed(issued) is True
    clock.moment = due + datetime.timedelta(days=300)
    assert manager.check_rotation_needed(issued) is True


def test_the_last_certificate_of_a_service_is_kept_and_cannot_be_changed_from_outside(
    manager: QuantumCertificateManager, authority: CertificateData, issued: CertificateData
) -> None:
    issued["spiffe_id"] = "changed"
    again = manager.generate_service_certificate("web", "shop", authority, authority["private_key_pem"])

    assert manager.get_certificate("web", "shop") == again
    manager.get_certificate("web", "shop").clear()
    assert manager.get_certificate("web", "shop")["spiffe_id"] == "spiffe://cluster.local/ns/shop/sa/web"


def test_a_service_without_certificate_is_a_key_error(manager: QuantumCertificateManager) -> None:
    with pytest.raises(KeyError, match=r"no certificate was issued to 'web'"):
        manager.get_certificate("web", "shop")


def test_private_keys_are_not_in_any_repr(
    manager: QuantumCertificateManager, authority: CertificateData, issued: CertificateData
) -> None:
    shown = f"{manager!r} {authority!r} {authority} {issued!r} {issued}"
    assert "<private key>" in shown
    assert "PRIVATE KEY-----" not in shown


def test_a_secret_holds_the_files_of_the_sidecar_and_says_when_it_is_due(
    manager: QuantumCertificateManager, issued: CertificateData, clock: Clock
) -> None:
    secret = manager.create_kubernetes_secret(issued, "web-certs", "shop")
    data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}

    assert data["tls.crt"] == issued["certificate_pem"]
    assert data["tls.key"] == issued["private_key_pem"]
    assert data["ca.crt"] == issued["ca_certificate_pem"]
    assert data["kem.key"] == issued["kem_private_key_pem"]
    due = clock.moment + datetime.timedelta(days=60)
    assert secret["metadata"]["annotations"]["qbitel.io/rotate-after"] == f"{due:%Y-%m-%dT%H:%M:%SZ}"


def test_without_auto_rotation_a_secret_does_not_ask_for_it(issued: CertificateData, clock: Clock) -> None:
    by_hand = QuantumCertificateManager(auto_rotation=False, now=clock)
    secret = by_hand.create_kubernetes_secret(issued, "web-certs", "shop")
    assert "qbitel.io/rotate-after" not in secret["metadata"]["annotations"]


def test_a_sealed_secret_opens_with_the_workload_s_key_which_it_does_not_hold(
    manager: QuantumCertificateManager, issued: CertificateData
) -> None:
    secret = manager.create_kubernetes_secret(issued, "web-certs", "shop", seal_private_key=True)
    envelope = base64.b64decode(secret["data"]["tls.key"])
    key = serialization.load_pem_private_key(issued["kem_private_key_pem"].encode(), None)
    assert isinstance(key, MLKEM1024PrivateKey)

    opened = open_sealed(key, envelope, SpiffeId.parse(issued["spiffe_id"]), label="tls.key")

    assert opened.decode() == issued["private_key_pem"]
    assert "kem.key" not in secret["data"]
    assert secret["metadata"]["annotations"]["qbitel.io/sealed"] == "tls.key"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"key_algorithm": "kyber-512"}, "key_algorithm"),
        ({"signature_algorithm": "dilithium-2"}, "signature_algorithm"),
        ({"cert_validity_days": 0}, "cert_validity_days"),
        ({"cert_validity_days": 399}, "cert_validity_days"),
        ({"cert_validity_days": True}, "cert_validity_days"),
        ({"rotation_threshold_days": 90}, "rotation_threshold_days"),
        ({"rotation_threshold_days": 0}, "rotation_threshold_days"),
        ({"auto_rotation": "yes"}, "auto_rotation"),
        ({"trust_domain": "Cluster.Local"}, "trust domain"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        QuantumCertificateManager(**arguments)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"service_name": "Web"}, "service_name"),
        ({"namespace": "a.b"}, "namespace"),
        ({"ca_cert": "nothing"}, "ca_cert"),
        ({"ca_cert": {}}, "ca_cert"),
        ({"ca_private_key": "secret-text"}, "ca_private_key"),
        ({"ca_private_key": None}, "ca_private_key"),
    ],
)
def test_a_wrong_argument_is_refused_by_its_name_and_not_repeated(
    manager: QuantumCertificateManager, authority: CertificateData, change: dict[str, Any], named: str
) -> None:
    good = {
        "service_name": "web",
        "namespace": "shop",
        "ca_cert": authority,
        "ca_private_key": authority["private_key_pem"],
    }
    with pytest.raises(ValueError, match=rf"^{named}: ") as caught:
        manager.generate_service_certificate(**{**good, **change})
    assert "secret-text" not in str(caught.value)


def test_a_key_of_another_root_and_an_ended_root_are_refused(
    manager: QuantumCertificateManager, authority: CertificateData, root: CertificateAndKey, clock: Clock
) -> None:
    with pytest.raises(ValueError, match=r"ca_private_key: .*does not belong"):
        manager.generate_service_certificate("web", "shop", authority, root.private_key_pem)
    clock.moment += datetime.timedelta(days=3653)
    with pytest.raises(ValueError, match=r"ca_cert: .*ended"):
        manager.generate_service_certificate("web", "shop", authority, authority["private_key_pem"])


@pytest.mark.parametrize(("subject", "years"), [("", 10), ("no name", 10), ("CN=Root", 0), ("CN=Root", 31), (None, 1)])
def test_a_root_without_a_name_or_a_possible_life_is_refused(
    manager: QuantumCertificateManager, subject: Any, years: int
) -> None:
    with pytest.raises(ValueError, match=r"^(subject|validity_years): "):
        manager.generate_root_ca(subject, years)


def test_a_secret_in_another_namespace_or_of_something_else_is_refused(
    manager: QuantumCertificateManager, authority: CertificateData, issued: CertificateData
) -> None:
    with pytest.raises(ValueError, match=r"^namespace: "):
        manager.create_kubernetes_secret(issued, "web-certs", "other")
    with pytest.raises(ValueError, match=r"^cert_data: "):
        manager.create_kubernetes_secret(authority, "web-certs", "shop")
    with pytest.raises(ValueError, match=r"^secret_name: "):
        manager.create_kubernetes_secret(issued, "web_certs", "shop")
    with pytest.raises(ValueError, match=r"^cert_data: "):
        manager.check_rotation_needed({})
