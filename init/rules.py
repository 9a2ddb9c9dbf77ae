"""What a plan is made of: rules, chains, tables, families, as data. Pure."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from enum import Enum
from typing import Final

from init.config import Network
from mesh import names

# Every chain of ours, and no chain of anybody else, starts so: that is how clean-up knows what it may remove.
PREFIX: Final = "QBITEL_"
OURS: Final = (PREFIX,)


class Family(Enum):
    """An IP version, by the name that people read in our output."""

    V4 = "ipv4"
    V6 = "ipv6"

    @property
    def version(self) -> int:
        return 4 if self is Family.V4 else 6

    @property
    def program(self) -> str:
        """What the packet filter's programs of this family start with."""
        return "iptables" if self is Family.V4 else "ip6tables"

    @property
    def loopback(self) -> Network:
        """The one address of lo that the application uses to talk to itself."""
        return ipaddress.ip_network("127.0.0.1/32" if self is Family.V4 else "::1/128")

    @property
    def inbound_source(self) -> Network:
        """The address that the sidecar dials its application from."""
        return ipaddress.ip_network(names.INBOUND_SOURCE_V4 if self is Family.V4 else names.INBOUND_SOURCE_V6)

    @property
    def self_test(self) -> Network:
        """The address that the sidecar dials itself at, to see that it is redirected: on lo, but not its loopback."""
        return ipaddress.ip_network("127.0.0.2/32" if self is Family.V4 else names.INBOUND_SOURCE_V6)

    @property
    def unspecified(self) -> str:
        """The address that stands for every address."""
        return "0.0.0.0" if self is Family.V4 else "::"  # noqa: S104  # nothing is bound here


def network_text(network: Network) -> str:
    """Return `network` in CIDR notation as the packet filter's programs write it (inet_ntop(3))."""
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    # Python's own text differs for IPv4 addresses within IPv6 (::ffff:192.0.2.0), and from version to version.
    return f"{socket.inet_ntop(family, network.network_address.packed)}/{network.prefixlen}"


@dataclass(frozen=True, slots=True)
class Match:
    """One condition of a rule: `--dport 80`, or `! -d 127.0.0.1/32` when `negated`.

    `module` is what the option comes from where the option alone does not tell (`--mark`).
    """

    option: str
    value: str
    negated: bool = False
    module: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """When all `matches` hold, go to `target` (a chain, RETURN, DROP, REDIRECT …) with its `options`.

    `reason` is at most 255 bytes (XT_MAX_COMMENT_LEN of the kernel, with its terminating zero).
    """

    reason: str
    target: str
    matches: tuple[Match, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of ours with its rules in order."""

    name: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule of ours in a built-in chain. It stands before foreign ones, whose ACCEPT would open a leak."""

    hook: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Table:
    """What we own of one of the packet filter's tables."""

    name: str
    chains: tuple[Chain, ...]
    jumps: tuple[Jump, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that we own in one family. Without tables it is the wish that nothing of ours is there."""

    family: Family
    tables: tuple[Table, ...]

    @property
    def rules(self) -> int:
        """How many rules the plan has, jumps included."""
        return sum(len(table.jumps) + sum(len(chain.rules) for chain in table.chains) for table in self.tables)


def empty_plan(family: Family) -> Plan:
    """Return the plan that has nothing of ours."""
    return Plan(family, ())
