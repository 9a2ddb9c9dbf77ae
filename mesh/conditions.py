"""Each attribute of a rule as a test of a View: how its values are matched, and how a rule is found by them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mesh.addresses import Address, Blocks
from mesh.authorization import Condition, Operation, Source
from mesh.claims import RequestPrincipals, claim_texts
from mesh.facts import View
from mesh.matching import Ends, Texts
from mesh.principals import Namespaces, account_of, is_account_within, with_aliases
from mesh.request_paths import Paths, is_template, template_ends

# True, False, or None where what is asked for is not known.
Predicate = Callable[[View], bool | None]


@dataclass(frozen=True, slots=True)
class Mesh:
    """What the values of a policy depend on beside themselves."""

    namespace: str  # of the policy: service accounts without one are of this
    trust_domain: str
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """Values of which one matches exactly when the attribute's predicate does; with Ends, whenever that does."""

    dimension: str  # one of DIMENSIONS
    values: Texts | Blocks | Ends


# What an index asks a view for; None: not known. Of the source and of the operation the narrower first: blocks of
# addresses are often wide.
DIMENSIONS: Final[Mapping[str, Callable[[View], str | Address | None]]] = {
    "principal": lambda view: view.principal,
    "account": lambda view: view.identity.account if view.identity.whole else None,
    "namespace": lambda view: view.identity.namespace if view.identity.whole else None,
    "address": lambda view: view.source_ip,
    "client address": lambda view: view.remote_ip,
    "trust domain": lambda view: view.identity.trust_domain,
    "server name": lambda view: view.facts.sni.lower(),
    "own address": lambda view: view.destination_ip,
    "port": lambda view: str(view.port),
    "host": lambda view: view.http.host.lower() if view.http is not None else None,
    "path": lambda view: view.http.path if view.http is not None else None,
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: what makes a predicate of its values, and what an index may know of them."""

    of_source: bool  # whether Istio counts it to the source (else to the operation)
    http: bool
    predicate: Callable[[Sequence[str], Mesh], Predicate]
    key: Callable[[Sequence[str], Mesh], Key | None] = lambda _values, _mesh: None


# The source


def _principals(values: Sequence[str], mesh: Mesh) -> Texts:
    return Texts.of(with_aliases(values, mesh.trust_domain, mesh.aliases))


def _of_principal(values: Sequence[str], mesh: Mesh) -> Predicate:
    texts = _principals(values, mesh)
    if texts.prefixes or texts.suffixes or texts.present:
        match = texts.match
        return lambda view: view.principal != "" and match(view.principal)
    exact = texts.exact
    return lambda view: view.principal in exact


def _of_namespace(values: Sequence[str], _mesh: Mesh) -> Predicate:
    names = Namespaces.of(values)

    def predicate(view: View) -> bool | None:
        if names.match(view.identity.namespace):
            return True
        # Where Istio finds the namespace in an unusual path, nobody is let in for it here, and nobody let off.
        return None if not view.identity.whole and names.within(view.principal) else False

    return predicate


def _of_account(values: Sequence[str], mesh: Mesh) -> Predicate:
    accounts = frozenset(account_of(value, mesh.namespace) for value in values)

    def predicate(view: View) -> bool | None:
        if view.identity.whole:
            return view.identity.account in accounts
        # As with namespaces: of a path of an unusual form nobody knows whose it is.
        return None if any(is_account_within(account, view.principal) for account in accounts) else False

    return predicate


def _trust_domains(values: Sequence[str], mesh: Mesh) -> Texts:
    mine = (mesh.trust_domain, *mesh.aliases)
    return Texts.of(each for value in values for each in (mine if value in mine else (value,)))


def _of_trust_domain(values: Sequence[str], mesh: Mesh) -> Predicate:
    match = _trust_domains(values, mesh).match
    return lambda view: view.identity.trust_domain != "" and match(view.identity.trust_domain)


def _of_address(get: Callable[[View], Address | None]) -> Callable[[Sequence[str], Mesh], Predicate]:
    def make(values: Sequence[str], _mesh: Mesh) -> Predicate:
        match = Blocks.of(values).match

        def predicate(view: View) -> bool | None:
            found = get(view)
            return None if found is None else match(found)

        return predicate

    return make


# The operation


def _of_port(values: Sequence[str], _mesh: Mesh) -> Predicate:
    ports = frozenset(int(value) for value in values)
    return lambda view: view.port in ports


def _server_names(values: Iterable[str]) -> Texts:
    """Names of hosts have no case (RFC 6066 §3)."""
    return Texts.of(value.lower() for value in values)


def _of_sni(values: Sequence[str], _mesh: Mesh) -> Predicate:
    match = _server_names(values).match
    return lambda view: match(view.facts.sni.lower())


def _hosts(values: Iterable[str]) -> Texts:
    """Neither have those of requests (RFC 9110 §4.2.3)."""
    return Texts.of(value.lower() for value in values)


def _of_host(values: Sequence[str], _mesh: Mesh) -> Predicate:
    match = _hosts(values).match
    return lambda view: view.http is not None and match(view.http.host.lower())


def _of_method(values: Sequence[str], _mesh: Mesh) -> Predicate:
    match = Texts.of(values, empty=True).match
    return lambda view: view.http is not None and match(view.http.method)


def _of_path(values: Sequence[str], _mesh: Mesh) -> Predicate:
    match = Paths.of(values).match
    return lambda view: view.http is not None and match(view.http.path)


# The request


def _of_header(name: str) -> Callable[[Sequence[str], Mesh], Predicate]:
    def make(values: Sequence[str], _mesh: Mesh) -> Predicate:
        match, lower = Texts.of(values, empty=True).match, name.lower()

        def predicate(view: View) -> bool:
            value = view.header(lower)
            return value is not None and match(value)

        return predicate

    return make


def _of_claim(path: tuple[str, ...]) -> Callable[[Sequence[str], Mesh], Predicate]:
    def make(values: Sequence[str], _mesh: Mesh) -> Predicate:
        match = Texts.of(values).match
        return lambda view: any(match(text) for text in claim_texts(_claims(view), path))

    return make


def _of_request_principal(values: Sequence[str], _mesh: Mesh) -> Predicate:
    match = RequestPrincipals.of(values).match
    return lambda view: match(_claims(view))


def _claims(view: View) -> Mapping[str, Any]:
    return (view.http.claims if view.http is not None else None) or {}


# Finding a rule by its values


def _key_of_texts(dimension: str, texts: Texts) -> Key | None:
    # With `*` the values narrow nothing down; with the empty text they might mean what is absent.
    return None if texts.present or "" in texts.exact else Key(dimension, texts)


def _key_of_accounts(values: Sequence[str], mesh: Mesh) -> Key | None:
    return _key_of_texts("account", Texts.of(account_of(value, mesh.namespace) for value in values))


def _key_of_namespaces(values: Sequence[str], _mesh: Mesh) -> Key | None:
    # A star in the middle of a name, or a second one, means something that Texts do not know.
    if any("*" in value[1:-1] or value.count("*") > 1 for value in values):
        return _key_of_ends("namespace", Namespaces.of(values).ends)
    return _key_of_texts("namespace", Texts.of(values))


def _key_of_paths(values: Sequence[str], _mesh: Mesh) -> Key | None:
    paths = Paths.of(values)
    if not paths.templates or paths.texts.present:
        return _key_of_texts("path", paths.texts)
    ends = {template_ends(value) for value in values if is_template(value)}
    ends.update((prefix, "") for prefix in paths.texts.prefixes)
    ends.update(("", suffix) for suffix in paths.texts.suffixes)
    return _key_of_ends("path", Ends(paths.texts.exact, frozenset(ends)))


def _key_of_ends(dimension: str, ends: Ends) -> Key | None:
    return None if ("", "") in ends.ends else Key(dimension, ends)


def _key_of_blocks(dimension: str) -> Callable[[Sequence[str], Mesh], Key | None]:
    return lambda values, _mesh: Key(dimension, Blocks.of(values))


_ATTRIBUTES: Final[Mapping[str, Attribute]] = {
    "source.principal": Attribute(
        True, False, _of_principal, lambda values, mesh: _key_of_texts("principal", _principals(values, mesh))
    ),
    "source.serviceAccount": Attribute(True, False, _of_account, _key_of_accounts),
    "source.namespace": Attribute(True, False, _of_namespace, _key_of_namespaces),
    "source.trustDomain": Attribute(
        True, False, _of_trust_domain, lambda values, mesh: _key_of_texts("trust domain", _trust_domains(values, mesh))
    ),
    "source.ip": Attribute(True, False, _of_address(lambda view: view.source_ip), _key_of_blocks("address")),
    "remote.ip": Attribute(True, False, _of_address(lambda view: view.remote_ip), _key_of_blocks("client address")),
    "request.auth.principal": Attribute(True, True, _of_request_principal),
    "request.auth.audiences": Attribute(True, True, _of_claim(("aud",))),
    "request.auth.presenter": Attribute(True, True, _of_claim(("azp",))),
    "destination.ip": Attribute(
        False, False, _of_address(lambda view: view.destination_ip), _key_of_blocks("own address")
    ),
    "destination.port": Attribute(
        False, False, _of_port, lambda values, _: Key("port", Texts.of(str(int(value)) for value in values))
    ),
    "connection.sni": Attribute(
        False, False, _of_sni, lambda values, _: _key_of_texts("server name", _server_names(values))
    ),
    "to.hosts": Attribute(False, True, _of_host, lambda values, _: _key_of_texts("host", _hosts(values))),
    "to.methods": Attribute(False, True, _of_method),
    "to.paths": Attribute(False, True, _of_path, _key_of_paths),
}
_HEADER: Final = re.compile(r"request\.headers\[([^\[\]\s]+)\]")
_CLAIM: Final = re.compile(r"request\.auth\.claims((?:\[[^\[\]]+\])+)")


def attribute(key: str) -> Attribute | None:
    """What is behind a condition's key, or None where a sidecar does not understand it."""
    if (known := _ATTRIBUTES.get(key)) is not None:
        return known
    if found := _HEADER.fullmatch(key):
        return Attribute(True, True, _of_header(found[1]))
    if found := _CLAIM.fullmatch(key):
        return Attribute(True, True, _of_claim(tuple(re.findall(r"\[([^\[\]]+)\]", found[1]))))
    return None


# The fields of sources and operations are conditions by other names.
_SOURCE_KEYS: Final = {
    "principals": "source.principal",
    "service_accounts": "source.serviceAccount",
    "namespaces": "source.namespace",
    "trust_domains": "source.trustDomain",
    "ip_blocks": "source.ip",
    "remote_ip_blocks": "remote.ip",
    "request_principals": "request.auth.principal",
}
_OPERATION_KEYS: Final = {
    "ports": "destination.port",
    "methods": "to.methods",
    "hosts": "to.hosts",
    "paths": "to.paths",
}


# The fields of Facts that each condition on a connection reads.
READS: Final[Mapping[str, tuple[str, ...]]] = {
    "source.ip": ("source_ip",),
    "remote.ip": ("source_ip", "remote_ip"),
    "destination.ip": ("destination_ip",),
    "destination.port": ("destination_port",),
    "connection.sni": ("sni",),
}


def conditions_of(part: Source | Operation) -> tuple[Condition, ...]:
    """The fields of a source or an operation that say something, as conditions."""
    keys = _SOURCE_KEYS if isinstance(part, Source) else _OPERATION_KEYS
    found = (Condition(key, getattr(part, name), getattr(part, f"not_{name}")) for name, key in keys.items())
    return tuple(condition for condition in found if condition.values or condition.not_values)
