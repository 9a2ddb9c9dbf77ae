"""VirtualService."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.building.connection_routes import TcpRoute, TlsRoute
from mesh.building.route_destination import Destination
from mesh.building.virtual_service import Fault, HttpRoute, RequestMatch, Retries, virtual_service
from tests.support.built import assert_good


def test_requests_are_routed_tried_again_and_bounded_in_time() -> None:
    canary = HttpRoute(
        [Destination("web", subset="v1", weight=90), Destination("web", subset="v2", port=8080, weight=10)],
        match=[RequestMatch(uri={"prefix": "/new"}, headers={"X-Beta": {"exact": "1"}}), RequestMatch(port=80)],
        fault=Fault(delay="100ms", delay_percent=0.5, abort_status=503, abort_percent=1),
        name="canary",
    )
    rest = HttpRoute([Destination("web")], timeout=2, retries=Retries(3, "500ms", ["5xx", "429"], backoff="25ms"))
    made = virtual_service("web", "shop", ["web"], [canary, rest], export_to=["*"])

    assert made["spec"] == {
        "hosts": ["web"],
        "http": [
            {
                "name": "canary",
                "match": [{"uri": {"prefix": "/new"}, "headers": {"x-beta": {"exact": "1"}}}, {"port": 80}],
                "fault": {
                    "delay": {"fixedDelay": "100ms", "percentage": {"value": 0.5}},
                    "abort": {"httpStatus": 503, "percentage": {"value": 1}},
                },
                "route": [
                    {"destination": {"host": "web", "subset": "v1"}, "weight": 90},
                    {"destination": {"host": "web", "subset": "v2", "port": {"number": 8080}}, "weight": 10},
                ],
            },
            {
                "timeout": "2s",
                "retries": {"attempts": 3, "perTryTimeout": "500ms", "retryOn": "5xx,429", "backoff": "25ms"},
                "route": [{"destination": {"host": "web"}}],
            },
        ],
        "exportTo": ["*"],
    }
    assert_good(made)


def test_connections_are_routed_beside_requests() -> None:
    made = virtual_service(
        "db",
        "shop",
        ["db", "*.example.com"],
        tls=[TlsRoute([Destination("db")], ["api.example.com"])],
        tcp=[TcpRoute([Destination("db")], port=5432), TcpRoute([Destination("db", weight=1), Destination("other")])],
    )

    assert made["spec"] == {
        "hosts": ["db", "*.example.com"],
        "tls": [{"match": [{"sniHosts": ["api.example.com"]}], "route": [{"destination": {"host": "db"}}]}],
        "tcp": [
            {"match": [{"port": 5432}], "route": [{"destination": {"host": "db"}}]},
            {"route": [{"destination": {"host": "db"}, "weight": 1}, {"destination": {"host": "other"}}]},
        ],
    }
    assert_good(made)


def test_a_name_of_tls_is_one_of_the_hosts() -> None:
    route = TlsRoute([Destination("db")], ["api.example.com"])

    with pytest.raises(ValueError, match=r"^tls\[0\]: 'api\.example\.com' is none of hosts"):
        virtual_service("db", "shop", ["db", "*.example.org"], tls=[route])


def test_a_service_without_routes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^http, tls, tcp: there is no route"):
        virtual_service("db", "shop", ["db"])


def test_a_tcp_route_that_hides_another_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^tcp\[0\]: matches everything"):
        virtual_service("db", "shop", ["db"], tcp=[TcpRoute([Destination("db")])] * 2)


def test_a_route_that_hides_another_is_refused() -> None:
    route = HttpRoute([Destination("web")])

    with pytest.raises(ValueError, match=r"^http\[0\]: matches everything"):
        virtual_service("web", "shop", ["web"], [route, route])


def test_retries_are_switched_off_by_none_of_them() -> None:
    assert Retries(0).as_dict() == {"attempts": 0}
    with pytest.raises(ValueError, match=r"^attempts: 0 switches retries off"):
        Retries(0, "1s")


@pytest.mark.parametrize("retry_on", ["5xx,reset,503", ["5xx", "reset", "503"]])
def test_reasons_of_retries_are_a_list_or_its_text(retry_on: Any) -> None:
    assert Retries(1, retry_on=retry_on).as_dict()["retryOn"] == "5xx,reset,503"


@pytest.mark.parametrize(
    ("kind", "wrong", "argument"),
    [
        (Destination, {"host": "*.shop"}, "host"),
        (Destination, {"host": "web", "subset": "V1"}, "subset"),
        (Destination, {"host": "web", "port": "http"}, "port"),
        (Destination, {"host": "web", "weight": -1}, "weight"),
        (RequestMatch, {}, "uri, .*"),
        (RequestMatch, {"uri": "/a"}, "uri"),
        (RequestMatch, {"uri": {}}, "uri"),
        (RequestMatch, {"uri": {"exact": "/a", "prefix": "/"}}, "uri"),
        (RequestMatch, {"uri": {"suffix": "/a"}}, "uri"),
        (RequestMatch, {"uri": {"regex": "a" * 1025}}, "uri.regex"),
        (RequestMatch, {"method": {"exact": ""}}, "method.exact"),
        (RequestMatch, {"headers": {}}, "headers"),
        (RequestMatch, {"headers": {"a b": {"exact": "1"}}}, "headers"),
        (RequestMatch, {"headers": {"a": {"exact": "1"}, "A": {"exact": "2"}}}, "headers"),
        (RequestMatch, {"headers": {"a": "1"}}, r"headers\['a'\]"),
        (RequestMatch, {"port": 0}, "port"),
        (Retries, {"attempts": -1}, "attempts"),
        (Retries, {"attempts": 101}, "attempts"),
        (Retries, {"attempts": 1, "per_try_timeout": 0}, "per_try_timeout"),
        (Retries, {"attempts": 1, "retry_on": "5xx, reset"}, r"retry_on\[1\]"),
        (Retries, {"attempts": 1, "retry_on": "200"}, r"retry_on\[0\]"),
        (Retries, {"attempts": 1, "retry_on": ["4xx"]}, r"retry_on\[0\]"),
        (Retries, {"attempts": 1, "retry_on": []}, "retry_on"),
        (Retries, {"attempts": 1, "backoff": "1"}, "backoff"),
        (Fault, {}, "delay, abort_status"),
        (Fault, {"delay": "0s"}, "delay"),
        (Fault, {"delay": 1, "delay_percent": 101}, "delay_percent"),
        (Fault, {"abort_status": 199}, "abort_status"),
        (Fault, {"abort_status": 500, "abort_percent": -1}, "abort_percent"),
        (HttpRoute, {"destinations": []}, "destinations"),
        (HttpRoute, {"destinations": Destination("web")}, "destinations"),
        (HttpRoute, {"destinations": [Destination("a"), Destination("b")]}, "destinations"),
        (HttpRoute, {"destinations": [Destination("a")], "match": []}, "match"),
        (HttpRoute, {"destinations": [Destination("a")], "timeout": "-1s"}, "timeout"),
        (HttpRoute, {"destinations": [Destination("a")], "retries": {"attempts": 1}}, "retries"),
        (HttpRoute, {"destinations": [Destination("a")], "fault": Retries(1)}, "fault"),
        (HttpRoute, {"destinations": [Destination("a")], "name": ""}, "name"),
    ],
)
def test_wrong_arguments_are_refused(kind: type, wrong: dict[str, Any], argument: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: "):
        kind(**wrong)


@pytest.mark.parametrize(
    ("wrong", "argument"), [({"hosts": []}, "hosts"), ({"hosts": "web"}, "hosts"), ({"http": []}, "http, tls, tcp")]
)
def test_a_service_needs_hosts_and_routes(wrong: dict[str, Any], argument: str) -> None:
    call: dict[str, Any] = {"hosts": ["web"], "http": [HttpRoute([Destination("web")])]}

    with pytest.raises(ValueError, match=rf"^{argument}: "):
        virtual_service("web", "shop", **call | wrong)
