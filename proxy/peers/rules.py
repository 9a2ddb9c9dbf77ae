"""DestinationRules → what they add to the entries of a peers document: limits, times, balancing, the mode. Pure.

Which rule holds for a host is Istio's matter (mesh/traffic.py), and what `qbitel policy explain` shows. docs/peers.md
says which fields of a rule are followed, and why others are not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from mesh.building.metadata import PROFILE_ANNOTATION
from mesh.errors import UserError
from mesh.limits import outlier_detection
from mesh.selectors import Workload
from mesh.spiffe import SCHEME
from mesh.traffic import (
    ClientTls,
    ConnectionPool,
    DestinationRule,
    DestinationRules,
    OutlierDetection,
    TlsMode,
    TrafficPolicy,
    service_namespace,
)
from proxy.peers.entries import LONGEST_CONNECT, LONGEST_EJECTION, Balancing, Ejection, PeerEntry, Retrying
from proxy.peers.table import SUFFIX, PeerTable
from proxy.routes import EVERY_PORT, Mode, PortRange

# A wildcard's rule makes an entry of each Service, and of each port that it sets apart: some 50 MB of them.
MAX_MADE: Final = 50_000
# UNSPECIFIED says nothing, and PASSTHROUGH that what was dialled is connected to, which is done anyway.
_BALANCING: Final = {
    "ROUND_ROBIN": Balancing.ROUND_ROBIN,
    "LEAST_REQUEST": Balancing.LEAST_CONNECTIONS,
    "LEAST_CONN": Balancing.LEAST_CONNECTIONS,
    "RANDOM": Balancing.RANDOM,
}
# What an entry's own field is called in the document: where that says it, no rule does.
_FIELDS: Final = {
    "max_connections": "maxConnections",
    "max_pending": "maxPending",
    "connect_timeout": "connectTimeout",
    "balancing": "balancing",
    "retrying": "retries",
    "ejection": "outlierEjection",
    "identities": "identities",
    "profile": "profile",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """The DestinationRules of a folder, for whom they are followed, and the profiles that he speaks."""

    rules: tuple[DestinationRule, ...]
    client: Workload
    trust_domain: str
    root_namespace: str
    profiles: frozenset[str]

    def beside(self, published: Iterable[DestinationRule]) -> DestinationRules:
        """These, and those `published` by others.

        The folder speaks for the client's own namespace and for the root namespace, alone: what else is said of these
        may be old.
        """
        own = {self.client.namespace, self.root_namespace}
        others = (rule for rule in published if rule.metadata.namespace not in own)
        return DestinationRules((*self.rules, *others), self.client, self.root_namespace)

    @property
    def unspoken(self) -> tuple[DestinationRule, ...]:
        """Those that ask for a profile which is none of ours."""
        asking = ((rule, rule.metadata.annotations.get(PROFILE_ANNOTATION)) for rule in self.rules)
        return tuple(rule for rule, profile in asking if profile is not None and profile not in self.profiles)


def entries_with(
    entries: Iterable[PeerEntry], published: Iterable[DestinationRule], rules: Rules
) -> tuple[PeerEntry, ...]:
    """The entries, with what the rules say; `published` are those of the document. Raises UserError for too many.

    Each name to which a rule adds something becomes an entry of its own, and so does each port that it sets apart.
    """
    table = PeerTable(entries)
    book = rules.beside(published)
    every = (made for entry in table.entries for made in _Following(entry, table, book, rules).made())
    found = tuple(itertools.islice(every, max(MAX_MADE, len(table.entries)) + 1))
    if len(found) > MAX_MADE and len(found) > len(table.entries):
        raise UserError(
            f"the DestinationRules make more than {MAX_MADE} entries of the peers document's {len(table.entries)}: "
            "a rule for many hosts sets many ports apart; leave those out"
        )
    return found


class _Following:
    """One entry of the document, and what rules make of it."""

    def __init__(self, entry: PeerEntry, table: PeerTable, book: DestinationRules, rules: Rules) -> None:
        self._entry = entry
        self._table = table
        self._rules = rules
        names = [host for host in entry.hosts if not host.startswith(SUFFIX)]
        rules_at = {host: book.of(host, service_namespace(host)) for host in (*entry.services, *names)}
        self._found = {host: rule for host, rule in rules_at.items() if rule is not None and self._adds(host, rule)}

    def made(self) -> Iterator[PeerEntry]:
        """What takes the entry's place."""
        entry, found = self._entry, self._found
        if not found:
            yield entry
            return
        if tuple(found) == entry.hosts and len(found) == 1 and not entry.services:
            # Its networks are another word for the same destination.
            (rule,) = found.values()
            yield from self._by_port(entry, entry.name, rule)
            return
        yield from self._rest()
        for host, rule in found.items():
            networks = entry.services.get(host, ())
            if networks:
                part = replace(entry, networks=networks, hosts=(), services={host: networks})
                yield from self._by_port(part, host, rule)
            if host in entry.hosts:
                part = replace(entry, networks=(), hosts=(host,), services={})
                yield from self._by_port(part, f"{entry.name}/{host}", rule)

    def _adds(self, host: str, rule: DestinationRule) -> bool:
        policy = rule.traffic_policy
        part = self._entry if host in self._entry.services else replace(self._entry, services={})
        return any(self._changes(part, each, rule) for each in (policy, *policy.ports.values()))

    def _rest(self) -> Iterator[PeerEntry]:
        """The destinations that no rule is about."""
        entry, found = self._entry, self._found
        taken = {network for host in found for network in entry.services.get(host, ())}
        networks = tuple(network for network in entry.networks if network not in taken)
        hosts = tuple(host for host in entry.hosts if host not in found)
        if networks or hosts:
            services = {host: its for host, its in entry.services.items() if host not in found}
            yield replace(entry, networks=networks, hosts=hosts, services=services)

    def _by_port(self, part: PeerEntry, name: str, rule: DestinationRule) -> Iterator[PeerEntry]:
        policy = rule.traffic_policy
        apart = {}
        for port in policy.ports:
            its = self._decided_at(part, port)
            if its.networks or its.hosts:
                apart[port] = its
        ranges = tuple(ports for ports in part.ports if not (ports.width == 1 and ports.first in apart))
        if ranges:
            # A name in the document has no colon in it.
            whole = name if name == self._entry.name else f"{name}:{','.join(map(_spelled, ranges))}"
            yield self._with(replace(part, name=whole, ports=ranges), policy, rule)
        for port, its in apart.items():
            named = replace(its, name=f"{name}:{port}", ports=(PortRange(port, port),))
            yield self._with(named, policy.at(port), rule)

    def _decided_at(self, part: PeerEntry, port: int) -> PeerEntry:
        """`part`, without what another entry decides at this port, because it is about fewer ports."""
        entry, table = self._entry, self._table
        networks = tuple(one for one in part.networks if table.at(one.network_address, port) is entry)
        hosts = tuple(host for host in part.hosts if table.by_name(host, port) is entry)
        return replace(part, networks=networks, hosts=hosts)

    def _with(self, part: PeerEntry, policy: TrafficPolicy, rule: DestinationRule) -> PeerEntry:
        changes = self._changes(part, policy, rule)
        return replace(part, rule=str(rule.metadata), **changes) if changes else part

    def _changes(self, part: PeerEntry, policy: TrafficPolicy, rule: DestinationRule) -> dict[str, Any]:
        is_service = bool(part.services)
        said = {**_limits(policy.connection_pool), **({} if is_service else _balanced(part, policy))}
        if policy.tls is not None:
            said |= self._secured(part, policy.tls) if is_service else _pinned(part, policy.tls)
        profile = rule.metadata.annotations.get(PROFILE_ANNOTATION)
        if profile in self._rules.profiles and said.get("mode", part.mode) is not Mode.OFF:
            said["profile"] = profile
        # Of a Service discovery says what is so without a rule, and not what an operator wants.
        own = part.said - {"identities"} if is_service else part.said
        return {
            name: value for name, value in said.items() if value != getattr(part, name) and _FIELDS.get(name) not in own
        }

    def _secured(self, part: PeerEntry, tls: ClientTls) -> Mapping[str, Any]:
        """A Service: how it is spoken to, and who may answer."""
        if tls.mode is TlsMode.DISABLE:
            return {"mode": Mode.OFF, "identities": frozenset(), "profile": None, "tunnel_port": None}
        if tls.mode is not TlsMode.ISTIO_MUTUAL:
            return {}
        identities = frozenset(tls.subject_alt_names) or part.identities
        if not identities:
            # To the namespaces, as discovery pins what it requires (control/discovery/peers_text.py).
            namespaces = {service_namespace(host) for host in part.services}
            identities = frozenset(f"{SCHEME}{self._rules.trust_domain}/ns/{one}/sa/*" for one in namespaces)
        return {"mode": Mode.REQUIRE, "identities": identities}


def _spelled(ports: PortRange) -> str:
    return "*" if ports == EVERY_PORT else str(ports)


def _limits(pool: ConnectionPool | None) -> dict[str, Any]:
    """0 is no limit, as in Istio."""
    found: dict[str, Any] = {}
    if pool is not None:
        if pool.max_connections:
            found["max_connections"] = pool.max_connections
        # Envoy holds TCP connections to it, too, while they are being made.
        if pool.http1_max_pending_requests:
            found["max_pending"] = pool.http1_max_pending_requests
        if pool.connect_timeout is not None:
            found["connect_timeout"] = min(pool.connect_timeout, LONGEST_CONNECT)
    return found


def _balanced(part: PeerEntry, policy: TrafficPolicy) -> dict[str, Any]:
    """Endpoints, or the addresses of a name: which is next, and which is left out."""
    found: dict[str, Any] = {}
    wanted = _BALANCING.get(policy.load_balancer.simple) if policy.load_balancer is not None else None
    if wanted is not None:
        found["balancing"] = wanted
        if part.balancing is None:  # with the same defaults as where the document says it
            found |= {"retrying": Retrying(), "ejection": Ejection()}
    if policy.outlier_detection is not None and (part.balancing or wanted):
        found["ejection"] = _ejection(policy.outlier_detection)
    return found


def _ejection(rule: OutlierDetection) -> Ejection | None:
    """What fails here is the making of a connection. Where the rule does not set such failures apart (`split…`) Envoy
    takes them for a 5xx and for a gateway error, so that the lower of these counts is what decides.
    """
    made = outlier_detection(rule)
    assert made is not None  # noqa: S101  # there is a rule
    if made.split_external_local_origin_errors:
        failures = made.consecutive_local_origin_failures
    else:
        counts = (made.consecutive_5xx_errors, made.consecutive_gateway_errors)
        failures = min((count for count in counts if count), default=0)
    if not failures:
        return None
    return Ejection(
        failures,
        min(made.interval, LONGEST_EJECTION),
        min(made.base_ejection_time, LONGEST_EJECTION),
        made.max_ejection_percent,
        made.min_health_percent,
    )


def _pinned(part: PeerEntry, tls: ClientTls) -> dict[str, Any]:
    """A name of the document: its mode is the document's, and a rule says at most who may answer."""
    if tls.mode is TlsMode.ISTIO_MUTUAL and tls.subject_alt_names and part.mode is Mode.REQUIRE:
        return {"identities": frozenset(tls.subject_alt_names)}
    return {}
