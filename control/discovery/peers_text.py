"""The peers document (docs/peers.md) that all sidecars of a cluster are given. Pure.

JSON, with an entry in each line: the same members give the same bytes. One entry holds all Services of a namespace,
because the document is written into each namespace: five thousand Services come to some 150 kB so, and to six times as
much with an entry each. It says no `hosts`: for each of them every sidecar would ask the resolver again and again. The
Services that a DestinationRule is about are named beside their addresses (client_rules.py).
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from control.discovery.client_rules import NO_RULES, ClientRules
from control.discovery.members import Members, addresses_of
from control.discovery.workloads import Address, Service
from kube.objects import Key
from mesh.names import CONTROL_NAMESPACE, TUNNEL_PORT
from mesh.spiffe import SCHEME

REQUIRE: Final = "require"
PREFER: Final = "prefer"
OFF: Final = "off"
MODES: Final = (REQUIRE, PREFER, OFF)
# Of a list in an entry, and of an entry's name (docs/peers.md).
_MOST_OF_ENTRY: Final = 1_000
_LONGEST_NAME: Final = 63
# No namespace is called so: theirs are in small letters.
_NETWORKS: Final = "NETWORKS"
_SERVICE_NETWORKS: Final = "SERVICE-NETWORKS"
_CONTROL_PLANE: Final = "CONTROL-PLANE"
_NOT_IN_MESH: Final = "NOT-IN-MESH"
_ELSEWHERE: Final = "ELSEWHERE"
_BY_TUNNEL: Final = {"tunnelPort": TUNNEL_PORT}
_API_SERVER: Final[Key] = ("default", "kubernetes")
_HEAD: Final = '{"apiVersion":"qbitel.io/v1","kind":"Peers","peers":[\n'
_TAIL: Final = "\n]}\n"
# Where there are DestinationRules, the document and they are the items of one.
_LIST: Final = '{"apiVersion":"v1","kind":"List","items":[\n'
_PIN: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}/ns/([a-z0-9-]{1,63})/sa/\*")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshSettings:
    """What an installation says: its trust domain; the networks of its pods and Services, and how those are reached.

    `detects`: what the cluster itself says of its networks is added.
    """

    trust_domain: str
    networks: tuple[Network, ...] = ()
    service_networks: tuple[Network, ...] = ()
    detects: bool = False
    mode: str = PREFER
    control_namespace: str = CONTROL_NAMESPACE

    def covers(self, address: Address) -> bool:
        """Whether it is in one of these networks."""
        return any(address in network for network in (*self.networks, *self.service_networks))


def peers_text(
    members: Members, services: Mapping[Key, Service], settings: MeshSettings, rules: ClientRules = NO_RULES
) -> str:
    """The document, and the rules beside it."""
    names = _Names(services, rules)
    entries = _entries(members, services, settings, names)
    lines = (json.dumps(entry, sort_keys=True, separators=(",", ":")) for entry in entries)
    document = _HEAD + ",\n".join(lines) + _TAIL
    if not rules.lines:
        return document
    return _LIST + ",\n".join((document.removesuffix("\n"), *rules.lines)) + _TAIL


def _entries(
    members: Members, services: Mapping[Key, Service], settings: MeshSettings, names: _Names
) -> Iterator[dict[str, Any]]:
    addresses = _Addresses()
    claims = Counter(address for _, address in members)
    partial: defaultdict[str, list[Address]] = defaultdict(list)
    for (namespace, ports), found in sorted(
        _by_entry(members).items(), key=lambda item: (item[0][0], item[0][1] or ())
    ):
        # To the namespace: whoever stands behind a Service is of it. Its accounts may change during a roll-out.
        pinned = {"identities": [f"{SCHEME}{settings.trust_domain}/ns/{namespace}/sa/*"]}
        if ports is None:
            yield from _in_lists(namespace, REQUIRE, addresses.new(found), names.of(namespace), **pinned)
        elif len(ports) <= _MOST_OF_ENTRY:
            name = f"{namespace}.ONLY-{'-'.join(map(str, ports))}"
            mine = names.of(namespace)
            yield from _in_lists(name, REQUIRE, addresses.new(found), mine, **pinned, ports=list(ports))
            partial[namespace] += [one for one in found if claims[one] == 1]
    # What speaks a TLS of its own, which must work before there is a mesh.
    control_plane = addresses_of(services, lambda key: _is_control_plane(key, settings))
    yield from _in_lists(_CONTROL_PLANE, OFF, addresses.new(control_plane), {})
    # Their other ports are known to take no TLS of the mesh: nobody has to ask them.
    for namespace, found in sorted(partial.items()):
        its = [str(one) for one in sorted(found, key=_order) if _passes(one, settings, names)]
        yield from _in_lists(f"{namespace}.OTHER-PORTS", OFF, its, names.of(namespace))
    if settings.mode != OFF:
        # At 15008 of a Service's own address nobody listens, and nobody refuses either.
        others = addresses_of(services, lambda key: not _is_control_plane(key, settings))
        within = [address for address in others if settings.covers(address)]
        mode = REQUIRE if settings.mode == REQUIRE else OFF
        yield from _in_lists(_NOT_IN_MESH, mode, addresses.new(within), names.of())
    # What no entry matches passes as plain TCP, too; a rule needs one.
    elsewhere = addresses_of(services, lambda key: not _is_control_plane(key, settings))
    named = [address for address in elsewhere if str(address) in names.of()]
    yield from _in_lists(_ELSEWHERE, OFF, addresses.new(named), names.of())
    networks = sorted({str(one) for one in settings.networks if not addresses.has(one)})
    yield from _in_lists(_NETWORKS, settings.mode, networks, {}, **({} if settings.mode == OFF else _BY_TUNNEL))
    # A Service that was made a moment ago is in no entry yet: its first clients ask it.
    services_alone = {str(one) for one in settings.service_networks if not addresses.has(one)} - set(networks)
    yield from _in_lists(_SERVICE_NETWORKS, settings.mode, sorted(services_alone), {})


def _passes(address: Address, settings: MeshSettings, names: _Names) -> bool:
    """Whether an entry has to say that an address passes as plain TCP: where the networks' would say something else,
    or a rule is about it.
    """
    if settings.mode == PREFER and settings.covers(address):
        return True
    return str(address) in names.of() and not (settings.mode == REQUIRE and settings.covers(address))


def _by_entry(members: Members) -> Mapping[tuple[str, tuple[int, ...] | None], list[Address]]:
    found: defaultdict[tuple[str, tuple[int, ...] | None], list[Address]] = defaultdict(list)
    for (namespace, address), ports in members.items():
        found[namespace, ports].append(address)
    return found


def _is_control_plane(key: Key, settings: MeshSettings) -> bool:
    return key == _API_SERVER or key[0] == settings.control_namespace


class _Names:
    """The addresses of Services that a rule is about, with their full names."""

    def __init__(self, services: Mapping[Key, Service], rules: ClientRules) -> None:
        self._every: dict[str, str] = {}
        self._by_namespace: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for (namespace, name), service in sorted(services.items()) if rules else ():
            if (host := rules.name(namespace, name)) is not None:
                for address in service.addresses:
                    self._every[str(address)] = self._by_namespace[namespace][str(address)] = host

    def of(self, namespace: str | None = None) -> Mapping[str, str]:
        """Those of a namespace, or all."""
        return self._every if namespace is None else self._by_namespace.get(namespace, {})


class _Addresses:
    """Each is in one entry: two for the same address would tie, and no sidecar would take the document."""

    def __init__(self) -> None:
        self._taken: set[Address] = set()

    def new(self, found: Iterable[Address]) -> list[str]:
        """Those of `found` that are in no entry yet, in order."""
        fresh = set(found) - self._taken
        self._taken |= fresh
        return [str(one) for one in sorted(fresh, key=_order)]

    def has(self, network: Network) -> bool:
        """Whether it is just one address, and in an entry."""
        return network.num_addresses == 1 and network.network_address in self._taken


def _order(address: Address) -> tuple[int, int]:
    return address.version, int(address)


def _in_lists(
    name: str, mode: str, cidrs: list[str], names: Mapping[str, str], **more: Any
) -> Iterator[dict[str, Any]]:
    """As many entries as it takes; what has one of `names` stands under it."""
    for number, start in enumerate(range(0, len(cidrs), _MOST_OF_ENTRY), 1):
        part = name if number == 1 else f"{name}.{number}"
        here = cidrs[start : start + _MOST_OF_ENTRY]
        services: dict[str, list[str]] = {}
        for cidr in here:
            if cidr in names:
                services.setdefault(names[cidr], []).append(cidr)
        unnamed = [cidr for cidr in here if cidr not in names]
        places = {key: its for key, its in (("cidrs", unnamed), ("services", services)) if its}
        yield {"name": _fitting(part), "mode": mode, **places, **more}


def _fitting(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:40]}.{hashlib.sha256(name.encode()).hexdigest()[:20]}"


def published_members(text: str) -> Members:
    """What a document that was published requires: nothing where it is none of ours."""
    found: dict[tuple[str, Address], tuple[int, ...] | None] = {}
    document = text.removeprefix(_LIST)
    if not (document.startswith(_HEAD) and document.endswith(_TAIL)):
        return found
    entries, _, _ = document.removeprefix(_HEAD).partition(_TAIL.rstrip("\n"))
    for line in entries.split(",\n"):
        try:
            entry = json.loads(line)
            found.update(_members_in(entry))
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
            continue  # somebody has edited it; what can be read holds
    return found


def _members_in(entry: dict[str, Any]) -> dict[tuple[str, Address], tuple[int, ...] | None]:
    identities: Sequence[str] = entry.get("identities") or ()
    pinned = _PIN.fullmatch(identities[0]) if len(identities) == 1 else None
    if entry.get("mode") != REQUIRE or pinned is None:
        return {}
    ports = tuple(int(port) for port in entry["ports"]) if "ports" in entry else None
    services: Mapping[str, Sequence[str]] = entry.get("services") or {}
    every = [*(entry.get("cidrs") or ()), *(cidr for cidrs in services.values() for cidr in cidrs)]
    return {(pinned[1], ipaddress.ip_address(cidr)): ports for cidr in every}
