"""The list of ports: what is on it, and what must not be."""

from __future__ import annotations

import pytest

from proxy.policy.server_first import SERVER_FIRST


@pytest.mark.parametrize("port", [21, 22, 25, 110, 143, 587, 3306])
def test_protocols_whose_server_speaks_first_are_listed_with_where_that_is_written(port):
    assert ":" in SERVER_FIRST[port]


@pytest.mark.parametrize("port", [80, 443, 465, 993, 5432, 6379, 9092, 11211, 27017])
def test_protocols_whose_client_speaks_first_are_not_listed(port):
    assert port not in SERVER_FIRST
