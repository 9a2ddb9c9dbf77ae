"""Groups: the layout of shares and secrets, and what is wrong with a wrong share."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from pqtls.errors import Alert, ProtocolViolation
from pqtls.groups import GROUPS, X25519MLKEM1024, GroupPrivateShare, NamedGroup, answer, generate
from pqtls.provider import Agreement, Answer, CryptoProvider
from pqtls.provider_cryptography import PROVIDER

_BY_NAME = {group.name: group for group in GROUPS.values()}
_EVERY = pytest.mark.parametrize("group", GROUPS.values(), ids=lambda group: group.name)


@pytest.mark.parametrize(
    ("name", "code_point", "client", "server", "secret"),
    [
        ("X25519MLKEM1024", 0xFEC4, 1568 + 32, 1568 + 32, 64),
        ("X25519MLKEM768", 0x11EC, 1184 + 32, 1088 + 32, 64),
        ("SecP384r1MLKEM1024", 0x11ED, 97 + 1568, 97 + 1568, 80),
        ("MLKEM1024", 0x0202, 1568, 1568, 32),
    ],
)
def test_each_group_has_the_code_point_and_sizes_of_its_draft(
    name: str, code_point: int, client: int, server: int, secret: int
) -> None:
    group = GROUPS[code_point]
    assert (group.name, group.client_share_size, group.server_share_size) == (name, client, server)
    share = generate(group, PROVIDER)
    response = answer(group, share.public, PROVIDER)
    assert (len(share.public), len(response.share), len(response.secret)) == (client, server, secret)


@_EVERY
def test_both_sides_reach_the_same_secret_and_never_twice_the_same(group: NamedGroup) -> None:
    share = generate(group, PROVIDER)
    one, two = (answer(group, share.public, PROVIDER) for _ in range(2))
    assert share.finish(one.share) == one.secret
    assert share.finish(two.share) == two.secret
    assert one.secret != two.secret


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("X25519MLKEM1024", (Agreement.ML_KEM_1024, Agreement.X25519)),
        ("X25519MLKEM768", (Agreement.ML_KEM_768, Agreement.X25519)),
        ("SecP384r1MLKEM1024", (Agreement.SECP384R1, Agreement.ML_KEM_1024)),
        ("MLKEM1024", (Agreement.ML_KEM_1024,)),
    ],
)
def test_shares_and_secrets_stand_in_the_order_of_the_draft(name: str, order: tuple[Agreement, ...]) -> None:
    """Each part is given its own piece and its results are put behind one another, told by a marked provider."""
    group = _BY_NAME[name]
    share = b"".join(bytes((index,)) * part.client_share_size for index, part in enumerate(order))

    def answer_share(part: Agreement, piece: bytes) -> Answer:
        assert piece == bytes((order.index(part),)) * part.client_share_size
        return Answer(part.label.encode(), b"secret of " + part.label.encode())

    provider = Mock(spec=CryptoProvider, answer_share=answer_share)
    response = answer(group, share, provider)
    assert response.share == b"".join(part.label.encode() for part in order)
    assert response.secret == b"".join(b"secret of " + part.label.encode() for part in order)


def test_the_clients_secret_has_the_kem_part_first_in_our_group() -> None:
    share = generate(X25519MLKEM1024, PROVIDER)
    response = answer(X25519MLKEM1024, share.public, PROVIDER)
    kem, curve = share.parts
    assert kem.finish(response.share[:1568]) + curve.finish(response.share[1568:]) == response.secret


@_EVERY
@pytest.mark.parametrize("change", [-1, 1])
def test_a_share_of_the_wrong_size_is_an_illegal_parameter_on_both_sides(group: NamedGroup, change: int) -> None:
    share = generate(group, PROVIDER)
    with pytest.raises(ProtocolViolation, match=f"a {group.name} share has") as caught:
        answer(group, bytes(group.client_share_size + change), PROVIDER)
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER
    with pytest.raises(ProtocolViolation, match=f"a {group.name} share has") as caught:
        share.finish(bytes(group.server_share_size + change))
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


@_EVERY
def test_an_encapsulation_key_that_fails_the_modulus_check_is_an_illegal_parameter(group: NamedGroup) -> None:
    share = bytearray(generate(group, PROVIDER).public)
    start = 97 if group.name.startswith("SecP") else 0
    share[start : start + 3] = b"\xff\xff\xff"  # two coefficients of 4095, beyond q = 3329 (FIPS 203 section 7.2)
    with pytest.raises(ProtocolViolation, match=r"section 7\.2") as caught:
        answer(group, bytes(share), PROVIDER)
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


@pytest.mark.parametrize("name", ["X25519MLKEM1024", "X25519MLKEM768"])
def test_an_x25519_result_of_zero_is_an_illegal_parameter_on_both_sides(name: str) -> None:
    group = _BY_NAME[name]
    share = generate(group, PROVIDER)
    with pytest.raises(ProtocolViolation, match="all zeros") as caught:
        answer(group, share.public[:-32] + bytes(32), PROVIDER)
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER
    response = answer(group, share.public, PROVIDER)
    with pytest.raises(ProtocolViolation, match="all zeros") as caught:
        share.finish(response.share[:-32] + bytes(32))
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


@pytest.mark.parametrize(
    ("point", "text"), [(b"\x04" + b"\x01" * 96, "not on the curve"), (b"\x02" * 97, "uncompressed")]
)
def test_a_p384_point_that_is_none_is_an_illegal_parameter_on_both_sides(point: bytes, text: str) -> None:
    group = _BY_NAME["SecP384r1MLKEM1024"]
    share = generate(group, PROVIDER)
    with pytest.raises(ProtocolViolation, match=text) as caught:
        answer(group, point + share.public[97:], PROVIDER)
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER
    response = answer(group, share.public, PROVIDER)
    with pytest.raises(ProtocolViolation, match=text) as caught:
        share.finish(point + response.share[97:])
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


def test_a_damaged_ciphertext_gives_another_secret_and_no_error() -> None:
    """FIPS 203's implicit rejection: the handshake then fails at the first record."""
    group = _BY_NAME["MLKEM1024"]
    share: GroupPrivateShare = generate(group, PROVIDER)
    response = answer(group, share.public, PROVIDER)
    assert share.finish(bytes((response.share[0] ^ 1,)) + response.share[1:]) != response.secret


def test_our_own_code_point_is_in_the_private_range() -> None:
    assert 0xFE00 <= X25519MLKEM1024.code_point <= 0xFEFF
