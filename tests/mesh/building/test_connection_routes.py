"""Routes for connections."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.building.connection_routes import TcpRoute, TlsRoute
from mesh.building.route_destination import Destination

TO_DB = Destination("db")
ROUTE = [{"destination": {"host": "db"}}]


def test_connections_are_routed_by_port_and_address() -> None:
    assert TcpRoute([TO_DB]).as_dict() == {"route": ROUTE}
    assert TcpRoute([TO_DB], 5432, ["10.0.0.0/8"]).as_dict() == {
        "match": [{"port": 5432, "destinationSubnets": ["10.0.0.0/8"]}],
        "route": ROUTE,
    }


def test_tls_is_routed_by_the_name_that_it_asks_for() -> None:
    assert TlsRoute([TO_DB], ["db.example", "*.db.example"], 443).as_dict() == {
        "match": [{"sniHosts": ["db.example", "*.db.example"], "port": 443}],
        "route": ROUTE,
    }


@pytest.mark.parametrize(
    ("kind", "wrong", "argument"),
    [
        (TcpRoute, {"destinations": []}, "destinations"),
        (TcpRoute, {"destinations": [TO_DB, TO_DB]}, "destinations"),
        (TcpRoute, {"port": 65536}, "port"),
        (TcpRoute, {"destination_subnets": []}, "destination_subnets"),
        (TcpRoute, {"destination_subnets": ["db"]}, r"destination_subnets\[0\]"),
        (TlsRoute, {"sni_hosts": []}, "sni_hosts"),
        (TlsRoute, {"sni_hosts": ["a b"]}, r"sni_hosts\[0\]"),
        (TlsRoute, {"sni_hosts": "db.example"}, "sni_hosts"),
    ],
)
def test_wrong_arguments_are_refused(kind: type, wrong: dict[str, Any], argument: str) -> None:
    call: dict[str, Any] = {"destinations": [TO_DB]} | ({"sni_hosts": ["db.example"]} if kind is TlsRoute else {})

    with pytest.raises(ValueError, match=rf"^{argument}: "):
        kind(**call | wrong)
