"""Reads VirtualService as strictly as Istio's schema does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mesh.documents import Path
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
from mesh.retry_budget import RETRY_CONDITIONS, is_condition
from mesh.routes import MESH_GATEWAY, Destination, Fault, Retries, Route, RouteMatch, StringMatch, VirtualService
from mesh.shapes import ADDRESS, EXPORT_TO, HOST

# Shapes

_STRING_MATCH: Final = fields(
    {"exact": TEXT, "prefix": TEXT, "regex": TEXT}, at_most_one=(("exact", "prefix", "regex"),)
)
_STRING_MATCHES: Final = map_of(_STRING_MATCH)
_DESTINATION: Final = fields(
    {"host": HOST, "subset": TEXT, "port": fields({"number": PORT}, required=("number",))}, required=("host",)
)
_CHANGED: Final = fields({"add": map_of(TEXT), "set": map_of(TEXT), "remove": list_of(TEXT)})
_HEADERS: Final = fields({"request": _CHANGED, "response": _CHANGED})
_PERCENTAGE: Final = fields({"value": number(0, 100)})
_WEIGHT: Final = integer(0)
_SOURCE: Final[Mapping[str, Shape]] = {
    "gateways": list_of(WORDS),
    "port": PORT,
    "sourceLabels": map_of(TEXT),
    "sourceNamespace": TEXT,
}
_HTTP_MATCH: Final = fields(
    {
        **_SOURCE,
        "name": TEXT,
        "uri": _STRING_MATCH,
        "scheme": _STRING_MATCH,
        "method": _STRING_MATCH,
        "authority": _STRING_MATCH,
        "headers": _STRING_MATCHES,
        "withoutHeaders": _STRING_MATCHES,
        "queryParams": _STRING_MATCHES,
        "ignoreUriCase": boolean,
        "statPrefix": TEXT,
    }
)
_FAULT: Final = fields(
    {
        "delay": fields(
            {
                "fixedDelay": duration(),
                "exponentialDelay": duration(),
                "percent": integer(0, 100),
                "percentage": _PERCENTAGE,
            },
            at_most_one=(("fixedDelay", "exponentialDelay"),),
        ),
        "abort": fields(
            {"httpStatus": integer(200, 599), "grpcStatus": TEXT, "http2Error": TEXT, "percentage": _PERCENTAGE},
            at_most_one=(("httpStatus", "grpcStatus", "http2Error"),),
        ),
    }
)


def _retry_on(value: str, path: Path, report: Report) -> None:
    for word in value.split(",") if value else ():
        if not is_condition(word):
            known = ", ".join(sorted(RETRY_CONDITIONS))
            report.error(path, f"{shown(word)} is no reason to try again, as {known}, or the number of a status")


_HTTP: Final = fields(
    {
        "name": TEXT,
        "match": list_of(_HTTP_MATCH),
        "route": list_of(
            fields({"destination": _DESTINATION, "weight": _WEIGHT, "headers": _HEADERS}, required=("destination",))
        ),
        "timeout": duration(),
        "retries": fields(
            {
                "attempts": integer(0),
                "perTryTimeout": duration(),
                "backoff": duration(),
                "retryOn": both(TEXT, _retry_on),
                "retryIgnorePreviousHosts": boolean,
                "retryRemoteLocalities": boolean,
            },
            nullable=("retryIgnorePreviousHosts", "retryRemoteLocalities"),
        ),
        "fault": _FAULT,
        "headers": _HEADERS,
        "delegate": fields({"name": TEXT, "namespace": TEXT}),
        "directResponse": fields(
            {"status": integer(200, 599), "body": fields({"string": TEXT, "bytes": TEXT})}, required=("status",)
        ),
        "redirect": fields(
            {
                "uri": TEXT,
                "authority": TEXT,
                "port": PORT,
                "derivePort": text(choices=("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT")),
                "scheme": TEXT,
                "redirectCode": COUNT,
                "prefixRewrite": TEXT,
            },
            at_most_one=(("port", "derivePort"),),
        ),
        "rewrite": fields(
            {"uri": TEXT, "authority": TEXT, "uriRegexRewrite": fields({"match": TEXT, "rewrite": TEXT})}
        ),
        "mirror": _DESTINATION,
        "mirrors": list_of(fields({"destination": _DESTINATION, "percentage": _PERCENTAGE}, required=("destination",))),
        "mirrorPercent": COUNT,
        "mirror_percent": COUNT,
        "mirrorPercentage": _PERCENTAGE,
        "corsPolicy": fields(
            {
                "allowCredentials": boolean,
                "allowHeaders": list_of(TEXT),
                "allowMethods": list_of(TEXT),
                "allowOrigin": list_of(TEXT),
                "allowOrigins": list_of(_STRING_MATCH),
                "exposeHeaders": list_of(TEXT),
                "maxAge": duration(),
                "unmatchedPreflights": text(choices=("UNSPECIFIED", "FORWARD", "IGNORE")),
            },
            nullable=("allowCredentials",),
        ),
    },
    nullable=("mirrorPercent", "mirror_percent"),
)
# What only Istio's proxies do: our sidecars relay connections.
_BEYOND: Final = (
    *("headers", "delegate", "directResponse", "redirect", "rewrite", "corsPolicy"),
    *("mirror", "mirrors", "mirrorPercent", "mirror_percent", "mirrorPercentage"),
)
_ROUTE: Final = list_of(fields({"destination": _DESTINATION, "weight": _WEIGHT}, required=("destination",)))
_TCP: Final = fields(
    {
        "match": list_of(fields({**_SOURCE, "destinationSubnets": list_of(ADDRESS), "sourceSubnet": TEXT})),
        "route": _ROUTE,
    }
)
_TLS: Final = fields(
    {
        "match": list_of(
            fields(
                {**_SOURCE, "destinationSubnets": list_of(ADDRESS), "sniHosts": list_of(HOST, least=1)},
                required=("sniHosts",),
            ),
            least=1,
        ),
        "route": _ROUTE,
    },
    required=("match",),
)
SPEC: Final = fields(
    {
        "hosts": list_of(HOST),
        "gateways": list_of(WORDS),
        "exportTo": EXPORT_TO,
        "http": list_of(_HTTP),
        "tcp": list_of(_TCP),
        "tls": list_of(_TLS),
    }
)

# Values


@reader_of(SPEC)
def read_virtual_service(metadata: Metadata, spec: Mapping[str, Any], report: Report) -> VirtualService:
    """The resource that `spec` writes."""
    routes = [
        _route(protocol, value, ("spec", protocol, index), report)
        for protocol in ("http", "tls", "tcp")
        for index, value in enumerate(spec.get(protocol, ()))
    ]
    if not routes:
        report.error(("spec",), "has no routes: one of http, tcp and tls is wanted")
    for index, route in enumerate(routes):
        # Nothing after a route that always matches is reached.
        if not route.matches and any(each.protocol == route.protocol for each in routes[index + 1 :]):
            report.warning(
                ("spec", route.protocol), f"routes behind {route.name or 'the one without match'} are never taken"
            )
            break
    service = VirtualService(
        metadata,
        tuple(spec.get("hosts", ())),
        tuple(routes),
        tuple(spec.get("gateways", ())) or (MESH_GATEWAY,),
        tuple(spec.get("exportTo", ())),
    )
    if not service.hosts:
        report.note(("spec", "hosts"), "are not given: this one only serves as a delegate of another")
    if MESH_GATEWAY not in service.gateways:
        report.note(("spec", "gateways"), f"do not name {MESH_GATEWAY!r}: no sidecar is concerned")
    return service


def _route(protocol: str, value: Mapping[str, Any], path: Path, report: Report) -> Route:
    beyond = tuple(name for name in _BEYOND if name in value)
    for name in beyond:
        report.warning((*path, name), "is not done by a sidecar of ours")
    destinations = tuple(
        Destination(
            each["destination"]["host"],
            each["destination"].get("subset", ""),
            each["destination"].get("port", {}).get("number"),
            each.get("weight"),
        )
        for each in value.get("route", ())
    )
    if not destinations and not {"redirect", "directResponse", "delegate"}.intersection(beyond):
        report.error((*path, "route"), "names no destination")
    if len(destinations) > 1 and not any(each.weight for each in destinations):
        report.error((*path, "route"), "has several destinations and no weights: nothing would be sent")
    return Route(
        protocol,
        value.get("name", ""),
        tuple(_match(each) for each in value.get("match", ())),
        destinations,
        seconds(value["timeout"]) if "timeout" in value else None,
        _retries(value["retries"], (*path, "retries"), report) if "retries" in value else None,
        _fault(value["fault"]) if "fault" in value else None,
        beyond,
    )


def _match(value: Mapping[str, Any]) -> RouteMatch:
    return RouteMatch(
        **{name: _string_match(value[name]) for name in ("uri", "scheme", "method", "authority") if name in value},
        headers=_string_matches(value.get("headers", {})),
        without_headers=_string_matches(value.get("withoutHeaders", {})),
        query_params=_string_matches(value.get("queryParams", {})),
        ignore_uri_case=value.get("ignoreUriCase", False),
        sni_hosts=tuple(value.get("sniHosts", ())),
        destination_subnets=tuple(value.get("destinationSubnets", ())),
        port=value.get("port"),
        source_labels=dict(value.get("sourceLabels", {})),
        source_namespace=value.get("sourceNamespace", ""),
        gateways=tuple(value.get("gateways", ())),
    )


def _string_matches(value: Mapping[str, Mapping[str, str]]) -> dict[str, StringMatch]:
    return {name: _string_match(each) for name, each in value.items()}


def _string_match(value: Mapping[str, str]) -> StringMatch:
    for kind, text_of in value.items():
        return StringMatch(kind, text_of)
    return StringMatch("present")


def _retries(value: Mapping[str, Any], path: Path, report: Report) -> Retries:
    attempts = value.get("attempts", 0)
    if attempts == 0 and len(value) > ("attempts" in value):
        # Istio refuses the first three beside it, and overlooks the others.
        refused = any(value.get(name) is not None for name in ("perTryTimeout", "retryOn", "retryRemoteLocalities"))
        tell = report.error if refused else report.warning
        tell((*path, "attempts"), "is 0: nothing is tried again, whatever stands beside it")
    return Retries(
        attempts,
        seconds(value["perTryTimeout"]) if "perTryTimeout" in value else None,
        tuple(word for word in value.get("retryOn", "").split(",") if word),
        seconds(value["backoff"]) if "backoff" in value else None,
    )


def _fault(value: Mapping[str, Any]) -> Fault:
    delay, abort = value.get("delay", {}), value.get("abort", {})
    wait = delay.get("fixedDelay", delay.get("exponentialDelay"))
    return Fault(
        None if wait is None else seconds(wait),
        delay.get("percentage", {}).get("value", delay.get("percent", 0.0)),
        abort.get("httpStatus"),
        abort.get("grpcStatus", ""),
        abort.get("percentage", {}).get("value", 0.0),
    )
