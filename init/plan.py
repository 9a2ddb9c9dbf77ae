"""From a configuration to the rules, as data. Pure: nothing here runs a program or looks at the machine.

The order of the rules is the meaning of the plan; docs/interception.md says why it is this one. Each rule carries
its reason, which goes into the kernel with it: `iptables-save` in a pod explains itself.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from init.config import ALWAYS_EXCLUDED_INBOUND, IdRange, InboundMode, InterceptionConfig, Network, Networks, PortRange
from init.rules import PREFIX, Chain, Family, Jump, Match, Plan, Rule, Table, network_text
from mesh import names

INBOUND: Final = f"{PREFIX}INBOUND"
IN_CAPTURE: Final = f"{PREFIX}IN_CAPTURE"
IN_REDIRECT: Final = f"{PREFIX}IN_REDIRECT"
IN_TPROXY: Final = f"{PREFIX}IN_TPROXY"
OUTBOUND: Final = f"{PREFIX}OUTBOUND"
OUT_CAPTURE: Final = f"{PREFIX}OUT_CAPTURE"
OUT_REDIRECT: Final = f"{PREFIX}OUT_REDIRECT"
INVALID: Final = f"{PREFIX}INVALID"
MARK: Final = f"{PREFIX}MARK"
DNS_QUESTIONS: Final = f"{PREFIX}DNS_QUESTIONS"
DNS_ANSWERS: Final = f"{PREFIX}DNS_ANSWERS"

Protocol: TypeAlias = Literal["tcp", "udp"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("tcp", "udp")

DOMAIN: Final = 53  # RFC 1035 §4.2
# The first packet of a TCP connection: SYN alone of these four (iptables writes --syn out so).
SYN: Final = Match("--tcp-flags", "FIN,SYN,RST,ACK SYN")
TPROXY_MARK: Final = f"{names.TPROXY_MARK:#x}"
ALL_BITS: Final = "0xffffffff"
# Two zones of connection tracking, whose numbers are ours to choose: the container's namespace has no others.
SIDECAR_ZONE: Final = 1
APPLICATION_ZONE: Final = 2


def make_plan(config: InterceptionConfig, family: Family) -> Plan:
    """Return the rules that capture what `config` says, for one family."""
    # Packets that connection tracking calls INVALID never see the nat table, so they are dropped before it; zones are
    # chosen before connection tracking looks; and TPROXY works before routing. That is the order of the tables.
    tables = (_raw(config), _mangle(config, family), _nat(config, family))
    return Plan(family, tuple(table for table in tables if table.chains))


# nat: where connections go


def _nat(config: InterceptionConfig, family: Family) -> Table:
    front_door = Chain(
        IN_REDIRECT,
        (Rule("to the inbound side of the sidecar", "REDIRECT", (_protocol("tcp"),), _to(config.inbound_port)),),
    )
    out = Chain(
        OUT_REDIRECT,
        (Rule("to the outbound side of the sidecar", "REDIRECT", (_protocol("tcp"),), _to(config.outbound_port)),),
    )
    outbound = _outbound(config, family)
    dialled = tuple(
        Jump("OUTPUT", Rule("what this pod dials", OUTBOUND, matches)) for matches in _interfaces(config, "-o", "lo")
    )
    if config.inbound_mode is InboundMode.TPROXY:
        return Table("nat", (*outbound, front_door, out), dialled)
    inbound = _inbound(config, family, IN_REDIRECT)
    return Table("nat", (*inbound, *outbound, front_door, out), (*_inbound_jumps(config), *dialled))


def _inbound(config: InterceptionConfig, family: Family, capture: str, *first: Rule) -> tuple[Chain, ...]:
    """The chains that decide what of others' connections goes to the chain `capture`."""
    always = [PortRange(port, port) for port in ALWAYS_EXCLUDED_INBOUND]
    excluded = [ports for ports in config.exclude_inbound_ports if ports not in always]
    exempt = _of_family(config.exclude_inbound_sources, family)
    before = (
        *first,
        *_excluded_interfaces(config, "-i"),
        Rule("tunnels between sidecars are not captured", "RETURN", _tcp(names.TUNNEL_PORT)),
        *(Rule("the sidecar serves this port itself", "RETURN", _tcp(ports)) for ports in always),
        *(Rule("inbound port is excluded", "RETURN", _tcp(ports)) for ports in excluded),
        *(Rule("source is exempt", "RETURN", _network("-s", network)) for network in exempt),
    )
    ports = config.include_inbound_ports
    captured = (
        (Rule("every other inbound connection", capture, (_protocol("tcp"),)),)
        if ports is None
        else tuple(Rule("inbound port is included", capture, _tcp(port)) for port in ports)
    )
    if config.include_inbound_sources is None:
        return (Chain(INBOUND, (*before, *captured)),)
    included = _of_family(config.include_inbound_sources, family)
    chosen = (Rule("source is included", IN_CAPTURE, _network("-s", network)) for network in included)
    return Chain(INBOUND, (*before, *chosen)), Chain(IN_CAPTURE, captured)


def _inbound_jumps(config: InterceptionConfig) -> tuple[Jump, ...]:
    return tuple(
        Jump("PREROUTING", Rule("what others dial in this pod", INBOUND, (*matches, _protocol("tcp"))))
        for matches in _interfaces(config, "-i")
    )


def _outbound(config: InterceptionConfig, family: Family) -> tuple[Chain, ...]:
    loopback = str(family.loopback)
    before = (
        *_excluded_interfaces(config, "-o"),
        *_self_test(config, family),
        # Both protocols: a port that is excluded stays excluded when more than TCP is captured.
        *(
            Rule("outbound port is excluded", "RETURN", _ports(protocol, ports))
            for ports in config.exclude_outbound_ports
            for protocol in PROTOCOLS
        ),
        *_handed_on(config, family),
        *_owner("--uid-owner", config.proxy_uid, loopback),
        *_owner("--gid-owner", config.proxy_gid, loopback),
        *(
            Rule("outbound port is excluded for this user", "RETURN", (*_ports(protocol, ports), _uid(entry.uids)))
            for entry in config.exclude_outbound_ports_for_uids
            for ports in entry.ports
            for protocol in PROTOCOLS
        ),
        *(Rule("user is excluded", "RETURN", (_uid(uids),)) for uids in config.exclude_uids),
        *(Rule("group is excluded", "RETURN", (_gid(gids),)) for gids in config.exclude_gids),
    )
    captured = (
        *_dns(config),
        Rule("loopback stays inside the pod", "RETURN", (Match("-d", loopback),)),
        *(
            Rule("outbound network is excluded", "RETURN", _network("-d", network))
            for network in _of_family(config.exclude_outbound_cidrs, family)
        ),
        *_captured(config, family),
    )
    if config.include_uids is None and config.include_gids is None:
        return (Chain(OUTBOUND, (*before, *captured)),)
    chosen = (
        *(Rule("user is included", OUT_CAPTURE, (_uid(uids),)) for uids in config.include_uids or ()),
        *(Rule("group is included", OUT_CAPTURE, (_gid(gids),)) for gids in config.include_gids or ()),
    )
    return Chain(OUTBOUND, (*before, *chosen)), Chain(OUT_CAPTURE, captured)


def _self_test(config: InterceptionConfig, family: Family) -> tuple[Rule, ...]:
    """What the sidecar proves the redirect with, where an excluded port would let it past: it would never be ready."""
    if not any(ports.first <= names.SELF_TEST_PORT <= ports.last for ports in config.exclude_outbound_ports):
        return ()
    to_itself = (
        Match("-d", str(family.self_test)),
        Match("-o", "lo"),
        *_tcp(names.SELF_TEST_PORT),
        Match("--uid-owner", str(config.proxy_uid)),
    )
    return (Rule("the sidecar tests that it is dialled, whatever port is excluded", IN_REDIRECT, to_itself),)


def _handed_on(config: InterceptionConfig, family: Family) -> tuple[Rule, ...]:
    own_address = (Match("-s", str(family.inbound_source)), Match("-o", "lo"))
    handed = Rule("the sidecar hands a connection to its application", "RETURN", own_address)
    if config.inbound_mode is not InboundMode.TPROXY:
        return (handed,)
    from_client = (Match("-o", "lo"), _protocol("tcp"), _marked("mark"))
    return handed, Rule("the sidecar hands a connection on from the address of its client", "RETURN", from_client)


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
        # The application called its own Service: the outbound side dialled this very pod, and the connection must come
        # in as any other peer's would.
        Rule("the sidecar calls its own pod: in by the front door", IN_REDIRECT, to_itself),
        Rule("the application calls its own pod", "RETURN", (Match("-o", "lo"), foreign)),
        Rule("what the sidecar dials is never captured again", "RETURN", (own,)),
    )


def _dns(config: InterceptionConfig) -> tuple[Rule, ...]:
    if config.dns_port is None:
        return ()
    # UDP first: that is how nearly every question goes; TCP is for answers that are too long for it (RFC 7766 §5).
    return tuple(
        Rule("a question to a name server", "REDIRECT", _ports(protocol, DOMAIN), _to(config.dns_port))
        for protocol in reversed(PROTOCOLS)
    )


def _captured(config: InterceptionConfig, family: Family) -> tuple[Rule, ...]:
    tcp = (_protocol("tcp"),)
    if config.include_outbound_ports is None or config.include_outbound_cidrs is None:
        return (Rule("every other outbound connection", OUT_REDIRECT, tcp),)
    networks = _of_family(config.include_outbound_cidrs, family)
    return (
        *(Rule("outbound port is included", OUT_REDIRECT, _tcp(ports)) for ports in config.include_outbound_ports),
        *(Rule("outbound network is included", OUT_REDIRECT, (*_network("-d", network), *tcp)) for network in networks),
    )


# mangle: what must be settled before nat and routing see a packet


def _mangle(config: InterceptionConfig, family: Family) -> Table:
    chains: tuple[Chain, ...] = ()
    jumps: tuple[Jump, ...] = ()
    if config.drop_invalid:
        unknown = Rule("no connection that the kernel knows", "DROP", (Match("--ctstate", "INVALID"),))
        chains += (Chain(INVALID, (*_excluded_interfaces(config, "-i"), unknown)),)
        jumps += tuple(
            Jump("PREROUTING", Rule("packets that fit no connection", INVALID, matches))
            for matches in _interfaces(config, "-i")
        )
    if config.inbound_mode is InboundMode.TPROXY:
        # Unlike nat, mangle sees what a pod sends itself once more, as it comes out of lo.
        inside = Rule("what stays inside the pod comes from nobody else", "RETURN", (Match("-i", "lo"),))
        chains += (*_inbound(config, family, IN_TPROXY, inside), _tproxy(config, family), _marks())
        jumps += (
            *_inbound_jumps(config),
            Jump("OUTPUT", Rule("connections that keep the address of their client", MARK, (_protocol("tcp"),))),
        )
    return Table("mangle", chains, jumps)


def _tproxy(config: InterceptionConfig, family: Family) -> Chain:
    # Only the packet that opens a connection needs it: the later ones find their socket by themselves. Those of other
    # connections, such as answers to what the sidecar dialled, would be dropped, because TPROXY takes only sockets
    # that are transparent.
    to = ("--on-port", str(config.inbound_port), "--on-ip", family.unspecified)
    mark = ("--tproxy-mark", f"{TPROXY_MARK}/{ALL_BITS}")
    rule = Rule("to the inbound side of the sidecar", "TPROXY", (_protocol("tcp"), SYN), (*to, *mark))
    return Chain(IN_TPROXY, (rule,))


def _marks() -> Chain:
    masks = ("--nfmask", ALL_BITS, "--ctmask", ALL_BITS)
    dialled = (Match("-o", "lo"), _protocol("tcp"), _marked("mark"))
    answered = (_protocol("tcp"), _marked("connmark"))
    return Chain(
        MARK,
        (
            Rule("the sidecar dials as its client: remember it", "CONNMARK", dialled, ("--save-mark", *masks)),
            Rule("answers to it stay inside the pod", "CONNMARK", answered, ("--restore-mark", *masks)),
        ),
    )


# raw: before connection tracking


def _raw(config: InterceptionConfig) -> Table:
    """Keep the application's questions and the sidecar's own apart in connection tracking.

    Both ask the same name server from the pod's address. Where they chose the same source port, the sidecar's packet
    would belong to the application's connection and be redirected to the sidecar.
    """
    if config.dns_port is None:
        return Table("raw", (), ())
    sidecar, application = ("--zone", str(SIDECAR_ZONE)), ("--zone", str(APPLICATION_ZONE))
    owners = (Match("--uid-owner", str(config.proxy_uid)), Match("--gid-owner", str(config.proxy_gid)))
    questions, answers = _ports("udp", DOMAIN), (_protocol("udp"), Match("--sport", str(config.dns_port)))
    name_server = (_protocol("udp"), Match("--sport", str(DOMAIN)))
    return Table(
        "raw",
        (
            Chain(
                DNS_QUESTIONS,
                (
                    *(Rule("the sidecar asks", "CT", (*questions, owner), sidecar) for owner in owners),
                    Rule("the sidecar answers", "CT", answers, application),
                    Rule("the application asks", "CT", questions, application),
                ),
            ),
            Chain(DNS_ANSWERS, (Rule("a name server answers the sidecar", "CT", name_server, sidecar),)),
        ),
        (
            Jump("PREROUTING", Rule("answers of name servers", DNS_ANSWERS, (_protocol("udp"),))),
            Jump("OUTPUT", Rule("questions to name servers", DNS_QUESTIONS, (_protocol("udp"),))),
        ),
    )


# Parts of rules


def _interfaces(config: InterceptionConfig, option: str, *always: str) -> tuple[tuple[Match, ...], ...]:
    """One condition for each interface that is looked at; a single empty one where all are."""
    if config.include_interfaces is None:
        return ((),)
    return tuple((Match(option, name),) for name in (*always, *config.include_interfaces))


def _excluded_interfaces(config: InterceptionConfig, option: str) -> tuple[Rule, ...]:
    return tuple(
        Rule(f"interface {name} is excluded", "RETURN", (Match(option, name),)) for name in config.exclude_interfaces
    )


def _protocol(protocol: Protocol) -> Match:
    return Match("-p", protocol)


def _ports(protocol: Protocol, ports: PortRange | int) -> tuple[Match, ...]:
    return (_protocol(protocol), Match("--dport", str(ports)))


def _tcp(ports: PortRange | int) -> tuple[Match, ...]:
    return _ports("tcp", ports)


def _uid(uids: IdRange) -> Match:
    return Match("--uid-owner", str(uids))


def _gid(gids: IdRange) -> Match:
    return Match("--gid-owner", str(gids))


def _marked(module: Literal["mark", "connmark"]) -> Match:
    return Match("--mark", TPROXY_MARK, module=module)


def _to(port: int) -> tuple[str, ...]:
    return ("--to-ports", str(port))


def _network(option: str, network: Network) -> tuple[Match, ...]:
    # The packet filter does not keep a condition that every address meets, and would not list it afterwards.
    return (Match(option, network_text(network)),) if network.prefixlen else ()


def _of_family(networks: Networks, family: Family) -> Networks:
    return tuple(network for network in networks if network.version == family.version)
