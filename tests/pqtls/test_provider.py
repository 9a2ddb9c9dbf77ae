"""The interface to the primitives, and its default."""

from __future__ import annotations

import pytest

from pqtls.provider import Agreement, InvalidShare, default_provider


@pytest.mark.parametrize(
    ("algorithm", "sizes"),
    [
        (Agreement.ML_KEM_768, (1184, 1088, 32)),
        (Agreement.ML_KEM_1024, (1568, 1568, 32)),
        (Agreement.X25519, (32, 32, 32)),
        (Agreement.SECP384R1, (97, 97, 48)),
    ],
)
def test_the_sizes_are_those_of_the_standards_and_of_the_default_provider(
    algorithm: Agreement, sizes: tuple[int, int, int]
) -> None:
    assert (algorithm.client_share_size, algorithm.server_share_size, algorithm.secret_size) == sizes
    provider = default_provider()
    share = provider.generate_share(algorithm)
    answer = provider.answer_share(algorithm, share.public)
    assert (len(share.public), len(answer.share), len(answer.secret)) == sizes


def test_the_default_provider_is_the_package_cryptography() -> None:
    assert default_provider().name == "cryptography"
    assert default_provider() is default_provider()


def test_an_invalid_share_is_a_value_error() -> None:
    assert issubclass(InvalidShare, ValueError)
