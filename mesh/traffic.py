"""DestinationRule: how a client's sidecar speaks to a host. And which rule holds for which client, host and port."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from mesh.metadata import Metadata
from mesh.selectors import Selector, Workload

if TYPE_CHECKING:
    from mesh.resources import ResourceSet

CLUSTER_DOMAIN: Final = "cluster.local"


class TlsMode(Enum):
    """What a client's sidecar does to the connections that it makes."""

    DISABLE = "DISABLE"  # plaintext
    SIMPLE = "SIMPLE"  # TLS with no certificate of its own
    MUTUAL = "MUTUAL"  # TLS with a certificate that the rule names
    ISTIO_MUTUAL = "ISTIO_MUTUAL"  # TLS with the certificate that the mesh issued: for our sidecars, their profile


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How a client secures its connections."""

    mode: TlsMode = TlsMode.DISABLE
    sni: str = ""
    subject_alt_names: tuple[str, ...] = ()
    client_certificate: str = ""
    private_key: str = field(default="", repr=False)  # the path of a file; still nobody's business in a log
    ca_certificates: str = ""
    ca_crl: str = ""
    credential_name: str = ""
    insecure_skip_verify: bool = False


@dataclass(frozen=True, slots=True)
class TcpKeepalive:
    """Times in seconds; None: what the operating system does."""

    probes: int | None = None
    time: float | None = None
    interval: float | None = None


@dataclass(frozen=True, slots=True)
class ConnectionPool:
    """Limits of connections and requests, times in seconds. None: Istio's default holds."""

    max_connections: int | None = None
    connect_timeout: float | None = None
    tcp_idle_timeout: float | None = None
    max_connection_duration: float | None = None
    tcp_keepalive: TcpKeepalive | None = None
    http1_max_pending_requests: int | None = None
    http2_max_requests: int | None = None
    max_requests_per_connection: int | None = None
    max_retries: int | None = None
    http_idle_timeout: float | None = None
    max_concurrent_streams: int | None = None
    h2_upgrade_policy: str = "DEFAULT"
    use_client_protocol: bool = False


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """When an endpoint is left out for a while. Times in seconds; defaults are Istio's."""

    consecutive_5xx_errors: int | None = None  # Envoy's default is 5; 0 turns it off
    consecutive_gateway_errors: int | None = None
    consecutive_local_origin_failures: int | None = None
    split_external_local_origin_errors: bool = False
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_percent: int = 10
    min_health_percent: int = 0


@dataclass(frozen=True, slots=True)
class ConsistentHash:
    """What a connection or request is hashed by; one of the first four is set."""

    http_header_name: str = ""
    http_cookie_name: str = ""
    http_query_parameter_name: str = ""
    use_source_ip: bool = False
    ring_size: int = 1024  # Istio's default; at least so many points
    maglev_table_size: int | None = None  # set: Maglev in place of a ring


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """How an endpoint is chosen: one of Istio's names, or a consistent hash."""

    simple: str = "UNSPECIFIED"  # which is LEAST_REQUEST
    consistent_hash: ConsistentHash | None = None
    warmup: float | None = None  # seconds in which a new endpoint comes to its full share


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many retries there may be at once: `percent` of what is under way, and never fewer than the minimum."""

    percent: float = 20.0
    min_retry_concurrency: int = 3


@dataclass(frozen=True, slots=True)
class TrafficPolicy:
    """What is None is not said here: for a subset, the host's policy holds."""

    tls: ClientTls | None = None
    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    retry_budget: RetryBudget | None = None
    ports: Mapping[int, TrafficPolicy] = field(default_factory=dict)  # a port's policy takes the place of the whole

    def at(self, port: int) -> TrafficPolicy:
        """What holds for a port of the Service: nothing that is said beside its own settings, if it has some."""
        return self.ports.get(port, self)


@dataclass(frozen=True, slots=True)
class Subset:
    """Some of a host's endpoints, by their labels."""

    name: str
    labels: Mapping[str, str]
    traffic_policy: TrafficPolicy | None = None


@dataclass(frozen=True, slots=True)
class DestinationRule:
    """One resource."""

    metadata: Metadata
    host: str
    traffic_policy: TrafficPolicy
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()  # namespaces, "." for its own, "*" for all, which is the default
    selector: Selector | None = None  # of the clients; None: all that see it

    @property
    def full_host(self) -> str:
        """The host with its namespace and domain, as a client dials it."""
        return full_host(self.host, self.metadata.namespace)

    @property
    def scope(self) -> Hashable:
        """What it is about: two rules of one scope are one rule to Istio."""
        clients = None if self.selector is None else frozenset(self.selector.match_labels.items())
        return self.metadata.namespace, self.full_host.lower(), clients, frozenset(self.export_to or ("*",))

    def is_seen_by(self, namespace: str) -> bool:
        """Whether clients in `namespace` see it."""
        own = self.metadata.namespace
        return any(each in ("*", namespace) or (each == "." and namespace == own) for each in self.export_to or ("*",))


def full_host(host: str, namespace: str, domain: str = CLUSTER_DOMAIN) -> str:
    """A short name is a Service of the rule's own namespace; any name with a dot or a star is what it says."""
    return host if "." in host or host.startswith("*") else f"{host}.{namespace}.svc.{domain}"


def service_namespace(host: str, domain: str = CLUSTER_DOMAIN) -> str:
    """The namespace of the Service with this full name; "" where it is no Service's: somewhere outside."""
    name, _, rest = host.lower().partition(".")
    namespace, _, found = rest.partition(".")
    return namespace if name and found == f"svc.{domain}" else ""


def wildcards_over(host: str) -> Iterator[str]:
    """The patterns that cover `host`, the narrowest first: `*.b.c`, `*.c` and `*` for `a.b.c`."""
    rest = host.lower()
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    yield "*"


def host_matches(pattern: str, host: str) -> bool:
    """Whether `pattern` (a name, `*.` and a domain, or `*`) covers `host`. Names of hosts have no case."""
    pattern, host = pattern.lower(), host.lower()
    if pattern.startswith("*"):
        return host.endswith(pattern[1:])
    return pattern == host


class DestinationRules:
    """The rules that `client` sees, ready to be asked about many hosts: those of a large mesh are some thousands."""

    def __init__(self, rules: Iterable[DestinationRule], client: Workload, root_namespace: str) -> None:
        self._namespaces = (client.namespace,) if client.namespace != root_namespace else ()
        self._root = root_namespace
        # By namespace and host.
        self._rules: dict[tuple[str, str], list[DestinationRule]] = {}
        self._first: dict[tuple[str, str], DestinationRule] = {}
        for rule in rules:
            if rule.is_seen_by(client.namespace) and _is_for(rule, client):
                self._rules.setdefault((rule.metadata.namespace, rule.full_host.lower()), []).append(rule)

    def of(self, host: str, service_namespace: str) -> DestinationRule | None:
        """The rule that holds for `host` (with its namespace and domain), which is in `service_namespace`; "" where it
        is nobody's Service.

        Istio's order: the client's own namespace (unless it is the root namespace), the Service's, the root namespace;
        within one the narrowest host, and there one that selects the client before one that is for all; then the
        oldest. What others of the same scope add to that one is in it (`merged`).
        """
        names = (host.lower(), *wildcards_over(host))
        for namespace in (*self._namespaces, service_namespace, self._root):
            for name in names:
                if (namespace, name) in self._rules:
                    return self._of((namespace, name))
        return None

    def _of(self, key: tuple[str, str]) -> DestinationRule:
        """Found out once: a wildcard is asked about with each Service."""
        if (known := self._first.get(key)) is None:
            here = self._rules[key]
            first = min(here, key=lambda rule: (rule.selector is None, _age(rule)))
            known = self._first[key] = merged(sorted((rule for rule in here if rule.scope == first.scope), key=_age))
        return known


def destination_rule(
    resources: ResourceSet, host: str, client: Workload, service_namespace: str
) -> DestinationRule | None:
    """The rule that holds where `client` dials `host`, see DestinationRules.of."""
    return DestinationRules(resources.destination_rules, client, resources.root_namespace).of(host, service_namespace)


def merged(rules: Sequence[DestinationRule]) -> DestinationRule:
    """What Istio makes of rules of one scope, the oldest first: that one, with the subsets that only others name.

    Its traffic policy is that of the first that has one.
    """
    subsets: dict[str, Subset] = {}
    for subset in (subset for rule in rules for subset in rule.subsets):
        subsets.setdefault(subset.name, subset)
    said = (rule.traffic_policy for rule in rules if rule.traffic_policy != TrafficPolicy())
    return replace(rules[0], traffic_policy=next(said, TrafficPolicy()), subsets=tuple(subsets.values()))


def rivals(rules: Iterable[DestinationRule]) -> Iterator[tuple[DestinationRule, DestinationRule]]:
    """Pairs of rules of one scope: the one that counts, and one that only adds to it."""
    first: dict[Hashable, DestinationRule] = {}
    for rule in sorted(rules, key=_age):
        if (older := first.setdefault(rule.scope, rule)) is not rule:
            yield older, rule


def _age(rule: DestinationRule) -> tuple[str, str, str]:
    return rule.metadata.age


def _is_for(rule: DestinationRule, client: Workload) -> bool:
    if rule.selector is None:
        return True
    return rule.metadata.namespace == client.namespace and rule.selector.selects_labels(client.labels)
