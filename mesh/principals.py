"""Who a peer is: the parts of a principal, and the namespaces and service accounts that policies name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mesh import names
from mesh.matching import Ends, Texts


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
