"""What is known of a connection, and of a request where there is one, when it is decided about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from mesh.addresses import Address, address
from mesh.principals import Identity
from mesh.request_paths import origin_form, plain_path
from mesh.spiffe import SCHEME


@dataclass(frozen=True, slots=True)
class HttpFacts:
    """What is known of a request."""

    method: str
    path: str  # as the request line has it; policies see it without query, dots and needless escapes
    host: str = ""  # the authority as the client sent it, with a port where it sent one; "": it sent none
    # Several fields of one name are joined with a comma (RFC 9110 §5.3), those in different case too.
    headers: Mapping[str, str] = field(default_factory=dict)
    # The claims of a token that was verified; None where there was none. Nobody else may fill this.
    claims: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            lower = name.lower()
            headers[lower] = f"{headers[lower]},{value}" if lower in headers else value
        object.__setattr__(self, "headers", headers)
        target, host = origin_form(self.path)
        if host is not None:
            object.__setattr__(self, "host", host)
        object.__setattr__(self, "path", plain_path(target))


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a connection.

    An address that is not given, or is none, is not known: ALLOW rules that ask for it do not match then, and in other
    rules it is left out. `principal` and `sni` are always known: without them there was none.
    """

    destination_port: int  # of the workload, not of its Service
    principal: str | None = None  # the peer's SPIFFE ID without its scheme; None: it has proved none (plaintext)
    source_ip: str | None = None  # of the connection itself
    destination_ip: str | None = None
    remote_ip: str | None = None  # the client that a trusted proxy named; None: the connection's own
    sni: str = ""
    http: HttpFacts | None = None  # None: a connection whose requests are not read

    def __post_init__(self) -> None:
        # With its scheme it would be nobody's name, and no DENY rule would know it.
        if self.principal is not None and self.principal.startswith(SCHEME):
            raise ValueError(f"a principal has no {SCHEME} in front")


# Peers come again and again; so many identities are taken apart once only. Beyond that the oldest are forgotten.
_REMEMBERED: Final = 1024
_identity: Final = lru_cache(_REMEMBERED)(Identity.of)
_NOBODY: Final = Identity("", "", "")


class View:
    """Facts as rules look at them: taken apart when first asked for."""

    __slots__ = ("_addresses", "facts", "http", "identity", "port", "principal")

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.principal = facts.principal or ""
        self.identity = _identity(self.principal) if self.principal else _NOBODY
        self.port = facts.destination_port
        self.http = facts.http
        self._addresses: dict[str | None, Address | None] = {}

    @property
    def source_ip(self) -> Address | None:
        """The peer's address; None: not known."""
        return self._address(self.facts.source_ip)

    @property
    def remote_ip(self) -> Address | None:
        """The client's address; None: not known."""
        return self._address(self.facts.remote_ip or self.facts.source_ip)

    @property
    def destination_ip(self) -> Address | None:
        """The address that was dialled; None: not known."""
        return self._address(self.facts.destination_ip)

    def _address(self, text: str | None) -> Address | None:
        try:
            return self._addresses[text]
        except KeyError:
            return self._addresses.setdefault(text, address(text))

    def header(self, name: str) -> str | None:
        """The value of a header; HTTP/2's names for the parts of the request line are known (RFC 9113 §8.3.1)."""
        assert self.http is not None  # noqa: S101  # HTTP conditions are compiled for requests only
        match name:
            case ":authority" | "host":
                return self.http.host or None
            case ":method":
                return self.http.method
            case ":path":
                return self.http.path
        return self.http.headers.get(name)
