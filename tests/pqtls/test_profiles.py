"""What may be negotiated."""

from __future__ import annotations

import pytest

import pqtls
from pqtls.profiles import PROFILES, Profile


def _names(profile: Profile) -> tuple[list[str], list[str], list[str]]:
    return (
        [group.name for group in profile.groups],
        [scheme.name for scheme in profile.signature_schemes],
        [suite.name for suite in profile.cipher_suites],
    )


@pytest.mark.parametrize(
    ("name", "group"), [("qbitel", "X25519MLKEM1024"), ("hybrid-l5", "SecP384r1MLKEM1024"), ("cnsa2", "MLKEM1024")]
)
def test_a_profile_of_the_mesh_knows_one_of_each_and_only_level_5(name: str, group: str) -> None:
    assert _names(PROFILES[name]) == ([group], ["mldsa87"], ["TLS_AES_256_GCM_SHA384"])


def test_compat_is_the_only_profile_that_takes_classical_signatures() -> None:
    groups, schemes, suites = _names(PROFILES["compat"])
    assert groups == ["X25519MLKEM768"]
    assert schemes == ["mldsa87", "ecdsa_secp384r1_sha384", "ecdsa_secp256r1_sha256"]
    assert suites == ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"]
    assert set(PROFILES) == {"qbitel", "hybrid-l5", "cnsa2", "compat"}


def test_each_profile_is_found_by_its_own_name() -> None:
    assert all(profile.name == name for name, profile in PROFILES.items())


def test_qbitel_is_what_is_used_unless_asked_otherwise() -> None:
    assert pqtls.ClientConfig.__dataclass_fields__["profiles"].default == (PROFILES["qbitel"],)
    assert pqtls.ServerConfig.__dataclass_fields__["profiles"].default == (PROFILES["qbitel"],)
