"""Paths of HTTP requests: as policies see them, and what the templates of policies match."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mesh.matching import Texts

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
