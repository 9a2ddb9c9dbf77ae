"""Addresses and blocks of them, as policies write them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.addresses import Blocks, address, address_block


@pytest.mark.parametrize(
    ("value", "network"),
    [
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.1.2.3/16", "10.1.0.0/16"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::1", "::1/128"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ("::/0", "::/0"),
    ],
)
def test_blocks_of_addresses(value: str, network: str) -> None:
    assert str(address_block(value)) == network


@pytest.mark.parametrize(
    "value",
    [
        *("", "1", "10.1.2", "10.1.2.3.4", "10.1.2.256", "010.1.2.3", "10.1.2.3/33", "10.1.2.3/", "/8"),
        *("10.0.0.0/255.0.0.0", "::1/129", "fe80::1%eth0", "10.1.2.3 ", "10.1.2.3\n", "10.*", "*", "example.com"),
        *("1::2::3", "10.0.0.0/ 8", "10.0.0.0/-1"),
    ],
)
def test_what_is_no_block_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="is no address and no block of addresses"):
        address_block(value)


@given(st.text(alphabet="0123456789abcdef:./%", max_size=50))
@example("1.2.3.4/1e1")
def test_any_text_is_a_block_or_refused(value: str) -> None:
    try:
        found = address_block(value)
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert found.prefixlen <= found.max_prefixlen


@given(
    st.lists(
        st.ip_addresses().flatmap(lambda each: st.integers(0, each.max_prefixlen).map(lambda bits: f"{each}/{bits}")),
        max_size=5,
    ),
    st.ip_addresses(),
)
def test_an_address_is_found_in_blocks_as_the_standard_library_finds_it(values: list[str], found: object) -> None:
    plain = address(str(found))
    assert plain is not None
    networks = [address_block(value) for value in values]
    version, number = plain
    normal = ipaddress.ip_address(number) if version == 4 else ipaddress.IPv6Address(number)

    assert Blocks.of(values).match(plain) is any(normal in network for network in networks)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("10.0.0.1", (4, 0x0A000001)),
        ("::ffff:10.0.0.1", (4, 0x0A000001)),
        ("::1", (6, 1)),
        ("fe80::1%eth0", (6, 0xFE80 << 112 | 1)),
        ("", None),
        (None, None),
        ("localhost", None),
        ("10.0.0", None),
        ("/run/socket", None),
    ],
)
def test_what_is_no_address_is_not_known(text: str | None, known: tuple[int, int] | None) -> None:
    assert address(text) == known
