"""Reads DestinationRule, and the parts of it that other resources have too, as strictly as Istio's schema does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mesh.documents import Path
from mesh.load_balancer_reading import LOAD_BALANCER, load_balancer
from mesh.metadata import Metadata
from mesh.reading import (
    COUNT,
    PORT,
    TEXT,
    WORDS,
    Report,
    Shape,
    boolean,
    both,
    duration,
    fields,
    integer,
    list_of,
    map_of,
    number,
    reader_of,
    seconds,
    shown,
    text,
)
from mesh.selectors import SELECTOR, read_selector
from mesh.shapes import EXPORT_TO, HOST
from mesh.traffic import (
    ClientTls,
    ConnectionPool,
    DestinationRule,
    OutlierDetection,
    RetryBudget,
    Subset,
    TcpKeepalive,
    TlsMode,
    TrafficPolicy,
)

# Shapes

_LIMIT: Final = integer(0)
_PERCENT: Final = integer(0, 100)


def _pool(value: Mapping[str, Any], path: Path, report: Report) -> None:
    if not value:
        report.error(path, "is empty: one of tcp and http is wanted")
    http = value.get("http", {})
    if http.get("useClientProtocol") and http.get("h2UpgradePolicy") == "UPGRADE":
        report.error((*path, "http", "useClientProtocol"), "keeps what the client speaks, and UPGRADE changes it")


_POOL: Final = fields(
    {
        "tcp": fields(
            {
                "connectTimeout": duration(),
                "idleTimeout": duration(0),
                "maxConnectionDuration": duration(),
                "maxConnections": _LIMIT,
                "tcpKeepalive": fields({"interval": duration(), "probes": COUNT, "time": duration()}),
            }
        ),
        "http": fields(
            {
                "h2UpgradePolicy": text(choices=("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE")),
                "http1MaxPendingRequests": _LIMIT,
                "http2KeepAlive": fields(
                    {"interval": duration(), "timeout": duration()}, required=("interval", "timeout")
                ),
                "http2MaxRequests": _LIMIT,
                "idleTimeout": duration(),
                "maxConcurrentStreams": _LIMIT,
                "maxRequestsPerConnection": _LIMIT,
                "maxRetries": _LIMIT,
                "useClientProtocol": boolean,
            }
        ),
    }
)
CONNECTION_POOL: Final = both(_POOL, _pool)


def _outliers_told_apart(value: Mapping[str, Any], path: Path, report: Report) -> None:
    name = "consecutiveLocalOriginFailures"
    if value.get(name) and not value.get("splitExternalLocalOriginErrors"):
        report.error((*path, name), "is looked at only where splitExternalLocalOriginErrors is true")


_OUTLIERS: Final = both(
    fields(
        {
            "baseEjectionTime": duration(),
            "consecutive5xxErrors": COUNT,
            "consecutiveErrors": integer(),
            "consecutiveGatewayErrors": COUNT,
            "consecutiveLocalOriginFailures": COUNT,
            "interval": duration(),
            "maxEjectionPercent": _PERCENT,
            "minHealthPercent": _PERCENT,
            "outlierDetectionHttpErrorCodes": list_of(integer(100, 599)),
            "splitExternalLocalOriginErrors": boolean,
        },
        nullable=("consecutive5xxErrors", "consecutiveGatewayErrors", "consecutiveLocalOriginFailures"),
    ),
    _outliers_told_apart,
)
_TLS: Final = fields(
    {
        "mode": text(choices=[mode.value for mode in TlsMode]),
        "sni": TEXT,
        "subjectAltNames": list_of(TEXT),
        "clientCertificate": TEXT,
        "privateKey": TEXT,
        "caCertificates": TEXT,
        "caCrl": TEXT,
        "credentialName": TEXT,
        "insecureSkipVerify": boolean,
    },
    nullable=("insecureSkipVerify",),
)
_OF_PORTS: Final[Mapping[str, Shape]] = {
    "connectionPool": CONNECTION_POOL,
    "loadBalancer": LOAD_BALANCER,
    "outlierDetection": _OUTLIERS,
    "tls": _TLS,
}


def _not_empty(value: Mapping[str, Any], path: Path, report: Report) -> None:
    if not value:
        report.error(path, "is empty; leave it out where nothing is meant")


def _not_port_alone(value: Mapping[str, Any], path: Path, report: Report) -> None:
    if len(value) == 1:
        report.error(path, f"says nothing about the port; give one of {', '.join(_OF_PORTS)}")


_TRAFFIC_POLICY: Final = both(
    fields(
        {
            **_OF_PORTS,
            "portLevelSettings": list_of(
                both(
                    fields({**_OF_PORTS, "port": fields({"number": PORT}, required=("number",))}, required=("port",)),
                    _not_port_alone,
                ),
                most=4096,
            ),
            "proxyProtocol": fields({"version": text(choices=("V1", "V2"))}),
            "retryBudget": fields(
                {"budgetInterval": duration(0), "minRetryConcurrency": COUNT, "percent": number(0, 100)},
                nullable=("percent",),
            ),
            "tunnel": fields(
                {"protocol": TEXT, "targetHost": WORDS, "targetPort": PORT}, required=("targetHost", "targetPort")
            ),
        },
        at_most_one=(("tunnel", "proxyProtocol"),),
    ),
    _not_empty,
)


SPEC: Final = fields(
    {
        "host": HOST,
        "exportTo": EXPORT_TO,
        "trafficPolicy": _TRAFFIC_POLICY,
        "subsets": list_of(
            fields(
                {"name": WORDS, "labels": map_of(TEXT), "trafficPolicy": _TRAFFIC_POLICY},
                required=("name",),
            )
        ),
        "workloadSelector": SELECTOR,
    },
    required=("host",),
)


# Values


@reader_of(SPEC)
def read_destination_rule(metadata: Metadata, spec: Mapping[str, Any], report: Report) -> DestinationRule:
    """The resource that `spec` writes."""
    subsets = spec.get("subsets", [])
    for index, subset in enumerate(subsets):
        if subset["name"] in [each["name"] for each in subsets[:index]]:
            report.error(("spec", "subsets", index, "name"), f"{shown(subset['name'])} is given twice")
    rule = DestinationRule(
        metadata,
        spec["host"],
        _policy(spec.get("trafficPolicy", {}), ("spec", "trafficPolicy"), report),
        tuple(
            Subset(
                each["name"],
                dict(each.get("labels", {})),
                _policy(each["trafficPolicy"], ("spec", "subsets", index, "trafficPolicy"), report)
                if "trafficPolicy" in each
                else None,
            )
            for index, each in enumerate(subsets)
        ),
        tuple(spec.get("exportTo", ())),
        read_selector({"selector": spec["workloadSelector"]}, report) if "workloadSelector" in spec else None,
    )
    if "." in rule.host and not rule.host.startswith("*") and rule.host.count(".") == 1:
        report.warning(
            ("spec", "host"),
            f"{shown(rule.host)} is taken as it stands: a Service is web or web.shop.svc.cluster.local",
        )
    return rule


def _policy(value: Mapping[str, Any], path: Path, report: Report) -> TrafficPolicy:
    for name in ("proxyProtocol", "tunnel"):
        if name in value:
            report.warning((*path, name), "is not done by a sidecar of ours")
    ports: dict[int, TrafficPolicy] = {}
    for index, each in enumerate(value.get("portLevelSettings", ())):
        place = (*path, "portLevelSettings", index)
        port = each["port"]["number"]
        if port in ports:
            report.error((*place, "port", "number"), f"{port} is given twice")
        ports[port] = _policy(each, place, report)
    return TrafficPolicy(
        tls=_tls(value["tls"], (*path, "tls"), report) if "tls" in value else None,
        load_balancer=_part(value, "loadBalancer", load_balancer),
        connection_pool=_part(value, "connectionPool", connection_pool),
        outlier_detection=_part(value, "outlierDetection", _outliers),
        retry_budget=_part(
            value,
            "retryBudget",
            _retry_budget,
        ),
        ports=ports,
    )


def _retry_budget(value: Mapping[str, Any]) -> RetryBudget:
    default = RetryBudget()
    percent = value.get("percent")
    return RetryBudget(
        default.percent if percent is None else percent,
        value.get("minRetryConcurrency", default.min_retry_concurrency),
    )


def _part(value: Mapping[str, Any], name: str, read: Callable[[Mapping[str, Any]], Any]) -> Any:
    return read(value[name]) if name in value else None


def _seconds(value: Mapping[str, Any], name: str) -> float | None:
    return seconds(value[name]) if name in value else None


def _tls(value: Mapping[str, Any], path: Path, report: Report) -> ClientTls:
    tls = ClientTls(
        TlsMode(value.get("mode", "DISABLE")),
        value.get("sni", ""),
        tuple(value.get("subjectAltNames", ())),
        value.get("clientCertificate", ""),
        value.get("privateKey", ""),
        value.get("caCertificates", ""),
        value.get("caCrl", ""),
        value.get("credentialName", ""),
        bool(value.get("insecureSkipVerify")),
    )
    named = [
        name for name in ("clientCertificate", "privateKey", "caCertificates", "credentialName") if value.get(name)
    ]
    if tls.mode is TlsMode.ISTIO_MUTUAL and named:
        report.error((*path, named[0]), "is not set with ISTIO_MUTUAL: the mesh issues the certificates")
    if tls.mode is TlsMode.MUTUAL and not tls.credential_name and not (tls.client_certificate and tls.private_key):
        report.error(path, "MUTUAL names its certificate: clientCertificate and privateKey, or credentialName")
    if tls.mode in (TlsMode.SIMPLE, TlsMode.MUTUAL) and tls.credential_name:
        beside = [name for name in (*named, "caCrl") if name != "credentialName" and value.get(name)]
        if beside:
            report.error((*path, beside[0]), "is not set beside credentialName, which holds all certificates")
    if tls.insecure_skip_verify:
        unused = [name for name in ("caCertificates", "subjectAltNames") if value.get(name)]
        if tls.mode is TlsMode.SIMPLE and tls.credential_name:
            unused.append("credentialName")
        if unused:
            report.error((*path, unused[0]), "is not looked at with insecureSkipVerify; leave one of them out")
        report.warning((*path, "insecureSkipVerify"), "the server may be anybody")
    return tls


def connection_pool(value: Mapping[str, Any]) -> ConnectionPool:
    """The limits that a connectionPool of the right shape writes."""
    tcp, http = value.get("tcp", {}), value.get("http", {})
    return ConnectionPool(
        max_connections=tcp.get("maxConnections"),
        connect_timeout=_seconds(tcp, "connectTimeout"),
        tcp_idle_timeout=_seconds(tcp, "idleTimeout"),
        max_connection_duration=_seconds(tcp, "maxConnectionDuration"),
        tcp_keepalive=_part(
            tcp,
            "tcpKeepalive",
            lambda each: TcpKeepalive(each.get("probes"), _seconds(each, "time"), _seconds(each, "interval")),
        ),
        http1_max_pending_requests=http.get("http1MaxPendingRequests"),
        http2_max_requests=http.get("http2MaxRequests"),
        max_requests_per_connection=http.get("maxRequestsPerConnection"),
        max_retries=http.get("maxRetries"),
        http_idle_timeout=_seconds(http, "idleTimeout"),
        max_concurrent_streams=http.get("maxConcurrentStreams"),
        h2_upgrade_policy=http.get("h2UpgradePolicy", "DEFAULT"),
        use_client_protocol=http.get("useClientProtocol", False),
    )


def _outliers(value: Mapping[str, Any]) -> OutlierDetection:
    default = OutlierDetection()
    interval, ejection = _seconds(value, "interval"), _seconds(value, "baseEjectionTime")
    errors = value.get("consecutive5xxErrors")
    return OutlierDetection(
        value.get("consecutiveErrors") if errors is None else errors,  # the old name of the same
        value.get("consecutiveGatewayErrors"),
        value.get("consecutiveLocalOriginFailures"),
        value.get("splitExternalLocalOriginErrors", False),
        default.interval if interval is None else interval,
        default.base_ejection_time if ejection is None else ejection,
        value.get("maxEjectionPercent", default.max_ejection_percent),
        value.get("minHealthPercent", default.min_health_percent),
    )
