"""The peers document: YAML or JSON → entries, or problems with their lines. Strict: one fault, and nothing of it holds.

    apiVersion: qbitel.io/v1
    kind: Peers
    peers:
    - name: orders
      hosts: [orders.shop.svc.cluster.local, "*.orders.shop.svc"]
      cidrs: [10.96.7.1/32]
      ports: [8080, "9000-9100"]
      mode: require

Beside that one document the file may have DestinationRules, which hold for its destinations (rules.py).
docs/peers.md says what each field means. Whoever finds services out by other means writes the same document.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh import reading
from mesh.documents import Document, Path, Problem, read_documents
from mesh.errors import UserError
from mesh.reading import Report, Shape, fields, integer, list_of, map_of, number, seconds, shown, text
from mesh.spiffe import InvalidSpiffeId, SpiffeId
from mesh.traffic import DestinationRule, service_namespace
from pqtls import PROFILES
from proxy.peers.entries import (
    LONGEST_CONNECT,
    LONGEST_EJECTION,
    Balancing,
    Ejection,
    PeerEndpoint,
    PeerEntry,
    Retrying,
)
from proxy.peers.table import PeerTable, network_of
from proxy.routes import EVERY_PORT, Mode, Network, PortRange

API_VERSION: Final = "qbitel.io/v1"
KIND: Final = "Peers"
_RULE: Final = "DestinationRule"
_FOREIGN_RULE: Final = "is none of Istio's; write apiVersion: networking.istio.io/v1"
# Far beyond any cluster's number of Services and of one Service's pods: whoever writes the document must not be able to
# have us grow without end.
MAX_ENTRIES: Final = 10_000
MAX_OF_ENTRY: Final = 1_000
MAX_NAMES: Final = 1_000
# Services whose names are given: those of a large cluster, all of them.
MAX_SERVICES: Final = 20_000
_MAX_WEIGHT: Final = 1_000_000
_MAX_COUNT: Final = 2**31 - 1

_NAME: Final = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
# RFC 1123 §2.1 and, because Kubernetes' own names have them in SRV records, underscores.
_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*\.?")
# Every service account of one namespace; of nothing else there is a pattern.
_NAMESPACE_S: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}/ns/[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/sa/\*")
_ADDRESS_AND_PORT: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+)):(?P<port>[0-9]{1,5})")


class Refused(UserError):
    """The document cannot be taken. The message is one line and names the file, the line and the field."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class PeersDocument:
    """What a file says: destinations, and the DestinationRules beside them."""

    entries: tuple[PeerEntry, ...]
    rules: tuple[DestinationRule, ...] = ()


def read_peers(content: bytes, source: str) -> PeersDocument:
    """What the document `content` says; `source` names it in problems. Raises Refused."""
    documents, problems = read_documents(content, source)
    if problems:
        raise Refused(problems)
    rules = [one for one in documents if one.value.get("kind") == _RULE]
    others = [one for one in documents if one.value.get("kind") != _RULE]
    if len(others) != 1:
        line = others[1].line() if others else 0
        what = "there is more than one document in it" if others else "there is no document in it"
        raise Refused((Problem(source, line, "", "", f"{what}; a peers document is one of kind {KIND}"),))
    return PeersDocument(_entries(others[0]), _rules(rules) if rules else ())


def _rules(documents: list[Document]) -> tuple[DestinationRule, ...]:
    # Whoever has no rules does without a reader of them: two megabytes.
    from mesh.resources import ResourceSet  # noqa: PLC0415

    resources = ResourceSet.of(documents)
    if resources.errors or resources.foreign:
        raise Refused(resources.errors or tuple(one.problem((), _FOREIGN_RULE) for one in resources.foreign))
    return resources.destination_rules


def _entries(document: Document) -> tuple[PeerEntry, ...]:
    report = Report(document)
    _DOCUMENT(document.value, (), report)
    if not report.refused():
        entries = [_entry(value, ("peers", number), report) for number, value in enumerate(document.value["peers"])]
        found = [entry for entry in entries if entry is not None]
        if not report.refused():
            _check_together(found, report)
        if not report.refused():
            return tuple(found)
    raise Refused(tuple(problem for problem in report.problems if problem.severity == "error"))


# -- one entry: shape first, then what only a person could have meant ------------------------------------------------


def _entry(value: Mapping[str, Any], path: Path, report: Report) -> PeerEntry | None:
    mode = _mode(value["mode"])
    before = report.errors
    _check_mode(value, mode, path, report)
    endpoints = tuple(_endpoint(one) for one in value.get("endpoints", ()))
    hosts = [host.removesuffix(".") for host in value.get("hosts", ())]
    several = bool(endpoints) or "balancing" in value
    if not ("cidrs" in value or "hosts" in value or "services" in value):
        report.error(path, "has neither cidrs nor hosts nor services: it would be about nothing")
    services = {host.removesuffix("."): _networks(cidrs) for host, cidrs in value.get("services", {}).items()}
    if services and endpoints:
        report.error(
            (*path, "endpoints"), "stand for whatever the entry matches, and services are several destinations"
        )
    if "balancing" in value and not endpoints and not any(not host.startswith("*.") for host in hosts):
        report.error((*path, "balancing"), "needs endpoints, or hosts whose addresses can be asked for")
    if len({str(one) for one in endpoints}) < len(endpoints):
        report.error((*path, "endpoints"), "one address is given twice; give it a weight instead")
    if report.errors != before:
        return None
    return PeerEntry(
        name=value["name"],
        mode=mode,
        networks=(*_networks(value.get("cidrs", ())), *(one for its in services.values() for one in its)),
        hosts=tuple(hosts),
        ports=tuple(_ports(one) for one in value["ports"]) if "ports" in value else (EVERY_PORT,),
        identities=frozenset(value.get("identities", ())),
        profile=value.get("profile"),
        endpoints=endpoints,
        tunnel_port=value.get("tunnelPort"),
        balancing=Balancing(value.get("balancing", "leastConnections")) if several else None,
        connect_timeout=seconds(value["connectTimeout"]) if "connectTimeout" in value else None,
        retrying=_retrying(value.get("retries"), several),
        ejection=_ejection(value.get("outlierEjection"), several),
        max_connections=value.get("maxConnections"),
        max_pending=value.get("maxPending"),
        services=services,
        said=frozenset(value),
    )


def _check_mode(value: Mapping[str, Any], mode: Mode, path: Path, report: Report) -> None:
    if mode is not Mode.REQUIRE and "identities" in value:
        # Plaintext has no identity: such an entry would promise what it does not keep.
        report.error((*path, "identities"), "only mode require can hold a peer to its identity")
    if mode is Mode.OFF:
        for name in ("profile", "tunnelPort"):
            if name in value:
                report.error((*path, name), "means nothing in mode off: connections pass as plain TCP")


def _check_together(entries: list[PeerEntry], report: Report) -> None:
    seen: dict[str, int] = {}
    for place, entry in enumerate(entries):
        if entry.name in seen:
            report.error(("peers", place, "name"), f"{shown(entry.name)} is the name of peers[{seen[entry.name]}] too")
        seen.setdefault(entry.name, place)
    places = {id(entry): place for place, entry in enumerate(entries)}
    table = PeerTable(entries)
    for clash in table.clashes():
        first, second = sorted((places[id(clash.first)], places[id(clash.second)]))
        report.error(("peers", second), f"{clash.what}: peers[{first}] is about the same destinations")
    if (services := sum(len(entry.services) for entry in entries)) > MAX_SERVICES:
        report.error(("peers",), f"{services} services are more than the {MAX_SERVICES} that are known by name")
    if len(table.names) > MAX_NAMES:
        report.error(("peers",), f"{len(table.names)} host names are more than the {MAX_NAMES} that are asked for")


def _retrying(value: Mapping[str, Any] | None, several: bool) -> Retrying | None:
    default = Retrying()
    if value is None:
        return default if several else None
    if not value.get("attempts", default.attempts):
        return None
    return Retrying(
        value.get("attempts", default.attempts),
        value.get("budgetPercent", 100 * default.ratio) / 100,
        value.get("minPerSecond", default.min_per_second),
    )


def _ejection(value: Mapping[str, Any] | None, several: bool) -> Ejection | None:
    default = Ejection()
    if value is None:
        return default if several else None
    if not value.get("failures", default.failures):
        return None
    return Ejection(
        value.get("failures", default.failures),
        seconds(value["interval"]) if "interval" in value else default.interval,
        seconds(value["time"]) if "time" in value else default.time,
        value.get("maxPercent", default.most_percent),
    )


# -- scalars ---------------------------------------------------------------------------------------------------------


def _mode(value: str | bool) -> Mode:
    # To YAML 1.1, and so to kubectl, a plain `off` is the boolean.
    return Mode.OFF if value is False else Mode(value)


def _mode_or_off(value: Any, path: Path, report: Report) -> None:
    if value is not False:
        text(choices=[mode.value for mode in Mode])(value, path, report)


def _networks(cidrs: Iterable[str]) -> tuple[Network, ...]:
    return tuple(map(_network, cidrs))


def _network(cidr: str) -> Network:
    network = network_of(cidr)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.ip_network((mapped, network.prefixlen - 96))


def _ports(value: int | str) -> PortRange:
    """Raises ValueError."""
    if isinstance(value, int):
        return PortRange(value, value)
    first, dash, last = value.partition("-")
    found = PortRange(int(first), int(last if dash else first))
    if not 1 <= found.first <= found.last <= 65535:
        raise ValueError(f"{value} is not within 1 to 65535, or ends before it begins")
    return found


def _endpoint(value: Mapping[str, Any]) -> PeerEndpoint:
    host, port = _address_and_port(value["address"])
    return PeerEndpoint(host, port, value.get("weight", 1))


def _address_and_port(value: str) -> tuple[str, int | None]:
    """`10.0.0.5`, `10.0.0.5:80`, `fd00::5` or `[fd00::5]:80`. Raises ValueError."""
    found = _ADDRESS_AND_PORT.fullmatch(value)
    host, port = (found["v6"] or found["v4"], int(found["port"])) if found else (value, None)
    address = ipaddress.ip_address(host)
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"{port} is no port")
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"{address} is no address of one machine")
    return str(address), port


def _checked(check: Any, wanted: str) -> Shape:
    """A shape of text that `check` takes without a ValueError."""

    def shape(value: Any, path: Path, report: Report) -> None:
        before = report.errors
        reading.WORDS(value, path, report)
        if report.errors == before:
            try:
                check(value)
            except ValueError as error:
                report.error(path, f"{shown(value)} is no {wanted}: {error}")

    return shape


def _port_or_range(value: Any, path: Path, report: Report) -> None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?", value):
        try:
            _ports(value)
        except ValueError as error:
            report.error(path, str(error))
    elif isinstance(value, str):
        report.error(path, f'{shown(value)} is neither a port nor a range of ports, as in "8000-8999"')
    else:
        reading.PORT(value, path, report)


def _duration(least: float, most: float) -> Shape:
    def shape(value: Any, path: Path, report: Report) -> None:
        before = report.errors
        reading.duration(least)(value, path, report)
        if report.errors == before and not seconds(value) <= most:
            report.error(path, f"{shown(value)} is longer than {most:g} s")

    return shape


def _host(value: str) -> None:
    if len(value) > 253 + len("*.") or not _HOST.fullmatch(value):
        raise ValueError("a name in small letters, or a suffix such as *.shop.svc")
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if value.replace(".", "").isdigit():  # what resolvers take for an address, in one of its older spellings
            raise ValueError("it looks like an address: those stand in cidrs") from None
        return
    raise ValueError("it is an address: those stand in cidrs")


def _service(value: str) -> None:
    _host(value)
    if value.startswith("*.") or not service_namespace(value):
        raise ValueError("it is written as in web.shop.svc.cluster.local")


def _identity(value: str) -> None:
    if _NAMESPACE_S.fullmatch(value):
        return
    try:
        spelled = str(SpiffeId.parse(value))
    except InvalidSpiffeId as error:
        raise ValueError(str(error)) from None
    if spelled != value:
        raise ValueError(f"it is written {spelled}")


_PEER: Final = fields(
    {
        "name": text(pattern=_NAME, wanted="name: letters, digits, '.', '-' and '_', at most 63"),
        "mode": _mode_or_off,
        "cidrs": list_of(_checked(_network, "network"), least=1, most=MAX_OF_ENTRY),
        "services": map_of(
            list_of(_checked(_network, "network"), least=1, most=MAX_OF_ENTRY),
            key=_checked(_service, "full name of a Service"),
        ),
        "hosts": list_of(_checked(_host, "host"), least=1, most=MAX_OF_ENTRY),
        "ports": list_of(_port_or_range, least=1, most=MAX_OF_ENTRY),
        "identities": list_of(_checked(_identity, "SPIFFE ID"), least=1, most=MAX_OF_ENTRY),
        "profile": text(choices=list(PROFILES)),
        "endpoints": list_of(
            fields(
                {"address": _checked(_address_and_port, "address"), "weight": integer(1, _MAX_WEIGHT)},
                required=["address"],
            ),
            least=1,
            most=MAX_OF_ENTRY,
        ),
        "tunnelPort": reading.PORT,
        "balancing": text(choices=[one.value for one in Balancing]),
        "connectTimeout": _duration(0.001, LONGEST_CONNECT),
        "retries": fields(
            {
                "attempts": integer(0, 10),
                "budgetPercent": number(0, 100),
                "minPerSecond": number(0, 1_000_000),
            }
        ),
        "outlierEjection": fields(
            {
                "failures": integer(0, 1_000_000),
                "interval": _duration(0.001, LONGEST_EJECTION),
                "time": _duration(0.001, LONGEST_EJECTION),
                "maxPercent": integer(0, 100),
            }
        ),
        "maxConnections": integer(1, _MAX_COUNT),
        "maxPending": integer(1, _MAX_COUNT),
    },
    required=["name", "mode"],
)
_DOCUMENT: Final = fields(
    {
        "apiVersion": text(choices=[API_VERSION]),
        "kind": text(choices=[KIND]),
        "metadata": reading.anything,
        "peers": list_of(_PEER, most=MAX_ENTRIES),
    },
    required=["apiVersion", "kind", "peers"],
)
# A weight of every endpoint of an entry together is within what a balancer takes (mesh/balancing.py).
assert _MAX_WEIGHT * MAX_OF_ENTRY <= 2**32 - 1  # noqa: S101
