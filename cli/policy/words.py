"""The words of `qbitel policy`'s command line, read one by one; what is wrong with one is one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mesh.building import checks
from mesh.spiffe import SCHEME, InvalidSpiffeId, SpiffeId, check_trust_domain

_PORT: Final = re.compile(r"[0-9]{1,5}\Z")


@dataclass(frozen=True, slots=True)
class Target:
    """Who is called: `shop/web`, `web:8080`. The namespace is "" where none is given."""

    namespace: str
    name: str
    port: int | None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a service account, or a principal that is none."""

    namespace: str
    account: str
    principal: str  # "" where it is the account's, in whatever trust domain the mesh has


def target(text: str) -> Target:
    """`[NAMESPACE/]NAME[:PORT]`, a Service's or a workload's name."""
    place, colon, number = text.partition(":")
    namespace, name = _names(text, place, "[NAMESPACE/]NAME[:PORT], as in shop/web:8080")
    return Target(namespace, name, port(number) if colon else None)


def caller(text: str) -> Caller:
    """`[NAMESPACE/]ACCOUNT`, or a whole identity, with spiffe:// or without."""
    if text.startswith(SCHEME) or text.count("/") > 1:
        try:
            identity = SpiffeId.parse(SCHEME + text.removeprefix(SCHEME))
        except InvalidSpiffeId as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        account = identity.segments[-1] if identity.namespace else ""
        return Caller(identity.namespace or "", account, str(identity).removeprefix(SCHEME))
    return Caller(*_names(text, text, "a service account, as in shop/front, or a whole SPIFFE ID"), "")


def _names(text: str, place: str, wanted: str) -> tuple[str, str]:
    namespace, slash, name = place.rpartition("/")
    try:
        if slash:
            checks.label_name("namespace", namespace)
        checks.object_name("name", name)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not {wanted}") from None
    return namespace, name


def port(text: str) -> int:
    """A TCP port."""
    if not _PORT.match(text) or not 0 < int(text) <= checks.MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no port: 1 to {checks.MAX_PORT}")
    return int(text)


def namespace(text: str) -> str:
    """The name of a namespace."""
    return _checked(checks.label_name, text)


def trust_domain(text: str) -> str:
    """The trust domain of the mesh."""
    try:
        return check_trust_domain(text)
    except InvalidSpiffeId as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def method(text: str) -> str:
    """A request's method; `get` is another than GET (RFC 9110 §9.1), and hardly ever meant."""
    return _checked(checks.method, text)


def path(text: str) -> str:
    """A request's target: /orders?page=2, with a host http://web/orders, or * (RFC 9112 §3.2)."""
    if not re.fullmatch(r"(/|[A-Za-z][A-Za-z0-9+.-]*://)[^\s\x00-\x1f\x7f]*|\*", text):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no path of a request, as in /orders?page=2")
    return text


def header(text: str) -> tuple[str, str]:
    """`NAME=VALUE` or `NAME: VALUE` of a request's header."""
    match = re.match(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:=|:[ \t]*)(.*)\Z", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not NAME=VALUE")
    return match[1], match[2]


def label(text: str) -> tuple[str, str]:
    """`KEY=VALUE` of a pod."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not KEY=VALUE, as in app=web")
    try:
        checks.label_set("label", {key: value})
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return key, value


def address(text: str) -> str:
    """An IP address."""
    return _checked(checks.single_address, text)


def listed(text: str) -> list[str]:
    """`A,B,C`: values that stand in one word."""
    found = [one.strip() for one in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} has an empty entry; write them with single commas between")
    return found


def _checked(check: Callable[[str, object], str], text: str) -> str:
    try:
        return check("value", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("value: ")) from None
