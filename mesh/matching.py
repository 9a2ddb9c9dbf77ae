"""What a value of a policy matches: texts with a wildcard, blocks of addresses, path templates, principals of tokens.

The wildcard is Istio's: `*` alone is whatever is there, `*x` ends with x, `x*` starts with x; a star anywhere else is a
star. Lists of values are held so that one look at a hash table stands for all that have no wildcard.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mesh import names


@dataclass(frozen=True, slots=True)
class Texts:
    """Values of which one must match. `empty` says whether `*` matches the empty text too, as for headers it does."""

    exact: frozenset[str]
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]
    present: bool
    empty: bool = False

    @classmethod
    def of(cls, values: Iterable[str], *, empty: bool = False) -> Texts:
        """The values as a policy writes them."""
        exact, prefixes, suffixes, present = set(), [], [], False
        for value in values:
            if value == "*":
                present = True
            elif value.startswith("*"):
                suffixes.append(value[1:])
            elif value.endswith("*"):
                prefixes.append(value[:-1])
            else:
                exact.add(value)
        return cls(frozenset(exact), tuple(prefixes), tuple(suffixes), present, empty)

    def match(self, text: str) -> bool:
        """Whether one of the values matches `text`."""
        if text in self.exact or (self.present and (self.empty or text != "")):
            return True
        return bool(
            (self.prefixes and text.startswith(self.prefixes)) or (self.suffixes and text.endswith(self.suffixes))
        )


@dataclass(frozen=True, slots=True)
class Ends:
    """Texts that are one of `exact`, or begin and end as one of `ends` says: all that something matches, and others."""

    exact: frozenset[str]
    ends: frozenset[tuple[str, str]]


# Addresses

# A version of IP (4 or 6) and the address as a number: what is left of an address when it is matched.
Address = tuple[int, int]


def address(text: str | None) -> Address | None:
    """The address that `text` writes, or None. One of IPv4 within IPv6 (::ffff:10.0.0.1) is that of IPv4: a socket for
    both versions shows peers so, and a policy names them as everybody else does.
    """
    if not text:
        return None
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.version, int(found)


def address_block(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The addresses that "10.1.2.3", "10.1.0.0/16" or the same for IPv6 names; ValueError where it names none.

    Bits behind the prefix are ignored, as Envoy does; netmasks in place of a prefix are not taken.
    """
    if re.fullmatch(r"[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?", value):
        try:
            block = ipaddress.ip_network(value, strict=False)
        except ValueError:
            pass
        else:
            return _unmapped(block)
    raise ValueError(f"{value!r:.80} is no address and no block of addresses, as in 10.1.2.3 or 10.1.0.0/16")


# ::ffff:0:0/96 is where RFC 4291 §2.5.5.2 maps IPv4 to.
_MAPPED: Final = ipaddress.ip_network("::ffff:0:0/96")


def _unmapped(block: ipaddress.IPv4Network | ipaddress.IPv6Network) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if isinstance(block, ipaddress.IPv6Network) and block.prefixlen >= 96 and block.network_address in _MAPPED:
        return ipaddress.ip_network((int(block.network_address) & 0xFFFFFFFF, block.prefixlen - 96))
    return block


# A block as (version, bits behind the prefix, the number in front of them).
Block = tuple[int, int, int]


def block(value: str) -> Block:
    """A block of addresses as a key that `block_of` finds."""
    network = address_block(value)
    behind = network.max_prefixlen - network.prefixlen
    return network.version, behind, int(network.network_address) >> behind


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of addresses, by the lengths of their prefixes."""

    blocks: frozenset[Block]
    lengths: tuple[tuple[int, int], ...]  # (version, bits behind the prefix), of which there are few

    @classmethod
    def of(cls, values: Iterable[str]) -> Blocks:
        """The blocks as a policy writes them; ValueError where one is none."""
        blocks = frozenset(block(value) for value in values)
        return cls(blocks, tuple(sorted({(version, behind) for version, behind, _ in blocks})))

    def match(self, found: Address) -> bool:
        """Whether the address lies in one of them."""
        version, number = found
        return any(
            each == version and (version, behind, number >> behind) in self.blocks for each, behind in self.lengths
        )


# Identities


@dataclass(frozen=True, slots=True)
class Identity:
    """What a principal `<trust domain>/ns/<namespace>/sa/<service account>` says. What it does not say is ""."""

    trust_domain: str
    namespace: str
    service_account: str
    # Whether this is all that the principal says. Istio looks for /ns/ and /sa/ wherever they stand, so that another
    # path may be of a namespace to Istio and of none, or of another, here.
    whole: bool = field(default=True, compare=False)

    @classmethod
    def of(cls, principal: str) -> Identity:
        """The parts of a SPIFFE ID without its scheme.

        Its path is read in pairs of key and value, of which other systems may add some. So no namespace's name can make
        it read as another namespace's, and a path of another form names none.
        """
        trust_domain, *path = principal.split("/")
        if len(path) % 2 or path[:1] != ["ns"]:
            return cls(trust_domain, "", "", whole=False)
        account = dict(zip(path[-2::-2], path[-1::-2], strict=True)).get("sa", "")
        return cls(trust_domain, path[1], account, whole=len(path) == 4 and account != "")

    @property
    def account(self) -> str:
        """`namespace/name`, or "" where one of them is not known."""
        return f"{self.namespace}/{self.service_account}" if self.namespace and self.service_account else ""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Namespaces of which one must match, as Istio has them: a star stands for anything, wherever it is."""

    exact: frozenset[str]
    globs: tuple[tuple[str, ...], ...]  # each as what stands between its stars

    @classmethod
    def of(cls, values: Iterable[str]) -> Namespaces:
        """The values as a policy writes them."""
        listed = list(values)
        return cls(
            frozenset(value for value in listed if "*" not in value),
            tuple(tuple(value.split("*")) for value in listed if "*" in value),
        )

    def match(self, namespace: str) -> bool:
        """Whether one of the values matches; the empty text, which no namespace has, is matched by none."""
        return namespace != "" and (namespace in self.exact or any(_is_glob_of(each, namespace) for each in self.globs))

    def within(self, principal: str) -> bool:
        """Whether Istio would find one of them in `principal`, of whatever form that is."""
        return any(
            _is_glob_of(("", *f"/ns/{value}/".split("*"), ""), principal)
            for value in (*self.exact, *map("*".join, self.globs))
        )

    @property
    def ends(self) -> Ends:
        """How the name of each namespace that matches begins and ends."""
        return Ends(self.exact, frozenset((each[0], each[-1]) for each in self.globs))


def _is_glob_of(parts: Sequence[str], text: str) -> bool:
    """Whether `text` has the parts in their order, the first at its start and the last at its end.

    Each part is taken where it comes first, so that the time is that of the text's length however many stars there are:
    a regular expression of thirty stars would try every way to share the text among them.
    """
    first, *between, last = parts
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    place, end = len(first), len(text) - len(last)
    for part in between:
        found = text.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True


def is_account_within(account: str, principal: str) -> bool:
    """Whether Istio would find the service account `namespace/name` in `principal`, of whatever form that is."""
    namespace, _, name = account.partition("/")
    _, found, rest = principal.partition(f"/ns/{namespace}/")
    return found != "" and f"/sa/{name}/" in f"/{rest}/"


def account_of(value: str, namespace: str) -> str:
    """`namespace/name` of a service account that a policy of `namespace` names with or without its namespace."""
    return value if "/" in value else f"{namespace}/{value}"


def with_aliases(principals: Iterable[str], trust_domain: str, aliases: Sequence[str]) -> tuple[str, ...]:
    """Principals under each name that the trust domain has, where they name it.

    `cluster.local` in a policy is whatever the mesh is called, as it is for Istio; a foreign trust domain stays what it
    is, and so does what has not the form of a principal.
    """
    mine = (trust_domain, *aliases)
    expanded: dict[str, None] = {}  # in order, each once
    for principal in principals:
        named, *path = principal.split("/")
        if (
            len(path) == 4
            and named != "*"
            and (named == names.DEFAULT_TRUST_DOMAIN or any(Texts.of([named]).match(each) for each in mine))
        ):
            for each in mine:
                # A pattern that matches the name already, as in *local, says it for itself.
                expanded[
                    principal if named.startswith("*") and each.endswith(named[1:]) else "/".join((each, *path))
                ] = None
        else:
            expanded[principal] = None
    return tuple(expanded)


# Paths of HTTP requests

# RFC 3986 §3.3 without '*', as Envoy's templates have it.
_PCHAR: Final = r"A-Za-z0-9._~%!$&'()+,;:@=\-"
TEMPLATE_SEGMENT: Final = "{*}"
TEMPLATE_REST: Final = "{**}"


def is_template(path: str) -> bool:
    """Whether `path` has {*} or {**} in it."""
    return TEMPLATE_SEGMENT in path or TEMPLATE_REST in path


def template(path: str) -> re.Pattern[str]:
    """What `path` matches: {*} one segment that is not empty, {**} any number of them, and none."""
    parts = re.split(r"(\{\*\*?\})", path)
    patterns = {TEMPLATE_SEGMENT: f"[{_PCHAR}]+", TEMPLATE_REST: f"[{_PCHAR}/]*"}
    return re.compile("".join(patterns.get(part) or re.escape(part) for part in parts))


def template_ends(path: str) -> tuple[str, str]:
    """How whatever `path` matches begins and ends."""
    return path[: path.index("{")], path[path.rindex("}") + 1 :]


@dataclass(frozen=True, slots=True)
class Paths:
    """Paths of which one must match, with wildcards or as templates."""

    texts: Texts
    templates: tuple[re.Pattern[str], ...]

    @classmethod
    def of(cls, values: Iterable[str]) -> Paths:
        """The values as a policy writes them."""
        listed = list(values)
        return cls(
            Texts.of(value for value in listed if not is_template(value)),
            tuple(template(value) for value in listed if is_template(value)),
        )

    def match(self, path: str) -> bool:
        """Whether one of the values matches `path`, which `plain_path` has been through."""
        return self.texts.match(path) or any(each.fullmatch(path) for each in self.templates)


# RFC 9112 §3.2.2. What stands before an @ is nobody's host (RFC 9110 §4.2.4).
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?([^/?#]*)(.*)", re.DOTALL)


def origin_form(target: str) -> tuple[str, str | None]:
    """A request's target without the scheme and the host that it may begin with, and that host; None: it has none.

    `GET http://web/admin` asks for the same as `GET /admin`, and its host counts, whatever the header Host says.
    """
    if (absolute := _ABSOLUTE.fullmatch(target)) is None:
        return target, None
    host, path = absolute.groups()
    return (path if path.startswith("/") else f"/{path}"), host


_UNRESERVED: Final = re.compile(r"%(2[DdEe]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee])")


def plain_path(target: str) -> str:
    """The path of a request's target as policies match it: RFC 3986 §6.2.2 with `\\` read as `/`, which is what Istio
    does to it (normalization BASE). Without the query and the fragment; escapes of letters, digits and -._~ undone;
    `.` and `..` gone. Other escapes and doubled slashes stay.
    """
    path = re.split(r"[?#]", target, maxsplit=1)[0]
    path = _UNRESERVED.sub(lambda found: chr(int(found[1], 16)), path).replace("\\", "/")
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            if len(kept) > 1:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/".join(kept)


# Tokens


@dataclass(frozen=True, slots=True)
class RequestPrincipals:
    """Principals of tokens, `<issuer>/<subject>`; an issuer may have slashes itself, a subject has none."""

    pairs: tuple[tuple[Texts, Texts], ...]

    @classmethod
    def of(cls, values: Iterable[str]) -> RequestPrincipals:
        """The values as a policy writes them. A wildcard at one end leaves the other part to be exact."""
        return cls(tuple(cls._pair(value) for value in values))

    @staticmethod
    def _pair(value: str) -> tuple[Texts, Texts]:
        issuer, slash, subject = value.rpartition("/")
        anything = Texts.of(["*"])
        if slash:
            if value.startswith("*"):
                return Texts.of([issuer]), _exactly(subject)
            return _exactly(issuer), (Texts.of([subject]) if value.endswith("*") else _exactly(subject))
        if value == "*":
            return anything, anything
        if value.startswith("*"):
            return anything, Texts.of([value])
        return (Texts.of([value]), anything) if value.endswith("*") else (_exactly(value), _exactly(""))

    def match(self, claims: Mapping[str, Any]) -> bool:
        """Whether a token with these claims is of one of them."""
        issuer, subject = claims.get("iss"), claims.get("sub")
        if not isinstance(issuer, str) or not isinstance(subject, str):
            return False
        return any(of_issuer.match(issuer) and of_subject.match(subject) for of_issuer, of_subject in self.pairs)


def _exactly(value: str) -> Texts:
    return Texts(frozenset({value}), (), (), present=False)


def words_of(claim: str) -> tuple[str, ...]:
    """The values of a claim that has spaces between them."""
    return tuple(word for word in claim.split(" ") if word)


# RFC 8693 §4.2 writes the first so, and Istio reads both as lists.
_SPACE_DELIMITED: Final = frozenset({("scope",), ("permission",)})


def claim_texts(claims: Mapping[str, Any], path: tuple[str, ...]) -> tuple[str, ...]:
    """The texts of the claim at `path`: of a list each, of a text itself, of anything else none.

    A claim of several values with spaces between them is those values and not the text itself, as in Istio.
    """
    value: Any = claims
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return words_of(value) if path in _SPACE_DELIMITED else (value,)
    if isinstance(value, Sequence):
        return tuple(item for item in value if isinstance(item, str))
    return ()
