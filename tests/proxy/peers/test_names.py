"""What is remembered of the addresses of host names."""

from __future__ import annotations

from proxy.peers.names import FORGOTTEN_AFTER, MAX_ADDRESSES, NameBook


def test_an_address_that_is_gone_is_kept_for_a_while():
    book = NameBook()
    book.found("a", ["10.0.0.2", "10.0.0.1"], 0.0)
    book.found("a", ["10.0.0.3"], 100.0)
    assert book.addresses == {"a": ("10.0.0.1", "10.0.0.2", "10.0.0.3")}
    book.found("a", (), FORGOTTEN_AFTER)
    assert book.addresses == {"a": ("10.0.0.3",)}


def test_the_addresses_seen_last_are_the_ones_that_stay():
    book = NameBook()
    book.found("a", ["10.0.0.1"], 0.0)
    book.found("a", [f"10.1.{number // 256}.{number % 256}" for number in range(MAX_ADDRESSES)], 1.0)
    assert len(book.addresses["a"]) == MAX_ADDRESSES
    assert "10.0.0.1" not in book.addresses["a"]


def test_names_that_nobody_asks_for_any_more_are_forgotten():
    book = NameBook()
    book.found("a", ["10.0.0.1"], 0.0)
    book.found("b", ["10.0.0.2"], 0.0)
    book.keep_only(["b", "c"])
    assert book.addresses == {"b": ("10.0.0.2",)}
