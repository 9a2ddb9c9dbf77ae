"""Addresses and blocks of addresses, as policies write them and as they are matched."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# A version of IP (4 or 6) and the address as a number: what is left of an address when it is matched.
Address = tuple[int, int]


def address(text: str | None) -> Address | None:
    """The address that `text` writes, or None. One of IPv4 within IPv6 (::ffff:10.0.0.1) is that of IPv4: a socket for
    both versions shows peers so, and a policy names them as everybody else does.
    """
    if not text:
        return None
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.version, int(found)


def address_block(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The addresses that "10.1.2.3", "10.1.0.0/16" or the same for IPv6 names; ValueError where it names none.

    Bits behind the prefix are ignored, as Envoy does; netmasks in place of a prefix are not taken.
    """
    if re.fullmatch(r"[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?", value):
        try:
            block = ipaddress.ip_network(value, strict=False)
        except ValueError:
            pass
        else:
            return _unmapped(block)
    raise ValueError(f"{value!r:.80} is no address and no block of addresses, as in 10.1.2.3 or 10.1.0.0/16")


# ::ffff:0:0/96 is where RFC 4291 §2.5.5.2 maps IPv4 to.
_MAPPED: Final = ipaddress.ip_network("::ffff:0:0/96")


def _unmapped(block: ipaddress.IPv4Network | ipaddress.IPv6Network) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if isinstance(block, ipaddress.IPv6Network) and block.prefixlen >= 96 and block.network_address in _MAPPED:
        return ipaddress.ip_network((int(block.network_address) & 0xFFFFFFFF, block.prefixlen - 96))
    return block


# A block as (version, bits behind the prefix, the number in front of them).
Block = tuple[int, int, int]


def block(value: str) -> Block:
    """A block of addresses as a key that `block_of` finds."""
    network = address_block(value)
    behind = network.max_prefixlen - network.prefixlen
    return network.version, behind, int(network.network_address) >> behind


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of addresses, by the lengths of their prefixes."""

    blocks: frozenset[Block]
    lengths: tuple[tuple[int, int], ...]  # (version, bits behind the prefix), of which there are few

    @classmethod
    def of(cls, values: Iterable[str]) -> Blocks:
        """The blocks as a policy writes them; ValueError where one is none."""
        blocks = frozenset(block(value) for value in values)
        return cls(blocks, tuple(sorted({(version, behind) for version, behind, _ in blocks})))

    def match(self, found: Address) -> bool:
        """Whether the address lies in one of them."""
        version, number = found
        return any(
            each == version and (version, behind, number >> behind) in self.blocks for each, behind in self.lengths
        )
