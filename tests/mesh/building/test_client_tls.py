"""TLS to servers outside of the mesh."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.building.client_tls import ClientTls, mesh_tls

CA = "/etc/certs/ca.pem"
OWN = {"client_certificate": "/etc/certs/tls.crt", "private_key": "/etc/certs/tls.key"}


@pytest.mark.parametrize(
    ("arguments", "block"),
    [
        ({"mode": "SIMPLE", "ca_certificates": "system"}, {"mode": "SIMPLE", "caCertificates": "system"}),
        (
            {"mode": "SIMPLE", "ca_certificates": CA, "sni": "db.example", "subject_alt_names": ["db.example"]},
            {"mode": "SIMPLE", "caCertificates": CA, "sni": "db.example", "subjectAltNames": ["db.example"]},
        ),
        (
            {"mode": "MUTUAL", "ca_certificates": CA, **OWN},
            {
                "mode": "MUTUAL",
                "caCertificates": CA,
                "clientCertificate": "/etc/certs/tls.crt",
                "privateKey": "/etc/certs/tls.key",
            },
        ),
        ({"mode": "MUTUAL", "credential_name": "partner"}, {"mode": "MUTUAL", "credentialName": "partner"}),
    ],
)
def test_the_block_says_what_was_given(arguments: dict[str, Any], block: dict[str, Any]) -> None:
    assert ClientTls(**arguments).as_dict() == block


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"mode": "ISTIO_MUTUAL", "ca_certificates": CA}, "mode"),
        ({"mode": "SIMPLE"}, "ca_certificates"),
        ({"mode": "MUTUAL", **OWN}, "ca_certificates"),
        ({"mode": "MUTUAL", "ca_certificates": CA}, "client_certificate"),
        ({"mode": "MUTUAL", "ca_certificates": CA, **OWN, "private_key": None}, "private_key"),
        ({"mode": "SIMPLE", "ca_certificates": CA, **OWN}, "client_certificate"),
        ({"mode": "SIMPLE", "ca_certificates": CA, "credential_name": "a"}, "ca_certificates"),
        ({"mode": "MUTUAL", **OWN, "credential_name": "a"}, "client_certificate"),
        ({"mode": "SIMPLE", "ca_certificates": "ca.pem"}, "ca_certificates"),
        ({"mode": "MUTUAL", "ca_certificates": CA, **OWN, "client_certificate": "system"}, "client_certificate"),
        ({"mode": "SIMPLE", "credential_name": "A B"}, "credential_name"),
        ({"mode": "SIMPLE", "ca_certificates": CA, "sni": "*.example"}, "sni"),
        ({"mode": "SIMPLE", "ca_certificates": CA, "subject_alt_names": []}, "subject_alt_names"),
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any], argument: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: "):
        ClientTls(**wrong)


def test_a_key_that_is_given_in_place_of_its_file_is_not_shown() -> None:
    with pytest.raises(ValueError, match=r"^private_key: it is no path") as refusal:
        ClientTls(mode="MUTUAL", ca_certificates=CA, client_certificate=CA, private_key="-----BEGIN PRIVATE KEY-----")

    assert "BEGIN" not in str(refusal.value)


def test_within_the_mesh_there_are_two_modes() -> None:
    assert mesh_tls("tls", "ISTIO_MUTUAL") == {"mode": "ISTIO_MUTUAL"}
    with pytest.raises(ValueError, match=r"^tls: 'MUTUAL' is not allowed; give one of ISTIO_MUTUAL, DISABLE"):
        mesh_tls("tls", "MUTUAL")
