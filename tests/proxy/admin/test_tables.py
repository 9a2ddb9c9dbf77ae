"""Tables and outlines as a person reads them."""

from __future__ import annotations

from proxy.admin.tables import CONNECTIONS, outline, table


def test_columns_are_as_wide_as_what_is_in_them_and_empty_ones_are_left_out():
    rows = [
        {"direction": "inbound", "source": "10.0.0.1:5", "bytes_sent": 0, "peer_identity": None},
        {"direction": "outbound", "source": "10.0.0.20:50000", "bytes_sent": 12, "policy": ""},
    ]
    assert table(CONNECTIONS, rows).splitlines() == [
        "DIRECTION  SOURCE           SENT",
        "inbound    10.0.0.1:5       0",
        "outbound   10.0.0.20:50000  12",
    ]


def test_without_rows_all_headings_stand():
    assert table(CONNECTIONS, []).split() == [heading for heading, _, _ in CONNECTIONS]


def test_what_is_too_long_is_cut_in_the_middle():
    identity = "spiffe://cluster.local/ns/" + "a" * 60 + "/sa/web"
    cell = table((("PEER", "peer", 30),), [{"peer": identity}]).splitlines()[1]
    assert len(cell) == 30
    assert cell.startswith("spiffe://")
    assert cell.endswith("/sa/web")


def test_an_outline_nests_as_the_value_does():
    value = {"a": 1, "b": {"c": True, "d": None}, "e": [{"f": 1, "g": [2]}, "h"], "i": []}
    assert outline(value).splitlines() == [
        "a: 1", "b:", "  c: yes", "  d: -", "e:", "  - f: 1", "    g:", "      - 2", "  - h", "i: -",
    ]  # fmt: skip
