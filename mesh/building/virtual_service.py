"""VirtualService: where what is sent to a host goes, how long requests may take and how often they are tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mesh.building import checks
from mesh.building.connection_routes import TcpRoute, TlsRoute
from mesh.building.destination_rule import visibility
from mesh.building.durations import duration
from mesh.building.metadata import NETWORKING, resource
from mesh.building.parts import Part, part, parts
from mesh.building.route_destination import Destination, shares
from mesh.retry_budget import RETRY_CONDITIONS, is_condition
from mesh.traffic import host_matches

# More tries than this are no cure, they are the load.
MOST_ATTEMPTS: Final = 100
_WAYS: Final = ("exact", "prefix", "regex")
_LONGEST_REGEX: Final = 1024  # Istio's limit


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMatch(Part):
    """What a request must be like: all that is given must fit.

    Texts are matched as {"exact": …}, {"prefix": …} or {"regex": …} (RE2's syntax, at most 1024 characters). Raises
    ValueError, which names the argument.
    """

    uri: Mapping[str, str] | None = None
    method: Mapping[str, str] | None = None
    authority: Mapping[str, str] | None = None
    scheme: Mapping[str, str] | None = None
    headers: Mapping[str, Mapping[str, str]] | None = None
    port: int | None = None

    def _build(self) -> dict[str, Any]:
        texts = {"uri": self.uri, "method": self.method, "authority": self.authority, "scheme": self.scheme}
        found: dict[str, Any] = {key: _text_match(key, text) for key, text in texts.items() if text is not None}
        if self.headers is not None:
            found["headers"] = _header_matches("headers", self.headers)
        if self.port is not None:
            found["port"] = checks.port("port", self.port)
        if not found:
            raise ValueError("uri, method, authority, scheme, headers, port: nothing is asked of a request; give one")
        return found


@dataclass(frozen=True, slots=True)
class Retries(Part):
    """How often a request is tried again, 0 (never) to 100 times, and on which failures.

    `retry_on` holds Envoy's words (5xx, connect-failure, unavailable …) and numbers of statuses, as a list or with
    commas between them; without it Istio's default holds. Times are seconds or text as in "250ms". Raises ValueError,
    which names the argument.
    """

    attempts: int
    per_try_timeout: str | float | None = None
    retry_on: str | Sequence[str] | None = None
    backoff: str | float | None = None

    def _build(self) -> dict[str, Any]:
        found: dict[str, Any] = {"attempts": checks.whole_number("attempts", self.attempts, 0, MOST_ATTEMPTS)}
        if self.per_try_timeout is not None:
            found["perTryTimeout"] = duration("per_try_timeout", self.per_try_timeout)
        if self.retry_on is not None:
            words = self.retry_on.split(",") if isinstance(self.retry_on, str) else self.retry_on
            found["retryOn"] = ",".join(checks.several("retry_on", words, _retry_reason, fewest=1))
        if self.backoff is not None:
            found["backoff"] = duration("backoff", self.backoff)
        if not self.attempts and len(found) > 1:
            raise ValueError("attempts: 0 switches retries off, and Istio refuses to be told more about them")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(Part):
    """Faults to put in, for tests: a delay before a request, and an HTTP status (200 to 599) in its stead.

    Percentages, 0 to 100, say how many requests are hit. Raises ValueError, which names the argument.
    """

    delay: str | float | None = None
    delay_percent: float = 100
    abort_status: int | None = None
    abort_percent: float = 100

    def _build(self) -> dict[str, Any]:
        delayed = {"value": checks.percentage("delay_percent", self.delay_percent)}
        aborted = {"value": checks.percentage("abort_percent", self.abort_percent)}
        found: dict[str, Any] = {}
        if self.delay is not None:
            found["delay"] = {"fixedDelay": duration("delay", self.delay), "percentage": delayed}
        if self.abort_status is not None:
            status = checks.whole_number("abort_status", self.abort_status, 200, 599)
            found["abort"] = {"httpStatus": status, "percentage": aborted}
        if not found:
            raise ValueError("delay, abort_status: neither is given; give the fault")
        return found


@dataclass(frozen=True, slots=True)
class HttpRoute(Part):
    """One route: requests that fit one of `match` (all of them without) go to `destinations`.

    `timeout` is for the whole request with its retries, in seconds or as text. Of several destinations, one at least
    needs a weight. Raises ValueError, which names the argument.
    """

    destinations: Sequence[Destination]
    match: Sequence[RequestMatch] | None = None
    timeout: str | float | None = None
    retries: Retries | None = None
    fault: Fault | None = None
    name: str | None = None

    def _build(self) -> dict[str, Any]:
        route: dict[str, Any] = {}
        if self.name is not None:
            route["name"] = checks.text("name", self.name)
        if self.match is not None:
            route["match"] = parts("match", self.match, RequestMatch)
        if self.fault is not None:
            route["fault"] = part("fault", self.fault, Fault)
        if self.timeout is not None:
            route["timeout"] = duration("timeout", self.timeout)
        if self.retries is not None:
            route["retries"] = part("retries", self.retries, Retries)
        route["route"] = shares(parts("destinations", self.destinations, Destination))
        return route


def virtual_service(
    name: str,
    namespace: str,
    hosts: Sequence[str],
    http: Sequence[HttpRoute] = (),
    *,
    tls: Sequence[TlsRoute] = (),
    tcp: Sequence[TcpRoute] = (),
    export_to: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a VirtualService for what is sent within the mesh to `hosts`: requests, TLS connections, any connections.

    Of each kind the first route that matches is taken; one that matches everything hides those behind it, and is
    refused unless it is the last (Istio's analysis: IST0130). `export_to` is as for `destination_rule`.
    """
    spec: dict[str, Any] = {"hosts": checks.several("hosts", hosts, checks.host, fewest=1)}
    if not http and not tls and not tcp:
        raise ValueError("http, tls, tcp: there is no route; give one")
    for kind, routes, part_kind in (("http", http, HttpRoute), ("tls", tls, TlsRoute), ("tcp", tcp, TcpRoute)):
        if routes:
            spec[kind] = _reachable(kind, parts(kind, routes, part_kind))
    for index, route in enumerate(spec.get("tls", ())):
        _check_names(f"tls[{index}]", route["match"][0]["sniHosts"], spec["hosts"])
    if export_to is not None:
        spec["exportTo"] = visibility("export_to", export_to, namespace)
    return resource(NETWORKING, "VirtualService", name, namespace, spec, labels=labels, annotations=annotations)


def _reachable(argument: str, routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for index, route in enumerate(routes[:-1]):
        if "match" not in route:
            raise ValueError(
                f"{argument}[{index}]: matches everything, so that those behind it are never taken; put it last"
            )
    return routes


def _check_names(argument: str, names: Sequence[str], hosts: Sequence[str]) -> None:
    """Istio refuses a name of TLS that is none of the hosts."""
    for name in names:
        if not any(host_matches(host, name) for host in hosts):
            raise ValueError(f"{argument}: {name!r} is none of hosts; give a name that one of them is or covers")


def _header_matches(argument: str, headers: object) -> dict[str, dict[str, str]]:
    if not isinstance(headers, Mapping) or not headers:
        raise checks.refused(argument, headers, "a dict from names to matches, as in {'x-user': {'exact': 'a'}}")
    found = {}
    for key, wanted in headers.items():
        name = checks.token(argument, key).lower()  # as Envoy has it; names are the same in any case
        if name in found:
            raise ValueError(f"{argument}: {name!r} stands in it twice, in two spellings; give it once")
        found[name] = _text_match(f"{argument}[{key!r}]", wanted)
    return found


def _retry_reason(argument: str, value: object) -> str:
    # A status below 400 is Istio's to allow, and no failure.
    if isinstance(value, str) and is_condition(value) and (value in RETRY_CONDITIONS or value >= "400"):
        return value
    known = ", ".join(sorted(RETRY_CONDITIONS))
    raise checks.refused(argument, value, f"the number of a status from 400 to 599, or one of {known}")


def _text_match(argument: str, value: object) -> dict[str, str]:
    given = checks.fields(argument, value, _WAYS)
    if len(given) != 1:
        raise checks.refused(argument, value, "exactly one of exact, prefix and regex")
    ((way, wanted),) = given.items()
    longest = _LONGEST_REGEX if way == "regex" else 4096
    return {way: checks.text(f"{argument}.{way}", wanted, longest=longest)}
