"""Reading VirtualService."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.routes import Destination, Fault, Retries, Route, RouteMatch, StringMatch, VirtualService
from tests.support.policies import document, faults, resources

TO_WEB = [{"destination": {"host": "web"}}]


def read(spec: Any) -> VirtualService:
    (found,) = resources(document("VirtualService", spec)).virtual_services
    return found


def http(**route: Any) -> dict[str, Any]:
    return {"hosts": ["web"], "http": [{"route": TO_WEB, **route}]}


def test_every_field_that_is_followed_is_read() -> None:
    found = read(
        {
            "hosts": ["web", "*.example.com"],
            "gateways": ["mesh", "shop/gateway"],
            "exportTo": ["."],
            "http": [
                {
                    "name": "canary",
                    "match": [
                        {
                            "uri": {"prefix": "/v2"},
                            "scheme": {"exact": "http"},
                            "method": {"regex": "GET|HEAD"},
                            "authority": {"exact": "web"},
                            "headers": {"x-user": {"exact": "me"}, "x-there": {}},
                            "withoutHeaders": {"x-not": {}},
                            "queryParams": {"q": {"exact": "1"}},
                            "ignoreUriCase": True,
                            "port": 80,
                            "sourceLabels": {"app": "curl"},
                            "sourceNamespace": "shop",
                            "gateways": ["mesh"],
                        }
                    ],
                    "route": [
                        {"destination": {"host": "web", "subset": "v2", "port": {"number": 8080}}, "weight": 90},
                        {"destination": {"host": "web"}, "weight": 10},
                    ],
                    "timeout": "10s",
                    "retries": {"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx,reset,503", "backoff": "25ms"},
                    "fault": {
                        "delay": {"fixedDelay": "5s", "percentage": {"value": 0.1}},
                        "abort": {"httpStatus": 503, "percentage": {"value": 50}},
                    },
                }
            ],
            "tls": [{"match": [{"sniHosts": ["*.example.com"], "port": 443}], "route": TO_WEB}],
            "tcp": [{"match": [{"destinationSubnets": ["10.0.0.0/8"]}], "route": TO_WEB}],
        }
    )

    assert (found.hosts, found.gateways, found.export_to) == (
        ("web", "*.example.com"),
        ("mesh", "shop/gateway"),
        (".",),
    )
    of_http, of_tls, of_tcp = found.routes
    assert of_http == Route(
        "http",
        "canary",
        (
            RouteMatch(
                StringMatch("prefix", "/v2"),
                StringMatch("exact", "http"),
                StringMatch("regex", "GET|HEAD"),
                StringMatch("exact", "web"),
                {"x-user": StringMatch("exact", "me"), "x-there": StringMatch("present")},
                {"x-not": StringMatch("present")},
                {"q": StringMatch("exact", "1")},
                True,
                (),
                (),
                80,
                {"app": "curl"},
                "shop",
                ("mesh",),
            ),
        ),
        (Destination("web", "v2", 8080, 90), Destination("web", "", None, 10)),
        10.0,
        Retries(3, 2.0, ("5xx", "reset", "503"), 0.025),
        Fault(5.0, 0.1, 503, "", 50),
    )
    assert of_tls == Route("tls", "", (RouteMatch(sni_hosts=("*.example.com",), port=443),), (Destination("web"),))
    assert of_tcp == Route("tcp", "", (RouteMatch(destination_subnets=("10.0.0.0/8",)),), (Destination("web"),))


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_all_versions_are_read(version: str) -> None:
    text = document("VirtualService", http(), version=f"networking.istio.io/{version}")

    assert len(resources(text).virtual_services) == 1


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"hosts": ["web"]}, "spec: has no routes: one of http, tcp and tls is wanted"),
        ({"hosts": ["web"], "http": [{}]}, "spec.http[0].route: names no destination"),
        ({"hosts": ["web"], "tcp": [{"route": []}]}, "spec.tcp[0].route: names no destination"),
        ({"hosts": ["web"], "tls": [{"route": TO_WEB}]}, "spec.tls[0].match: is missing"),
        (
            {"hosts": ["web"], "tls": [{"match": [{"port": 443}], "route": TO_WEB}]},
            "spec.tls[0].match[0].sniHosts: is missing",
        ),
        (
            {"hosts": ["web"], "http": [{"route": TO_WEB * 2}]},
            "spec.http[0].route: has several destinations and no weights: nothing would be sent",
        ),
        (http(route=[{"destination": {}}]), "spec.http[0].route[0].destination.host: is missing"),
        (
            http(route=[{"destination": {"host": "web"}, "weight": -1}]),
            "spec.http[0].route[0].weight: -1 is not within 0 to 2147483647",
        ),
        (http(timeout="0"), "spec.http[0].timeout: '0' is shorter than 0.001 s"),
        (http(timeout="-1s"), "spec.http[0].timeout: '-1s' is no duration, as in 5s, 250ms or 1h30m"),
        (http(retries={"attempts": -1}), "spec.http[0].retries.attempts: -1 is not within 0 to 2147483647"),
        (
            http(retries={"attempts": 0, "retryOn": "5xx"}),
            "spec.http[0].retries.attempts: is 0: nothing is tried again, whatever stands beside it",
        ),
        (http(retry={}), "spec.http[0].retry: is no field of this resource"),
        (
            http(match=[{"uri": {"exact": "/", "prefix": "/"}}]),
            "spec.http[0].match[0].uri.prefix: only one of exact, prefix, regex can be set",
        ),
        (http(match=[{"uri": "/"}]), "spec.http[0].match[0].uri: '/' stands where a map is wanted"),
        (
            http(fault={"abort": {"httpStatus": 42}}),
            "spec.http[0].fault.abort.httpStatus: 42 is not within 200 to 599",
        ),
        (
            http(fault={"delay": {"fixedDelay": "1s", "percentage": {"value": 101}}}),
            "spec.http[0].fault.delay.percentage.value: 101 is not within 0 to 100",
        ),
    ],
)
def test_what_is_written_wrongly_is_refused(spec: Any, fault: str) -> None:
    assert faults("VirtualService", spec) == [fault]


@pytest.mark.parametrize("word", ["5XX", " reset", "reset ", "", "timeout", "600", "42", "-503", "5xx;reset"])
def test_a_reason_to_try_again_that_istio_does_not_know_is_refused(word: str) -> None:
    """A route that is tried again for no reason is one that its writer thinks is."""
    (fault,) = faults("VirtualService", http(retries={"attempts": 1, "retryOn": f"5xx,{word}"}))

    assert fault.startswith(f"spec.http[0].retries.retryOn: {word!r} is no reason to try again, as 5xx, cancelled,")


@pytest.mark.parametrize(
    ("spec", "warning"),
    [
        (http(rewrite={"uri": "/"}), "spec.http[0].rewrite: is not done by a sidecar of ours"),
        (
            {"hosts": ["web"], "http": [{"redirect": {"uri": "/"}}]},
            "spec.http[0].redirect: is not done by a sidecar of ours",
        ),
        (
            http(retries={"attempts": 0, "backoff": "1s"}),
            "spec.http[0].retries.attempts: is 0: nothing is tried again, whatever stands beside it",
        ),
        (
            {"hosts": ["web"], "http": [{"name": "all", "route": TO_WEB}, {"match": [{}], "route": TO_WEB}]},
            "spec.http: routes behind all are never taken",
        ),
    ],
)
def test_what_will_not_do_what_is_meant_is_warned_of(spec: Any, warning: str) -> None:
    assert faults("VirtualService", spec, "warning") == [warning]


@pytest.mark.parametrize(
    ("spec", "note"),
    [
        (
            {"http": [{"route": TO_WEB}]},
            "spec.hosts: are not given: this one only serves as a delegate of another",
        ),
        (
            {"hosts": ["web"], "gateways": ["g"], "http": [{"route": TO_WEB}]},
            "spec.gateways: do not name 'mesh': no sidecar is concerned",
        ),
    ],
)
def test_what_concerns_no_sidecar_is_noted(spec: Any, note: str) -> None:
    assert faults("VirtualService", spec, "note") == [note]
