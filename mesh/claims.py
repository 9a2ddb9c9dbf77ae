"""What a token says: its principal, and the texts of its claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mesh.matching import Texts


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
                return Texts.of([issuer]), Texts.exactly(subject)
            return Texts.exactly(issuer), (Texts.of([subject]) if value.endswith("*") else Texts.exactly(subject))
        if value == "*":
            return anything, anything
        if value.startswith("*"):
            return anything, Texts.of([value])
        return (Texts.of([value]), anything) if value.endswith("*") else (Texts.exactly(value), Texts.exactly(""))

    def match(self, claims: Mapping[str, Any]) -> bool:
        """Whether a token with these claims is of one of them."""
        issuer, subject = claims.get("iss"), claims.get("sub")
        if not isinstance(issuer, str) or not isinstance(subject, str):
            return False
        return any(of_issuer.match(issuer) and of_subject.match(subject) for of_issuer, of_subject in self.pairs)


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
