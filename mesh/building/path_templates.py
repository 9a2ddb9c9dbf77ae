"""The paths of an AuthorizationPolicy: exact, by prefix or suffix, or a template with {*} and {**}."""

from __future__ import annotations

import re
from typing import Final

from mesh.building import checks

_ONE: Final = "{*}"  # one segment
_REST: Final = "{**}"  # as many as there are, and nothing variable behind them
# RFC 3986 §3.3, pchar; as in Envoy, a template's fixed segments must be made of it.
_LITERAL: Final = re.compile(r"[A-Za-z0-9._~%!$&'()+,;:@=-]+\Z")


def path(argument: str, value: object) -> str:
    """A path that Istio takes: with templates as whole segments, or else with at most one `*` at an end."""
    found = checks.text(argument, value)
    if "{" not in found and "}" not in found:
        if "*" in found[1:-1] or (len(found) > 1 and found[0] == found[-1] == "*"):
            raise checks.refused(argument, value, "at most one *, as the first or the last character")
        return found
    rest_seen = False
    for segment in found.strip("/").split("/"):
        if segment in {_ONE, _REST}:
            if rest_seen:
                raise checks.refused(argument, value, "{**} once, with no other template behind it")
            rest_seen = segment == _REST
        elif not _LITERAL.match(segment):
            raise checks.refused(argument, value, "{*} and {**} as whole segments between plain ones")
    return found
