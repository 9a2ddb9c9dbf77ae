"""The words of the command line."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.policy import words


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (words.target, "web", words.Target("", "web", None)),
        (words.target, "shop/web", words.Target("shop", "web", None)),
        (words.target, "shop/web:8080", words.Target("shop", "web", 8080)),
        (words.caller, "front", words.Caller("", "front", "")),
        (words.caller, "shop/front", words.Caller("shop", "front", "")),
        (words.caller, "a.org/ns/shop/sa/front", words.Caller("shop", "front", "a.org/ns/shop/sa/front")),
        (words.caller, "spiffe://a.org/ns/shop/sa/front", words.Caller("shop", "front", "a.org/ns/shop/sa/front")),
        (words.caller, "spiffe://a.org/vm", words.Caller("", "", "a.org/vm")),
        (words.method, "GET", "GET"),
        (words.path, "/", "/"),
        (words.path, "/a?b=c#d", "/a?b=c#d"),
        (words.path, "http://web:80/a", "http://web:80/a"),
        (words.path, "*", "*"),
        (words.header, "x-a=b=c", ("x-a", "b=c")),
        (words.header, "X-A: b", ("X-A", "b")),
        (words.header, "a:", ("a", "")),
        (words.label, "app=web", ("app", "web")),
        (words.label, "app.kubernetes.io/name=", ("app.kubernetes.io/name", "")),
        (words.listed, "a, b,c", ["a", "b", "c"]),
        (words.port, "65535", 65535),
        (words.namespace, "shop", "shop"),
        (words.trust_domain, "a.org", "a.org"),
        (words.address, "::1", "::1"),
    ],
)
def test_words_are_read(read: Callable[[str], Any], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (words.target, "a/b/c", "is not [NAMESPACE/]NAME[:PORT]"),
        (words.target, "Web", "is not [NAMESPACE/]NAME[:PORT]"),
        (words.target, "", "is not [NAMESPACE/]NAME[:PORT]"),
        (words.target, "web:", "is no port"),
        (words.target, "web:0", "is no port"),
        (words.target, "web:http", "is no port"),
        (words.caller, "/web", "is not a service account"),
        (words.caller, "a b", "is not a service account"),
        (words.caller, "spiffe://a b/c", "is no trust domain"),
        (words.method, "get", "is not allowed"),
        (words.method, "GE T", "is not allowed"),
        (words.path, "admin", "is no path of a request"),
        (words.path, "", "is no path of a request"),
        (words.path, "/a b", "is no path of a request"),
        (words.path, "/a\nb", "is no path of a request"),
        (words.header, "nothing", "is not NAME=VALUE"),
        (words.header, "=x", "is not NAME=VALUE"),
        (words.label, "app", "is not KEY=VALUE"),
        (words.label, "app=a b", "is not allowed"),
        (words.listed, "a,,b", "has an empty entry"),
        (words.port, "65536", "is no port"),
        (words.port, "٣", "is no port"),
        (words.namespace, "a.b", "is not allowed"),
        (words.trust_domain, "A", "is no trust domain"),
        (words.address, "10.0.0.0/8", "is not allowed"),
    ],
)
def test_what_is_wrong_with_a_word_is_one_line(read: Callable[[str], Any], text: str, says: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        read(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@given(
    st.sampled_from(
        [words.target, words.caller, words.header, words.path, words.method, words.label, words.port, words.address]
    ),
    st.text(),
)
def test_no_word_makes_it_fail(read: Callable[[str], Any], text: str) -> None:
    with contextlib.suppress(argparse.ArgumentTypeError):
        read(text)


def test_a_target_is_told_by_its_names() -> None:
    assert str(words.target("shop/web:80")) == "shop/web"
