"""From a configuration to the rules, as data. Pure: nothing here runs a program or looks at the machine.

The order of the rules is the meaning of the plan; docs/adr/0003-interception.md says why it is this one. Each
rule carries its reason, which goes into the kernel with it: `iptables-save` in a pod explains itself.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

from init.config import ALWAYS_EXCLUDED_INBOUND, InterceptionConfig, Network, Networks, PortRange
from mesh import names

# Every chain of ours, and no chain of anybody else, starts so: that is how clean-up knows what it may remove.
PREFIX: Final = "QBITEL_"
INBOUND: Final = "QBITEL_INBOUND"
OUTBOUND: Final = "QBITEL_OUTBOUND"
IN_REDIRECT: Final = "QBITEL_IN_REDIRECT"
OUT_REDIRECT: Final = "QBITEL_OUT_REDIRECT"
INVALID: Final = "QBITEL_INVALID"
GUARD: Final = "QBITEL_GUARD"

Protocol: TypeAlias = Literal["tcp", "udp"]


class Family(Enum):
    """An IP version, by the name that people read in our output."""

    V4 = "ipv4"
    V6 = "ipv6"

    @property
    def version(self) -> int:
        return 4 if self is Family.V4 else 6

    @property
    def loopback(self) -> Network:
        """The one address of lo that the application uses to talk to itself."""
        return ipaddress.ip_network("127.0.0.1/32" if self is Family.V4 else "::1/128")

    @property
    def inbound_source(self) -> Network:
        """The address that the sidecar dials its application from."""
        return ipaddress.ip_network(names.INBOUND_SOURCE_V4 if self is Family.V4 else names.INBOUND_SOURCE_V6)


@dataclass(frozen=True, slots=True)
class Match:
    """One condition of a rule: `--dport 80`, or `! -d 127.0.0.1/32` when `negated`."""

    option: str
    value: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """When all `matches` hold, go to `target`: a chain, RETURN, DROP, or REDIRECT with `to_port`.

    `reason` is at most 255 bytes (XT_MAX_COMMENT_LEN of the kernel, with its terminating zero).
    """

    reason: str
    target: str
    matches: tuple[Match, ...] = ()
    to_port: int | None = None


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


def make_plan(config: InterceptionConfig, family: Family) -> Plan:
    """Return the rules that capture what `config` says, for one family."""
    nat = Table(
        "nat",
        (
            Chain(INBOUND, _inbound(config)),
            Chain(OUTBOUND, _outbound(config, family)),
            Chain(IN_REDIRECT, (_redirect("to the inbound side of the sidecar", config.inbound_port),)),
            Chain(OUT_REDIRECT, (_redirect("to the outbound side of the sidecar", config.outbound_port),)),
        ),
        (
            Jump("PREROUTING", Rule("what others dial in this pod", INBOUND, (_protocol("tcp"),))),
            Jump("OUTPUT", Rule("what this pod dials", OUTBOUND)),
        ),
    )
    # Packets that connection tracking calls INVALID never see the nat table, so they are dropped before it.
    return Plan(family, (_invalid_table(config), nat) if config.drop_invalid else (nat,))


def empty_plan(family: Family) -> Plan:
    """Return the plan that has nothing of ours."""
    return Plan(family, ())


def with_guard(plan: Plan) -> Plan:
    """Return `plan` with the guard before everything else: no new TCP connection enters or leaves the pod."""
    mangle = [table for table in plan.tables if table.name == GUARD_TABLE.name]
    others = tuple(table for table in plan.tables if table.name != GUARD_TABLE.name)
    chains = GUARD_TABLE.chains + tuple(chain for table in mangle for chain in table.chains)
    jumps = GUARD_TABLE.jumps + tuple(jump for table in mangle for jump in table.jumps)
    return Plan(plan.family, (Table(GUARD_TABLE.name, chains, jumps), *others))


def _inbound(config: InterceptionConfig) -> tuple[Rule, ...]:
    always = [PortRange(port, port) for port in ALWAYS_EXCLUDED_INBOUND]
    excluded = [ports for ports in config.exclude_inbound_ports if ports not in always]
    rules = [
        *_excluded_interfaces(config, "-i"),
        Rule("tunnels between sidecars are not captured", "RETURN", _tcp(names.TUNNEL_PORT)),
        *(Rule("the sidecar serves this port itself", "RETURN", _tcp(ports)) for ports in always),
        *(Rule("inbound port is excluded", "RETURN", _tcp(ports)) for ports in excluded),
    ]
    if config.include_inbound_ports is None:
        rules.append(Rule("every other inbound connection", IN_REDIRECT, (_protocol("tcp"),)))
    else:
        rules += [Rule("inbound port is included", IN_REDIRECT, _tcp(ports)) for ports in config.include_inbound_ports]
    return tuple(rules)


def _outbound(config: InterceptionConfig, family: Family) -> tuple[Rule, ...]:
    loopback, source = str(family.loopback), str(family.inbound_source)
    excluded = _of_family(config.exclude_outbound_cidrs, family)
    return (
        *_excluded_interfaces(config, "-o"),
        # Both protocols: a port that is excluded stays excluded when more than TCP is captured.
        *(
            Rule("outbound port is excluded", "RETURN", _ports(protocol, ports))
            for ports in config.exclude_outbound_ports
            for protocol in _PROTOCOLS
        ),
        Rule(
            "the sidecar hands a connection to its application",
            "RETURN",
            (Match("-s", source), Match("-o", "lo")),
        ),
        *_owner("--uid-owner", config.proxy_uid, loopback),
        *_owner("--gid-owner", config.proxy_gid, loopback),
        Rule("loopback stays inside the pod", "RETURN", (Match("-d", loopback),)),
        *(Rule("outbound network is excluded", "RETURN", _destination(network)) for network in excluded),
        *_captured(config, family),
    )


def _excluded_interfaces(config: InterceptionConfig, option: str) -> tuple[Rule, ...]:
    return tuple(
        Rule(f"interface {name} is excluded", "RETURN", (Match(option, name),)) for name in config.exclude_interfaces
    )


def _owner(option: str, number: int, loopback: str) -> tuple[Rule, ...]:
    own, foreign = Match(option, str(number)), Match(option, str(number), negated=True)
    to_itself = (
        Match("-d", loopback, negated=True),
        Match("-o", "lo"),
        _protocol("tcp"),
        Match("--dport", str(names.TUNNEL_PORT), negated=True),
        own,
    )
    return (
        # The application called its own Service: the outbound side dialled this very pod, and the connection
        # must come in as any other peer's would.
        Rule("the sidecar calls its own pod: in by the front door", IN_REDIRECT, to_itself),
        Rule("the application calls its own pod", "RETURN", (Match("-o", "lo"), foreign)),
        Rule("what the sidecar dials is never captured again", "RETURN", (own,)),
    )


def _captured(config: InterceptionConfig, family: Family) -> tuple[Rule, ...]:
    tcp = (_protocol("tcp"),)
    if config.include_outbound_ports is None or config.include_outbound_cidrs is None:
        return (Rule("every other outbound connection", OUT_REDIRECT, tcp),)
    networks = _of_family(config.include_outbound_cidrs, family)
    return (
        *(Rule("outbound port is included", OUT_REDIRECT, _tcp(ports)) for ports in config.include_outbound_ports),
        *(Rule("outbound network is included", OUT_REDIRECT, (*_destination(network), *tcp)) for network in networks),
    )


def _invalid_table(config: InterceptionConfig) -> Table:
    rules = (
        *_excluded_interfaces(config, "-i"),
        Rule("no connection that the kernel knows", "DROP", (Match("--ctstate", "INVALID"),)),
    )
    jump = Jump("PREROUTING", Rule("packets that fit no connection", INVALID))
    return Table("mangle", (Chain(INVALID, rules),), (jump,))


def _redirect(reason: str, port: int) -> Rule:
    return Rule(reason, "REDIRECT", (_protocol("tcp"),), to_port=port)


def _protocol(protocol: Protocol) -> Match:
    return Match("-p", protocol)


def _ports(protocol: Protocol, ports: PortRange | int) -> tuple[Match, ...]:
    return (_protocol(protocol), Match("--dport", str(ports)))


def _tcp(ports: PortRange | int) -> tuple[Match, ...]:
    return _ports("tcp", ports)


def _destination(network: Network) -> tuple[Match, ...]:
    # The packet filter does not keep a condition that every address meets, and would not list it afterwards.
    return (Match("-d", str(network)),) if network.prefixlen else ()


def _of_family(networks: Networks, family: Family) -> Networks:
    return tuple(network for network in networks if network.version == family.version)


_PROTOCOLS: Final[tuple[Protocol, ...]] = ("tcp", "udp")

# In mangle, which sees a packet before nat does, with the addresses that the application chose. Only the
# first packet of a connection is dropped: connections that stand go on, and the dialler's TCP tries again
# after about a second.
GUARD_TABLE: Final = Table(
    "mangle",
    (
        Chain(
            GUARD,
            (
                Rule(
                    "rules are being changed: nothing new may slip past them",
                    "DROP",
                    (_protocol("tcp"), Match("--tcp-flags", "FIN,SYN,RST,ACK SYN")),
                ),
            ),
        ),
    ),
    (
        Jump("PREROUTING", Rule("guard while rules are changed", GUARD, (Match("-i", "lo", negated=True),))),
        Jump("OUTPUT", Rule("guard while rules are changed", GUARD, (Match("-o", "lo", negated=True),))),
    ),
)
