"""What a user asks of interception, read from text and checked before anything is planned.

Every function that reads text raises UserError, and nothing else, whatever the text is; the message names the
flag.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from mesh import names
from mesh.errors import UserError

# Probes and scrapes come from kubelet and Prometheus, which are no members of the mesh: they must reach the
# sidecar's own servers directly, whatever else is excluded. Scrape configurations
# of migrated workloads still name the port of Istio's merged metrics, and interception that caught it would break them.
ALWAYS_EXCLUDED_INBOUND: Final = (names.METRICS_PORT, names.HEALTH_PORT, names.MERGED_METRICS_PORT)

# What a connection must not be sent to by a rule, with the reason. Those that are never captured would stand open to
# whoever dials them, past what captures connections; the others belong to other servers of the sidecar.
_NO_CAPTURE_PORT: Final = {
    names.ADMIN_PORT: "the sidecar's admin port",
    names.SELF_TEST_PORT: "the port that the sidecar's self-test dials",
    names.TUNNEL_PORT: "the tunnel port, which is never captured",
    names.MERGED_METRICS_PORT: "the port of Istio's merged metrics, which is never captured",
    names.HEALTH_PORT: "the sidecar's health port, which is never captured",
    names.METRICS_PORT: "the sidecar's metrics port, which is never captured",
}

EVERYTHING: Final = "*"
LAST_PORT: Final = 65535
_LONGEST_SHOWN: Final = 80  # characters of a value in a message: an address or a port range fits several times over
# uid_t and gid_t are 32 bits, and 2^32 - 1 means "no change" to setuid(2): no process can have it.
LAST_ID: Final = 2**32 - 2
# IFNAMSIZ (linux/if.h) is 16 with the terminating zero. A trailing "+" is the packet filter's wildcard.
_INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}\Z|[A-Za-z0-9_.-]{1,14}\+\Z")

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class IPv6Mode(Enum):
    """Whether IPv6 is intercepted."""

    AUTO = "auto"  # when the network namespace has an IPv6 address
    ON = "on"
    OFF = "off"


class InboundMode(Enum):
    """How what others dial reaches the sidecar."""

    REDIRECT = "redirect"  # the packet filter rewrites the destination; the sidecar needs no right for it
    # The packet stays as it is, so that the application can see its client's address; the sidecar needs NET_RAW.
    TPROXY = "tproxy"


class BackendChoice(Enum):
    """Which of the kernel's two packet filters holds the rules."""

    AUTO = "auto"  # the one that holds rules already, else the one that the kernel supports
    NFT = "nft"
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """The ports from `first` to `last`, both included; a single port is a range of one."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}:{self.last}"


@dataclass(frozen=True, slots=True, order=True)
class IdRange:
    """The user or group ids from `first` to `last`, both included; a single id is a range of one."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


Ports: TypeAlias = tuple[PortRange, ...]
Networks: TypeAlias = tuple[Network, ...]
Ids: TypeAlias = tuple[IdRange, ...]


@dataclass(frozen=True, slots=True, order=True)
class PortsOfUsers:
    """Ports that the processes of some users reach without the sidecar."""

    uids: IdRange
    ports: Ports


@dataclass(frozen=True, slots=True)
class InterceptionConfig:
    """What is captured, what is not, and where it goes. Where a field may be None, None means "all of them".

    Exclusions win over inclusions. With both `include_uids` and `include_gids`, one of the two suffices. Raises
    UserError where two values contradict each other.
    """

    include_inbound_ports: Ports | None = None
    exclude_inbound_ports: Ports = ()
    include_inbound_sources: Networks | None = None
    exclude_inbound_sources: Networks = ()
    include_outbound_ports: Ports | None = ()
    exclude_outbound_ports: Ports = ()
    include_outbound_cidrs: Networks | None = None
    exclude_outbound_cidrs: Networks = ()
    include_uids: Ids | None = None
    include_gids: Ids | None = None
    exclude_uids: Ids = ()
    exclude_gids: Ids = ()
    exclude_outbound_ports_for_uids: tuple[PortsOfUsers, ...] = ()
    include_interfaces: tuple[str, ...] | None = None
    exclude_interfaces: tuple[str, ...] = ()
    proxy_uid: int = names.SIDECAR_UID
    proxy_gid: int = names.SIDECAR_GID
    outbound_port: int = names.OUTBOUND_PORT
    inbound_port: int = names.INBOUND_PORT
    inbound_mode: InboundMode = InboundMode.REDIRECT
    dns_port: int | None = None  # where questions to name servers go; None: where the application sends them
    drop_invalid: bool = False
    ipv6: IPv6Mode = IPv6Mode.AUTO
    backend: BackendChoice = BackendChoice.AUTO

    def __post_init__(self) -> None:
        taken: dict[int, str] = {}
        own = (
            ("--outbound-port", self.outbound_port),
            ("--inbound-port", self.inbound_port),
            ("--dns-port", self.dns_port),
        )
        for flag, port in own:
            if port is None:
                continue
            if port in _NO_CAPTURE_PORT:
                raise UserError(f"{flag}: {port} is {_NO_CAPTURE_PORT[port]}; choose another one")
            if port in taken:
                raise UserError(f"{taken[port]} and {flag} are both {port}; give each its own port")
            taken[port] = flag
        # Ports and networks have no such rule: to capture nothing inbound, or nothing outbound, is a wish of its own.
        for flag, value in (
            ("--include-inbound-sources", self.include_inbound_sources),
            ("--include-interfaces", self.include_interfaces),
            ("--include-uids", self.include_uids),
            ("--include-gids", self.include_gids),
        ):
            if value == ():
                raise UserError(f"{flag}: an empty list would capture nothing; name some, or write '*' for all")


def without_effect(config: InterceptionConfig) -> tuple[str, ...]:
    """Return one line for each option of `config` that is harmless, changes nothing, and was hardly meant so."""
    lines = []
    never = {names.TUNNEL_PORT, *ALWAYS_EXCLUDED_INBOUND}
    # A range that is longer than these was not meant for them alone.
    short = (ports for ports in config.include_inbound_ports or () if ports.last - ports.first < len(never))
    idle = [str(ports) for ports in short if never.issuperset(range(ports.first, ports.last + 1))]
    if idle:
        lines.append(f"--include-inbound-ports: {', '.join(idle)} has no effect: it is never captured")
    if config.include_outbound_ports and config.include_outbound_cidrs is None:
        lines.append(
            "--include-outbound-ports has no effect: it adds to --include-outbound-cidrs, which is every address; to "
            "capture these ports alone, add --include-outbound-cidrs ''"
        )
    if config.include_outbound_ports is None and config.include_outbound_cidrs:
        lines.append(
            "--include-outbound-cidrs has no effect: --include-outbound-ports '*' captures every port of every address"
        )
    return tuple(lines)


def parse_ports(flag: str, text: str) -> Ports:
    """Read a comma-separated list of ports and ranges (`80,8000-8100,9000:9010`); the empty text is no port.

    Returns them sorted, those that touch or overlap as one, so that two spellings of one wish make one plan.
    """
    return _ports(_port_range(flag, entry) for entry in _entries(flag, text))


def parse_ports_or_all(flag: str, text: str) -> Ports | None:
    """As parse_ports, and `*` alone is every port (None)."""
    return None if text.strip() == EVERYTHING else parse_ports(flag, text)


def parse_port(flag: str, text: str) -> int:
    """Read one port, 1 to 65535."""
    return _number(flag, text, first=1, last=LAST_PORT, kind="a port")


def parse_networks(flag: str, text: str) -> Networks:
    """Read a comma-separated list of IPv4 and IPv6 networks in CIDR notation; the empty text is none.

    Host bits are cleared, as the packet filter itself does (10.1.2.3/8 is 10.0.0.0/8); a bare address is a
    network of one. Returns them IPv4 first, sorted, without repetitions.
    """
    networks = {_network(flag, entry) for entry in _entries(flag, text)}
    return tuple(
        sorted(networks, key=lambda network: (network.version, network.network_address.packed, network.prefixlen))
    )


def parse_networks_or_all(flag: str, text: str) -> Networks | None:
    """As parse_networks, and `*` alone is every address (None)."""
    return None if text.strip() == EVERYTHING else parse_networks(flag, text)


def parse_interfaces(flag: str, text: str) -> tuple[str, ...]:
    """Read a comma-separated list of network interfaces; a trailing `+` matches every name that starts so."""
    return tuple(sorted({_interface(flag, entry) for entry in _entries(flag, text)}))


def parse_interfaces_or_all(flag: str, text: str) -> tuple[str, ...] | None:
    """As parse_interfaces, and `*` alone is every interface (None)."""
    return None if text.strip() == EVERYTHING else parse_interfaces(flag, text)


def parse_ids(flag: str, text: str) -> Ids:
    """Read a comma-separated list of numeric user or group ids and ranges of them (`0,1000-1999`).

    Returns them sorted, those that touch or overlap as one; the empty text is none.
    """
    entries = (_id_range(flag, entry) for entry in _entries(flag, text))
    return tuple(IdRange(*found) for found in _merged((entry.first, entry.last) for entry in entries))


def parse_ids_or_all(flag: str, text: str) -> Ids | None:
    """As parse_ids, and `*` alone is every id (None)."""
    return None if text.strip() == EVERYTHING else parse_ids(flag, text)


def parse_ports_of_users(flag: str, text: str) -> tuple[PortsOfUsers, ...]:
    """Read which users reach which ports directly: `UIDS:PORTS`, several joined by `;`.

    `1000:25,465-587;2000-2010:9092` lets UID 1000 reach 25 and 465 to 587, and UIDs 2000 to 2010 port 9092. Returns
    them by UID, each UID once, neighbours with the same ports as one.
    """
    entries = [_ports_of_users(flag, entry) for entry in text.split(";")] if text.strip() else []
    # Between two neighbouring edges every UID has the same ports.
    edges = sorted({edge for entry in entries for edge in (entry.uids.first, entry.uids.last + 1)})
    found: list[PortsOfUsers] = []
    for first, end in itertools.pairwise(edges):
        here = [entry.ports for entry in entries if entry.uids.first <= first <= entry.uids.last]
        ports = _ports(itertools.chain.from_iterable(here))
        if found and (found[-1].uids.last + 1, found[-1].ports) == (first, ports):
            found[-1] = PortsOfUsers(IdRange(found[-1].uids.first, end - 1), ports)
        elif ports:
            found.append(PortsOfUsers(IdRange(first, end - 1), ports))
    return tuple(found)


def parse_id(flag: str, text: str) -> int:
    """Read the numeric user or group id of the sidecar, which cannot be root's."""
    number = _number(flag, text, first=0, last=LAST_ID, kind="a numeric id")
    if number == 0:
        raise UserError(f"{flag}: 0 would exempt root; give the sidecar an id such as {names.SIDECAR_UID}")
    return number


def _entries(flag: str, text: str) -> list[str]:
    if not text.strip():
        return []
    entries = [entry.strip() for entry in text.split(",")]
    if "" in entries:
        raise UserError(f"{flag}: {_shown(text)} has an empty entry; separate entries by single commas")
    if EVERYTHING in entries:
        raise UserError(f"{flag}: '*' means all of them and cannot be one entry of a list here")
    return entries


def _ports(ranges: Iterable[PortRange]) -> Ports:
    return tuple(PortRange(*found) for found in _merged((ports.first, ports.last) for ports in ranges))


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers in as few ranges as they need, sorted."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _port_range(flag: str, entry: str) -> PortRange:
    first, separator, last = entry.replace(":", "-").partition("-")
    kind = "a port, nor a range such as 8000-8100"
    start = _number(flag, first, first=1, last=LAST_PORT, kind=kind, shown=entry)
    end = _number(flag, last, first=1, last=LAST_PORT, kind=kind, shown=entry) if separator else start
    if start > end:
        raise UserError(f"{flag}: {_shown(entry)} starts above its end; write {end}-{start}")
    return PortRange(start, end)


def _id_range(flag: str, entry: str) -> IdRange:
    first, separator, last = entry.partition("-")
    kind = "a numeric id, nor a range such as 1000-1999"
    start = _number(flag, first, first=0, last=LAST_ID, kind=kind, shown=entry)
    end = _number(flag, last, first=0, last=LAST_ID, kind=kind, shown=entry) if separator else start
    if start > end:
        raise UserError(f"{flag}: {_shown(entry)} starts above its end; write {end}-{start}")
    return IdRange(start, end)


def _ports_of_users(flag: str, entry: str) -> PortsOfUsers:
    uids, separator, ports = entry.partition(":")
    if not separator or not ports.strip():
        raise UserError(f"{flag}: {_shown(entry)} is not UIDS:PORTS such as 1000:25,465-587; join several by ';'")
    return PortsOfUsers(_id_range(flag, uids.strip()), parse_ports(flag, ports))


def _number(flag: str, text: str, *, first: int, last: int, kind: str, shown: str | None = None) -> int:
    digits = text.strip()
    # The length is checked before int(): a number of thousands of digits is slow to convert, and then an
    # error in Python.
    if not digits.isascii() or not digits.isdigit() or len(digits) > len(str(last)) or not first <= int(digits) <= last:
        raise UserError(f"{flag}: {_shown(text if shown is None else shown)} is not {kind} ({first} to {last})")
    return int(digits)


def _network(flag: str, entry: str) -> Network:
    refusal = UserError(f"{flag}: {_shown(entry)} is not a network in CIDR notation such as 10.0.0.0/8 or fd00::/8")
    if "%" in entry:  # an address with a zone (fe80::1%eth0) is one interface's, which the packet filter cannot say
        raise refusal
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        raise refusal from None


def _interface(flag: str, entry: str) -> str:
    if not _INTERFACE.match(entry):
        raise UserError(f"{flag}: {_shown(entry)} is not an interface name (eth1), nor the start of some (veth+)")
    prefix = entry.removesuffix("+")
    if entry == "lo" or (prefix != entry and "lo".startswith(prefix)):
        raise UserError(f"{flag}: {entry!r} covers lo, over which the sidecar reaches its application; leave it out")
    return entry


def _shown(text: str) -> str:
    # A value is shown on one line of a log: control characters escaped, not longer than helps to find it. It is cut
    # after that, because an escape makes up to ten characters of one.
    shown = ascii(text[:_LONGEST_SHOWN])
    return shown if len(shown) <= _LONGEST_SHOWN else shown[: _LONGEST_SHOWN - 4] + "...'"
