"""What an argument may be: each check returns the value, or raises ValueError that names the argument.

Sources: RFC 1123 §2.1 and RFC 1035 §2.3.1 (names of hosts), the Kubernetes rules for names of objects, labels and
annotations, and the validation that Istio runs on what it is given.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from mesh.spiffe import InvalidSpiffeId, check_trust_domain

MAX_PORT: Final = 65535
MAX_UINT32: Final = (1 << 32) - 1  # Istio's counters of tokens, of errors and of ring sizes
MAX_INT32: Final = (1 << 31) - 1  # Istio's limits of connections and requests
# The most entries of one list: what Istio's schema allows for the rules of an AuthorizationPolicy.
MAX_ENTRIES: Final = 512
_MAX_SUBDOMAIN: Final = 253  # RFC 1123 §2.1 (255 bytes on the wire, two of which are no characters)
_SHOWN: Final = 80  # of a refused value: enough to find it, and one line

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
# Istio lets a host begin with a wildcard label ("*.shop.example", "*-web.example"), and takes upper case.
_HOST_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")
_WILDCARD_LABEL: Final = re.compile(r"(?:\*|\*-?(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,60}[A-Za-z0-9])?))\Z")
_QUALIFIED_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?\Z")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}\Z")  # RFC 9110 §5.6.2

T = TypeVar("T")


def refused(argument: str, value: object, allowed: str) -> ValueError:
    """The error for `value` of `argument`; `allowed` completes "… is not allowed; give"."""
    return ValueError(f"{argument}: {shown(value)} is not allowed; give {allowed}")


def shown(value: object) -> str:
    """`value` within one line of bounded length."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def text(argument: str, value: object, *, longest: int = 4096) -> str:
    """A string that is not empty, on one line, of at most `longest` characters."""
    if not isinstance(value, str) or not value or len(value) > longest or not value.isprintable():
        raise refused(argument, value, f"1 to {longest} characters without control characters")
    return value


def label_name(argument: str, value: object) -> str:
    """A name that Kubernetes uses as a label of DNS (RFC 1123): of a namespace, a Service, a subset."""
    if not isinstance(value, str) or not _LABEL.match(value):
        raise refused(argument, value, "1 to 63 lower-case letters, digits and inner dashes")
    return value


def object_name(argument: str, value: object) -> str:
    """The name of an object, an RFC 1123 subdomain in lower case."""
    if not isinstance(value, str) or len(value) > _MAX_SUBDOMAIN or not all(map(_LABEL.match, value.split("."))):
        raise refused(
            argument,
            value,
            f"at most {_MAX_SUBDOMAIN} characters: lower-case letters, digits and inner dashes, in parts joined by "
            "dots, each at most 63 long",
        )
    return value


def host(argument: str, value: object, *, wildcard: bool = True) -> str:
    """The name of a host: `backend`, `backend.shop.svc.cluster.local`, and, with `wildcard`, `*` and `*.shop.example`.

    A last part that is all digits is refused, as Istio refuses it: it would read as an IP address.
    """
    allowed = "the name of a host, as in backend.shop.svc.cluster.local"
    allowed += ", or one whose first part is a wildcard, as in *.example.com" if wildcard else " (no wildcard)"
    if not isinstance(value, str) or not value or len(value) > _MAX_SUBDOMAIN:
        raise refused(argument, value, allowed)
    first, *others = value.split(".")
    if not _HOST_LABEL.match(first) and not (wildcard and _WILDCARD_LABEL.match(first)):
        raise refused(argument, value, allowed)
    if not all(map(_HOST_LABEL.match, others)) or ((others or not wildcard) and value.split(".")[-1].isdigit()):
        raise refused(argument, value, allowed)
    return value


def address(argument: str, value: object) -> str:
    """An IPv4 or IPv6 address, or a block of them (10.0.0.0/8); a block's host bits may be set, as Istio allows."""
    if isinstance(value, str) and "%" not in value:
        try:
            ipaddress.ip_interface(value)
        except ValueError:
            pass
        else:
            # Python also reads /255.0.0.0 and /08, which Istio does not.
            _, slash, length = value.partition("/")
            if not slash or re.fullmatch(r"0|[1-9][0-9]{0,2}", length):
                return value
    raise refused(argument, value, "an IP address or a block, as in 10.1.2.3, 10.1.0.0/16 or 2001:db8::/32")


def single_address(argument: str, value: object) -> str:
    """An IPv4 or IPv6 address; no block."""
    if address(argument, value) and "/" in str(value):
        raise refused(argument, value, "one IP address, not a block")
    return str(value)


def port(argument: str, value: object) -> int:
    """A TCP port, 1 to 65535."""
    return whole_number(argument, value, 1, MAX_PORT)


def whole_number(argument: str, value: object, lowest: int, highest: int) -> int:
    """A whole number from `lowest` to `highest`."""
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise refused(argument, value, f"a whole number from {lowest} to {highest}")
    return value


def percentage(argument: str, value: object) -> int | float:
    """A number from 0 to 100."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise refused(argument, value, "a number from 0 to 100")
    return value


def flag(argument: str, value: object) -> bool:
    """True or False, and not what Python takes for them."""
    if not isinstance(value, bool):
        raise refused(argument, value, "True or False")
    return value


def choice(argument: str, value: object, allowed: Iterable[str]) -> str:
    """One of the words `allowed`, in their spelling."""
    words = tuple(allowed)
    if not isinstance(value, str) or value not in words:
        raise refused(argument, value, f"one of {', '.join(words)}")
    return value


def token(argument: str, value: object) -> str:
    """What HTTP calls a token (RFC 9110 §5.6.2): the name of a header, of a cookie, a method."""
    if not isinstance(value, str) or not _TOKEN.match(value):
        raise refused(argument, value, "letters, digits and any of !#$%&'*+-.^_`|~")
    return value


def method(argument: str, value: object) -> str:
    """An HTTP method (RFC 9110 §9.1) in upper case: methods are told apart by case, and all common ones are upper."""
    if token(argument, value) != str(value).upper():
        raise refused(argument, value, "an HTTP method in upper case, as in GET or POST")
    return str(value)


def trust_domain(argument: str, value: object) -> str:
    """The name of a trust domain (SPIFFE-ID §2.1)."""
    try:
        return check_trust_domain(value if isinstance(value, str) else "")
    except InvalidSpiffeId as error:
        raise ValueError(f"{argument}: {error}") from None


def several(argument: str, values: object, check: Callable[[str, object], T], *, fewest: int = 0) -> list[T]:
    """A list or tuple of at least `fewest` entries that all pass `check`, each once. One string is no list."""
    entries = listed(argument, values, fewest=fewest)
    found: list[T] = []
    for index, value in enumerate(entries):
        checked = check(f"{argument}[{index}]", value)
        if checked in found:
            raise ValueError(f"{argument}[{index}]: {shown(value)} stands in the list twice; give it once")
        found.append(checked)
    return found


def listed(argument: str, values: object, *, fewest: int = 0, most: int = MAX_ENTRIES) -> Sequence[Any]:
    """A list or a tuple with `fewest` to `most` entries of whatever kind."""
    if not isinstance(values, list | tuple) or not fewest <= len(values) <= most:
        allowed = f"a list of {fewest} to {most} entries" if fewest else f"a list of at most {most} entries"
        raise refused(argument, values, allowed)
    return values


def fields(argument: str, value: object, allowed: Iterable[str], *, needed: Iterable[str] = ()) -> Mapping[str, Any]:
    """A dict whose keys are among `allowed` and include those `needed`."""
    names = tuple(allowed)
    if not isinstance(value, Mapping):
        raise refused(argument, value, f"a dict with {', '.join(names)}")
    for key in value:
        if key not in names:
            raise ValueError(f"{argument}: {shown(key)} is no field here; allowed are {', '.join(names)}")
    for key in needed:
        if key not in value:
            raise ValueError(f"{argument}: {key} is missing")
    return value


def label_key(argument: str, key: object) -> str:
    """The key of a label or an annotation, with or without a prefix, as in app.kubernetes.io/name."""
    if isinstance(key, str):
        prefix, slash, name = key.rpartition("/")
        if _QUALIFIED_NAME.match(name) and (not slash or _is_subdomain(prefix)):
            return key
    raise ValueError(
        f"{argument}: {shown(key)} is no key; give 1 to 63 letters, digits, '-', '_' and '.', after an optional "
        "domain and '/', as in app.kubernetes.io/name"
    )


def label_set(argument: str, value: object, *, fewest: int = 0) -> dict[str, str]:
    """Labels of Kubernetes, or what selects by them; a key may have a prefix (`app.kubernetes.io/name`)."""
    return _entries(argument, value, _label_value, fewest)


def annotation_set(argument: str, value: object) -> dict[str, str]:
    """Annotations: keys as those of labels, any text."""
    return _entries(argument, value, _annotation_value, 0)


def _entries(argument: str, value: object, check_value: Callable[[str, object], str], fewest: int) -> dict[str, str]:
    if not isinstance(value, Mapping) or not fewest <= len(value) <= MAX_ENTRIES:
        allowed = "a dict of strings, as in {'app': 'web'}"
        raise refused(argument, value, f"{allowed}, with at least {fewest}" if fewest else allowed)
    found = {}
    for key, entry in value.items():
        label_key(argument, key)
        found[key] = check_value(f"{argument}[{key!r}]", entry)
    return found


def _is_subdomain(prefix: str) -> bool:
    return len(prefix) <= _MAX_SUBDOMAIN and all(map(_LABEL.match, prefix.split(".")))


def _label_value(argument: str, value: object) -> str:
    if not isinstance(value, str) or (value and not _QUALIFIED_NAME.match(value)):
        raise refused(
            argument,
            value,
            "at most 63 letters, digits, '-', '_' and '.', the first and the last a letter or a digit",
        )
    return value


def _annotation_value(argument: str, value: object) -> str:
    # The API server's limit on all annotations together is 256 KiB; ours are short.
    if not isinstance(value, str) or len(value) > 1 << 16:
        raise refused(argument, value, f"text of at most {1 << 16} characters")
    return value
