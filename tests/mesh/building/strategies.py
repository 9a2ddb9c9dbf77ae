"""Arguments that the builders take, generated; and resources built of them."""

from __future__ import annotations

import string
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from mesh.building.authorization_policy import authorization_policy
from mesh.building.client_tls import ClientTls
from mesh.building.connection_routes import TcpRoute, TlsRoute
from mesh.building.destination_rule import destination_rule
from mesh.building.local_rate_limit import local_rate_limit
from mesh.building.metadata import PROFILES
from mesh.building.peer_authentication import peer_authentication
from mesh.building.request_authentication import JwtRule, request_authentication
from mesh.building.route_destination import Destination
from mesh.building.service_entry import PROTOCOLS, service_entry
from mesh.building.sidecar import OUTBOUND_MODES, sidecar
from mesh.building.traffic_policy import ALGORITHMS, ConnectionPool, LoadBalancer, OutlierDetection, TrafficPolicy
from mesh.building.virtual_service import Fault, HttpRoute, RequestMatch, Retries, virtual_service
from mesh.modes import MTLSMode
from mesh.retry_budget import RETRY_CONDITIONS

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,12}[a-z0-9])?", fullmatch=True)
SUBDOMAINS = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
# The last part of a host is no number.
HOSTS = st.tuples(SUBDOMAINS, st.sampled_from(["svc.cluster.local", "example", "shop"])).map(".".join)
WILDCARD_HOSTS = HOSTS | HOSTS.map("*.{}".format)
KEYS = st.from_regex(r"([a-z]{1,8}\.[a-z]{2,3}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,12}[A-Za-z0-9])?", fullmatch=True)
VALUES = st.from_regex(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,12}[A-Za-z0-9])?)?", fullmatch=True)
SELECTORS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=3)
PORTS = st.integers(1, 65535)
TIMES = (
    st.integers(1, 10**6)
    | st.integers(1, 10**6).map(lambda count: count / 1000)
    | st.sampled_from(["1ms", "1.5s", "2m", "1h30m", "0.5h", "100ms", "1s500ms"])
)
TEXTS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]).filter(str.isprintable), min_size=1)
TOKENS = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=16)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
MODES = st.sampled_from([*MTLSMode, "STRICT", "PERMISSIVE", "DISABLE", "UNSET", None])
COUNTS = st.integers(1, 2**31 - 1)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def several(strategy: st.SearchStrategy[Any], fewest: int = 1) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, min_size=fewest, max_size=4, unique=True)


def some_of(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Dicts with one at least of these fields."""
    return st.fixed_dictionaries({}, optional=fields).filter(bool)


NAMED: dict[str, st.SearchStrategy[Any]] = {"name": SUBDOMAINS, "namespace": LABELS}
EXTRAS: dict[str, st.SearchStrategy[Any]] = {
    "labels": st.dictionaries(KEYS, VALUES, max_size=2),
    "annotations": st.dictionaries(KEYS, TEXTS, max_size=2),
}

# AuthorizationPolicy

TEXT_WITHOUT_STARS = TEXTS.filter(lambda text: "*" not in text)
PATTERNS = (
    st.just("*") | TEXT_WITHOUT_STARS | TEXT_WITHOUT_STARS.map("*{}".format) | TEXT_WITHOUT_STARS.map("{}*".format)
)
PRINCIPALS = st.builds("cluster.local/ns/{}/sa/{}".format, LABELS, LABELS) | st.sampled_from(["*", "*/sa/web", "td/*"])
ADDRESSES = st.ip_addresses().map(str) | st.sampled_from(["10.0.0.0/8", "10.1.2.3/16", "2001:db8::/32", "0.0.0.0/0"])
PORT_TEXTS = PORTS.map(str)
PATHS = st.sampled_from(["/", "/a*", "*/a", "*", "/a/{*}/b", "/a/{**}", "/{*}/{**}", "/a b"])
BY_ADDRESS = {"ipBlocks": ADDRESSES, "remoteIpBlocks": ADDRESSES}
BY_TOKEN = {"requestPrincipals": PATTERNS}
SOURCE = {**BY_ADDRESS, **BY_TOKEN, "principals": PRINCIPALS, "namespaces": LABELS | st.just("*")}
SOURCE_BY_ACCOUNT = {**BY_ADDRESS, **BY_TOKEN, "serviceAccounts": LABELS | st.builds("{}/{}".format, LABELS, LABELS)}
OPERATION = {"hosts": PATTERNS, "ports": PORT_TEXTS, "methods": METHODS | st.sampled_from(["*", "P*"]), "paths": PATHS}
CONDITIONS: dict[str, st.SearchStrategy[str]] = {
    "source.ip": ADDRESSES,
    "remote.ip": ADDRESSES,
    "source.namespace": LABELS,
    "source.principal": PRINCIPALS,
    "source.serviceAccount": LABELS,
    "request.auth.principal": PATTERNS,
    "request.auth.audiences": PATTERNS,
    "request.auth.claims[iss]": PATTERNS,
    "request.headers[User-Agent]": PATTERNS,
    "destination.ip": ADDRESSES,
    "destination.port": PORT_TEXTS,
    "connection.sni": PATTERNS,
}


def matchers(table: dict[str, st.SearchStrategy[str]]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {key: several(values) for key, values in table.items()}
    fields |= {f"not{key[0].upper()}{key[1:]}": several(values) for key, values in table.items()}
    return some_of(**fields)


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    key = draw(st.sampled_from(sorted(CONDITIONS)))
    values = several(CONDITIONS[key])
    return {"key": key, **draw(some_of(values=values, notValues=values))}


RULES = st.fixed_dictionaries(
    {},
    optional={
        "from": st.lists(
            st.fixed_dictionaries({"source": matchers(SOURCE) | matchers(SOURCE_BY_ACCOUNT)}), min_size=1, max_size=2
        ),
        "to": st.lists(st.fixed_dictionaries({"operation": matchers(OPERATION)}), min_size=1, max_size=2),
        "when": st.lists(conditions(), min_size=1, max_size=2),
    },
)
AUTHORIZATION_POLICIES = st.builds(
    authorization_policy, **NAMED, rules=st.lists(RULES, max_size=3), selector=maybe(SELECTORS), **EXTRAS
) | st.builds(
    authorization_policy,
    **NAMED,
    action=st.sampled_from(["DENY", "AUDIT", "ALLOW"]),
    rules=st.lists(RULES, min_size=1, max_size=3),
    selector=maybe(SELECTORS),
)

# The other resources of security.istio.io

PEER_AUTHENTICATIONS = st.builds(
    peer_authentication, **NAMED, mode=MODES, selector=maybe(SELECTORS), **EXTRAS
) | st.builds(
    peer_authentication,
    **NAMED,
    mode=MODES,
    selector=SELECTORS,
    port_modes=st.dictionaries(PORTS, MODES.filter(bool), min_size=1, max_size=3),
)
JWT_RULES = st.builds(
    JwtRule,
    issuer=TEXTS,
    jwks_uri=st.sampled_from(["https://auth.example.com/keys", "http://[::1]:8080/jwks.json?a=b"]),
    audiences=several(TEXTS, 0),
    from_headers=maybe(several(TOKENS).map(lambda names: [{"name": name, "prefix": "Bearer "} for name in names])),
    from_params=maybe(several(TEXTS)),
    from_cookies=maybe(several(TOKENS)),
    forward_original_token=st.booleans(),
    output_payload_to_header=maybe(TOKENS),
    output_claim_to_headers=maybe(st.dictionaries(TOKENS, TEXTS, min_size=1, max_size=2)),
    timeout=maybe(TIMES),
) | st.builds(JwtRule, issuer=TEXTS, jwks=st.just({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}))
REQUEST_AUTHENTICATIONS = st.builds(
    request_authentication,
    **NAMED,
    jwt_rules=st.lists(JWT_RULES, min_size=1, max_size=2),
    selector=maybe(SELECTORS),
    **EXTRAS,
)

# networking.istio.io

POOLS = st.builds(
    ConnectionPool,
    max_connections=maybe(COUNTS),
    connect_timeout=maybe(TIMES),
    tcp_idle_timeout=maybe(TIMES | st.just("0s")),
    max_connection_duration=maybe(TIMES),
    max_pending_requests=maybe(COUNTS),
    max_requests=maybe(COUNTS),
    max_requests_per_connection=maybe(st.integers(0, 100)),
    max_retries=maybe(st.integers(0, 100)),
    http_idle_timeout=maybe(TIMES),
)
OUTLIERS = st.builds(
    OutlierDetection,
    consecutive_5xx_errors=maybe(st.integers(0, 2**32 - 1)),
    consecutive_gateway_errors=maybe(st.integers(0, 2**32 - 1)),
    consecutive_local_origin_failures=maybe(st.integers(0, 2**32 - 1)),
    interval=maybe(TIMES),
    base_ejection_time=maybe(TIMES),
    max_ejection_percent=maybe(st.integers(0, 100)),
    min_health_percent=maybe(st.integers(0, 100)),
)
BALANCERS = (
    st.builds(LoadBalancer, algorithm=maybe(st.sampled_from(ALGORITHMS)), warmup=maybe(TIMES))
    | st.builds(LoadBalancer, hash_header=TOKENS, ring_size=maybe(st.integers(1, 2**23)))
    | st.builds(LoadBalancer, hash_query_parameter=TEXTS, maglev_table_size=st.sampled_from([2, 3, 251, 65537]))
    | st.builds(LoadBalancer, hash_cookie=TOKENS, hash_cookie_ttl=maybe(TIMES | st.just(0)))
    | st.builds(LoadBalancer, hash_source_ip=st.just(True))
)
EXPORTS = maybe(st.just(["*"]) | st.just(["."]) | several(LABELS))
PATHS = TOKENS.map("/{}".format)
CLIENT_TLS = (
    st.builds(ClientTls, mode=st.just("SIMPLE"), ca_certificates=PATHS | st.just("system"), sni=maybe(HOSTS))
    | st.builds(ClientTls, mode=st.just("MUTUAL"), ca_certificates=PATHS, client_certificate=PATHS, private_key=PATHS)
    | st.builds(
        ClientTls,
        mode=st.sampled_from(["SIMPLE", "MUTUAL"]),
        credential_name=LABELS,
        subject_alt_names=maybe(several(HOSTS)),
    )
)
TRAFFIC_POLICIES = (
    some_of(
        tls=st.sampled_from(["ISTIO_MUTUAL", "DISABLE"]) | CLIENT_TLS,
        load_balancer=BALANCERS,
        outlier_detection=OUTLIERS,
    )
    .map(lambda fields: TrafficPolicy(**fields))
    .filter(lambda policy: policy.as_dict() != {})
)
SUBSETS = st.dictionaries(LABELS, SELECTORS, min_size=1, max_size=2)
DESTINATION_RULES = (
    st.builds(
        destination_rule,
        **NAMED,
        host=WILDCARD_HOSTS,
        tls=maybe(CLIENT_TLS),
        ports=st.dictionaries(PORTS, TRAFFIC_POLICIES, min_size=1, max_size=2),
        **EXTRAS,
    )
    | st.builds(
        lambda subsets, policy, **named: destination_rule(
            **named, subsets=subsets, subset_policies={next(iter(subsets)): policy}
        ),
        SUBSETS,
        TRAFFIC_POLICIES,
        **NAMED,
        host=WILDCARD_HOSTS,
    )
    | st.builds(
        destination_rule,
        **NAMED,
        host=WILDCARD_HOSTS,
        tls_mode=st.sampled_from([None, "ISTIO_MUTUAL", "DISABLE"]),
        profile=maybe(st.sampled_from(PROFILES)),
        connection_pool=maybe(POOLS),
        outlier_detection=maybe(OUTLIERS),
        load_balancer=maybe(BALANCERS),
        subsets=maybe(SUBSETS),
        export_to=EXPORTS,
        **EXTRAS,
    )
)
TEXT_MATCHES = st.builds(lambda way, text: {way: text}, st.sampled_from(["exact", "prefix", "regex"]), TEXTS)
MATCHES = some_of(
    uri=TEXT_MATCHES,
    method=TEXT_MATCHES,
    authority=TEXT_MATCHES,
    scheme=TEXT_MATCHES,
    headers=st.dictionaries(TOKENS.map(str.lower), TEXT_MATCHES, min_size=1, max_size=2),
    port=PORTS,
).map(lambda fields: RequestMatch(**fields))
RETRIES = st.builds(
    Retries,
    attempts=st.integers(1, 100),
    per_try_timeout=maybe(TIMES),
    retry_on=maybe(several(st.sampled_from([*sorted(RETRY_CONDITIONS), "503", "429"]))),
    backoff=maybe(TIMES),
) | st.builds(Retries, attempts=st.just(0))
PERCENTS = st.integers(0, 100) | st.floats(0, 100)
FAULTS = some_of(delay=TIMES, abort_status=st.integers(200, 599), delay_percent=PERCENTS, abort_percent=PERCENTS).map(
    lambda fields: Fault(**({"delay": 1} | fields))
)
DESTINATIONS = st.builds(Destination, host=HOSTS, subset=maybe(LABELS), port=maybe(PORTS), weight=st.integers(1, 100))
ROUTE: dict[str, st.SearchStrategy[Any]] = {
    "destinations": st.lists(DESTINATIONS, min_size=1, max_size=3),
    "timeout": maybe(TIMES),
    "retries": maybe(RETRIES),
    "fault": maybe(FAULTS),
    "name": maybe(TEXTS),
}
ROUTES_WITH_MATCH = st.builds(HttpRoute, match=st.lists(MATCHES, min_size=1, max_size=2), **ROUTE)
TCP_ROUTES = st.builds(
    TcpRoute,
    destinations=ROUTE["destinations"],
    port=PORTS,
    destination_subnets=maybe(several(ADDRESSES)),
)
VIRTUAL_SERVICES = st.builds(
    lambda names, destinations, **named: virtual_service(hosts=names, tls=[TlsRoute(destinations, names[:1])], **named),
    several(WILDCARD_HOSTS),
    ROUTE["destinations"],
    **NAMED,
    tcp=st.lists(TCP_ROUTES, max_size=2),
    **EXTRAS,
) | st.builds(
    virtual_service,
    **NAMED,
    hosts=several(WILDCARD_HOSTS),
    http=st.builds(
        lambda some, last: [*some, last], st.lists(ROUTES_WITH_MATCH, max_size=2), st.builds(HttpRoute, **ROUTE)
    ),
    export_to=EXPORTS,
    **EXTRAS,
)
RATES = (
    st.integers(1, 10**6)
    | st.floats(0.001, 10**6)
    | st.fractions(Fraction(1, 86400), 10**6, max_denominator=86400)
    | st.decimals("0.001", "1000", places=3)
)
RATE_LIMITS = st.builds(
    local_rate_limit, **NAMED, selector=SELECTORS, requests_per_second=RATES, port=maybe(PORTS), **EXTRAS
)
EGRESS = st.lists(st.builds("{}/{}".format, LABELS, HOSTS), min_size=1, max_size=3, unique=True)
SIDECARS = st.builds(
    sidecar,
    **NAMED,
    egress_hosts=EGRESS | st.sampled_from([["./*"], ["*/*"], ["./*", "istio-system/*"]]),
    outbound_mode=maybe(st.sampled_from(OUTBOUND_MODES)),
    selector=maybe(SELECTORS),
    **EXTRAS,
)
SERVICE_ENTRY: dict[str, st.SearchStrategy[Any]] = {
    **NAMED,
    "ports": st.dictionaries(PORTS, st.sampled_from(PROTOCOLS), min_size=1, max_size=3),
    "location": st.sampled_from(["MESH_EXTERNAL", "MESH_INTERNAL"]),
    "export_to": EXPORTS | st.just(["~"]),
}
SINGLE_ADDRESSES = st.ip_addresses().map(str)
SERVICE_ENTRIES = (
    st.builds(service_entry, **SERVICE_ENTRY, hosts=several(HOSTS), endpoints=maybe(several(HOSTS | SINGLE_ADDRESSES)))
    | st.builds(
        service_entry,
        **SERVICE_ENTRY,
        hosts=several(WILDCARD_HOSTS),
        resolution=st.just("STATIC"),
        endpoints=several(SINGLE_ADDRESSES),
        addresses=maybe(several(ADDRESSES)),
    )
    | st.builds(service_entry, **SERVICE_ENTRY, hosts=several(WILDCARD_HOSTS), resolution=st.just("NONE"))
)

RESOURCES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "AuthorizationPolicy": AUTHORIZATION_POLICIES,
    "PeerAuthentication": PEER_AUTHENTICATIONS,
    "RequestAuthentication": REQUEST_AUTHENTICATIONS,
    "DestinationRule": DESTINATION_RULES,
    "VirtualService": VIRTUAL_SERVICES,
    "EnvoyFilter": RATE_LIMITS,
    "Sidecar": SIDECARS,
    "ServiceEntry": SERVICE_ENTRIES,
}
