"""What cannot work is said before any connection is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import pqtls
from pqtls.config import accept_any_identity
from pqtls.errors import ConfigurationError
from pqtls.profiles import CNSA2, COMPAT, QBITEL
from pqtls.provider import default_provider
from tests.support import pki
from tests.support.resumption import Mesh


def _p384() -> pqtls.Credential:
    return pki.credential(
        pki.make_certificate(
            issuer=pki.root(),
            subject="p384",
            key=ec.generate_private_key(ec.SECP384R1()),
            names=(pki.uri("spiffe://a/b"),),
        )
    )


@pytest.mark.parametrize("make", [pki.client_config, pki.server_config])
@pytest.mark.parametrize("profile", [QBITEL, CNSA2])
def test_a_credential_that_the_profile_does_not_allow_is_refused_at_once(make: object, profile: object) -> None:
    assert callable(make)
    with pytest.raises(ConfigurationError) as caught:
        make(credential=_p384(), profiles=(profile,))
    assert "ecdsa_secp384r1_sha384 signatures, but profile" in str(caught.value)
    assert str(caught.value).endswith("allows only mldsa87")


def test_a_credential_that_the_profile_allows_is_taken() -> None:
    assert pki.client_config(credential=_p384(), profiles=(COMPAT,)).profiles == (COMPAT,)


def test_a_client_may_have_no_credential_but_must_say_so() -> None:
    assert pki.client_config(credential=None).credential is None
    with pytest.raises(TypeError, match="credential"):
        pqtls.ClientConfig(trust=pki.trust(), now=lambda: pki.NOW)  # type: ignore[call-arg]


def test_a_client_without_a_credential_takes_up_no_session_of_somebody() -> None:
    session = Mesh().session()
    with pytest.raises(ConfigurationError, match="no session to resume"):
        pki.client_config(credential=None, sessions=(session,))


def test_a_server_requires_certificates_of_its_clients_unless_its_owner_says_otherwise() -> None:
    assert pki.server_config().client_authentication is pqtls.ClientAuthentication.REQUIRED


def test_whoever_the_roots_vouch_for_is_welcome_by_default() -> None:
    assert pki.client_config().accept_identity is accept_any_identity
    accept_any_identity("spiffe://anybody/at/all")


def test_the_default_provider_is_used_unless_another_is_given() -> None:
    assert pki.server_config().provider is default_provider()


def test_nobody_changes_a_configuration_that_is_shared() -> None:
    config = pki.client_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.require_alpn = True  # type: ignore[misc]


def test_a_private_key_is_never_printed() -> None:
    config = pki.client_config()
    assert "private_key" not in repr(config)


@pytest.mark.parametrize("name", ["", "bücher.example", "a" * 256])
def test_a_server_name_that_cannot_be_sent_is_refused_before_any_connection(name: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 255 ASCII characters"):
        pki.client_config(server_name=name)


@pytest.mark.parametrize("protocols", [(b"",), (b"a" * 256,), (b"a" * 255,) * 256])
@pytest.mark.parametrize("make", [pki.client_config, pki.server_config])
def test_alpn_names_that_cannot_be_sent_are_refused_before_any_connection(
    make: Callable[..., object], protocols: tuple[bytes, ...]
) -> None:
    with pytest.raises(ConfigurationError, match="ALPN"):
        make(alpn=protocols)
